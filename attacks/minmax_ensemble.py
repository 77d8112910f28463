"""Min-max attacks on one input against several classifiers: the members of an ensemble, or a model's views."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from attacks.ball import project
from attacks.minmax import Game, MinMax
from attacks.standing import lost
from attacks.transformations import Named, Transformation, Transformed, need_images
from bench.contracts import Bounds, Classifier, attack
from bench.errors import PluginError
from bench.randomness import SampleRandom


class _Views(Game):
    """Each input is a problem, each classifier a domain."""

    def __init__(self, owner: MinMax, views: Sequence[Classifier], x: Tensor, y: Tensor, epsilon: float) -> None:
        self.owner, self.views, self.x, self.y, self.epsilon = owner, views, x, y, epsilon
        self.present = torch.ones(len(x), len(views), dtype=torch.bool, device=x.device)

    def answers(self, delta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        label, moved = self.y[rows], self.x[rows] + delta
        scores = [view.rows(rows).logits(moved) for view in self.views]
        losses = torch.stack([self.owner.losses(logits, label) for logits in scores], dim=1)
        return losses, torch.stack([lost(logits.detach(), label) for logits in scores], dim=1)

    def project(self, delta: Tensor, rows: Tensor) -> Tensor:
        return self.owner.nearest(delta, self.x[rows], self.epsilon, *self.views[0].bounds)


class _OverViews(MinMax):
    def weigh(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See JointAttack.weigh. At most `steps` + 1 passes of each domain; starts at the input, draws nothing."""
        views = [*self.domains(model).values()]
        if not len(x):
            return x, torch.zeros(0, len(views))
        low, high = model.bounds
        game = _Views(self, views, x, y, epsilon)
        delta, weights = self.play(game, torch.zeros_like(x), self.stride(epsilon, high - low))
        return inside(self, x, delta, epsilon, Bounds(low, high)), weights


def inside(owner: MinMax, x: Tensor, delta: Tensor, epsilon: float, bounds: Bounds) -> Tensor:
    """x moved by delta, which fits: where the sum is rounded out of the ball or the bounds, it is put back."""
    moved = (x + delta).clamp(*bounds)
    return moved if owner.norm == "l0" else project(moved, x, owner.norm, epsilon, bounds)


@attack("minmax_ensemble")
class MinMaxEnsemble(_OverViews):
    """One perturbation against all members of an ensemble, each weighed by how hard it is to fool.

    Each member has to lose the label: `attack_success_all`. A model without members is its own only domain, so that it
    is attacked by plain descent. `average`: against the mean of the members' losses.
    """

    members: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="how many the models have; given, their weights may be columns"
    )

    @property
    def domain_names(self) -> tuple[str, ...]:
        return tuple(f"member_{number}" for number in range(self.members or 0))

    def domains(self, model: Classifier) -> Mapping[str, Classifier]:
        """Raises PluginError for another number of members than `members`."""
        members = model.members() or (model,)
        if self.members not in (None, len(members)):
            raise PluginError(
                f"attack '{self.name}' is asked for models of {self.members} members, and this one has {len(members)}",
                "set `members`, or leave it out",
            )
        return {f"member_{number}": member for number, member in enumerate(members)}


@attack("minmax_transformations")
class MinMaxTransformations(_OverViews):
    """One perturbation that survives what may happen to an image, each transformation weighed by how hard it is.

    The label has to be lost behind each of `transformations`: `attack_success_all`. Where a transformation loses it by
    itself, only the others are left to be fooled. `average`: against the mean over them (EOT).
    """

    transformations: Annotated[tuple[Named, ...], Field(min_length=1, max_length=32)] = (
        Transformation(kind="identity"),
        Transformation(kind="flip_horizontal"),
        Transformation(kind="flip_vertical"),
        Transformation(kind="brightness", by=0.1),
        Transformation(kind="gamma", by=1.3),
        Transformation(kind="crop", by=0.1),
    )

    def model_post_init(self, _context: object) -> None:
        labels = self.domain_names
        if twice := {label for label in labels if labels.count(label) > 1}:
            raise ValueError(f"transformations: {', '.join(sorted(twice))} stands twice: remove one")

    @property
    def domain_names(self) -> tuple[str, ...]:
        return tuple(change.label for change in self.transformations)

    def domains(self, model: Classifier) -> Mapping[str, Classifier]:
        return {change.label: Transformed(model, change) for change in self.transformations}

    def weigh(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See JointAttack.weigh. Raises PluginError for inputs that are no images."""
        need_images(self.name, x)
        return super().weigh(model, x, y, epsilon, random, places)
