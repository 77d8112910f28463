import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adapters.block_drop import BlockDropModel, _Learner, _policy_loss, reward
from adapters.block_drop_net import BlockDrop, Policy
from adapters.digits import Digits
from adapters.recipe import Recipe, train
from adapters.torch_classifier import state_from_bytes, state_to_bytes
from bench.contracts import DatasetChoice, Report
from bench.errors import PluginError
from bench.probes.macs import Macs
from tests.adapters.models import calls

SMALL = {"data": DatasetChoice(dataset="digits"), "widths": (4, 6), "blocks": 2}
X = Digits(split="test").load().fetch(np.arange(24))


class Quiet(Report):
    def step(self, done: int, total: int, **figures: float) -> None: ...


def random_model():
    """A model whose policy decides one way for some inputs and another way for others."""
    adapter = BlockDropModel(**SMALL)
    torch.manual_seed(0)
    net = adapter.dropping().eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
    last = net.policy.layers[-1]
    nn.init.normal_(last.weight, std=20.0)
    last.bias.data -= net.policy(X).mean(0)
    return adapter.build(state_to_bytes(net.state_dict()))


def test_the_blocks_that_run_for_an_input_are_those_that_the_adapter_tells():
    model = random_model()
    told = model.parts(X)
    assert len({tuple(row) for row in told.tolist()}) > 2
    for row in range(len(X)):
        ran = calls(model.module, nn.Conv2d, lambda row=row: model.logits(X[row : row + 1]))
        expected = [f"block{number + 1}" for number in range(4) if f"blocks.{number}.conv1" in ran]
        assert expected == [name for name, run in zip(model.part_names, told[row], strict=True) if run]
        assert len(ran) == 1 + 2 + 2 * len(expected), "stem, policy, and two convolutions of each block"


def test_a_batch_computes_each_row_as_if_it_were_alone():
    model = random_model()
    torch.testing.assert_close(
        model.logits(X), torch.cat([model.logits(X[row : row + 1]) for row in range(len(X))]), atol=1e-5, rtol=1e-5
    )


def test_without_any_block_the_shortcuts_remain_and_with_all_it_is_the_residual_network():
    torch.manual_seed(0)
    net = BlockDrop((1, 8, 8), 10, (4, 6), 2).eval()
    stem = net.stem(X)
    short = torch.cat([stem[:, :, ::2, ::2], torch.zeros(len(X), 2, 4, 4)], 1)
    none, every = torch.zeros((len(X), 4), dtype=torch.bool), torch.ones((len(X), 4), dtype=torch.bool)
    torch.testing.assert_close(net.given(X, none), net.linear(short.relu().mean((2, 3))))
    y = stem
    for number, block in enumerate(net.blocks):
        down = torch.cat([y[:, :, ::2, ::2], torch.zeros(len(X), 2, 4, 4)], 1) if number == 2 else y
        y = (down + block(y)).relu()
    torch.testing.assert_close(net.given(X, every), net.linear(y.mean((2, 3))))


def test_operations_are_policy_plus_the_blocks_that_ran():
    model = random_model()
    found = {figure.name: figure.value for figure in Macs(inputs=24).measure(model, _samples(), None)}
    policy = 16 * 9 * 8 + 4 * 72 * 16 + 64 * 32 + 32 * 4
    fixed = 64 * 9 * 4 + 6 * 10 + policy
    costs = torch.tensor([2 * 64 * 36 * 4, 2 * 64 * 36 * 4, 16 * 36 * 6 + 16 * 54 * 6, 2 * 16 * 54 * 6])
    expected = fixed + (model.parts(X) * costs).sum(1).double()
    assert found["macs"] == pytest.approx(float(expected.mean()))
    assert found["macs/max"] == float(expected.max())


def _samples():
    from tests.probes.nets import noise

    samples = noise((1, 8, 8), len(X))
    return type(samples)(**(samples.__dict__ | {"fetch": lambda rows: X[rows]}))


def test_the_reward_is_the_published_one():
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    run = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    assert reward(logits, torch.zeros(3, dtype=torch.int64), run, 5.0).tolist() == [0.75, 0.0, -5.0]


