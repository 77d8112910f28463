"""A package of somebody's own, as if it were installed: on the path of this process and of those that it starts."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import plugins
from bench.contracts import REGISTRIES
from bench.service import modules

NETS = '''
from pathlib import Path
from typing import ClassVar

import torch

from adapters.torch_classifier import TorchClassifier
from bench.contracts import Adapter, Allowance, Attack, Bounds, Norm, adapter, attack
from lab_pack.scale import SCALE


@adapter("lab_flat")
class Flat(Adapter):
    """Scores that are a sum of pixels."""

    factor: float = 1.0
    table: Path | None = None

    def build(self, weights):
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        with torch.no_grad():
            net[1].weight.copy_(torch.linspace(-1, 1, 640).reshape(10, 64) * self.factor * SCALE)
            net[1].bias.zero_()
        return TorchClassifier(net, input_shape=(1, 8, 8), classes=10, bounds=Bounds(0, 1))


@adapter("lab_local")
class Local(Flat):
    """Takes a module from its arguments."""

    local: ClassVar[bool] = True


@attack("lab_darken")
class Darken(Attack):
    """Every pixel lower by epsilon."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)

    @property
    def allowance(self):
        return Allowance(steps=1)

    def run(self, model, x, y, epsilon, random):
        return (x - epsilon).clamp(0, 1)
'''

FILES = {"__init__.py": "", "scale.py": "SCALE = 1.0\n", "nets.py": NETS}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the package `lab_pack`. What this process learns of it is forgotten afterwards."""
    plugins.load_built_in()
    folder = tmp_path / "site" / "lab_pack"
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setenv("PYTHONPATH", f"{folder.parent}:{plugins.ROOT}")
    before = {kind: dict(registry._classes) for kind, registry in REGISTRIES.items()}
    yield folder
    for kind, registry in REGISTRIES.items():
        registry._classes = before[kind]
    forget()
    modules._tried.clear()
    modules._failed.clear()


def forget() -> None:
    """As if this process had just begun."""
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("lab_")]:
        del sys.modules[name]
    plugins._loaded.clear()
