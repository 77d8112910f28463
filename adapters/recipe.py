"""How a model family is trained: the field `train` of each, and the one loop that all of them run.

A step draws its random numbers from streams of its own, seeded by (seed, step): so a training that was killed goes on
from its last checkpoint with the bits of an undisturbed one.
"""

import io
import math
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from adapters.outlier_exposure import Exposure
from adapters.recipe_adversary import Adversary, craft, named
from bench.contracts import AdapterChoice, Bounds, Frozen, Report
from bench.errors import PluginError
from bench.randomness import seed_of

CHECKPOINT = 5.0  # seconds between two checkpoints
JUDGED = 1000  # training samples that the accuracy of an epoch is measured on
UNIT = Bounds(0.0, 1.0)

Loss = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]  # net, inputs, labels, their rows in x -> mean loss
Opponent = Annotated[
    Adversary | None,
    BeforeValidator(named, json_schema_input_type=Adversary | Literal["fgsm", "pgd"] | None),
]


class Recipe(Frozen):
    """A training: the field `train` of a model family."""

    epochs: int = Field(default=10, ge=1, description="passes over the training data")
    batch_size: int = Field(default=128, ge=2, description="samples of a step, at least")
    optimiser: Literal["adam", "adamw", "sgd"] = Field(default="adam", description="sgd: with Nesterov momentum .9")
    learning_rate: float = Field(default=1e-3, gt=0, description="the highest of the schedule")
    weight_decay: float = Field(default=0.0, ge=0, description="of the optimiser")
    schedule: Literal["one_cycle", "cyclic", "constant"] = Field(
        default="one_cycle", description="Smith and Topin 2018; triangular, Smith 2017; none"
    )
    cycle_epochs: float = Field(default=4.0, gt=0, description="length of a cycle of `cyclic`")
    adversary: Opponent = Field(default=None, description="whom it is trained against: `fgsm`, `pgd`, or a mapping")
    teacher: AdapterChoice | None = Field(default=None, description="a model whose scores it learns from")
    temperature: float = Field(default=4.0, gt=0, description="of both softmaxes, where there is a teacher")
    distillation: float = Field(default=0.9, ge=0, le=1, description="weight of the teacher against the labels")
    label_noise: float = Field(default=0.0, ge=0, lt=1, description="share of the labels replaced by another class")
    exposure: Exposure | None = Field(default=None, description="outliers that it is shown (Outlier Exposure)")


