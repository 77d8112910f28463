from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from adapters.digits import Digits
from adapters.doubly_nested import DoublyNestedModel
from adapters.doubly_nested_net import DoublyNested, staircase
from adapters.ensemble import EnsembleClassifier
from adapters.torch_classifier import state_to_bytes
from bench.certificates.linear_bounds import QuickBounds
from bench.contracts import DatasetChoice, Norm, Report
from bench.errors import PluginError
from bench.probes.macs import Macs
from bench.probes.parts import Parts
from bench.swift import swift
from tests.adapters.models import calls

DIGITS = DatasetChoice(dataset="digits")
SMALL = {"data": DIGITS, "groups": 2, "width": 4, "pools": (True, False)}
TEST = Digits(split="test").load()
X = TEST.fetch(np.arange(60))


class Quiet(Report):
    def step(self, done: int, total: int, **figures: float) -> None: ...


def random_net(**changed) -> tuple[DoublyNestedModel, bytes]:
    adapter = DoublyNestedModel(**(SMALL | changed))
    torch.manual_seed(0)
    net = adapter.net()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
    return adapter, state_to_bytes(net.state_dict())


def halfway(weights: bytes) -> float:
    """A threshold at which some inputs leave at the first network, and others do not."""
    first = DoublyNestedModel(**SMALL, subnet=(1, 1)).build(weights)
    return float(first.logits(X).softmax(1).amax(1).median())


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (4, 1), (3, 3), (2, 5)])
def test_the_path_grows_by_one_stage_or_one_group_at_a_time_to_the_whole_network(size):
    path = staircase(*size)
    assert path[0] == (1, 1)
    assert path[-1] == size
    assert all(sum(b) - sum(a) == 1 and b[0] >= a[0] and b[1] >= a[1] for a, b in pairwise(path))


def test_a_subnetwork_is_a_slice_that_depends_on_nothing_outside_it():
    adapter, _ = random_net(groups=3, pools=(True, False, False))
    net = adapter.net().eval()
    before = net.every(X)
    for stage in range(3):  # everything of the third group, and of the third stage, is changed
        for layer in (net.stages[stage].groups[2], net.heads[stage][2], net.stages[2], net.heads[2]):
            for parameter in layer.parameters():
                nn.init.normal_(parameter)
    after = net.every(X)
    same = {cell for cell in before if torch.equal(before[cell], after[cell])}
    assert same == {(1, 1), (1, 2), (2, 1), (2, 2)}


