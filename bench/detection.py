"""One task of a detector: its fit, its scores, what an attack that may know it makes of inliers, its cost. No Ray."""

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import names
from bench.contracts import (
    Attack,
    Classifier,
    Detector,
    Figure,
    Judging,
    Learner,
    Report,
    Samples,
    Wrapped,
)
from bench.disturbance import watched
from bench.errors import PluginError
from bench.measure import (
    ONCE,
    Indices,
    check_gradients,
    confidence_of,
    groups_of,
    judged_untouched,
    untouched,
)
from bench.metering import Metered, Passes, Untouched, predictions
from bench.metrics.intervals import median
from bench.names import COST_SUFFIX
from bench.randomness import SampleRandom, seed_of
from bench.records import REFUSED, figures_table, samples_table
from bench.strikes import verified
from bench.token_ids import check_attack

COST_BATCH = 64
REPEATS = 15  # of a timing


def fitted(learner: Learner, model: Classifier, samples: Samples, chosen: Indices, seed: int, report: Report) -> bytes:
    """What a detector or an attack learns of the model by the chosen samples.

    Each block of samples that it asks for is a sign of life. It may go through them several times: the share that is
    done counts the first time only.
    """
    asked = 0

    def fetch(rows: Indices) -> Tensor:
        nonlocal asked
        asked += len(rows)
        report.step(min(asked, len(chosen)), len(chosen))
        return samples.fetch(chosen[rows])

    part = replace(samples, labels=samples.labels[chosen], fetch=fetch, groups={})
    if part.input_shape != tuple(model.input_shape):
        raise PluginError(
            f"the model takes inputs of shape {tuple(model.input_shape)}, the data to fit on are {part.input_shape}"
        )
    with Untouched(model, f"the fit of '{learner.name}'"):
        return learner.fit(model, part, seed_of(seed, "fit", learner.name))


def detected(
    detector: Detector, outlier: bool, model: Classifier, samples: Samples, indices: Indices, seed: int
) -> pa.Table:
    """Outlier scores of a block of inliers, or of outliers (whose labels and correctness mean nothing)."""
    if samples.input_shape != tuple(model.input_shape):
        raise PluginError(
            f"the model takes inputs of shape {tuple(model.input_shape)}, these have {samples.input_shape}",
            "choose outliers of the inliers' shape",
        )
    labels, x, scores = untouched(model, samples, indices)
    random = SampleRandom.of(seed, f"{detector.name}/{outlier}", [int(index) for index in indices])
    with Untouched(model, f"detector '{detector.name}'"):
        outlying = scored(detector, model, x, random)
    return samples_table(
        {
            "sample": indices,
            "label": labels,
            "prediction": predictions(scores),
            "confidence": confidence_of(scores),
            "score": outlying,
            "outlier": np.full(len(indices), outlier),
            **({} if detector.threshold is None else {"flagged": outlying > detector.threshold}),
            **groups_of(samples, indices),
        }
    )


class Guarded(Wrapped):
    """A classifier that a detector watches: an attack that knows of the detector asks for `suspicion`."""

    def __init__(self, model: Classifier, detector: Detector) -> None:
        super().__init__(model)
        self._detector = detector

    def suspicion(self, x: Tensor) -> Tensor:
        return self._detector.suspicion(self._model, x)


