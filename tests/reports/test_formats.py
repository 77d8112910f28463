import pytest

from bench.records import Metric
from reports import formats


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("clean_accuracy", 0.97512, "97.5 %"),
        ("robust_accuracy/linf/worst/0.1", 0.0, "0.0 %"),
        ("auroc/msp", 0.97149, "0.971"),
        ("latency_ms/p50", 0.15342, "0.153 ms"),
        ("latency_ms/p90", 1234.5, "1234 ms"),
        ("size_bytes", 109_568, "110 kB"),
        ("size_bytes", 512, "512 B"),
        ("macs", 153_216, "153 k"),
        ("macs", 7.7824e6, "7.78 M"),
        ("parameters", 999_960, "1.00 M"),
        ("median_distance/l2/cw", 0.72134, "0.721"),
        ("median_distance/linf/cw", 0.00002, "2.00e-05"),
        ("forwards/linf/pgd", 41.0, "41"),
        ("throughput", 6543.2, "6.54 k/s"),
        ("clean_accuracy", None, "–"),
    ],
)
def test_a_number_reads_in_the_unit_of_its_metric(name: str, value: float | None, text: str) -> None:
    assert formats.number(name, value) == text


def test_an_interval_names_units_only_where_its_ends_may_differ_in_them() -> None:
    assert formats.interval("clean_accuracy", Metric(value=0.5, low=0.4, high=0.6)) == "40.0–60.0"
    assert formats.interval("macs", Metric(value=1000, low=990, high=1010)) == "990–1.01 k"
    assert formats.interval("median_distance/l2/cw", Metric(value=1, low=0.5)) == "0.500–∞"
    assert formats.interval("macs", Metric(value=1)) == ""


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("attack_success_all/linf/mm/0.1", "Attack success mm all domains L∞ ≤ 0.1"),
        ("attack_success_group/l2/mm/1", "Attack success mm whole groups L2 ≤ 1"),
        ("attack_success_in/linf/mm/member_0/0.1", "Attack success mm member 0 L∞ ≤ 0.1"),
        ("domain_weight/linf/mm/rotate_15", "Domain weight mm rotate 15 L∞"),
        ("clean_accuracy", "Clean accuracy"),
        ("robust_accuracy/linf/worst/0.1", "Worst case L∞ ≤ 0.1"),
        ("robust_accuracy/l2/cw/0.5", "cw L2 ≤ 0.5"),
        ("median_distance/l2/cw", "Median distance cw L2"),
        ("fpr95/msp", "FPR95 msp"),
        ("latency_ms/p50", "latency p50"),
        ("latency_ms/p50.batched", "latency p50.batched"),
        ("size_bytes", "size"),
    ],
)
def test_a_heading_says_in_words_what_the_name_says(name: str, title: str) -> None:
    assert formats.title(name) == title


def test_costs_are_better_when_low_and_accuracies_when_high() -> None:
    assert all(map(formats.higher_is_better, ["clean_accuracy", "auroc/msp", "median_distance/l2/cw"]))
    assert not any(map(formats.higher_is_better, ["latency_ms/p50", "macs", "fpr95/msp", "attack_success/linf/pgd/1"]))
