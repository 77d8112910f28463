"""Names of the metrics on a leaderboard, in one place: suites ask for them, metrics yield them, MLflow stores them.

MLflow refuses `=`, `@` and `,` in a name and sorts by the text: the norm stands before the attack, the epsilon last.
"""

CLEAN_ACCURACY = "clean_accuracy"
# how figures begin that are valid on one machine only
TIMES = ("latency", "throughput", "cold_start", "overhead", "fit_seconds", "cpu_ms", "speedup", "mlperf", "energy")
WORST = "worst"  # in the place of an attack: the samples that survive every attack of that norm

REFUSAL = ("coverage", "answered_accuracy")  # of models that refuse some inputs
OF_PASSES = (
    "mean_accuracy",
    "unanimous_accuracy",
)  # attacked stochastic models: over all passes of an input
PASSES = ("forwards", "backwards", "most_forwards", "most_backwards")  # that an attack spends: mean, most on a sample
SELECTIVE = ("aurc", "e_aurc", "coverage_at_risk_0.01", "coverage_at_risk_0.05")
CONFIDENCE = (  # of the untouched inputs; `_scaled`: after temperature scaling fitted apart
    *("ece", "rms_calibration", "mad_calibration", "soft_f1", "brier", "nll"),
    *("ece_scaled", "rms_calibration_scaled", "mad_calibration_scaled", "brier_scaled", "nll_scaled"),
    *SELECTIVE,
)
DETECTION = ("auroc", "detection_error", "ap_out", "ap_in", "fpr95", "fpr95_id_positive", *SELECTIVE)
JOINT = ("joint_rms_calibration", "joint_soft_f1")  # of inliers and outliers together, which no answer is right for
FITTED = ("precision", "recall", "f1", "flagged", "fit_seconds", "state_bytes")  # of detectors that fit

LEARNT = ("fit_seconds", "state_bytes", "fit_queries")  # of attacks that fit
ADVERSARIAL = ("broken", "evaded")  # of detectors whose outliers an attack makes; the second needs a threshold
GROUPED = ("worst_group", "disparity", "group_sd")  # over the groups of a column: `worst_group/country/clean_accuracy`
CORRUPTION = ("mean_corruption_error", "untouched_error")  # of data under common corruptions
RELATIVE_CORRUPTION = ("mce", "relative_mce")  # the same in units of a baseline's
SHARES = (  # in [0, 1], printed in percent
    *("clean_accuracy", "robust_accuracy", "robust_accuracy_8bit", "certified_accuracy", "attack_success"),
    *("attack_success_all", "attack_success_group", "attack_success_in", "domain_weight"),
    *OF_PASSES,
    *("coverage", "answered_accuracy"),
    *("corruption_error", *CORRUPTION),
)


def _head(name: str) -> str:
    return name.partition("/")[0]


def is_bounded(name: str) -> bool:
    """Whether the metric lies in [0, 1]."""
    return _head(of_what(name)) in (*SHARES, *DETECTION, "precision", "recall", "f1", "flagged", "score")


def is_good_share(name: str) -> bool:
    """Whether it lies in [0, 1] and 1 is best."""
    good = ("auroc", "ap_out", "ap_in", "precision", "recall", "f1")
    bad = {"corruption_error", *CORRUPTION, *(share for share in SHARES if share.startswith("attack_success"))}
    return _head(of_what(name)) in {*SHARES, *good} - {*bad, "domain_weight"}


def score(name: str) -> str:
    """`score/overall`: a combination that the suite defines."""
    return f"score/{name}"


def robust_accuracy(norm: str, evaluation: str, epsilon: float) -> str:
    """`robust_accuracy/linf/pgd/0.1`"""
    return f"robust_accuracy/{norm}/{evaluation}/{epsilon:g}"


def joint_success(whom: str, norm: str, evaluation: str, epsilon: float) -> str:
    """`attack_success_all/linf/minmax_ensemble/0.2`; whom: `all` domains of a sample, or all samples of a `group`."""
    return f"attack_success_{whom}/{norm}/{evaluation}/{epsilon:g}"


