"""The min-max attack on an ensemble of models."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from attacks.minmax_views import OverViews
from bench.contracts import Classifier, attack
from bench.errors import PluginError


@attack("minmax_ensemble")
class MinMaxEnsemble(OverViews):
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
