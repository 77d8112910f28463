"""What a worker gets, and which nodes it may be on."""

from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from bench.errors import did_you_mean
from bench.suite_base import Part

# Kubernetes' grammar of labels, which Ray's nodes have, without labels that Ray gives anew at each start.
_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
NODE_LABEL = rf"^([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}$"
NODE_SELECTOR = rf"^!?({_NAME}|in\({_NAME}(, ?{_NAME})*\))$"
MAX_LABELS = 16  # that a suite selects by
OF_RAY = (  # of the labels that Ray itself gives, those that mean the same at each start
    "accelerator-type",
    "node-group",
    "market-type",
    "availability-region",
    "availability-zone",
)


def _selectable(label: str) -> str:
    """Raises ValueError for a label of Ray's own by which a suite cannot choose."""
    domain, _, name = label.rpartition("/")
    if domain == "ray.io" and name not in OF_RAY:
        known = ", ".join(f"ray.io/{known}" for known in OF_RAY)
        raise ValueError(f"of Ray's own labels there are {known}; not {label}{did_you_mean(name, OF_RAY)}")
    return label


NodeLabel = Annotated[str, Field(pattern=NODE_LABEL, max_length=317), AfterValidator(_selectable)]
NodeSelector = Annotated[str, Field(pattern=NODE_SELECTOR, max_length=1024)]


class Resources(Part):
    """What a worker gets. How many workers there are belongs to the machine, not to the suite."""

    cpus_per_worker: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """CPU cores that the scheduler sets aside for a worker."""
    gpus_per_worker: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """0, .2, .25, .5 or a whole number. Left out: one where the nodes have GPUs, else none."""
    nodes: Annotated[dict[NodeLabel, NodeSelector], Field(max_length=MAX_LABELS)] = Field(default_factory=dict)
    """The nodes that it may run on, by their labels: `v`, `!v`, `in(v, w)` or `!in(v, w)`. Left out: any."""
    threads: Annotated[int, Field(gt=0)] = 1
    """Threads of a worker. They decide the rounding of sums, so they are a part of the results' identity."""
    batch_size: Annotated[int, Field(gt=0)] = 256
    """Samples in a task."""
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    """Seconds that a task may take, beside those that a probe is told to last."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a task is tried again before it counts as failed."""

    @field_validator("gpus_per_worker")
    @classmethod
    def _schedulable(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus not in (0.2, 0.25, 0.5) and not gpus.is_integer():
            raise ValueError(f"must be 0, .2, .25, .5 or a whole number (what a GPU divides into), got {gpus:g}")
        return gpus
