"""Third-party networks under attack: ours, the public implementation on the same samples, and what was published.

    python benchmarks/third_party.py --data DIR [--images 1000] [--few 50]

DIR is a folder of data as tests/conftest.py describes it. FGSM, PGD and DDN run on the first `images` test images of
MNIST, the parts of AutoAttack and the linear bounds on the first `few`. Public implementation: Foolbox 3.3.4 for FGSM,
PGD and DDN, pyautoattack 0.2.0 for the rest. One thread. Prints a Markdown table: robust accuracy in per cent, with the
95 % Wilson interval of ours, and median L2 distances for DDN. Fails where ours stands above the public one by more than
.1 point, and more than one sample.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pyautoattack import AutoAttack as Public  # pip install --no-deps pyautoattack==0.2.0
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from attacks.apgd_ce import AutoPGDCrossEntropy
from attacks.apgd_t import AutoPGDTargeted
from attacks.ddn import DecoupledDirectionNorm
from attacks.fab import FastAdaptiveBoundaryTargeted
from attacks.fgsm import FastGradientSign
from attacks.foolbox_import import Misclassification, PyTorchModel, exported
from attacks.pgd import ProjectedGradientDescent
from attacks.square import SquareAttack
from bench.certificates.linear_bounds import LinearBounds
from bench.contracts import Attack
from bench.metrics.intervals import wilson
from bench.randomness import SampleRandom
from bench.swift import swift
from tests.attacks import third_party
from tests.attacks.third_party import Net

BATCH = 250
PARTS: dict[str, Attack] = {
    "apgd-ce": AutoPGDCrossEntropy(), "apgd-t": AutoPGDTargeted(), "fab-t": FastAdaptiveBoundaryTargeted(),
    "square": SquareAttack(),
}  # fmt: skip
Run = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Subject:
    """A network, its radius (Linf), and published robust accuracies (per cent) and median distance (DDN)."""

    name: str
    net: Net
    epsilon: float
    published: dict[str, float]


def ours(attack: Attack, subject: Subject, epsilon: float | None) -> Run:
    def run(x: Tensor, y: Tensor) -> Tensor:
        asked = swift(subject.net, x) if attack.swift else subject.net
        return attack.run(asked, x, y, epsilon, SampleRandom.of(0, attack.name, range(len(x))))

    return run


def foolbox(attack: object, subject: Subject, **options: object) -> Run:
    model = PyTorchModel(subject.net.net, bounds=(0, 1), device="cpu")
    return lambda x, y: attack.run(model, x, Misclassification(y), **options)  # type: ignore[attr-defined, no-any-return]


def public(name: str, subject: Subject) -> Run:
    def run(x: Tensor, y: Tensor) -> Tensor:
        attack = Public(subject.net.net, norm="Linf", eps=subject.epsilon, version="standard", seed=0)
        attack.attacks_to_run = [name]
        moved: Tensor = attack.run_standard_evaluation(x, y, batch_size=len(x))[0]
        return moved

    return run


def moved(run: Run, x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([run(x[rows], y[rows]) for rows in torch.arange(len(x)).split(BATCH)])


def compare(subject: Subject, name: str, mine: Run, theirs: Run, x: Tensor, y: Tensor) -> bool:
    """Prints one row; whether ours is no weaker. What is wrong untouched counts as broken, and is not attacked."""
    net, n = subject.net.net, len(x)
    right = net(x).argmax(1) == y
    stands = [int((net(moved(run, x[right], y[right])).argmax(1) == y[right]).sum()) for run in (mine, theirs)]
    low, high = wilson(stands[0], n)
    said = f"{subject.published[name]:.1f}" if name in subject.published else "-"
    print(
        f"| {subject.name} | {name} | {n} | {100 * stands[0] / n:.2f} ({100 * low:.1f}-{100 * high:.1f}) "
        f"| {100 * stands[1] / n:.2f} | {said} |",
        flush=True,
    )
    return stands[0] - stands[1] <= max(1, n // 1000)


def distances(subject: Subject, x: Tensor, y: Tensor) -> bool:
    """Median L2 distances of DDN, 200 steps; 0 for what is wrong untouched. Whether ours is no longer by 1 %."""
    right = subject.net.net(x).argmax(1) == y
    mine = ours(DecoupledDirectionNorm(steps=200), subject, None)
    theirs = foolbox(exported.DDNAttack(steps=200), subject)
    median = []
    for run in (mine, theirs):
        far = torch.zeros(len(x))
        far[right] = (moved(run, x[right], y[right]) - x[right]).flatten(1).norm(dim=1)
        median.append(float(far.median()))
    said = f"{subject.published['DDN']:.3f}" if "DDN" in subject.published else "-"
    print(
        f"| {subject.name} | DDN, median distance | {len(x)} | {median[0]:.3f} | {median[1]:.3f} | {said} |", flush=True
    )
    return median[0] <= 1.01 * median[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--few", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    nets = [third_party.lenet(options.data, which) for which in ("clean", "adversarial")]
    subjects = (
        Subject("LeNet", nets[0], 0.3, {"PGD-40": 0.0, "DDN": 1.388}),
        Subject("LeNet, adversarial", nets[1], 0.3, {"PGD-40": 93.2, "DDN": 1.872}),
        Subject(
            "Wong-Kolter", third_party.wong_kolter(options.data), 0.1, {"FGSM": 96.1, "PGD-40": 95.9, "certified": 94.2}
        ),
    )
    x, y = third_party.images(options.data, options.images)
    few = x[: options.few], y[: options.few]
    print("| network | attack | n | ours | public implementation | published (10,000) |\n|---|---|---|---|---|---|")
    fine = True
    for subject in subjects:
        epsilon = subject.epsilon
        pgd = ProjectedGradientDescent(steps=40, step_size=0.01, random_start=False)
        fine &= compare(
            subject, "FGSM", ours(FastGradientSign(), subject, epsilon),
            foolbox(exported.FGSM(), subject, epsilon=epsilon), x, y,
        )  # fmt: skip
        fine &= compare(
            subject, "PGD-40", ours(pgd, subject, epsilon),
            foolbox(exported.LinfPGD(steps=40, abs_stepsize=0.01, random_start=False), subject, epsilon=epsilon), x, y,
        )  # fmt: skip
        if "DDN" in subject.published:
            fine &= distances(subject, x, y)
        for name, part in PARTS.items():
            fine &= compare(subject, name, ours(part, subject, epsilon), public(name, subject), *few)
    certified, n = subjects[2], options.few
    proved = int(LinearBounds(box=False, adaptive=False).proves(certified.net, *few, certified.epsilon).sum())
    low, high = wilson(proved, n)
    print(
        f"| {certified.name} | certified, linear bounds | {n} | {100 * proved / n:.2f} "
        f"({100 * low:.1f}-{100 * high:.1f}) | - | {certified.published['certified']:.1f} |"
    )
    if not fine:
        raise SystemExit("ours is weaker than the public implementation somewhere in the table")


if __name__ == "__main__":
    main()