def test_the_slice_of_one_group_and_two_stages_is_a_plain_network():
    net = random_net()[0].net().eval()
    plain = nn.Sequential(*net.stages[0].groups[0], *net.stages[1].groups[0], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    torch.testing.assert_close(net.every(X)[2, 1], net.heads[1][0](plain(X)))


def test_each_row_leaves_at_the_first_network_that_is_sure_with_its_logits():
    adapter, weights = random_net()
    threshold = halfway(weights)
    model = adapter.model_copy(update={"threshold": threshold}).build(weights)
    assert isinstance(model.module, DoublyNested)
    every, ran, logits = model.module.every(X), model.parts(X), model.logits(X)
    assert len({int(count) for count in ran.sum(1)}) > 1
    for row in range(len(X)):
        sure = [place for place, cell in enumerate(adapter.asked()) if every[cell][row].softmax(0).max() >= threshold]
        place = sure[0] if sure else len(adapter.asked()) - 1
        assert ran[row].tolist() == [number <= place for number in range(len(adapter.asked()))]
        torch.testing.assert_close(logits[row], every[adapter.asked()[place]][row], atol=1e-6, rtol=1e-5)


def test_parts_are_the_layers_that_really_run_and_each_runs_once():
    adapter, weights = random_net()
    model = adapter.model_copy(update={"threshold": halfway(weights)}).build(weights)
    net = model.module
    for row in range(20):
        x = X[row : row + 1]
        ran = Counter(calls(net, nn.Conv2d, lambda x=x: model.logits(x)))
        stages, groups = adapter.asked()[int(model.parts(x).sum()) - 1]
        needed = {f"stages.{s}.groups.{g}.0" for s in range(stages) for g in range(groups)}
        visited = {name for cell in adapter.asked()[: int(model.parts(x).sum())] for name in _layers(*cell)}
        assert set(ran) == needed == visited
        assert set(ran.values()) == {1}


def _layers(stages: int, groups: int) -> set[str]:
    return {f"stages.{stage}.groups.{group}.0" for stage in range(stages) for group in range(groups)}


def test_the_count_of_operations_is_the_sum_over_the_layers_that_ran():
    adapter, weights = random_net()
    model = adapter.model_copy(update={"threshold": halfway(weights)}).build(weights)
    found = {figure.name: figure for figure in Macs(inputs=16).measure(model, TEST, None)}
    per_layer = {"first": 64 * 9 * 4, "second 1": 16 * 9 * 4 * 4, "second 2": 16 * 9 * 8 * 4, "head": 40}
    cost = {  # of the networks on the way (1, 1) -> (2, 1) -> (2, 2), each with what came before it
        1: per_layer["first"] + per_layer["head"],
        2: per_layer["first"] + per_layer["second 1"] + 2 * per_layer["head"],
        3: 2 * per_layer["first"] + per_layer["second 1"] + per_layer["second 2"] + 3 * per_layer["head"],
    }
    chosen = np.unique(np.linspace(0, len(TEST) - 1, 16).astype(np.int64))
    expected = [cost[int(count)] for count in model.parts(TEST.fetch(chosen)).sum(1)]
    assert adapter.asked() == ((1, 1), (2, 1), (2, 2))
    assert found["macs"].value == pytest.approx(np.mean(expected))
    assert found["macs/max"].value == max(expected)
    assert found["macs/sd"].value == pytest.approx(np.std(expected, ddof=1))


def test_the_probe_of_parts_tells_how_often_each_network_was_asked():
    adapter, weights = random_net()
    model = adapter.model_copy(update={"threshold": halfway(weights)}).build(weights)
    found = {figure.name: figure.value for figure in Parts(inputs=450).measure(model, TEST, None)}
    ran = model.parts(TEST.fetch(np.arange(450)))
    assert found["parts"] == pytest.approx(float(ran.sum(1).double().mean()))
    assert found["part/1x1"] == 1
    assert found["part/2x2"] == pytest.approx(float(ran[:, 2].double().mean()))
    whole = Parts().measure(adapter.model_copy(update={"subnet": (2, 2)}).build(weights), TEST, None)
    assert next(figure.value for figure in whole if figure.name == "parts/max") == 1


def test_it_is_neither_traced_for_speed_nor_bounded_since_both_would_follow_one_branch_for_all():
    adapter, weights = random_net()
    model = adapter.model_copy(update={"threshold": halfway(weights)}).build(weights)
    several = EnsembleClassifier([model, model])
    assert swift(model, X) is model
    assert swift(several, X) is several
    with pytest.raises(PluginError, match="cannot be traced"):
        QuickBounds(norm=Norm.LINF).proves(model, X[:2], torch.zeros(2, dtype=torch.int64), 0.01)


def test_one_training_serves_every_subnetwork_path_and_threshold():
    one, other = (
        DoublyNestedModel(**SMALL).training(),
        DoublyNestedModel(**SMALL, subnet=(1, 2), threshold=0.5).training(),
    )
    assert one.recipe() == other.recipe()
    assert one.recipe() != DoublyNestedModel(**(SMALL | {"width": 5})).training().recipe()


def test_on_digits_the_whole_network_beats_the_smallest_and_stopping_early_saves_work():
    train = Digits(split="train").load()
    fields = SMALL | {"train": {"epochs": 15, "batch_size": 32, "learning_rate": 0.03}, "width": 6}
    weights = DoublyNestedModel.model_validate(fields).training().train(train, None, 0, Quiet())
    x, y = TEST.fetch(np.arange(len(TEST))), torch.from_numpy(TEST.labels)

    def accuracy(**changed: object) -> float:
        model = DoublyNestedModel.model_validate(fields | changed).build(weights)
        return float((model.logits(x).argmax(1) == y).float().mean())

    assert accuracy(subnet=(2, 2)) > accuracy(subnet=(1, 1)) + 0.05
    assert accuracy(threshold=0.8) >= accuracy(subnet=(2, 2)) - 0.02
    ran = DoublyNestedModel.model_validate(fields | {"threshold": 0.8}).build(weights).parts(x)
    assert 1 < float(ran.sum(1).float().mean()) < 2.9


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"subnet": (3, 1)}, r"no network \[3, 1\]: there are 2 stages"),
        ({"path": ((1, 1), (1, 1))}, "none twice"),
        ({"path": ()}, "needs one network"),
        ({"path": ((1, 1),), "subnet": (1, 1)}, "give one of"),
        ({"pools": (True, True, True, True)}, "nothing is left of 8 pixels"),
    ],
)
def test_what_does_not_fit_is_told_when_the_suite_is_read(changed, message):
    with pytest.raises(ValueError, match=message):
        DoublyNestedModel(**(SMALL | changed))
