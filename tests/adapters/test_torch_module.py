"""The adapter `torch`."""

import gzip
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from adapters.torch_module import TorchModule
from bench.errors import PluginError
from tests.adapters.models import FIELDS, images, small_net, state_bytes


class LeNet(nn.Module):
    """The network of `mnist_lenet5_*.pt`, as the index of the shared data describes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.linear1 = nn.Linear(3136, 200)
        self.linear2 = nn.Linear(200, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.conv1(x).relu(), 2)
        x = functional.max_pool2d(self.conv2(x).relu(), 2)
        return self.linear2(self.linear1(x.flatten(1)).relu())


def model(factory: str = "tests.adapters.models:SmallNet", **fields: object) -> TorchModule:
    return TorchModule(**(FIELDS | {"factory": factory} | fields))


def test_builds_the_module_with_its_arguments_and_weights() -> None:
    net = small_net()
    built = model(args={"width": 4, "classes": 3}).build(state_bytes(net))
    assert torch.equal(built.logits(images(5)), net((images(5) - 0.4) / 0.3))


def test_published_weights_reach_the_published_accuracy(shared_data: Path) -> None:
    def read(name: str) -> Tensor:
        return torch.frombuffer(
            bytearray(gzip.decompress((shared_data / "mnist" / name).read_bytes())), dtype=torch.uint8
        )

    x = read("t10k-images-idx3-ubyte.gz")[16:].reshape(-1, 1, 28, 28) / 255
    y = read("t10k-labels-idx1-ubyte.gz")[8:]
    lenet = TorchModule(factory=f"{__name__}:LeNet", input_shape=(1, 28, 28), classes=10)
    built = lenet.build((shared_data / "models" / "mnist_lenet5_clean.pt").read_bytes())
    with torch.no_grad():
        right = sum(
            int((built.logits(a).argmax(1) == b).sum()) for a, b in zip(x.split(500), y.split(500), strict=True)
        )
    assert right == 9889


def test_finds_a_factory_in_a_module_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user_net_of_this_test.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    built = model("user_net_of_this_test:make").build(state_bytes(net))
    assert torch.equal(built.logits(images(2)), net((images(2) - 0.4) / 0.3))
    sys.modules.pop("user_net_of_this_test")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("tests.adapters.models:SmalNet", "has no 'SmalNet' - did you mean 'SmallNet'"),
        ("tests.adapters.model:SmallNet", "no module 'tests.adapters.model' - did you mean 'tests.adapters.models'"),
        ("nowhere_at_all:Net", r"(?s)no module 'nowhere_at_all'.*`plugins:`"),
        ("tests.adapters.models:SHAPE", "is a tuple, not a class or function"),
        ("tests.adapters.models:images", "raised TypeError when called with"),
        ("builtins:dict", "returned dict, not a torch.nn.Module"),
    ],
)
def test_a_factory_that_is_none_is_refused_with_the_nearest_right_thing(factory: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        model(factory).build(None)


def test_a_module_that_lacks_a_library_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_much.py").write_text("import a_library_that_is_nowhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match="'needs_much' needs 'a_library_that_is_nowhere', which is not installed"):
        model("needs_much:Net").build(None)


def test_a_factory_that_is_no_import_path_is_refused_at_validation() -> None:
    with pytest.raises(ValidationError, match="factory"):
        model("SmallNet")


def test_a_net_without_weights_is_not_evaluated_with_random_ones() -> None:
    with pytest.raises(PluginError, match="there are no weights"):
        model().build(None)


def test_weights_of_another_net_are_refused() -> None:
    with pytest.raises(PluginError, match=r"conv\.weight: \(4, 1, 3, 3\) in the file, \(5, 1, 3, 3\) in the module"):
        model(args={"width": 5}).build(state_bytes(small_net()))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bounds": [1, 0]}, "lower one must be below"),
        ({"mean": [0.1, 0.2]}, "one value or one per channel"),
        ({"std": [0.0]}, "greater than 0"),
        ({"classes": 1}, "greater than or equal to 2"),
        ({"input_shape": []}, "at least 1 item"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_fields_that_cannot_be_right_are_refused_at_validation(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        model(**fields)


def test_one_number_stands_for_every_channel() -> None:
    assert model(mean=0.5, std=0.25, input_shape=[3, 2, 2]).mean == (0.5,)
