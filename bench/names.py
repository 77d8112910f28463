"""Names of the metrics on a leaderboard, in one place: suites ask for them, metrics yield them, MLflow stores them.

MLflow refuses `=`, `@` and `,` in a name and sorts by the text: the norm stands before the attack, the epsilon last.
"""

CLEAN_ACCURACY = "clean_accuracy"
WORST = "worst"  # in the place of an attack: the samples that survive every attack of that norm


def robust_accuracy(norm: str, evaluation: str, epsilon: float) -> str:
    """`robust_accuracy/linf/pgd/0.1`"""
    return f"robust_accuracy/{norm}/{evaluation}/{epsilon:g}"


def worst_case(norm: str, epsilon: float) -> str:
    """`robust_accuracy/linf/worst/0.1`"""
    return robust_accuracy(norm, WORST, epsilon)


def certified_accuracy(norm: str, evaluation: str, epsilon: float) -> str:
    """`certified_accuracy/linf/linear_bounds/0.1`"""
    return f"certified_accuracy/{norm}/{evaluation}/{epsilon:g}"


def median_distance(norm: str, evaluation: str) -> str:
    """`median_distance/l2/cw`"""
    return f"median_distance/{norm}/{evaluation}"


def auroc(evaluation: str) -> str:
    """`auroc/max_softmax`"""
    return f"auroc/{evaluation}"