def success_in(norm: str, evaluation: str, domain: str, epsilon: float) -> str:
    """`attack_success_in/linf/minmax_ensemble/member_0/0.2`"""
    return f"attack_success_in/{norm}/{evaluation}/{domain}/{epsilon:g}"


def domain_weight(norm: str, evaluation: str, domain: str) -> str:
    """`domain_weight/linf/minmax_ensemble/member_0`"""
    return f"domain_weight/{norm}/{evaluation}/{domain}"


def quantised(name: str) -> str:
    """`robust_accuracy_8bit/linf/pgd/0.1`: where adversarial inputs are rounded to 8 bits once they are crafted."""
    return name.replace("robust_accuracy", "robust_accuracy_8bit", 1)


def worst_case(norm: str, epsilon: float) -> str:
    """`robust_accuracy/linf/worst/0.1`"""
    return robust_accuracy(norm, WORST, epsilon)


def certified_accuracy(norm: str, evaluation: str, epsilon: float) -> str:
    """`certified_accuracy/linf/linear_bounds/0.1`"""
    return f"certified_accuracy/{norm}/{evaluation}/{epsilon:g}"


def median_distance(norm: str, evaluation: str) -> str:
    """`median_distance/l2/cw`"""
    return f"median_distance/{norm}/{evaluation}"


def adversarial_gain(norm: str, evaluation: str) -> str:
    """`adversarial_gain/l0/word_substitution`"""
    return f"adversarial_gain/{norm}/{evaluation}"


def auroc(evaluation: str) -> str:
    """`auroc/max_softmax`"""
    return f"auroc/{evaluation}"


def corruption_error(corruption: str) -> str:
    """`corruption_error/fog`"""
    return f"corruption_error/{corruption}"


def grouped(what: str, by: str, metric: str) -> str:
    """`worst_group/country/clean_accuracy`; what: one of GROUPED."""
    return f"{what}/{by}/{metric}"


def of_group(by: str, value: str, metric: str) -> str:
    """`group/country/FR/clean_accuracy`"""
    return f"group/{by}/{value}/{metric}"


HIGHER = (  # how figures begin of which more is better; everything else is a cost
    *("clean_accuracy", "robust_accuracy", "certified_accuracy", "median_distance", *OF_PASSES),
    *("auroc", "ap_out", "ap_in", "throughput"),
    *("precision", "recall", "f1", "soft_f1", "joint_soft_f1", "coverage", "answered_accuracy"),
    *("score", "speedup", "compression_ratio", "theoretical_speedup"),
)


def higher_is_better(name: str) -> bool:
    """Accuracies, AUROC, distances and throughput, and these of groups; everything else is a cost."""
    return of_what(name).startswith(HIGHER)


def of_what(name: str) -> str:
    """The metric inside `worst_group/BY/METRIC` and `group/BY/VALUE/METRIC`; any other name as it is."""
    parts = name.split("/")
    inside = {"worst_group": 2, "group": 3}.get(parts[0], 0)
    return "/".join(parts[inside:]) or name


COST_SUFFIX = ".cost"  # behind a detector's label: the evaluation that times it


def overhead(detector: str) -> str:
    """`overhead/knn`"""
    return f"overhead/{detector}"


def detector_passes(detector: str) -> str:
    """`detector_passes/knn`"""
    return f"detector_passes/{detector}"


def fit_seconds(detector: str) -> str:
    """`fit_seconds/knn`"""
    return f"fit_seconds/{detector}"


def state_bytes(detector: str) -> str:
    """`state_bytes/knn`"""
    return f"state_bytes/{detector}"


def fit_queries(attack: str) -> str:
    """`fit_queries/substitute`"""
    return f"fit_queries/{attack}"


# ratio -> the cost that it is a ratio of: baseline / own, so that more is better
RATIOS = {
    "compression_ratio": "size_bytes",
    "compression_ratio/packed": "packed_bytes",
    "theoretical_speedup": "macs",
    "theoretical_speedup/effective": "effective_macs",
    "theoretical_speedup/bit_operations": "bit_operations",
}
