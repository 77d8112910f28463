"""A model that is judged on what it was trained on says so, and its accuracies are not ranked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import plugins
from bench.contracts import adapters
from bench.resolve import Resolver
from bench.store import Store
from bench.suite import Suite
from reports.ranking import View, sections
from tests.contracts.examples import EXAMPLES
from tests.metrics import cells
from tests.metrics.test_rows import row

plugins.load_built_in()

CNN: dict[str, Any] = {"data": {"dataset": "digits"}, "train": {"epochs": 1}}
CHOICE = {"adapter": "cnn", "args": CNN}
ON_TEST = {**CNN, "data": {"dataset": "digits", "split": "test"}}


def learnt(store: Store, split: str, adapter: str, args: dict[str, Any]) -> bool:
    """Whether the plan knows that this model has seen this split of the digits."""
    model = {"name": "net", "adapter": adapter, "args": args}
    data = [{"dataset": "digits", "split": split, "limit": 20}]
    asked = Suite.model_validate({"name": "leak", "models": [model], "datasets": data})
    resolved, _ = Resolver(store, asked, "hardware").resolve()
    return resolved.datasets[0].digest in resolved.models[0].learnt_from


@pytest.mark.parametrize(
    ("adapter", "args", "seen"),
    [
        ("cnn", CNN, "train"),
        ("cnn", ON_TEST, "test"),
        ("pruned_weights", {"model": CHOICE}, "train"),
        ("packed", {"model": {"adapter": "binarised", "args": CNN}}, "train"),
        ("quantised", {"model": CHOICE, "scheme": "b", "train": {"teacher": {**CHOICE, "args": ON_TEST}}}, "both"),
        ("deployed", {"model": CHOICE, "target": "onnx"}, "train"),
        (
            "deployed",
            {"model": CHOICE, "target": "onnx_int8", "calibration": {"dataset": "digits", "split": "test"}},
            "both",
        ),
    ],
)
def test_it_has_seen_what_it_or_its_teacher_was_trained_or_calibrated_on(
    tmp_path: Path, adapter: str, args: dict[str, Any], seen: str
) -> None:
    store = Store(str(tmp_path))
    found = {split for split in ("train", "test") if learnt(store, split, adapter, args)}
    assert found == ({"train", "test"} if seen == "both" else {seen})


def test_a_derivation_that_reads_no_data_has_seen_none(tmp_path: Path) -> None:
    """`packed` of a net trained on MNIST names the digits for want of data: it has not seen them."""
    inside = {"adapter": "small_cnn", "args": {}}
    assert learnt(Store(str(tmp_path)), "train", "small_cnn", {})
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"whatever")
    given = {"model": {**inside, "args": {"weights": str(weights)}}}
    for adapter in ("zeroed", "smoothed"):
        assert not learnt(Store(str(tmp_path)), "train", adapter, given)


def test_such_accuracies_are_flagged_and_not_ranked_but_costs_are() -> None:
    honest = row(cells.clean([True, False, True], model="honest"))
    parts = (cells.clean([True] * 3, model="seen"), cells.attack("pgd", [[False]] * 3, [0.1], model="seen"))
    cheat = row(*(replace(cell, seen=True) for cell in parts))
    assert set(cheat.flags) >= {
        "clean_accuracy: seen: the model was trained on these very data",
        "robust_accuracy: seen: the model was trained on these very data",
    }
    assert not [flag for flag in honest.flags if "seen" in flag]
    [section] = sections([cheat, honest], View("s", columns=("clean_accuracy",), rank_by="clean_accuracy"))
    assert {line.row.model: line.rank for line in section.lines} == {"honest": 1, "seen": None}


@pytest.mark.parametrize("name", [name for name in EXAMPLES if hasattr(adapters.get(name), "training")])
def test_no_adapter_is_trained_on_anything_but_a_split_train_unless_it_is_told_to(name: str) -> None:
    adapter, _ = EXAMPLES[name]()
    training = adapter.training()
    while training is not None:
        assert {choice.split for choice in (training.data, *training.also)} == {"train"}
        training = training.parent.training() if training.parent else None
