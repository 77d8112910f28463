"""Somebody's own module, outside the repository: a data set, an adapter and an attack. Copied beside their suite."""

import contextlib
import os
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from pydantic import PrivateAttr
from sklearn.datasets import load_digits
from torch import Tensor, nn

from bench.contracts import (
    Adapter,
    Allowance,
    Attack,
    Bounds,
    Classifier,
    Dataset,
    Detector,
    Norm,
    Samples,
    adapter,
    attack,
    dataset,
    detector,
)
from bench.randomness import SampleRandom

NORMS = (Norm.LINF, Norm.L2)

# What slows work down is in the environment, so in no key: a run that waits makes the records of one that does not.
GATE = (
    "LAB_GATE"  # a folder: who comes takes a file of it, or waits until there is one; a file `open` lets everyone pass
)
PAUSE = "LAB_PAUSE"  # seconds for each of the ten blocks of a fit


def _pass_gate() -> None:
    folder = os.environ.get(GATE)
    while folder and not Path(folder, "open").exists():
        for token in Path(folder).iterdir():
            with contextlib.suppress(FileNotFoundError):  # another worker was quicker
                token.unlink()
                return
        time.sleep(0.05)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y.astype(np.int64)


@dataset("lab_digits")
class LabDigits(Dataset):
    """The digits as flat vectors, every third for testing."""

    def load(self) -> Samples:
        x, y = _digits()
        mine = (np.arange(len(x)) % 3 == 0) == (self.split == "test")
        x, y = x[mine], y[mine]
        names = tuple(map(str, range(10)))
        return Samples(y, lambda i: torch.from_numpy(x[i]), (64,), Bounds(0, 1), names, f"lab-{self.split}")


class Means(nn.Module):
    """Minus the squared distance to each class mean."""

    def __init__(self) -> None:
        super().__init__()
        x, y = _digits()
        train = np.arange(len(x)) % 3 != 0
        means = np.stack([x[train & (y == c)].mean(axis=0) for c in range(10)])
        self.means = nn.Parameter(torch.from_numpy(means), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None] - self.means).square().sum(dim=2)


class Shaky(Classifier):
    """The class means, with a fault of choice. A fault `once` leaves a mark in a folder, and is gone the next time."""

    input_shape = (64,)
    bounds = Bounds(0, 1)
    classes = 10

    def __init__(self, fault: str, mark: Path | None) -> None:
        self._net = Means().eval()
        self._fault = fault
        self._mark = mark

    @property
    def module(self) -> nn.Module:
        return self._net

    def logits(self, x: Tensor) -> Tensor:
        if self._fault and not (self._mark and self._mark.exists()):
            if self._mark:
                self._mark.touch()
            if self._fault == "exit":
                os._exit(7)
            if self._fault == "hang":
                time.sleep(3600)
            if self._fault == "memory":
                raise MemoryError("a very large tensor")
            if self._fault == "raise":
                raise RuntimeError("the cable was loose")
        return self._net(x.float())


@adapter("lab_means")
class LabMeans(Adapter):
    """Nearest class mean."""

    fault: str = ""
    mark: str = ""

    def build(self, weights: bytes | None) -> Classifier:
        if self.fault == "build":
            raise RuntimeError("no such shelf")
        return Shaky(self.fault, Path(self.mark) if self.mark else None)


@detector("lab_mean_distance")
class LabMeanDistance(Detector):
    """Distance to the mean of the inliers, which it looks at in ten blocks, once it is through the gate."""

    fits = True

    _mean: np.ndarray | None = PrivateAttr(default=None)

    def fit(self, model: Classifier, samples: Samples, seed: int) -> bytes:
        _pass_gate()
        parts = []
        for rows in np.array_split(np.arange(len(samples)), 10):
            time.sleep(float(os.environ.get(PAUSE, "0")))
            parts.append(samples.fetch(rows).double().sum(dim=0))
        mean = torch.stack(parts).sum(dim=0) / len(samples)
        return safetensors.torch.save({"mean": mean})

    def restore(self, state: bytes) -> "LabMeanDistance":
        ready = self.model_copy()
        ready._mean = safetensors.torch.load(state)["mean"].numpy()
        return ready

    def score(self, model: Classifier, x: Tensor, random: SampleRandom) -> np.ndarray:
        return np.linalg.norm((x.double().numpy() - self._mean).reshape(len(x), -1), axis=1)


@attack("lab_shove")
class LabShove(Attack):
    """Random corners of the ball, the first that works, once it is through the gate."""

    norms = NORMS
    tries: int = 3

    @property
    def allowance(self) -> Allowance:
        return Allowance(queries=self.tries)

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        assert epsilon is not None
        _pass_gate()
        best = x.clone()
        for _ in range(self.tries):
            corner = random.uniform(x.shape[1:], -1, 1).sign() * epsilon
            if self.norm is Norm.L2:
                corner = corner / corner.norm(dim=1, keepdim=True) * epsilon * 0.999
            moved = (x + corner).clamp(0, 1)
            lost = model.logits(moved).argmax(dim=1) != y
            best[lost] = moved[lost]
        return best
