"""What a classifier around another one passes on."""

import torch
from torch import Tensor

from bench.contracts import Bounds, Classifier, Wrapped


class Inner(Classifier):
    input_shape, bounds, classes = (2,), Bounds(-1.0, 1.0), 3
    stochastic, can_refuse, smoothing, runtime = True, True, 0.25, "other"
    feature_layers, part_names, vocabulary = ("a",), ("exit",), ("", "word")

    def logits(self, x: Tensor) -> Tensor:
        return x.sum(1, keepdim=True).expand(-1, 3)

    def refuses(self, x: Tensor) -> Tensor:
        return x[:, 0] > 0


class Doubled(Wrapped):
    def logits(self, x: Tensor) -> Tensor:
        return 2 * self._model.logits(x)


def test_every_method_of_a_classifier_is_passed_on_but_for_its_own():
    own = {"logits", "rows"}
    said = {name for name, value in vars(Classifier).items() if callable(value) or isinstance(value, property)}
    public = {name for name in said if not name.startswith("_")}
    assert public - own <= vars(Wrapped).keys()


def test_it_describes_itself_as_the_inner_one_and_answers_as_it_does():
    inner, x = Inner(), torch.tensor([[0.5, 0.25], [-0.5, 0.0]])
    outer = Doubled(inner)
    for name in Classifier.__annotations__:
        assert getattr(outer, name) == getattr(inner, name), name
    assert outer.refuses(x).tolist() == [True, False]
    assert torch.equal(outer.logits(x), 2 * inner.logits(x))
    assert outer.rows(torch.tensor([0])) is outer
