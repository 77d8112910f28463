"""PGD-40: ours against a plain PyTorch loop, Foolbox alone and torchattacks, in one run.

    python benchmarks/pgd_throughput.py digits [--repeats 5] [--images 1000]
    python benchmarks/pgd_throughput.py mnist --data DIR [--repeats 5] [--images 200]

`digits`: a small CNN, Linf, epsilon .1, step .01; held-out digits are fewer than 1,000, so that the net is trained on
797 and attacked on the other 1,000. `mnist`: the adversarially trained LeNet in DIR/models, epsilon .3, step .01, on
which nearly every step is due; DIR is a folder of data as tests/conftest.py describes it. One thread; no random start;
CPU time of the process, the contestants interleaved, the best of the repeats. Ours goes through the copy of the net
that the engine hands to it (bench/swift.py). It fails where more than one verdict in 500 differs from the plain loop's.
Prints Markdown tables.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from attacks.foolbox_import import Misclassification, PyTorchModel, exported
from attacks.pgd import ProjectedGradientDescent
from bench.contracts import Classifier
from bench.randomness import SampleRandom
from bench.swift import swift
from tests.attacks import third_party

STEP, STEPS = 0.01, 40
Run = Callable[[Tensor, Tensor], Tensor]


def trained(x: Tensor, y: Tensor) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(30):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


def plain(net: nn.Module, epsilon: float) -> Run:
    def run(x: Tensor, y: Tensor) -> Tensor:
        moved = x
        for _ in range(STEPS):
            moved = moved.detach().requires_grad_()
            loss = nn.functional.cross_entropy(net(moved), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moved)
            moved = (x + (moved.detach() + STEP * gradient.sign() - x).clamp(-epsilon, epsilon)).clamp(0, 1)
        return moved

    return run


def ours(model: Classifier, epsilon: float) -> Run:
    attack = ProjectedGradientDescent(steps=STEPS, step_size=STEP, random_start=False)
    return lambda x, y: attack.run(swift(model, x), x, y, epsilon, SampleRandom.of(0, "pgd", range(len(x))))


def foolbox(net: nn.Module, epsilon: float) -> Run:
    attack = exported.LinfPGD(steps=STEPS, abs_stepsize=STEP, random_start=False)
    model = PyTorchModel(net, bounds=(0, 1), device="cpu")
    return lambda x, y: attack.run(model, x, Misclassification(y), epsilon=epsilon)


def torchattacks(net: nn.Module, epsilon: float) -> Run:
    from torchattacks import PGD

    return PGD(net, eps=epsilon, alpha=STEP, steps=STEPS, random_start=False)


def contest(contestants: Mapping[str, Run], net: nn.Module, x: Tensor, y: Tensor, batch: int, repeats: int) -> None:
    """One table. The first of the contestants is the plain loop."""
    best, stands = dict.fromkeys(contestants, float("inf")), {}
    for _ in range(repeats):
        for name, run in contestants.items():
            begin = time.process_time()
            moved = torch.cat([run(x[rows], y[rows]) for rows in torch.arange(len(x)).split(batch)])
            best[name] = min(best[name], time.process_time() - begin)
            stands[name] = net(moved).argmax(1) == y
    loop = next(iter(contestants))
    for name, seconds in best.items():
        robust, differ = stands[name].float().mean().item(), int((stands[name] != stands[loop]).sum())
        print(f"| {name} | {batch} | {seconds:.2f} | {seconds / best[loop]:.2f} | {robust:.3f} | {differ} |")
        if differ > len(x) / 500:
            raise SystemExit(f"batch {batch}: {name} and the plain loop disagree on {differ} of {len(x)} samples")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("net", choices=["digits", "mnist"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.net == "digits":
        n, epsilon = options.images or 1000, 0.1
        digits = load_digits()
        images, labels = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32), torch.tensor(digits.target)
        model = third_party.Net(trained(images[n:], labels[n:]))
        x, y = images[:n], labels[:n]
    else:
        if options.data is None:
            parser.error("mnist needs --data DIR, with DIR/mnist and DIR/models")
        model, epsilon = third_party.lenet(options.data, "adversarial"), 0.3
        x, y = third_party.images(options.data, options.images or 200)
    net = model.net
    contestants = {
        "plain loop": plain(net, epsilon),
        "Gauntlet `pgd`": ours(model, epsilon),
        "Foolbox 3.3.4": foolbox(net, epsilon),
    }
    if importlib.util.find_spec("torchattacks") is None:
        print("torchattacks is absent: its line is left out (`pip install torchattacks==3.5.1`)", file=sys.stderr)
    else:
        contestants["torchattacks 3.5.1"] = torchattacks(net, epsilon)
    clean = (net(x).argmax(1) == y).float().mean().item()
    print(f"{len(x)} images, clean accuracy {clean:.3f}, torch {torch.__version__}, one thread\n")
    print("| contestant | batch | CPU s | of the plain loop | robust accuracy | verdicts that differ |")
    print("|---|---|---|---|---|---|")
    for batch in dict.fromkeys((len(x), 100)):
        contest(contestants, net, x, y, batch, options.repeats)


if __name__ == "__main__":
    main()
