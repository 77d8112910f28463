"""A defence without a gradient only looks robust: it is flagged, and broken through a stand-in."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from adapters.bpda import TransformedClassifier, jpeg
from adapters.digits import Digits
from attacks.pgd import ProjectedGradientDescent
from bench.certificates.linear_bounds import QuickBounds
from bench.contracts import Classifier, Gradients, Norm, adapters
from bench.errors import PluginError
from bench.measure import attacked, clean
from bench.metrics.rows import rows
from bench.records import Cell, Kind, Row
from tests.adapters.families import MODEL, small_cnn

EPSILON, N = 0.3, 60


def model(backward: str, kind: str = "bit_depth") -> TransformedClassifier:
    fields = {"model": MODEL, "kind": kind, "bits": 2, "backward": backward}
    return adapters.build("bpda", fields).build(small_cnn())  # type: ignore[return-value]


def row(seen: Classifier) -> Row:
    """PGD from the input itself, and the checks of the gradients."""
    data, indices = Digits(split="test").load(), np.arange(N)
    attack = ProjectedGradientDescent(steps=10, random_start=False)
    common: dict[str, Any] = {"model": "m", "dataset": "d", "planned": N}
    table = attacked(attack, (EPSILON,), "t", seen, data, indices, 0)
    pgd = {"evaluation": "pgd", "kind": Kind.ATTACK, "norm": "linf", "epsilons": (EPSILON,), "knowledge": "white-box"}
    [made] = rows(
        [
            Cell(evaluation="clean", kind=Kind.CLEAN, table=clean(seen, data, indices, examined=32), **common),
            Cell(table=table, **pgd, **common),
        ]
    )
    return made


def test_without_a_stand_in_the_attack_fails_and_is_suspect_and_with_one_the_defence_is_broken() -> None:
    bare, through = row(model("none")), row(model("identity"))
    name = f"robust_accuracy/linf/pgd/{EPSILON:g}"
    untouched = bare.metrics["clean_accuracy"].value
    assert untouched is not None
    assert untouched > 0.8
    assert bare.metrics[name].value == untouched, "nothing moves without a gradient"
    assert any(flag.startswith("clean_accuracy: suspect: ") and "the gradient is zero" in flag for flag in bare.flags)
    assert through.metrics["clean_accuracy"].value == untouched
    left = through.metrics[name].value
    assert left is not None
    assert left < untouched - 0.4
    assert not any("gradient is zero" in flag for flag in through.flags)
    assert any(": surrogate: " in flag for flag in through.flags)


@pytest.mark.parametrize("kind", ["bit_depth", "jpeg"])
def test_the_forward_pass_is_the_defences_to_the_bit_and_the_backward_pass_the_stand_ins(
    kind: str,
) -> None:
    made, x = model("identity", kind), Digits(split="test").load().fetch(np.arange(6)) * 0.97
    expected = (x * 3).round() / 3 if kind == "bit_depth" else jpeg(x, 75)
    assert torch.equal(made.seen(x), expected)
    assert torch.equal(made.logits(x), made._model.logits(expected))
    leaf, there = x.clone().requires_grad_(), expected.clone().requires_grad_()
    (slope,) = torch.autograd.grad(made.logits(leaf).max(1).values.sum(), leaf)
    (known,) = torch.autograd.grad(made._model.logits(there).max(1).values.sum(), there)
    assert torch.allclose(slope, known)
    assert made.gradients is Gradients.SURROGATE


def test_jpeg_is_pillows_and_touches_each_image_by_itself() -> None:
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = jpeg(x, 60)
    file = io.BytesIO()
    pixels = (x[1].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=60)
    assert np.array_equal(found[1].permute(1, 2, 0).numpy(), np.asarray(Image.open(file)).astype(np.float32) / 255)
    assert torch.equal(jpeg(x[1:2], 60), found[1:2])
    with pytest.raises(PluginError, match="one or three channels"):
        jpeg(x[:, :2], 60)


def test_jpeg_without_a_stand_in_has_no_gradient_and_white_box_attacks_are_refused() -> None:
    made = model("none", "jpeg")
    assert made.gradients is Gradients.NONE
    with pytest.raises(PluginError, match="needs gradients"):
        row(made)


def test_bounds_of_the_model_inside_are_none_of_the_defended_one() -> None:
    made, data = model("none"), Digits(split="test").load()
    x, y = (data.fetch(np.arange(4)) * 3).round() / 3, torch.from_numpy(data.labels[:4])
    assert torch.equal(made.logits(x), made._model.logits(x)), "here it makes no difference"
    with pytest.raises(PluginError):
        QuickBounds(norm=Norm.LINF).proves(made, x, y, 0.001)


def steps(x: Tensor) -> Tensor:
    return (x * 3).round() / 3


def smooth(x: Tensor) -> Tensor:
    return x - torch.sin(6 * torch.pi * x) / (6 * torch.pi)


def test_a_transformation_and_a_stand_in_of_ones_own_are_named_by_their_import_path() -> None:
    here = "tests.adapters.test_bpda"
    fields = {"model": MODEL, "function": f"{here}:steps", "near": f"{here}:smooth"}
    made = adapters.build("bpda_torch", fields).build(small_cnn())
    x = Digits(split="test").load().fetch(np.arange(4))
    assert torch.equal(made.logits(x), model("none").logits(x))
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(made.logits(leaf).sum(), leaf)
    inside = steps(x).requires_grad_()
    (known,) = torch.autograd.grad(made._model.logits(inside).sum(), inside)  # type: ignore[attr-defined]
    assert torch.allclose(slope, known * (1 - torch.cos(6 * torch.pi * x)), atol=1e-5)
    assert adapters.get("bpda_torch").local


def test_a_wrong_name_is_told_with_the_nearest() -> None:
    made = adapters.build("bpda_torch", {"model": MODEL, "function": "tests.adapters.test_bpda:step"})
    with pytest.raises(PluginError, match="did you mean 'steps'"):
        made.build(small_cnn())
    with pytest.raises(ValidationError, match="kind"):
        adapters.build("bpda", {"model": MODEL, "kind": "jpg"})
