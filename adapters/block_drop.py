"""A residual network that drops blocks per input, as a model: how its policy is trained, and which blocks ran."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from pydantic import Field, model_validator
from torch import Tensor, nn

from adapters.block_drop_net import BlockDrop
from adapters.family import Family, FamilyTraining, tensors
from adapters.recipe import Recipe, train
from adapters.reference_training import own_random_numbers
from adapters.torch_classifier import TorchClassifier, check_input, load_state, state_from_bytes, state_to_bytes
from bench.contracts import Adapter, Report, Samples, Training, adapter
from bench.errors import PluginError

Size = Annotated[int, Field(ge=1)]
BOUND = 0.8  # probabilities are drawn towards one half by this factor while exploring (section 3.3, alpha)


class DroppingClassifier(TorchClassifier):
    """A part is a residual block. The stem, the policy and the classifier always run."""

    def __init__(self, net: BlockDrop, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__(net, input_shape=input_shape, classes=classes)
        self.net = net
        self.part_names = tuple(f"block{number}" for number in range(1, len(net.blocks) + 1))

    def parts(self, x: Tensor) -> Tensor:
        check_input(x, self.input_shape)
        if not len(x):
            return torch.zeros((0, len(self.part_names)), dtype=torch.bool)
        with torch.no_grad():
            return self.net.decide(x.to(torch.float32)).cpu()


class Whole(nn.Module):
    """The residual network with all of its blocks, without the policy."""

    def __init__(self, net: BlockDrop) -> None:
        super().__init__()
        self.net = net
        del net.policy

    def forward(self, x: Tensor) -> Tensor:
        return self.net.given(x)


@adapter("block_drop")
class BlockDropModel(Family):
    """A residual network with a policy that names, for each input, the blocks that run; the others are left out.

    `policy: false` is the residual network itself, all blocks: the control, and what the policy starts from. The reward
    of a right answer is 1 - (share of blocks run)^2; of a wrong one, -penalty.
    """

    widths: Annotated[tuple[Size, ...], Field(min_length=1, max_length=4)] = Field(
        default=(8, 16), description="maps of each group of blocks; from the second on a group halves height and width"
    )
    blocks: int = Field(default=3, ge=1, description="blocks of a group")
    policy: bool = Field(default=True, description="false: all blocks, always")
    penalty: float = Field(
        default=5.0, ge=0, description="for a wrong answer (gamma): the larger, the fewer are dropped"
    )
    decay: float = Field(
        default=0.03, ge=0, description="of the policy's squared logits, which would run away and freeze"
    )
    train: Recipe = Field(
        default=Recipe(epochs=5, batch_size=64, learning_rate=0.01), description="how the residual network is trained"
    )
    train_policy: Recipe = Field(
        default=Recipe(epochs=6, batch_size=64, learning_rate=0.001, schedule="constant"),
        description="how the policy is trained: half of it alone, half together with the network",
    )

    @model_validator(mode="after")
    def _fits(self) -> "BlockDropModel":
        if self.policy and self.train.teacher is not None:
            raise ValueError("train: the policy starts from a network that learns from the labels: leave `teacher` out")
        if self.train_policy.teacher is not None or self.train_policy.adversary is not None:
            raise ValueError("train_policy: the policy learns from rewards: leave `teacher` and `adversary` out")
        return self

    @property
    def untraceable(self) -> str:
        return "its policy picks other blocks for each input (`policy: false` runs all of them)" if self.policy else ""

    def net(self) -> nn.Module:
        return self.dropping() if self.policy else Whole(self.dropping())

    def dropping(self) -> BlockDrop:
        """Network and policy, with random weights."""
        return BlockDrop(self.shape, self.classes, self.widths, self.blocks)

    def classifier(self, net: nn.Module) -> TorchClassifier:
        if isinstance(net, BlockDrop):
            return DroppingClassifier(net, self.shape, self.classes)
        return TorchClassifier(net, input_shape=self.shape, classes=self.classes)

    def training(self) -> Training | None:
        if self.weights:
            return None
        return _PolicyTraining(self) if self.policy else _WholeTraining(self)


class _WholeTraining(FamilyTraining):
    def recipe(self) -> Mapping[str, Any]:
        return {
            name: value for name, value in super().recipe().items() if name not in ("penalty", "decay", "train_policy")
        }


class _PolicyTraining(FamilyTraining):
    """By policy gradient with the greedy choice as its own baseline, from the last block to the first, then jointly."""

    def __init__(self, model: BlockDropModel) -> None:
        super().__init__(model)
        self.dropping = model
        self.parent: Adapter = model.model_copy(update={"policy": False, "weights": None})

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        if parent is None:
            raise PluginError("the policy of 'block_drop' needs the weights of its residual network")
        model = self.dropping
        x, y = tensors(samples, model.shape, model.classes)
        seed += model.repeat
        with own_random_numbers(seed):
            learner = _Learner(model.dropping(), model.penalty, model.decay)
            whole = {name.removeprefix("net."): value for name, value in state_from_bytes(parent).items()}
            load_state(learner.net, {**learner.net.state_dict(), **whole})
            options: dict[str, Any] = {"loss": _policy_loss, "before_step": learner.begin, "bounds": samples.bounds}
            train(learner, x, y, model.train_policy, seed=seed, report=report, **options)
        return state_to_bytes(learner.net.state_dict())


class _Learner(nn.Module):
    """Network and policy, and how far their training is (0 to 1)."""

    def __init__(self, net: BlockDrop, penalty: float, decay: float) -> None:
        super().__init__()
        self.net, self.penalty, self.decay = net, penalty, decay
        self.progress = 0.0

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)
        return scores

    def begin(self, done: int, total: int) -> None:
        self.progress = done / total

    @property
    def explored(self) -> int:
        """Blocks, counted from the last, that the policy decides on; the others run. All of them after a third."""
        blocks = len(self.net.blocks)
        return min(blocks, 1 + int(3 * self.progress * blocks))

    @property
    def joint(self) -> bool:
        """Whether the residual network learns as well."""
        return self.progress >= 0.5


def _policy_loss(learner: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
    """-(reward of the draw - reward of the greedy choice) * log probability of the draw: equations 4 to 6.

    Plus `decay` times the mean square of the policy's logits (ours: drawn towards one half, probabilities do not stop
    the logits from growing until they have no gradient left). In the joint phase plus the cross-entropy under the draw.
    BatchNorm keeps the statistics of the whole network.
    """
    assert isinstance(learner, _Learner)
    net = learner.net.eval()
    scores = net.policy(x)
    chance = BOUND * scores.sigmoid() + (1 - BOUND) * (1 - scores.sigmoid())
    drawn, greedy = torch.bernoulli(chance.detach()).bool(), chance.detach() >= 0.5
    first = len(net.blocks) - learner.explored
    drawn[:, :first] = greedy[:, :first] = True
    with torch.set_grad_enabled(learner.joint):
        logits = net.given(x, drawn)
    with torch.no_grad():
        gained = reward(logits, y, drawn, learner.penalty) - reward(net.given(x, greedy), y, greedy, learner.penalty)
    chance, drawn = chance[:, first:], drawn[:, first:]
    log = torch.where(drawn, chance, 1 - chance).log().sum(1)
    loss: Tensor = learner.decay * scores.square().mean() - (gained * log).mean()
    return loss + F.cross_entropy(logits, y) if learner.joint else loss


def reward(logits: Tensor, y: Tensor, run: Tensor, penalty: float) -> Tensor:
    """(n,) 1 - (share of blocks run)^2 where the answer is right, -penalty where it is not (equation 2)."""
    saved = 1 - run.float().mean(1).square()
    return torch.where(logits.argmax(1) == y, saved, -penalty)
