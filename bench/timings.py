"""How long things took here before: for estimates and for the ETA, never for a leaderboard."""

import json
from pathlib import Path

from bench.plan import CellPlan, content_key
from bench.store import write_atomically

_MEMORY = 0.5  # weight of the newest observation


class Timings:
    """Seconds per sample of a model under an evaluation, as seen in earlier runs of an output folder.

    A cell that was never run is estimated from the same evaluation of another model, and has no estimate otherwise.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def note(self, cell: CellPlan, samples: int, seconds: float) -> None:
        """One task of the cell, of so many samples, took so long."""
        for key in self._keys(cell):
            new = seconds / max(1, samples)
            old = self._seconds.get(key, new)
            self._seconds[key] = old + _MEMORY * (new - old)

    def estimate(self, cell: CellPlan) -> float | None:
        """Seconds for all tasks of the cell on one worker."""
        for key in self._keys(cell):
            if key in self._seconds:
                return self._seconds[key] * cell.size
        return None

    def save(self) -> None:
        write_atomically(self._path, json.dumps(self._seconds, sort_keys=True).encode())

    @staticmethod
    def _keys(cell: CellPlan) -> tuple[str, str]:
        evaluation = [cell.evaluation.plugin, cell.evaluation.args, cell.evaluation.norm, cell.evaluation.epsilons]
        model = [cell.model.plugin, cell.model.args]
        return content_key(evaluation, model), content_key(evaluation)
