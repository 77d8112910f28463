"""How a figure reads: headings, units, intervals, and which way is better."""

import math
import re

from bench import names
from bench.records import Metric

MISSING = "–"
NORMS = {"l0": "L0", "l1": "L1", "l2": "L2", "linf": "L∞"}
ORIGINS = ("published", "recomputed")  # where a figure comes from that was not measured here
DETECTION = {
    "auroc": "AUROC",
    "ap_out": "AP out",
    "ap_in": "AP in",
    "fpr95": "FPR95",
    "fpr95_id_positive": "FPR95 in",
} | {
    "detection_error": "detection error",
    **{name: name for name in ("precision", "recall", "f1", "flagged")},
}
ABBREVIATIONS = {"ece": "ECE", "nll": "NLL", "aurc": "AURC", "rms": "RMS", "mad": "MAD"}
COSTS = {
    "macs": "MACs",
    "flops": "FLOPs",
    "effective_macs": "effective MACs",
    "packed_bytes": "packed size",
    "size_bytes": "size",
    "parameter_bytes": "parameter size",
}
GROUPED = {"worst_group": "Worst group", "disparity": "Disparity", "group_sd": "SD of groups"}


def origin(name: str) -> tuple[str, str]:
    """Where a column's figures come from, and the metric: `published/macs` is ("published", "macs"); measured ones
    have no such word: ("", "macs")."""
    first, _, rest = name.partition("/")
    return (first, rest) if first in ORIGINS else ("", name)


def head(name: str) -> str:
    """The first word of a metric's name: `robust_accuracy`, `latency_ms`, `macs`."""
    return re.split(r"[/.]", origin(name)[1], maxsplit=1)[0]


def is_share(name: str) -> bool:
    """Whether the metric is a share in [0, 1] that is printed in percent."""
    return head(names.of_what(name)) in names.SHARES


def is_bounded(name: str) -> bool:
    """Whether the metric lies in [0, 1]."""
    name = names.of_what(name)
    return is_share(name) or head(name) in DETECTION or head(name) == "score"


def is_timing(name: str) -> bool:
    return origin(name)[1].startswith(names.TIMES)


def higher_is_better(name: str) -> bool:
    """Accuracies, AUROC, distances, throughput and scores; everything else is a cost."""
    return names.higher_is_better(origin(name)[1])


def heading(name: str) -> tuple[str, str]:
    """A metric's name for people, as (group, the rest): ("pgd", "L∞ ≤ 0.1"), ("Cost", "latency p50")."""
    where, name = origin(name)
    if where:
        group, rest = heading(name)
        return group, f"{rest} {where}"
    parts = name.split("/")
    match parts:
        case ["score", own]:
            return "Score", own
        case ["robust_accuracy", norm, attack, epsilon]:
            return "Worst case" if attack == names.WORST else attack, f"{NORMS.get(norm, norm)} ≤ {epsilon}"
        case ["robust_accuracy_8bit", norm, attack, epsilon]:
            return attack, f"{NORMS.get(norm, norm)} ≤ {epsilon} in 8 bits"
        case ["certified_accuracy", norm, certificate, epsilon]:
            return "Certified", f"{certificate} {NORMS.get(norm, norm)} ≤ {epsilon}"
        case ["attack_success", norm, attack, epsilon]:
            return "Attack success", f"{attack} {NORMS.get(norm, norm)} ≤ {epsilon}"
        case ["attack_success_all" | "attack_success_group" as kind, norm, attack, epsilon]:
            whom = "all domains" if kind == "attack_success_all" else "whole groups"
            return "Attack success", f"{attack} {whom} {NORMS.get(norm, norm)} ≤ {epsilon}"
        case ["attack_success_in", norm, attack, domain, epsilon]:
            return "Attack success", f"{attack} {domain.replace('_', ' ')} {NORMS.get(norm, norm)} ≤ {epsilon}"
        case ["domain_weight", norm, attack, domain]:
            return "Domain weight", f"{attack} {domain.replace('_', ' ')} {NORMS.get(norm, norm)}"
        case [kind, norm, attack, epsilon] if kind in names.OF_PASSES:
            return attack, f"{kind.partition('_')[0]} {NORMS.get(norm, norm)} ≤ {epsilon}"
        case ["median_distance", norm, attack]:
            return "Median distance", f"{attack} {NORMS.get(norm, norm)}"
        case [way, _, attack] if way in names.PASSES:
            return "Passes per sample", f"{attack} {way.replace('_', ' ')}"
        case ["group", by, value, *metric]:
            return f"By {by}", f"{value} {title('/'.join(metric))}"
        case [kind, by, *metric] if kind in GROUPED and metric:
            return GROUPED[kind], f"{by} {title('/'.join(metric))}"
        case ["corruption_error", corruption]:
            return "Corruption error", corruption.replace("_", " ")
        case [kind] if kind in (*names.CORRUPTION, *names.RELATIVE_CORRUPTION):
            return "Corruption error", kind.replace("mce", "mCE").replace("_", " ")
        case [kind, detector] if kind in DETECTION:
            return DETECTION[kind], detector
        case [kind] if kind in DETECTION:
            return "Detection", DETECTION[kind]
    if head(name) in (*names.CONFIDENCE, *names.JOINT) or name.startswith("coverage") or name in names.REFUSAL:
        return "Confidence", _words(name)
    if head(name) == names.CLEAN_ACCURACY:
        return "Clean", name.replace("clean_accuracy", "accuracy", 1)
    first = COSTS.get(parts[0], parts[0].removesuffix("_ms").replace("_", " "))
    return "Cost", " ".join([first, *parts[1:]])


