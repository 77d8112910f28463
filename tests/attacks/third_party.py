"""Third-party networks and the MNIST test images, as the index of the shared data describes them."""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.contracts import Bounds, Classifier


class Net(Classifier):
    """A frozen module as a bare classifier of MNIST images."""

    input_shape, bounds, classes = (1, 28, 28), Bounds(0.0, 1.0), 10

    def __init__(self, module: nn.Module) -> None:
        self.net = module.eval().requires_grad_(False)

    def logits(self, x: Tensor) -> Tensor:
        return self.net(x)

    @property
    def module(self) -> nn.Module:
        return self.net


def lenet(root: Path, which: str) -> Net:
    """`clean` or `adversarial` (trained with PGD at Linf .3)."""
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 200), nn.ReLU(), nn.Linear(200, 10),
    )  # fmt: skip
    return Net(_filled(net, root / "models" / f"mnist_lenet5_{which}.pt"))


def wong_kolter(root: Path) -> Net:
    """Trained to be certified at Linf .1."""
    net = nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    return Net(_filled(net, root / "models" / "mnist_wong_kolter_0.1.pth"))


def images(root: Path, n: int) -> tuple[Tensor, Tensor]:
    """The first n test images, (n, 1, 28, 28) in [0, 1], and their labels."""
    pixels = gzip.decompress((root / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((root / "mnist" / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    x = np.frombuffer(pixels, np.uint8).reshape(-1, 1, 28, 28)[:n].astype(np.float32) / 255
    return torch.from_numpy(x), torch.from_numpy(np.frombuffer(labels, np.uint8)[:n].astype(np.int64))


def _filled(net: nn.Module, path: Path) -> nn.Module:
    """The weights by their order: the published files name the layers in their own ways."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    return net
