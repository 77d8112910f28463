"""The min-max attack that has to survive transformations of the image."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor

from attacks.minmax_views import OverViews
from attacks.transformations import Named, Transformation, Transformed, need_images
from bench.contracts import Classifier, attack
from bench.randomness import SampleRandom


@attack("minmax_transformations")
class MinMaxTransformations(OverViews):
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