def _words(name: str) -> str:
    """`rms_calibration_scaled` as `RMS calibration scaled`, `e_aurc/knn` as `E-AURC knn`."""
    words = name.replace("e_aurc", "E-AURC", 1).replace("/", "_").split("_")
    return " ".join(ABBREVIATIONS.get(word, word) for word in words)


def title(name: str) -> str:
    """The heading in one line: `pgd L∞ ≤ 0.1`."""
    group, rest = heading(name)
    return rest if group in ("Cost", "Detection", "Confidence") else f"{group} {rest}"


def number(name: str, value: float | None) -> str:
    """A value with its unit, to the digits that a reader compares: `93.1 %`, `0.971`, `1.53 ms`, `110 kB`."""
    if value is None:
        return MISSING
    name = names.of_what(name)
    if is_share(name):
        return f"{100 * value:.1f} %"
    if head(name) in DETECTION or head(name) == "score":
        return f"{value:.3f}"
    if head(name).endswith("_ms"):
        return f"{significant(value)} ms"
    if head(name) == "overhead":
        return f"{value:.2f} ×"
    if head(name) == "fit_seconds":
        return f"{significant(value)} s"
    scaled, prefix = si(value)
    unit = prefix + ("B" if head(name).endswith("bytes") else "/s" if head(name) == "throughput" else "")
    return f"{significant(scaled)} {unit}".rstrip()


def interval(name: str, metric: Metric) -> str:
    """Its 95 % interval, `89.9–95.2`, with units where the two ends may differ in them; empty where there is none."""
    if metric.low is None and metric.high is None:
        return ""
    low, high = ("∞" if end is None else number(name, end) for end in (metric.low, metric.high))
    if is_share(name) or head(name).endswith("_ms"):
        low, high = low.partition(" ")[0], high.partition(" ")[0]
    return f"{low}–{high}"


def change(name: str, value: float) -> str:
    """A difference with its sign: `+1.2 pt` for shares, `−0.031`, `+1.53 ms`."""
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    size = abs(value)
    return f"{sign}{100 * size:.1f} pt" if is_share(name) else f"{sign}{number(name, size)}"


def figure(name: str, metric: Metric | None) -> str:
    """Value and interval in one line: `93.1 % (89.9–95.2)`."""
    if metric is None:
        return MISSING
    between = interval(name, metric)
    return f"{number(name, metric.value)} ({between})" if between else number(name, metric.value)


def significant(value: float, digits: int = 3) -> str:
    """Plain notation with at least `digits` significant digits; whole numbers below 1,000 without decimals."""
    if value == 0 or (float(value).is_integer() and abs(value) < 1000):
        return f"{value:.0f}"
    rounded = float(f"{value:.{digits - 1}e}")  # 999.96 has four digits before the point when printed with three
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{value:.{max(0, decimals)}f}" if abs(value) >= 1e-4 else f"{value:.{digits - 1}e}"


def si(value: float) -> tuple[float, str]:
    """The value over its power of 1,000, and the prefix of that: (1.2, "M"). Small values stay as they are."""
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 0.9995 * 10**power:
            return value / 10**power, prefix
    return value, ""
