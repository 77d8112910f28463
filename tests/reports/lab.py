"""A finished run made by hand: records in a real store, without Ray and without a model."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.contracts import Figure
from bench.examples import EXAMPLES
from bench.plan import DatasetRef, EvaluationRef, ModelRef, Resolved
from bench.records import Kind, encode, figures_table, samples_table
from bench.runs import Run
from bench.suite_yaml import write

EPSILONS = (0.05, 0.1, 0.2)
N, OUTLIERS = 120, 60
MODELS = {"strong": 0.3, "middling": 0.15, "weak": 0.05}  # median distance to the boundary
EVALUATIONS: tuple[EvaluationRef, ...] = (
    EvaluationRef(label="clean", plugin="clean", kind=Kind.CLEAN),
    EvaluationRef(label="fgsm", plugin="fgsm", kind=Kind.ATTACK, norm="linf", epsilons=EPSILONS, knowledge="white-box"),
    EvaluationRef(label="pgd", plugin="pgd", kind=Kind.ATTACK, norm="linf", epsilons=EPSILONS, knowledge="white-box"),
    EvaluationRef(
        label="msp",
        plugin="max_softmax",
        kind=Kind.DETECTOR,
        outliers=DatasetRef(label="noise", plugin="noise", split="test", digest="b", size=OUTLIERS, classes=10),
    ),
    EvaluationRef(label="macs", plugin="macs", kind=Kind.PROBE),
    EvaluationRef(label="latency", plugin="latency", kind=Kind.PROBE, hardware="x"),
)

SWEEP = tuple(  # the same attack with more and more steps; the last keeps its examples
    EvaluationRef(
        label=f"pgd-{steps}",
        plugin="pgd",
        args={"steps": steps},
        kind=Kind.ATTACK,
        norm="linf",
        epsilons=EPSILONS,
        knowledge="white-box",
        keep="exact" if steps == 50 else None,
    )
    for steps in (50, 2, 10)
)
LAYERS = EvaluationRef(label="sparsity", plugin="sparsity", kind=Kind.PROBE)


def made_run(
    output: Path,
    models: dict[str, float] | None = None,
    *,
    suite: str = "lab",
    weights: str = "a",
    digest: str = "d",
    evaluations: tuple[EvaluationRef, ...] = EVALUATIONS,
    **shown: object,
) -> Run:
    """models: by name, how robust each is. weights and digest stand for content: other ones make another submission.
    shown: further keys of `leaderboard:`."""
    models = models or MODELS
    resolved = Resolved(
        suite=suite,
        seed=0,
        block=64,
        threads=1,
        engine="e",
        models=tuple(
            ModelRef(
                label=name, plugin="small_cnn" if robust > 0.1 else "small_cnn_pruned", weights=f"{weights}{robust}"
            )
            for name, robust in models.items()
        ),
        datasets=(DatasetRef(label="digits", plugin="digits", split="test", digest=digest, size=N, classes=10),),
        evaluations=evaluations,
    )
    columns = ["clean_accuracy", "robust_accuracy/linf/worst/0.1", "auroc/msp", "macs", "latency_ms/p50"]
    board = {"leaderboard": {"columns": columns, "rank_by": "robust_accuracy/linf/worst/0.1", **shown}}
    facts = {"hardware": {"cpu": "a processor", "gpu": "none", "threads": 1}, "git_revision": "abc", "command": []}
    run = Run.create(output, resolved, f"name: {suite}\n", write(board), facts)
    for plan in resolved.cells():
        table = _table(plan.evaluation, models[plan.model.label], plan.model.label)
        for task in plan.tasks():
            part = table if plan.evaluation.kind is Kind.PROBE else table.slice(task.start, task.stop - task.start)
            run.store.write(task.key, encode(part))
    run.set_status("complete")
    return run


def _table(ref: EvaluationRef, robust: float, name: str) -> pa.Table:
    if ref.plugin == "macs":
        return figures_table([Figure(name="macs", value=1000 * (1 + len(name)))])
    if ref.plugin == "sparsity":
        named = {"layer/conv1/parameters": 90.0, "layer/conv1/weights": 0.5, "layer/conv1/macs": 5760.0}
        return figures_table([Figure(name=key, value=value) for key, value in named.items()])
    if ref.plugin == "latency":
        ms = 0.1 + robust
        flags = ("simulated: float arithmetic stands in",) if name == "middling" else ()
        return figures_table([Figure(name="latency_ms/p50", value=ms, low=0.95 * ms, high=1.05 * ms, flags=flags)], "x")
    random = np.random.default_rng(7)  # the same inputs for every model
    label, luck = random.integers(0, 10, N), random.random(N)
    wrong = luck < 0.05 + 0.1 * (robust < 0.1)
    prediction = np.where(wrong, (label + 1) % 10, label)
    logits = random.normal(0, 1, (N, 10))
    logits[np.arange(N), prediction] += 4
    confidence = np.exp(logits).max(axis=1) / np.exp(logits).sum(axis=1)
    columns = {"sample": np.arange(N), "label": label, "prediction": prediction}
    match ref.kind:
        case Kind.CLEAN:
            columns |= {"confidence": confidence, "logits": list(logits)}
        case Kind.ATTACK:
            weaker = 1.3 if ref.label == "fgsm" else 1 + 1 / ref.args.get("steps", 100)
            distance = robust * (0.4 + 1.2 * random.random(N)) * weaker
            found = np.where(wrong, 0.0, distance)
            columns |= {"broken": [[bool(d <= epsilon) for epsilon in EPSILONS] for d in found]}
            columns |= {"distance": [float(d) if d <= EPSILONS[-1] else None for d in found]}
            columns |= {"forwards": np.full(N, 10.0), "backwards": np.full(N, 9.0), "escaped": np.zeros(N, bool)}
        case _:
            score = random.normal(0, 1, N + OUTLIERS) + (np.arange(N + OUTLIERS) >= N) * (0.5 + 5 * robust)
            columns = {name: np.concatenate([values, values[:OUTLIERS]]) for name, values in columns.items()}
            columns |= {"score": score, "outlier": np.arange(N + OUTLIERS) >= N}
            columns["sample"] = np.concatenate([np.arange(N), np.arange(OUTLIERS)])
    table = samples_table({name: list(values) for name, values in columns.items()})
    return _kept(table) if ref.keep else table


def _kept(table: pa.Table) -> pa.Table:
    """Grey pictures of noise; each that broke has a pixel changed by its distance."""
    random = np.random.default_rng(3)
    original = random.random((len(table), 1, 4, 4)).astype(np.float32) / 2
    moved = original.copy()
    far = np.array([one or 0.0 for one in table["distance"].to_pylist()], np.float32)
    moved[:, 0, 1, 2] += far
    columns = {
        "original": [one.tobytes() for one in original],
        "adversarial": [one.tobytes() if d else None for one, d in zip(moved, far, strict=True)],
        "dtype": ["<f4"] * len(table),
        "shape": [[1, 4, 4]] * len(table),
        "bounds": [[0.0, 1.0]] * len(table),
    }
    for name in ("adversarial_prediction", "quantised_prediction"):
        place = table.column_names.index(name)
        lost = (table["label"].to_numpy() + 1) % 10
        values = np.where(far > 0, lost, table["prediction"].to_numpy())
        table = table.set_column(place, table.schema.field(place), pa.array(values, pa.int32()))
    for field in EXAMPLES:
        table = table.append_column(field, pa.array(columns[field.name], field.type))
    return table
