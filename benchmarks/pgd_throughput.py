"""PGD-40 on the digits CNN: ours against a plain PyTorch loop, Foolbox alone and torchattacks, in one run.

    python benchmarks/pgd_throughput.py [--repeats 5] [--images 1000]

One thread; L-infinity, epsilon .1, step .01, no random start; CPU time of the process, the contestants interleaved, the
best of the repeats. All must find the same robust accuracy, or the script fails. Prints a Markdown table of ratios to
the plain loop. Held-out digits are fewer than 1,000, so that the net is trained on 797 and attacked on the other 1,000.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from attacks.foolbox_import import Misclassification, PyTorchModel, exported
from attacks.pgd import ProjectedGradientDescent
from bench.contracts import Bounds, Classifier
from bench.randomness import SampleRandom

EPSILON, STEP, STEPS = 0.1, 0.01, 40
Run = Callable[[Tensor, Tensor], Tensor]


class Wrapped(Classifier):
    """The net as a bare classifier."""

    input_shape, bounds, classes = (1, 8, 8), Bounds(0.0, 1.0), 10

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def logits(self, x: Tensor) -> Tensor:
        return self.net(x)


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


def plain(net: nn.Module) -> Run:
    def run(x: Tensor, y: Tensor) -> Tensor:
        moved = x
        for _ in range(STEPS):
            moved = moved.detach().requires_grad_()
            loss = nn.functional.cross_entropy(net(moved), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moved)
            moved = (x + (moved.detach() + STEP * gradient.sign() - x).clamp(-EPSILON, EPSILON)).clamp(0, 1)
        return moved

    return run


def ours(net: nn.Module) -> Run:
    attack = ProjectedGradientDescent(steps=STEPS, step_size=STEP, random_start=False)
    return lambda x, y: attack.run(Wrapped(net), x, y, EPSILON, SampleRandom.of(0, "pgd", range(len(x))))


def foolbox(net: nn.Module) -> Run:
    attack = exported.LinfPGD(steps=STEPS, abs_stepsize=STEP, random_start=False)
    model = PyTorchModel(net, bounds=(0, 1), device="cpu")
    return lambda x, y: attack.run(model, x, Misclassification(y), epsilon=EPSILON)


def torchattacks(net: nn.Module) -> Run:
    from torchattacks import PGD

    return PGD(net, eps=EPSILON, alpha=STEP, steps=STEPS, random_start=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    digits = load_digits()
    x = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)
    y = torch.tensor(digits.target)
    net = trained(x[options.images :], y[options.images :])
    x, y = x[: options.images], y[: options.images]
    contestants = {"plain loop": plain(net), "Gauntlet `pgd`": ours(net), "Foolbox 3.3.4": foolbox(net)}
    if importlib.util.find_spec("torchattacks") is None:
        print("torchattacks is absent: its line is left out (`pip install torchattacks==3.5.1`)", file=sys.stderr)
    else:
        contestants["torchattacks 3.5.1"] = torchattacks(net)

    clean = (net(x).argmax(1) == y).float().mean().item()
    print(f"{len(x)} images, clean accuracy {clean:.3f}, torch {torch.__version__}, one thread\n")
    print("| contestant | batch | CPU s | of the plain loop | robust accuracy |\n|---|---|---|---|---|")
    for batch in (len(x), 100):
        best, robust = dict.fromkeys(contestants, float("inf")), dict.fromkeys(contestants, -1)
        for _ in range(options.repeats):
            for name, run in contestants.items():
                begin = time.process_time()
                moved = torch.cat([run(x[rows], y[rows]) for rows in torch.arange(len(x)).split(batch)])
                best[name] = min(best[name], time.process_time() - begin)
                robust[name] = int((net(moved).argmax(1) == y).sum())
        for name, seconds in best.items():
            ratio = seconds / best["plain loop"]
            print(f"| {name} | {batch} | {seconds:.2f} | {ratio:.2f} | {robust[name] / len(x):.3f} |")
        if len(set(robust.values())) != 1:
            raise SystemExit(f"batch {batch}: the contestants disagree on the samples that stand: {robust}")


if __name__ == "__main__":
    main()