def train(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    report: Report,
    bounds: Bounds = UNIT,
    teacher: Callable[[Tensor], Tensor] | None = None,
    loss: Loss | None = None,
    before_step: Callable[[int, int], None] | None = None,
    after_step: Callable[[nn.Module], None] | None = None,
) -> None:
    """Train `net` in place and leave it in eval mode: the same bits for the same arguments, hardware and threads.

    x: (n, *shape) float32 inside `bounds`, y: (n,) int64, both on the CPU. teacher: logits of inputs. loss: in place of
    the cross-entropy (and of the teacher). before_step(done, total): before each step. after_step(net): after each, say
    to clamp weights. Goes on from `report.saved()`, so a training calls it once. Curves: `loss`, the mean over the
    epoch, and `accuracy` in eval mode on the first 1,000 samples.
    """
    y = noisy(y, recipe.label_noise, seed)
    batches = max(len(x) // recipe.batch_size, 1)  # rounded down: BatchNorm cannot train on a batch of one
    total = recipe.epochs * batches
    optimiser = _optimiser(net, recipe)
    state = _State(net, optimiser, report)
    loss = loss or _loss(recipe, teacher)
    if recipe.exposure is not None:
        loss = recipe.exposure.loss(loss, recipe.exposure.inputs(tuple(x.shape[1:])))
    judged = slice(0, JUDGED)
    first = state.done
    net.train()
    for done in range(first, total):
        epoch, batch = divmod(done, batches)
        if batch == 0 or done == first:
            order = torch.randperm(len(x), generator=_stream(seed, "order", epoch)).tensor_split(batches)
        rows = order[batch]
        torch.manual_seed(seed_of(seed, "layers", done))  # for dropout and stochastic weights
        if before_step:
            before_step(done, total)
        value = _batch_loss(net, x[rows], y[rows], rows, recipe, epoch, loss, bounds, _stream(seed, "attack", done))
        optimiser.zero_grad()
        torch.autograd.backward(value)
        for group in optimiser.param_groups:
            group["lr"] = rate(recipe, done, total, batches)
        optimiser.step()
        if after_step:
            with torch.no_grad():
                after_step(net)
        state.advance(done + 1, total, value.item() * len(rows))
        if batch + 1 == batches:
            state.end_epoch(total, len(x), accuracy(net, x[judged], y[judged]))
        state.keep(done + 1 == total)
    optimiser.zero_grad()
    net.eval()


def rate(recipe: Recipe, step: int, total: int, epoch_steps: int) -> float:
    """The learning rate of a step, counted from 0, of `total`.

    one_cycle: a cosine up from 1/25 of the highest over 30 % of the steps, and down to 1/250,000 (Smith, Topin 2018).
    cyclic: triangles between a quarter of the highest and the highest (Smith 2017, section 3.3).
    """
    highest = recipe.learning_rate
    if recipe.schedule == "constant":
        return highest
    if recipe.schedule == "cyclic":
        position = step / (recipe.cycle_epochs * epoch_steps) % 1.0
        return highest * (0.25 + 0.75 * (1 - abs(2 * position - 1)))
    top, end = 0.3 * total - 1, total - 1
    if step < top:
        return _between(highest / 25, highest, step / top)
    return _between(highest, highest / 25e4, (step - top) / (end - top))


def noisy(y: Tensor, share: float, seed: int) -> Tensor:
    """The labels with a share of them (rounded down) replaced, each by another class, uniformly.

    The classes are 0 to the largest label. Raises PluginError where labels have to be replaced and there is no other.
    """
    random = _stream(seed, "labels")
    chosen = torch.randperm(len(y), generator=random)[: int(share * len(y))]
    if not len(chosen):
        return y
    classes = int(y.max()) + 1
    if classes < 2:
        raise PluginError(
            "label_noise replaces labels by another class, and all of these are 0",
            "train on data with two classes or more, or leave `label_noise` out",
        )
    out = y.clone()
    out[chosen] = (y[chosen] + torch.randint(1, classes, (len(chosen),), generator=random)) % classes
    return out


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Of the net in eval mode; its modes are left as they were."""
    training = net.training
    net.eval()
    parts = zip(torch.split(x, 256), torch.split(y, 256), strict=True)
    right = sum(int((net(inputs).argmax(1) == labels).sum()) for inputs, labels in parts)
    net.train(training)
    return right / len(x)


class _State:
    """What a checkpoint holds: the net, the optimiser, how far it is, and what was told."""

    def __init__(self, net: nn.Module, optimiser: torch.optim.Optimizer, report: Report) -> None:
        self.net, self.optimiser, self.report = net, optimiser, report
        self.done, self.loss = 0, 0.0
        self.told: list[dict[str, float]] = []
        self.spoke = time.monotonic()
        if (saved := report.saved()) is None:
            return
        found: dict[str, Any] = torch.load(io.BytesIO(saved), weights_only=True)
        net.load_state_dict(found["net"])
        optimiser.load_state_dict(found["optimiser"])
        self.done, self.loss, self.told = found["done"], found["loss"], found["told"]
        for index, figures in enumerate(self.told):
            report.step(index + 1, len(self.told) + 1, **figures)

    def advance(self, done: int, total: int, loss: float) -> None:
        self.done = done
        self.loss += loss
        self.report.step(done, total)

    def end_epoch(self, total: int, samples: int, right: float) -> None:
        self.told.append({"loss": self.loss / samples, "accuracy": right})
        self.loss = 0.0
        self.report.step(self.done, total, **self.told[-1])

    def keep(self, ended: bool) -> None:
        if ended or time.monotonic() - self.spoke < CHECKPOINT:
            return
        out = io.BytesIO()
        told = {"done": self.done, "loss": self.loss, "told": self.told}
        torch.save({"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict(), **told}, out)
        self.report.save(out.getvalue())
        self.spoke = time.monotonic()


def _batch_loss(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    recipe: Recipe,
    epoch: int,
    loss: Loss,
    bounds: Bounds,
    random: torch.Generator,
) -> Tensor:
    adversary = recipe.adversary
    if adversary is None or epoch < recipe.epochs - (adversary.last_epochs or recipe.epochs):
        return loss(net, x, y, rows)
    value = (1 - adversary.clean_weight) * loss(net, craft(net, x, y, adversary, bounds, random), y, rows)
    return value + adversary.clean_weight * loss(net, x, y, rows) if adversary.clean_weight else value


def _loss(recipe: Recipe, teacher: Callable[[Tensor], Tensor] | None) -> Loss:
    """Cross-entropy; with a teacher the sum of Hinton et al. 2015, section 2, whose soft part is scaled by T²."""

    def distilled(net: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        logits = net(x)
        hard = F.cross_entropy(logits, y)
        if teacher is None:
            return hard
        with torch.no_grad():
            target = (teacher(x) / recipe.temperature).softmax(1)
        soft = F.cross_entropy(logits / recipe.temperature, target) * recipe.temperature**2
        return recipe.distillation * soft + (1 - recipe.distillation) * hard

    return distilled


def _optimiser(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    lr, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr, momentum=0.9, nesterov=True, weight_decay=decay)
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind(parameters, lr, weight_decay=decay)


def _between(first: float, last: float, part: float) -> float:
    """Along half a cosine."""
    return last + (first - last) / 2 * (1 + math.cos(math.pi * part))


def _stream(*parts: Any) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*parts))
