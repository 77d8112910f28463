"""Goals with a target: any attack reaches for one class where the model is shown to it as a choice of two."""

import torch
from torch import Tensor

from bench.contracts import Classifier, Goal, Wrapped
from bench.errors import PluginError
from bench.randomness import SampleRandom


def targets_of(goal: Goal, scores: Tensor, labels: Tensor, random: SampleRandom) -> Tensor:
    """The class (n,) int64 that each sample is to be moved to, never its label.

    goal: one with a target. scores: (n, classes), of the untouched inputs. random: one stream per row.
    """
    if goal is Goal.RANDOM:
        drawn = random.integers((1,), 0, scores.shape[1] - 1, str(scores.device))[:, 0]
        return drawn + (drawn >= labels)
    away = torch.inf if goal is Goal.LEAST_LIKELY else -torch.inf
    others = scores.nan_to_num().scatter(1, labels[:, None], away)
    return others.argmin(1) if goal is Goal.LEAST_LIKELY else others.argmax(1)


class Aimed(Wrapped):
    """`model` as a choice of two: 0, the best of all other classes; 1, the target. Whoever loses the label 0 is there.

    An untargeted attack on it is a targeted one on `model`, whatever its loss: the margin is the targeted margin.
    targets: (n,) int64, one for each row of the batch that the attack was given.
    """

    def __init__(self, model: Classifier, targets: Tensor) -> None:
        super().__init__(model)
        self.classes, self._targets = 2, targets

    def around(self, model: Classifier) -> "Aimed":
        return Aimed(model, self._targets)

    def rows(self, rows: Tensor) -> "Aimed":
        return Aimed(self._model.rows(rows), self._targets[rows.to(self._targets.device)])

    def logits(self, x: Tensor) -> Tensor:
        """(n, 2): the largest other score, the target's. As many inputs as rows, or any number for a single row."""
        if len(x) != len(self._targets) and len(self._targets) != 1:
            raise PluginError(
                f"the attack asks about {len(x)} inputs of {len(self._targets)} samples at once: whose target?",
                "take another attack, or `goal: untargeted`",
            )
        scores, aim = self._model.logits(x), self._targets.expand(len(x))[:, None]
        others = scores.scatter(1, aim, -torch.inf).amax(1)
        return torch.stack([others, scores.gather(1, aim)[:, 0]], dim=1)
