"""What is promised of the compressed families together: their documentation, and the claim of the paper on MNIST."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from adapters.cnn import Cnn
from adapters.family import Family
from adapters.growl import Growl
from adapters.monte_carlo_quantised import MonteCarloQuantised
from adapters.pruned_channels import PrunedChannels
from adapters.pruned_weights import PrunedWeights
from adapters.quantised import Quantised
from adapters.recipe import Recipe
from adapters.recipe_adversary import Adversary
from bench import plugins
from bench.contracts import Adapter, Frozen, adapters, datasets
from bench.data import ROOT
from bench.errors import PluginError, SuiteError
from bench.saliency import CRITERIA
from bench.suite import parse
from tests.adapters.families import Quiet

PAGES = sorted((Path(__file__).parents[2] / "docs").glob("families*.md"))
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
COMPRESSED = [PrunedChannels, PrunedWeights, Growl, Quantised, MonteCarloQuantised]
plugins.load_built_in()
FAMILIES = [*COMPRESSED, *(kind for name in adapters if issubclass(kind := adapters.get(name), Family))]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_and_its_fields_are_documented(family: type[Adapter]) -> None:
    assert [name for name in (family.name, *family.model_fields) if f"`{name}`" not in TEXT] == []


@pytest.mark.parametrize("part", [Recipe, Adversary])
def test_every_key_of_a_training_is_documented(part: type[Frozen]) -> None:
    assert [name for name in part.model_fields if f"`{name}`" not in PAGES[0].read_text(encoding="utf-8")] == []


SHOWN = {"exposure": {"outliers": {"dataset": "notmnist"}}}
TAUGHT = {"teacher": {"adapter": "small_cnn"}}


@pytest.mark.parametrize(
    ("name", "field", "others"),
    [
        ("cnn", "train", {}),
        ("growl", "retrain", {"model": {"adapter": "cnn", "args": {"channels": []}}}),
        ("block_drop", "train_policy", {}),
    ],
)
def test_outliers_that_any_training_of_a_family_is_shown_join_its_identity(
    name: str, field: str, others: dict[str, object]
) -> None:
    training = adapters.build(name, {**others, field: SHOWN}).training()
    assert [choice.dataset for choice in training.also] == ["notmnist"]
    assert adapters.build(name, others).training().also == ()


def test_a_student_trained_in_full_precision_first_is_shown_the_outliers_of_its_own_recipe() -> None:
    model = {"adapter": "cnn", "args": {"train": SHOWN}}
    taught = {"teacher": {"adapter": "cnn", "args": {}}}
    found = adapters.build("quantised", {"model": model, "scheme": "c", "train": taught})
    assert [choice.dataset for choice in found.training().also] == ["notmnist"]
    assert adapters.build("quantised", {"model": model, "scheme": "b", "train": taught}).training().also == ()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("growl", {"model": {"adapter": "cnn", "args": {"channels": []}}, "retrain": TAUGHT}),
        ("quantised", {"model": {"adapter": "cnn", "args": {"train": TAUGHT}}, "scheme": "c", "train": TAUGHT}),
    ],
)
def test_a_teacher_whom_a_training_would_not_hear_is_refused(name: str, fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="leave `teacher` out"):
        adapters.build(name, fields)


def test_every_criterion_can_be_asked_for_and_is_documented() -> None:
    (choices,) = [set(PrunedChannels.model_fields["criterion"].annotation.__args__)]
    assert choices == {*CRITERIA, "random"}
    assert [name for name in choices if f"`{name}`" not in TEXT] == []


@pytest.mark.parametrize("family", [PrunedChannels, PrunedWeights, Growl, Quantised])
def test_every_field_is_a_part_of_the_recipe_but_no_path(family: type[Adapter]) -> None:
    def recipe(**args: object) -> object:
        return family(model={"adapter": "cnn", "args": args}, repeat=3).training().recipe()

    assert set(family.model_fields) - {"weights"} <= set(recipe())
    assert recipe(weights="a.safetensors") == recipe(weights="b.safetensors") == recipe()
    assert recipe(channels=[3]) != recipe()
    assert recipe(channels=[16, 32]) == recipe()  # its default


@pytest.mark.parametrize("adapter", ["pruned_channels", "zeroed", "deployed"])
def test_a_mistake_in_the_model_that_is_compressed_is_told_where_it_stands(adapter: str) -> None:
    model = (
        "{adapter: small_cnn, args: {widht: 3}}" if adapter != "pruned_channels" else "{adapter: cnn, args: {widht: 3}}"
    )
    text = f"name: bad\nmodels:\n  - name: a\n    adapter: {adapter}\n    args: {{model: {model}, target: onnx}}\n"
    with pytest.raises(SuiteError, match=r"models\[0\]\.args\.model\.args\.widht: unknown key 'widht'"):
        parse(text.encode(), "bad.yaml", Path())


@pytest.mark.parametrize(
    ("family", "inside", "args", "message"),
    [
        ("pruned_channels", "binarised", {}, "compressed already"),
        ("pruned_channels", "block_drop", {}, "BlockDrop is no nn.Sequential"),
        ("growl", "cnn", {"hidden": []}, "no linear layer but its last"),
        ("quantised", "doubly_nested", {}, "no layer between"),
        ("packed", "cnn", {}, "no binary convolutions"),
        ("packed", "binarised", {"variant": "S"}, "drawn at every pass"),
    ],
)
def test_a_net_that_cannot_be_compressed_is_refused_when_the_suite_is_read(
    family: str, inside: str, args: dict[str, object], message: str
) -> None:
    before = torch.get_rng_state()
    with pytest.raises((ValidationError, PluginError), match=f"model: .*{message}"):
        adapters.build(family, {"model": {"adapter": inside, "args": {"data": {"dataset": "digits"}, **args}}})
    assert torch.equal(torch.get_rng_state(), before), "looking at its layers draws nothing"


@pytest.mark.slow
def test_half_the_channels_pruned_by_taylor_and_tuned_lose_less_than_a_point_on_mnist(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT, str(shared_data))
    train, test = (datasets.build("mnist", {"split": split}).load() for split in ("train", "test"))
    x = test.fetch(np.arange(len(test)))

    def accuracy(adapter: Adapter, weights: bytes) -> float:
        classifier = adapter.build(weights)
        with torch.no_grad():
            found = torch.cat([classifier.logits(part).argmax(1) for part in torch.split(x, 500)])
        return float((found.numpy() == test.labels).mean())

    dense = Cnn(train={"epochs": 2})
    whole = dense.training().train(train, None, 0, Quiet())
    pruned = PrunedChannels(model={"adapter": "cnn", "args": {"train": {"epochs": 2}}})
    half = pruned.training().train(train, whole, 0, Quiet())
    assert accuracy(pruned, half) > accuracy(dense, whole) - 0.01
    assert len(half) < 0.7 * len(whole)
