import numpy as np
import pytest
import torch

from adapters.checkerboard import SHIFTS, Checkerboard, Enhancer, shifted
from adapters.digits import Digits
from attacks.fgsm import FastGradientSign
from attacks.transfer import Transfer
from bench.contracts import DatasetChoice, Report
from bench.errors import PluginError
from bench.randomness import SampleRandom

FIELDS = {
    "data": DatasetChoice(dataset="digits"),
    "width": 8,
    "train": {"epochs": 6, "batch_size": 64, "learning_rate": 0.01},
}
TEST = Digits(split="test").load()
X, Y = TEST.fetch(np.arange(200)), torch.from_numpy(TEST.labels[:200])


class Quiet(Report):
    def step(self, done: int, total: int, **figures: float) -> None: ...


def made(**changed: object) -> Checkerboard:
    return Checkerboard.model_validate(FIELDS | changed)


@pytest.fixture(scope="module")
def weights() -> tuple[bytes, bytes]:
    """Of the control, and of what was fine-tuned from it."""
    data = Digits(split="train").load()
    control = made().training().parent.training().train(data, None, 0, Quiet())
    return control, made().training().train(data, control, 0, Quiet())


def test_the_enhancer_puts_the_gradient_onto_one_pixel_in_four():
    x = torch.rand((1, 1, 6, 6), requires_grad=True)
    (gradient,) = torch.autograd.grad(Enhancer(1, 0.9)(x).sum(), x)
    expected = torch.full((6, 6), 0.1)
    expected[::2, ::2] += 4 * 0.9
    torch.testing.assert_close(gradient[0, 0], expected)
    y = Enhancer(1, 0.9)(x)[0, 0]
    torch.testing.assert_close(y[3, 4], 0.1 * x[0, 0, 3, 4] + 0.9 * x[0, 0, 2, 4])


def test_padding_moves_the_image_and_drops_what_leaves():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert shifted(x, 0, 1)[0, 0].tolist() == [[0, 0, 1], [0, 3, 4]]
    assert shifted(x, 1, 1)[0, 0].tolist() == [[0, 0, 0], [0, 0, 1]]


def test_the_model_without_padding_and_the_one_without_enhancer_are_what_it_was_made_from(weights):
    control, tuned = weights
    fixed = made(padding="fixed").build(tuned)
    unpadded, original = fixed.source, fixed.source.source
    torch.testing.assert_close(fixed.logits(X), unpadded.logits(shifted(X, 0, 1)))
    torch.testing.assert_close(unpadded.logits(X), made(padding="none").build(tuned).logits(X))
    torch.testing.assert_close(original.logits(X), made(intensity=0, padding="none").build(control).logits(X))
    assert original.source is None
    assert fixed.size_bytes() < len(tuned)


def test_random_padding_is_stochastic_and_each_answer_is_one_of_the_three(weights):
    model = made(padding="random").build(weights[1])
    assert model.stochastic
    torch.manual_seed(0)
    found = torch.stack([model.logits(X[:8]) for _ in range(20)])
    answers = torch.stack([model.source.logits(shifted(X[:8], *shift)) for shift in SHIFTS])
    nearest = (found[:, None] - answers[None]).abs().amax(3).argmin(1)
    assert (found[:, None] - answers[None]).abs().amax(3).amin(1).max() < 1e-4
    assert set(nearest.flatten().tolist()) == {0, 1, 2}


def test_one_training_serves_every_padding_and_two_give_the_same_bytes(weights):
    control, tuned = weights
    assert made(padding="none").training().recipe() == made(padding="random").training().recipe()
    assert made().training().train(Digits(split="train").load(), control, 0, Quiet()) == tuned
    with pytest.raises(PluginError, match="weights are missing"):
        made().training().train(TEST, None, 0, Quiet())


def test_transfer_goes_back_one_or_two_generations(weights):
    fixed = made(padding="fixed").build(weights[1])
    random = SampleRandom.of(0, "test", range(20))
    fgsm = FastGradientSign()
    seen = []
    for generations, model in ((1, fixed.source), (2, fixed.source.source), (5, fixed.source.source)):
        moved = Transfer(attack="fgsm", generations=generations).run(fixed, X[:20], Y[:20], 0.1, random)
        assert torch.equal(moved, fgsm.run(model, X[:20], Y[:20], 0.1, random))
        seen.append(moved)
    assert not torch.equal(seen[0], seen[1])


def test_an_attacker_who_is_unaware_of_the_padding_is_weaker_than_one_who_knows_it(weights):
    model = made(padding="fixed").build(weights[1])
    right = model.logits(X).argmax(1) == Y
    x, y = X[right], Y[right]
    random = SampleRandom.of(0, "test", range(len(x)))
    stands = {
        generations: float((model.logits(attack.run(model, x, y, 0.15, random)).argmax(1) == y).float().mean())
        for generations, attack in ((0, FastGradientSign()), (1, Transfer(attack="fgsm")))
    }
    assert stands[1] > stands[0] + 0.05


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"intensity": 0}, "padding: is the enhancer's"),
        ({"input_shape": (1, 6, 8)}, "sides divide by four"),
        ({"train": {"teacher": {"adapter": "small_cnn"}}}, "leave `teacher` out"),
    ],
)
def test_what_does_not_fit_is_told_when_the_suite_is_read(changed, message):
    import adapters.reference  # noqa: F401 - registers the teacher

    with pytest.raises(ValueError, match=message):
        made(**changed)


def test_what_it_was_made_from_moves_with_it_to_a_device(weights):
    adapter = made(padding="fixed")
    model = adapter.place(adapter.build(weights[1]), "meta")
    for one in (model, model.source, model.source.source):
        assert one.device == "meta"
        assert {parameter.device.type for parameter in one.module.parameters()} == {"meta"}
