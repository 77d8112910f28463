"""Rows of a leaderboard for tests."""

from bench.metrics.intervals import wilson
from bench.records import Failure, Metric, Reason, Row

FAILURE = Failure(
    key="k",
    model="binary",
    dataset="digits",
    evaluation="cw",
    start=256,
    stop=360,
    reason=Reason.TIMEOUT,
    message="no answer within 600 s",
    details="TimeoutError: <b>late</b>",
)
SIMULATED = "latency_ms/p50: simulated: binary weights in float arithmetic"


def share(k: int, n: int = 360) -> Metric:
    low, high = wilson(k, n)
    return Metric(value=k / n, low=low, high=high, n=n)


def row(
    model: str,
    clean: int = 350,
    worst: int | None = 200,
    latency: float | None = 0.15,
    *,
    dataset: str = "digits",
    flags: tuple[str, ...] = (),
    failures: tuple[Failure, ...] = (),
    hardware: str | None = None,
) -> Row:
    metrics = {
        "clean_accuracy": share(clean),
        "robust_accuracy/linf/pgd/0.1": share(210),
        "attack_success/linf/pgd/0.1": share(140, 350),
        "forwards/linf/pgd": Metric(value=38.25, low=37.0, high=39.5, n=350),
        "robust_accuracy/linf/worst/0.1": Metric(value=None, n=0) if worst is None else share(worst),
        "median_distance/l2/cw": Metric(value=0.7213, low=0.6, high=None, n=360),
        "macs": Metric(value=153_216.0),
        "size_bytes": Metric(value=109_568.0),
        "latency_ms/p50": Metric(
            value=latency, low=None if latency is None else latency * 0.9, high=latency and latency * 1.1, n=64
        ),
    }
    return Row(model=model, dataset=dataset, metrics=metrics, flags=flags, failures=failures, hardware=hardware)


def board() -> list[Row]:
    """Two data sets, a tie, flags, a failure, and a row without the ranked value."""
    return [
        row("small_cnn"),
        row("binary", 330, 250, 0.4, flags=(SIMULATED,), failures=(FAILURE,)),
        row("pruned", 340),
        row("lost", worst=None, flags=("robust_accuracy/linf/worst/0.1: incomplete: over 0 of 360 samples",)),
        row("small_cnn", dataset="fashion"),
    ]
