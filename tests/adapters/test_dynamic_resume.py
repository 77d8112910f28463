"""A training of these families that was killed ends with the bits of one that was not."""

from dataclasses import replace

import numpy as np
import pytest

from adapters import recipe
from adapters.block_drop import BlockDropModel
from adapters.certified import Certified
from adapters.checkerboard import Checkerboard
from adapters.digits import Digits
from adapters.doubly_nested import DoublyNestedModel
from adapters.lstm import Lstm
from adapters.scipy_docs import ScipyDocs
from bench.contracts import Report, Samples

TRAIN = {"epochs": 2, "batch_size": 32, "learning_rate": 0.01}
DIGITS = {"data": {"dataset": "digits"}, "train": TRAIN}


class Killed(Exception):
    pass


class Kept(Report):
    """Keeps one state, and dies at a step."""

    def __init__(self, dies_at: int | None, state: bytes | None = None) -> None:
        self.dies_at, self.state, self.saves = dies_at, state, 0

    def step(self, done: int, total: int, **figures: float) -> None:
        if self.dies_at is not None and done >= self.dies_at:
            raise Killed

    def saved(self) -> bytes | None:
        return self.state

    def save(self, state: bytes) -> None:
        self.state = state
        self.saves += 1


def small(samples: Samples) -> Samples:
    """Two hundred of them, evenly spread."""
    rows = np.linspace(0, len(samples) - 1, 200).astype(np.int64)
    return replace(samples, labels=samples.labels[rows], fetch=lambda asked: samples.fetch(rows[asked]))


MODELS = {
    "doubly_nested": DoublyNestedModel.model_validate(DIGITS | {"groups": 2, "width": 4, "pools": (True, False)}),
    "block_drop": BlockDropModel.model_validate(DIGITS | {"widths": (4,), "blocks": 2, "train_policy": TRAIN}),
    "certified": Certified.model_validate(DIGITS),
    "checkerboard": Checkerboard.model_validate(DIGITS | {"width": 4}),
    "lstm": Lstm.model_validate({"hidden": 4, "embedding": 4, "train": TRAIN}),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_goes_on_from_its_last_checkpoint_with_the_same_bits(name, monkeypatch):
    monkeypatch.setattr(recipe, "CHECKPOINT", 0.0)
    data = small((ScipyDocs if name == "lstm" else Digits)(split="train").load())
    training = MODELS[name].training()
    parent = None if training.parent is None else training.parent.training().train(data, None, 0, Kept(None))
    undisturbed = training.train(data, parent, 0, Kept(None))
    first = Kept(dies_at=9)  # in the second epoch of two, which have six steps each
    with pytest.raises(Killed):
        training.train(data, parent, 0, first)
    second = Kept(None, first.state)
    assert training.train(data, parent, 0, second) == undisturbed
    assert 1 <= second.saves <= 4, "a state is kept at each step: it did not start anew"


@pytest.mark.parametrize("name", MODELS)
def test_a_repeat_starts_from_the_same_parent_and_draws_anew(name):
    data = small((ScipyDocs if name == "lstm" else Digits)(split="train").load())
    training = MODELS[name].training()
    parent = None if training.parent is None else training.parent.training().train(data, None, 0, Kept(None))
    once, again, other = (
        MODELS[name].model_copy(update={"repeat": repeat}).training().train(data, parent, 0, Kept(None))
        for repeat in (0, 0, 1)
    )
    assert once == again
    assert once != other
