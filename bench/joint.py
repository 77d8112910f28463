"""What attacks over several domains weigh them by, and in which of them the engine finds the label lost."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Attack, Budget, Classifier, Goal, JointAttack, Judging
from bench.errors import PluginError
from bench.metering import judged
from bench.randomness import SampleRandom
from bench.records import REFUSED

ITSELF = "itself"  # the only domain of a sample that shares its perturbation with others

Rows = NDArray[np.int64]


class Joint:
    """The columns `domains` and `shared_from` of a block of samples: null where the attack is no JointAttack."""

    def __init__(
        self,
        attack: Attack,
        epsilons: tuple[float, ...],
        model: Classifier,
        indices: Rows,
        goal: Goal = Goal.UNTARGETED,
        budget: Budget | None = None,
    ) -> None:
        """Raises PluginError where a JointAttack is asked at several epsilons: what is broken at one is not attacked
        again, so that the others' domains would not be those of the larger one. And for a goal or a
        budget of each sample, which say nothing where one perturbation has many domains."""
        if isinstance(attack, JointAttack) and len(epsilons) != 1:
            raise PluginError(
                f"attack '{attack.name}' is asked at one epsilon, got {len(epsilons)}",
                "name it once for each epsilon, each with a `name:` of its own",
            )
        if isinstance(attack, JointAttack) and (goal is not Goal.UNTARGETED or budget is not None):
            raise PluginError(
                f"attack '{attack.name}' takes neither goal nor budget: its domains share what it finds",
                "remove `goal:` and `budget:` (also that of `evaluations:`); its `steps` limit it",
            )
        self._attack, self._model, self._indices = attack, model, indices
        self._domains: list[list[dict[str, Any]] | None] = [None] * len(indices)
        self._first: list[int | None] = [None] * len(indices)

    def run(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom, rows: Rows
    ) -> Tensor:
        """What the attack makes of these rows of the block, on `model`. Notes the weights of a JointAttack."""
        attack = self._attack
        if not isinstance(attack, JointAttack) or epsilon is None:
            return attack.run(model, x, y, epsilon, random)
        moved, weights = attack.weigh(model, x, y, epsilon, random, torch.from_numpy(rows).to(x.device))
        names = [*attack.domains(self._model)] or [ITSELF]
        if weights.shape != (len(x), len(names)):
            raise ValueError(f"attack '{attack.name}' weighs {len(names)} domains by {tuple(weights.shape)}")
        for row, each in zip(rows, weights.cpu().tolist(), strict=True):
            self._domains[row] = [{"name": name, "weight": weight} for name, weight in zip(names, each, strict=True)]
            group = rows[rows // attack.together == row // attack.together]
            self._first[row] = int(self._indices[group[0]]) if attack.together > 1 else None
        return moved

    def judge(
        self, moved: Tensor, labels: NDArray[np.int32], rows: Rows, lost: NDArray[np.bool_], inside: NDArray[np.bool_],
        judging: Judging, seed: int,
    ) -> None:  # fmt: skip
        """In which domains moved inputs (k, ...) lose their labels (k,): one clean pass in each. lost: by the model."""
        if not isinstance(self._attack, JointAttack):
            return
        verdicts = []
        for domain in self._attack.domains(self._model).values():
            found, _ = judged(domain, moved, labels, judging, seed)
            verdicts.append(inside & (found != labels) & (found != REFUSED))
        for row, each in zip(rows, np.stack(verdicts or [lost], axis=1).tolist(), strict=True):
            for told, verdict in zip(self._domains[row] or (), each, strict=True):
                told["lost"] = verdict

    def columns(self) -> dict[str, Any]:
        return {"domains": self._domains, "shared_from": self._first}
