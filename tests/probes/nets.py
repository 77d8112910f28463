"""Nets whose cost is known, and what a probe needs beside them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from torch import Tensor, nn

from bench.contracts import Bounds, Classifier, Figure, Realisation, Samples


class Wrapped(Classifier):
    """A classifier around a module, without any adapter."""

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...], classes: int = 10) -> None:
        self.input_shape = input_shape
        self.bounds = Bounds(0, 1)
        self.classes = classes
        self._module = module.eval().requires_grad_(False)

    def logits(self, x: Tensor) -> Tensor:
        return self._module(x)

    @property
    def module(self) -> nn.Module:
        return self._module


class WithoutModule(Classifier):
    """A classifier that is no torch module, as an ONNX or scikit-learn one."""

    input_shape = (3, 4, 4)
    bounds = Bounds(0, 1)
    classes = 2

    def logits(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :2]


class Simulated(Wrapped):
    realisation = Realisation.SIMULATED


def noise(input_shape: tuple[int, ...], n: int = 8) -> Samples:
    """n inputs between 0 and 1; the first is all zeros."""
    x = torch.rand(n, *input_shape, generator=torch.Generator().manual_seed(0))
    x[0] = 0
    return Samples(
        labels=np.zeros(n, np.int64),
        fetch=lambda indices: x[indices],
        input_shape=input_shape,
        bounds=Bounds(0, 1),
        class_names=tuple(map(str, range(10))),
        digest="noise",
    )


def by_name(figures) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (He et al. 2016, section 4.2, option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride, self.grown = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.grown)))


def cifar_resnet(depth: int) -> nn.Sequential:
    """ResNet of 6n + 2 layers for 32x32 images."""
    blocks = [Block(16, 16, 1) for _ in range((depth - 2) // 6)]
    for inputs, outputs in ((16, 32), (32, 64)):
        blocks += [Block(inputs, outputs, 2)] + [Block(outputs, outputs, 1) for _ in range((depth - 2) // 6 - 1)]
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


class BinaryConv(nn.Conv2d):
    operand_bits = (1, 1)


def binary_mnist_net(kernels: int = 64) -> nn.Sequential:
    """The shapes of the net of Galloway et al. 2018, Attacking Binarized Neural Networks: the middle is binary."""
    return nn.Sequential(
        nn.Conv2d(1, kernels, 8, 2, 3, bias=False), nn.BatchNorm2d(kernels), nn.Hardtanh(),
        BinaryConv(kernels, 2 * kernels, 6, 2, bias=False), nn.BatchNorm2d(2 * kernels), nn.Hardtanh(),
        BinaryConv(2 * kernels, 2 * kernels, 5, 1, bias=False), nn.BatchNorm2d(2 * kernels), nn.Hardtanh(),
        nn.Flatten(), nn.Linear(2 * kernels, 10),
    )  # fmt: skip


class Clock:
    """Time that passes only where somebody says so."""

    seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def now_ns(self) -> int:
        return round(1e9 * self.seconds)


@contextmanager
def busy_neighbours() -> Iterator[None]:
    """Two processes per core that never rest, once they are at it."""
    begun = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * len(os.sched_getaffinity(0)))
    ]
    try:
        for process in begun:
            while psutil.Process(process.pid).cpu_times().user < 0.1:
                assert process.poll() is None
                time.sleep(0.01)
        yield
    finally:
        for process in begun:
            process.kill()
        for process in begun:
            process.wait()