class Needy(nn.Module):
    """Right for dark inputs whatever runs, for bright ones only where the first of two blocks runs."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = Policy((1, 8, 8), 2)
        self.blocks = nn.ModuleList([nn.Identity(), nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        return self.given(x, self.policy(x) >= 0)

    def given(self, x: Tensor, run: Tensor) -> Tensor:
        right = (x.mean((1, 2, 3)) < 0.5) | run[:, 0]
        return torch.stack([right.float(), (~right).float()], 1)


class Constant(nn.Module):
    """A policy with the same logits for every input."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.4, -0.7]))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), 2)


@pytest.mark.parametrize("shade", [0.1, 0.9])
def test_the_policys_gradient_is_that_of_the_expected_reward_over_all_choices(shade):
    """Wu et al. 2018, equations 2 to 6, with the four choices written out; the greedy baseline changes no mean."""
    torch.manual_seed(0)
    net, n = Needy(), 60_000
    net.policy = Constant()
    learner = _Learner(net, penalty=2.0, decay=0.0)
    learner.progress = 0.4  # the policy decides on both blocks, and learns alone
    assert (learner.explored, learner.joint) == (2, False)
    _policy_loss(
        learner, torch.full((n, 1, 8, 8), shade), torch.zeros(n, dtype=torch.int64), torch.arange(n)
    ).backward()
    logits = net.policy.logits.detach().clone().requires_grad_()
    chance = 0.8 * logits.sigmoid() + 0.2 * (1 - logits.sigmoid())
    expected = torch.zeros(())
    for first, second in ((0, 0), (0, 1), (1, 0), (1, 1)):
        right = shade < 0.5 or first == 1
        gained = 1 - ((first + second) / 2) ** 2 if right else -2.0
        of_first, of_second = (chance[k] if run else 1 - chance[k] for k, run in enumerate((first, second)))
        expected = expected + gained * of_first * of_second
    (slope,) = torch.autograd.grad(-expected, logits)
    torch.testing.assert_close(net.policy.logits.grad, slope, atol=0.01, rtol=0)
    assert slope.abs().max() > 0.05


def test_the_policy_learns_to_run_a_block_for_those_inputs_alone_that_need_it():
    torch.manual_seed(0)
    net = Needy()
    x = torch.cat([0.4 * torch.rand(256, 1, 8, 8), 0.6 + 0.4 * torch.rand(256, 1, 8, 8)])
    recipe = Recipe(epochs=25, batch_size=32, learning_rate=0.005, schedule="constant")
    learner = _Learner(net, penalty=2.0, decay=0.03)
    y = torch.zeros(len(x), dtype=torch.int64)
    y[-1] = 1  # there are two classes
    train(learner, x, y, recipe, seed=0, report=Quiet(), loss=_policy_loss, before_step=learner.begin)
    run = net.policy(x) >= 0
    assert run[256:, 0].float().mean() > 0.98, "bright inputs need the first block"
    assert run[:256, 0].float().mean() < 0.02, "dark ones do not"
    assert run[:, 1].float().mean() < 0.02, "nothing needs the second"


def test_the_control_is_the_network_that_the_policy_starts_from_and_the_policy_saves_blocks():
    data = Digits(split="train").load()
    fields = SMALL | {
        "penalty": 0.2,  # a mistake costs little: so blocks are left out whatever the seed, and accuracy pays for it
        "train": {"epochs": 12, "batch_size": 64, "learning_rate": 0.01},
        "train_policy": {"epochs": 8, "batch_size": 32, "learning_rate": 0.005, "schedule": "constant"},
    }
    adapter, control = BlockDropModel.model_validate(fields), BlockDropModel.model_validate(fields | {"policy": False})
    training = adapter.training()
    assert training.parent == control
    whole = control.training().train(data, None, 0, Quiet())
    weights = training.train(data, whole, 0, Quiet())
    test = Digits(split="test").load()
    x, y = test.fetch(np.arange(len(test))), torch.from_numpy(test.labels)
    accuracy = {
        name: float((model.logits(x).argmax(1) == y).float().mean())
        for name, model in (("all", control.build(whole)), ("dropped", adapter.build(weights)))
    }
    assert accuracy["all"] > 0.9
    assert accuracy["dropped"] > 0.4
    assert float(adapter.build(weights).parts(x).float().mean()) < 1
    assert set(state_from_bytes(weights)) - {name.removeprefix("net.") for name in state_from_bytes(whole)} == {
        name for name in state_from_bytes(weights) if name.startswith("policy.")
    }
    with pytest.raises(PluginError, match="needs the weights of its residual network"):
        training.train(data, None, 0, Quiet())
