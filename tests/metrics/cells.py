"""Cells for tests, from plain lists."""

from collections.abc import Sequence

from bench.contracts import Figure
from bench.records import Cell, Failure, Kind, Reason, figures_table, samples_table


def clean(right: Sequence[bool], model: str = "cnn", dataset: str = "digits", failures: Sequence[Failure] = ()) -> Cell:
    n = len(right)
    columns = {"sample": list(range(n)), "label": [1] * n, "prediction": [1 if good else 0 for good in right]}
    return Cell(model, dataset, "clean", Kind.CLEAN, samples_table(columns), failures)


def attack(
    label: str,
    broken: Sequence[Sequence[bool]],
    epsilons: Sequence[float],
    *,
    norm: str = "linf",
    right: Sequence[bool] | None = None,
    samples: Sequence[int] | None = None,
    distance: Sequence[float | None] | None = None,
    failures: Sequence[Failure] = (),
    minimal: bool = False,
    escaped: Sequence[bool] | None = None,
    model: str = "cnn",
    dataset: str = "digits",
) -> Cell:
    """broken: one list of verdicts per sample. By default every sample is right untouched, without a distance."""
    n = len(broken)
    good = [True] * n if right is None else list(right)
    columns = {
        "sample": list(range(n)) if samples is None else list(samples),
        "label": [1] * n,
        "prediction": [1 if right_ else 0 for right_ in good],
        "broken": [list(verdicts) for verdicts in broken],
        "distance": [None] * n if distance is None else list(distance),
        "escaped": [False] * n if escaped is None else list(escaped),
        "forwards": [10.0 if right_ else 0.0 for right_ in good],
        "backwards": [float(index) if right_ else 0.0 for index, right_ in enumerate(good)],
    }
    table = samples_table(columns)
    return Cell(
        model, dataset, label, Kind.ATTACK, table, failures, norm=norm, epsilons=tuple(epsilons), minimal=minimal
    )


def search(label: str, distance: Sequence[float | None], epsilons: Sequence[float] = (), norm: str = "l2") -> Cell:
    """A minimal-distance attack whose records hold nothing but distances."""
    return attack(label, [[]] * len(distance), epsilons, norm=norm, distance=distance, minimal=True)


def probe(*figures: Figure, label: str = "latency", model: str = "cnn", dataset: str = "digits") -> Cell:
    return Cell(model, dataset, label, Kind.PROBE, figures_table(figures))


def detector(label: str, inliers: Sequence[float], outliers: Sequence[float]) -> Cell:
    n = len(inliers) + len(outliers)
    columns = {
        "sample": [*range(len(inliers)), *range(len(outliers))],
        "label": [0] * n,
        "prediction": [0] * n,
        "score": [*inliers, *outliers],
        "outlier": [False] * len(inliers) + [True] * len(outliers),
    }
    return Cell("cnn", "digits", label, Kind.DETECTOR, samples_table(columns))


def failure(evaluation: str, start: int, stop: int, message: str = "raised") -> Failure:
    return Failure(
        key=f"{evaluation}{start}",
        model="cnn",
        dataset="digits",
        evaluation=evaluation,
        start=start,
        stop=stop,
        reason=Reason.ADAPTER,
        message=message,
    )
