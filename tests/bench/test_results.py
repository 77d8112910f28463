"""What comes out of a run."""

from bench.records import Metric, Row
from bench.results import _telling_first


def test_the_suites_columns_come_first_and_derived_metrics_last():
    names = [
        "attack_success/linf/pgd/0.1",
        "macs",
        "forwards/linf/pgd",
        "clean_accuracy",
        "robust_accuracy/linf/pgd/0.1",
    ]
    row = Row(model="m", dataset="d", metrics={name: Metric(value=1.0) for name in names})
    ordered = list(_telling_first(row, ("robust_accuracy/linf/pgd/0.1", "clean_accuracy")).metrics)
    assert ordered == [
        "robust_accuracy/linf/pgd/0.1",
        "clean_accuracy",
        "macs",
        "attack_success/linf/pgd/0.1",
        "forwards/linf/pgd",
    ]
