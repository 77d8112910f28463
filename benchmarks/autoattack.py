"""AutoAttack-standard: ours against the public implementation, on the same weights and images, in one run.

    python benchmarks/autoattack.py digits [--images 200] [--repeats 1]
    python benchmarks/autoattack.py mnist --data DIR [--images 20]

`digits`: a small CNN, of whose samples about half break (Linf, epsilon .1). `mnist`: the adversarially trained LeNet in
DIR/models (epsilon .3), on which nearly every step is due; DIR is a folder of data as tests/conftest.py describes it.
One thread; CPU time of the process, the contestants interleaved, the best of the repeats. The public implementation
gets the same module with frozen parameters, so that it spends nothing on gradients of weights. Prints Markdown.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from pyautoattack import AutoAttack as Public  # pip install --no-deps pyautoattack==0.2.0
from sklearn.datasets import load_digits
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from attacks.autoattack import AutoAttack
from bench.contracts import Classifier
from bench.randomness import SampleRandom
from bench.swift import swift
from benchmarks.pgd_throughput import trained
from tests.attacks import third_party

Run = Callable[[Tensor, Tensor], Tensor]  # the images that an attack leaves


def ours(model: Classifier, epsilon: float) -> Run:
    return lambda x, y: AutoAttack().run(
        swift(model, x), x, y, epsilon, SampleRandom.of(0, "autoattack", range(len(x)))
    )


def public(net: nn.Module, epsilon: float) -> Run:
    attack = Public(net, norm="Linf", eps=epsilon, version="standard", seed=0)
    return lambda x, y: attack.run_standard_evaluation(x, y, batch_size=len(x))[0]


def contest(contestants: Mapping[str, Run], net: nn.Module, x: Tensor, y: Tensor, repeats: int) -> None:
    clean = net(x).argmax(1) == y
    print(f"{len(x)} images, clean accuracy {clean.float().mean():.3f}, torch {torch.__version__}, one thread\n")
    x, y, n = x[clean], y[clean], len(x)  # errors are no work for either
    best, stands = dict.fromkeys(contestants, float("inf")), {}
    for _ in range(repeats):
        for name, run in contestants.items():
            begin = time.process_time()
            moved = run(x, y)
            best[name] = min(best[name], time.process_time() - begin)
            stands[name] = net(moved).argmax(1) == y
    print("| contestant | CPU s | of the public one | robust accuracy |\n|---|---|---|---|")
    for name, seconds in best.items():
        robust = int(stands[name].sum()) / n
        print(f"| {name} | {seconds:.2f} | {seconds / best['pyautoattack 0.2.0']:.2f} | {robust:.4f} |")
    first, second = stands.values()
    print(f"\nverdicts that differ: {int((first != second).sum())} of {n}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("net", choices=["digits", "mnist"])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.net == "digits":
        digits = load_digits()
        images, labels = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32), torch.tensor(digits.target)
        net, epsilon = trained(images[1000:], labels[1000:]), 0.1
        model: Classifier = third_party.Net(net)
        x, y = images[: options.images], labels[: options.images]
    else:
        if options.data is None:
            parser.error("mnist needs --data DIR, with DIR/mnist and DIR/models")
        model, epsilon = third_party.lenet(options.data, "adversarial"), 0.3
        net = model.net
        x, y = third_party.images(options.data, options.images)
    contest({"pyautoattack 0.2.0": public(net, epsilon), "Gauntlet": ours(model, epsilon)}, net, x, y, options.repeats)


if __name__ == "__main__":
    main()
