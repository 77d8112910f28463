"""What is kept: of a sample, of a cost, of a failure.

Records carry numbers only. The names (model, data set, evaluation) belong to the submission that asked, since
records are stored by content and shared between submissions; `Cell` joins the two.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from bench.contracts import Figure, Frozen, ThreatModel

CLASS = "class"  # the group column that all data have: the label
DEVICE = "device"  # in a file of records: the name of the processor or GPU that computed them
REFUSED = -2  # in the place of a class: the model declined to answer

# One row per sample and evaluation. A column that an evaluation does not fill is null.
SAMPLES = pa.schema(
    [
        pa.field("sample", pa.int64(), False, {"doc": "index in the data set's split"}),
        pa.field("label", pa.int32(), False, {"doc": "true class"}),
        pa.field("prediction", pa.int32(), False, {"doc": "class of the untouched input; -1: NaN scores, -2: refused"}),
        pa.field("confidence", pa.float32(), True, {"doc": "largest softmax probability of the untouched input"}),
        pa.field("logits", pa.list_(pa.float32()), True, {"doc": "scores of the untouched input (evaluation 'clean')"}),
        pa.field(
            "broken",
            pa.list_(pa.bool_()),
            True,
            {"doc": "label lost, one value per epsilon, ascending; of an outlier: whether the attack made it one"},
        ),
        pa.field("distance", pa.float64(), True, {"doc": "norm of the verified perturbation; 0 if wrong untouched"}),
        pa.field(
            "adversarial_prediction",
            pa.int32(),
            True,
            {"doc": "class of the verified adversarial input; -1, -2 as above"},
        ),
        pa.field("escaped", pa.bool_(), True, {"doc": "the attack left bounds or ball, and did not count"}),
        pa.field("gain", pa.float64(), True, {"doc": "adversarial gain: change of the answer per share of words"}),
        pa.field("stopped", pa.bool_(), True, {"doc": "the attack's budget was used up at this sample"}),
        pa.field("forwards", pa.float64(), True, {"doc": "forward passes the attack spent on this sample"}),
        pa.field("backwards", pa.float64(), True, {"doc": "backward passes the attack spent on this sample"}),
        pa.field(
            "domains",
            pa.list_(pa.struct({"name": pa.string(), "weight": pa.float64(), "lost": pa.bool_()})),
            True,
            {"doc": "of an attack over several domains: the final weight of each, and whether the label is lost there"},
        ),
        pa.field("shared_from", pa.int64(), True, {"doc": "first sample of those that share one perturbation"}),
        pa.field("fit_queries", pa.int64(), True, {"doc": "queries of the attack's own fit, once for all samples"}),
        pa.field("gradients", pa.string(), True, {"doc": "of the model, as the attack saw them: exact, surrogate"}),
        pa.field("signs", pa.list_(pa.string()), True, {"doc": "what speaks against its gradients; null: not asked"}),
        pa.field("transferred", pa.bool_(), True, {"doc": "crafted on another model (attacks that transfer)"}),
        pa.field("kept", pa.list_(pa.float64()), True, {"doc": "share of passes that kept the label (if stochastic)"}),
        pa.field(
            "quantised_prediction", pa.int32(), True, {"doc": "class of that input once rounded to 8 bits (`keep`)"}
        ),
        pa.field("proved", pa.list_(pa.bool_()), True, {"doc": "proved to keep its label, one value per epsilon"}),
        pa.field("score", pa.float64(), True, {"doc": "outlier score of a detector; larger is more outlying"}),
        pa.field("outlier", pa.bool_(), True, {"doc": "whether the sample comes from the outlier set"}),
        pa.field("flagged", pa.bool_(), True, {"doc": "score above the threshold that the detector was fitted with"}),
        pa.field("groups", pa.list_(pa.string()), True, {"doc": "COLUMN=VALUE for each group column of the data set"}),
    ]
)

# One row per measured cost.
FIGURES = pa.schema(
    [
        pa.field("name", pa.string(), False),
        pa.field("value", pa.float64()),
        pa.field("unit", pa.string(), False),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("n", pa.int64()),
        pa.field("flags", pa.list_(pa.string()), False),
        pa.field("hardware", pa.string()),
    ]
)


class Kind(StrEnum):
    """What a task does."""

    CLEAN = "clean"
    ATTACK = "attack"
    PROBE = "probe"
    DETECTOR = "detector"
    CERTIFICATE = "certificate"
    COST = "cost"  # of a detector

    @property
    def figures(self) -> bool:
        """One task that yields figures, not records of samples."""
        return self in (Kind.PROBE, Kind.COST)


class Reason(StrEnum):
    """Why a task failed: who or what is to blame."""

    ADAPTER = "adapter"  # plugin code raised
    MEMORY = "out of memory"
    TIMEOUT = "timeout"
    WORKER = "worker died"
    DATA = "data"  # a file is missing on the worker or differs from the driver's


class Failure(Frozen):
    """One task that ended without records, after its retries."""

    key: str
    model: str
    dataset: str
    evaluation: str
    start: int
    stop: int
    reason: Reason
    message: str
    details: str = ""  # a traceback
    attempts: int = 1


@dataclass(frozen=True)
class Cell:
    """All records of one (model, data set, evaluation) of a submission, in the order of the samples.

    `table` has the schema SAMPLES, or FIGURES for a probe; samples of failed tasks are missing from it.
    """

    model: str
    dataset: str
    evaluation: str  # its label in the suite: "pgd"
    kind: Kind
    table: pa.Table
    failures: Sequence[Failure] = ()
    plugin: str = ""  # "foolbox.l2_carlini_wagner"
    norm: str | None = None
    epsilons: Sequence[float] = ()
    knowledge: str | None = None
    threat: ThreatModel | None = None  # of an attack, as the suite has it
    remedy: str = ""  # of an attack that was added where records were suspect
    planned: int = 0  # samples that the suite asks for
    devices: Sequence[str] = ()  # that computed the records, as far as they say
    seen: bool = False  # the model was trained on these very data
    fit_seconds: float | None = None  # that the fit of the detector or attack took, once
    state_bytes: int | None = None  # that it has to remember
    minimal: bool = False  # the attack looked for the smallest distance: `distance` means something by itself


class Metric(Frozen):
    """A figure on a leaderboard, with its 95 % interval where it has one, and its number of observations."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None


