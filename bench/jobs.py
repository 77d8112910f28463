"""What a worker can be asked to do, with what the dispatcher and the pool have to know of it."""

from dataclasses import dataclass

from bench.plan import Task
from bench.worker import FitTask, TrainTask


@dataclass(frozen=True)
class TaskJob:
    """A task of a submission, for a worker."""

    task: Task

    @property
    def key(self) -> str:
        return self.task.key

    @property
    def group(self) -> str:
        return self.task.cell.model.label

    @property
    def title(self) -> str:
        return self.task.cell.label

    @property
    def least_seconds(self) -> float:
        return self.task.cell.evaluation.least_seconds

    @property
    def bears(self) -> tuple[str, int]:
        """Of a timing: the digest of the fingerprint that it is planned for, and the threads in it."""
        cell = self.task.cell
        assert cell.evaluation.hardware is not None, "a timing is planned for a machine"
        return cell.evaluation.hardware, cell.threads

    @property
    def blobs(self) -> list[str]:
        """Digests of the bytes that it needs: of the model, of a baseline, and of what was learnt about it."""
        cell = self.task.cell
        keys = [ref.weights for ref in cell.models]
        return [key for key in (*keys, cell.fit and cell.fit.state) if key]


@dataclass(frozen=True)
class _Making:
    """What has to be made before anything is measured."""

    task: TrainTask | FitTask

    least_seconds = 0.0

    @property
    def key(self) -> str:
        return self.task.key

    @property
    def blobs(self) -> list[str]:
        return [self.task.parent] if self.task.parent else []


@dataclass(frozen=True)
class TrainJob(_Making):
    """A training, for a worker."""

    task: TrainTask

    @property
    def group(self) -> str:
        return self.task.label

    @property
    def title(self) -> str:
        return f"train {self.task.label}"


@dataclass(frozen=True)
class FitJob(_Making):
    """The fitting of a detector or an attack, for a worker."""

    task: FitTask

    @property
    def group(self) -> str:
        return self.task.model.label

    @property
    def title(self) -> str:
        return f"fit {self.task.label}"


AnyJob = TaskJob | TrainJob | FitJob