def deceived(
    detector: Detector,
    attack: Attack,
    epsilon: float | None,
    model: Classifier,
    samples: Samples,
    indices: Indices,
    seed: int,
    judging: Judging = ONCE,
) -> pa.Table:
    """Outlier scores of what an attack makes of a block of inliers.

    The attack gets what is right untouched, and may ask how suspicious an input is. As for attacks, a result counts
    after one clean pass, inside the bounds and the ball: `broken` says whether it is an adversarial input. What is not
    stays in the records, and out of the figures of separation. epsilon: None for a minimal attack.
    """
    check_gradients(attack, model)
    check_attack(attack, model)
    labels, x, _ = untouched(model, samples, indices)
    prediction, _ = judged_untouched(model, x, labels, indices, judging)
    rows = np.flatnonzero(prediction == labels)
    passes, moved = Passes.zero(len(x)), x.clone()
    broken, escaped = np.zeros(len(x), dtype=bool), np.zeros(len(x), dtype=bool)
    distance, final = np.full(len(x), np.nan), prediction.copy()
    purpose = f"{detector.name}/{attack.name}/{epsilon!r}"
    if len(rows):
        random = SampleRandom.of(seed, purpose, [int(index) for index in indices[rows]])
        target = torch.from_numpy(labels[rows].astype(np.int64)).to(model.device)
        with Untouched(model, f"attack '{attack.name}'"):
            seen = Metered(Guarded(model, detector), passes, rows)
            moved[torch.from_numpy(rows)] = attack.run(seen, x[rows], target, epsilon, random).detach()
        verification = seed_of(seed, "verify", purpose, *map(int, indices[rows[:1]]))
        inside, far, found, _ = verified(
            model, attack.norm, x[rows], moved[rows], epsilon, labels[rows], judging, verification
        )
        escaped[rows] = ~inside
        lost = inside & (found != labels[rows]) & (found != REFUSED)
        broken[rows], final[rows[lost]], distance[rows[lost]] = lost, found[lost], far[lost]
        # what does not count is no outlier, and a detector may be unable to score it
        moved[torch.from_numpy(rows[~lost])] = x[rows[~lost]]
    random = SampleRandom.of(seed, f"{purpose}/score", [int(index) for index in indices])
    with Untouched(model, f"detector '{detector.name}'"):
        outlying = scored(detector, model, moved, random)
    with torch.no_grad():
        sure = confidence_of(model.logits(moved).float())
    return samples_table(
        {
            "sample": indices,
            "label": labels,
            "prediction": prediction,
            "confidence": sure,
            "broken": [[value] for value in broken.tolist()],
            "distance": pa.array(distance, mask=np.isnan(distance)),
            "adversarial_prediction": final,
            "escaped": escaped,
            "forwards": passes.forwards,
            "backwards": passes.backwards,
            "gradients": [str(model.gradients)] * len(x),
            "score": outlying,
            "outlier": np.ones(len(x), dtype=bool),
            **({} if detector.threshold is None else {"flagged": outlying > detector.threshold}),
            **groups_of(samples, indices),
        }
    )


def cost(
    label: str,
    detector: Detector,
    model: Classifier,
    samples: Samples,
    chosen: Indices,
    seed: int,
    hardware: str | None,
) -> pa.Table:
    """What scoring costs: time beyond one plain pass, in units of that pass, and passes per input.

    Median and order-statistic interval over REPEATS pairs, a pass and a scoring of one batch after each other.
    """
    x = samples.fetch(chosen[:COST_BATCH]).to(model.device)
    passes = Passes.zero(len(x))
    rows = np.arange(len(x))

    def scoring(what: Classifier) -> None:
        detector.score(what, x, SampleRandom.of(seed, "cost", [int(row) for row in rows]))

    def timed(work: Callable[[], object]) -> float:
        begun = perf_counter()
        work()
        if model.device.startswith("cuda"):
            torch.cuda.synchronize(model.device)
        return perf_counter() - begun

    def plain() -> Tensor:
        with torch.no_grad():
            return model.logits(x)

    scoring(Metered(model, passes, rows))
    plain()
    ratios: list[float] = []

    def repeated() -> None:
        ratios.extend(timed(lambda: scoring(model)) / timed(plain) - 1 for _ in range(REPEATS))

    reasons = watched(repeated, model.device).reasons(model.device)
    flags = (f"contended: {'; '.join(reasons)}",) if reasons else ()
    middle, low, high = median(np.asarray(ratios))
    name = label.removesuffix(COST_SUFFIX)
    overhead = Figure(name=names.overhead(name), value=middle, low=low, high=high, n=REPEATS, flags=flags)
    spent = Figure(name=names.detector_passes(name), value=float(passes.forwards.mean()), n=len(x))
    return figures_table([overhead, spent], hardware)


def scored(detector: Detector, model: Classifier, x: Tensor, random: SampleRandom) -> NDArray[np.float64]:
    """The detector's scores (n,). Raises ValueError where it breaks its contract."""
    found = np.asarray(detector.score(model, x, random), dtype=np.float64)
    if found.shape != (len(x),) or np.isnan(found).any():
        raise ValueError(f"detector '{detector.name}' must score each input once, never NaN; got shape {found.shape}")
    return found