class Row(Frozen):
    """A line of a leaderboard: one model on one data set."""

    model: str
    dataset: str
    metrics: dict[str, Metric]
    flags: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    hardware: str | None = None  # digest of the machine behind its timings: they are not ranked across machines
    threats: dict[str, ThreatModel] = Field(default_factory=dict)  # by NORM/LABEL as in the names of metrics


def figures_table(figures: Iterable[Figure], hardware: str | None = None) -> pa.Table:
    """Figures as a table of the schema FIGURES. hardware: digest of the machine that they are valid for, if any."""
    return pa.Table.from_pylist([{**figure.model_dump(), "hardware": hardware} for figure in figures], schema=FIGURES)


def samples_table(columns: dict[str, Any]) -> pa.Table:
    """Columns (arrays or lists of one length) as a table of the schema SAMPLES; what is not given is null."""
    n = len(columns["sample"])
    arrays = [
        pa.array(columns[name], type=type_) if name in columns else pa.nulls(n, type_)
        for name, type_ in zip(SAMPLES.names, SAMPLES.types, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=SAMPLES)


def group_values(table: pa.Table, by: str) -> NDArray[np.str_] | None:
    """The values of a group column (n,); None where the records do not have it. `class` is the label."""
    if by == CLASS:
        return np.asarray(table["label"].to_numpy()).astype(str)
    head = f"{by}="
    if table["groups"].null_count:
        return None
    found = [next((text for text in row if text.startswith(head)), None) for row in table["groups"].to_pylist()]
    return None if None in found else np.array([str(text).removeprefix(head) for text in found], dtype=str)


def judged(table: pa.Table) -> pa.Table:
    """Records of a detector without those outliers that an attack was to make, and did not."""
    made = pc.list_element(table["broken"].combine_chunks(), 0) if table.num_rows else pa.array([], pa.bool_())
    return table.filter(pc.fill_null(made, True))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly these columns: one that its version did not have yet is null."""
    n = table.num_rows
    columns = [table[f.name] if f.name in table.column_names else pa.nulls(n, f.type) for f in schema]
    return pa.table(columns, schema=schema)


def encode(table: pa.Table, device: str = "") -> bytes:
    """The table as Parquet, with page checksums: the same table gives the same bytes. device: what computed it."""
    sink = io.BytesIO()
    how = {"compression": "zstd", "write_page_checksum": True, "write_statistics": False, "store_schema": False}
    with pq.ParquetWriter(sink, table.schema, **how) as writer:
        writer.write_table(table)
        if device:
            writer.add_key_value_metadata({DEVICE: device})
    return sink.getvalue()


def device_of(table: pa.Table) -> str | None:
    """What computed a task's records, as `decode` returned them; None where they do not say."""
    found = (table.schema.metadata or {}).get(DEVICE.encode())
    return None if found is None else str(found.decode())


def decode(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Inverse of `encode`; of `columns` those that there are. Raises pyarrow.ArrowInvalid or OSError for damaged bytes.

    Everything happens in this thread: a pool thread that drops a Python object while the interpreter ends aborts it.
    """
    with pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True, pre_buffer=False) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)
