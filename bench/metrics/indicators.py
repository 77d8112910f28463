"""Signs that robustness was misjudged, read from records. Each yields what to say, or nothing for an honest net.

Croce and Hein 2020, arXiv:2003.01690 (the checks of AutoAttack), and Pintor et al. 2022, arXiv:2106.09947.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from bench.metrics.robustness import Attacked
from bench.records import Cell

GAIN = 0.002  # share of the samples that a black-box attack may break beyond all white-box ones
UNDERFLOW = 104.0  # exp(-104) is 0 in float32: a margin above it leaves the cross-entropy without a gradient
WHITE_BOX = "white-box"


def probabilities(table: pa.Table) -> str | None:
    """Whether the scores of a clean cell are probabilities: a second softmax flattens their gradients."""
    rows = [row for row in table["logits"].to_pylist() if row is not None]
    if not rows:
        return None
    scores = np.asarray(rows, dtype=np.float64)
    in_unit = scores.min() > -1e-5 and scores.max() < 1 + 1e-5
    if in_unit and bool((np.abs(scores.sum(axis=1) - 1) < 1e-5).all()):
        return "the scores are probabilities, not logits: attacks on the cross-entropy see flattened gradients"
    return None


def saturated(table: pa.Table) -> str | None:
    """Whether margins are so large that the cross-entropy has no gradient in float32."""
    rows = [row for row in table["logits"].to_pylist() if row is not None and len(row) > 1]
    if not rows:
        return None
    ordered = np.sort(np.asarray(rows, dtype=np.float64), axis=1)
    dead = int((ordered[:, -1] - ordered[:, -2] > UNDERFLOW).sum())
    if dead:
        return (
            f"{dead} of {len(rows)} samples have logits so far apart that the cross-entropy has no gradient: "
            "take an attack on the logits' ratio (apgd_dlr, apgd_t)"
        )
    return None


# sign of bench.gradient_checks -> the share of the examined samples from which on it is said, and what to say
SIGNS: Mapping[str, tuple[float, str]] = {
    "undeclared noise": (0.0, "two passes of one input differ: declare the model `stochastic`, and average (`eot`)"),
    "no gradient": (0.05, "the gradient is zero, not finite, or not to be had: take attacks without gradients as well"),
    "no gradient of the loss": (0.05, "the cross-entropy has no gradient, the logits do: take apgd_dlr or apgd_t"),
    "rounded loss": (
        0.05,
        "the cross-entropy's gradient points elsewhere than without rounding, logits lie so far apart: take apgd_dlr",
    ),
    "no growth": (0.05, "no step along the gradient raises the loss"),
    "unbounded": (0.05, "the label is not lost even where nothing but the bounds limits the attack"),
    "lagging loss": (
        0.05,
        "attacks on the cross-entropy need over twice the steps of the margin's: take apgd_dlr",
    ),
    "rough": (0.25, "the gradient points elsewhere a thousandth of the bounds' width away: average it, or use square"),
}


def marked(table: pa.Table) -> dict[str, str]:
    """The signs that a clean cell has at too many samples, and at how many: `3 of 40`."""
    asked = [row for row in table["signs"].to_pylist() if row is not None]
    counts = {sign: sum(sign in row for row in asked) for sign in SIGNS}
    return {sign: f"{n} of {len(asked)}" for sign, n in counts.items() if n > SIGNS[sign][0] * len(asked)}


def signs(table: pa.Table) -> list[str]:
    """What speaks against the gradients in a clean cell. Empty for an honest net, and where none were checked."""
    return [f"at {count} samples {SIGNS[sign][1]}" for sign, count in marked(table).items()]


def black_box_gain(attacks: Sequence[tuple[Attacked, Cell]], epsilon: float) -> str | None:
    """Whether attacks without gradients break more than GAIN of the samples that all white-box ones leave standing.

    attacks: of one norm; those not made at this epsilon or below are left out. Nothing where a kind is absent.
    """
    made = [(found, cell) for found, cell in attacks if found.reaches(epsilon)]
    blind = [(found, cell) for found, cell in made if cell.knowledge != WHITE_BOX and _by_another_way(cell)]
    seeing = [found for found, cell in made if cell.knowledge == WHITE_BOX]
    if not blind or not seeing:
        return None
    common = seeing[0].samples
    for found, _ in made:
        common = np.intersect1d(common, found.samples)
    seen = np.zeros(len(common), dtype=bool)
    for found in seeing:
        seen |= np.isin(common, found.samples[found.broken_at(epsilon)])
    told = []
    for found, cell in blind:
        beyond = int((np.isin(common, found.samples[found.broken_at(epsilon)]) & ~seen).sum())
        if beyond > GAIN * len(common):
            told.append(f"'{cell.evaluation}' breaks {beyond} of {len(common)} samples that no white-box attack does")
    return "; ".join(told) or None


def _by_another_way(cell: Cell) -> bool:
    """Not what was crafted on the very model that it is tried on: a control, which is white-box in all but name."""
    return False not in cell.table["transferred"].unique().to_pylist()
