"""Adversarial inputs as outliers: does a detector notice what an attack makes of inliers? Torch, and no Ray."""

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.contracts import Attack, Classifier, Detector, Gradients, Judging, Knowledge, Samples
from bench.errors import PluginError
from bench.measure import ONCE, Indices, confidence_of, groups_of, judged_untouched, untouched, verified
from bench.metering import Metered, Passes, Untouched
from bench.randomness import SampleRandom, seed_of
from bench.records import REFUSED, samples_table


class Guarded(Classifier):
    """A classifier that a detector watches: an attack that knows of the detector asks for `suspicion`."""

    def __init__(self, inner: Classifier, detector: Detector) -> None:
        self.inner = inner
        self._detector = detector
        for name in ("input_shape", "bounds", "classes", "gradients", "stochastic", "realisation", "runtime"):
            setattr(self, name, getattr(inner, name))
        for name in ("feature_layers", "can_refuse", "device", "loading"):
            setattr(self, name, getattr(inner, name))

    def logits(self, x: Tensor) -> Tensor:
        return self.inner.logits(x)

    def features(self, x: Tensor, layer: str) -> Tensor:
        return self.inner.features(x, layer)

    def refuses(self, x: Tensor) -> Tensor:
        return self.inner.refuses(x)

    def suspicion(self, x: Tensor) -> Tensor:
        return self._detector.suspicion(self.inner, x)

    @property
    def source(self) -> Classifier | None:
        return self.inner.source

    @property
    def module(self) -> nn.Module | None:
        return self.inner.module

    def size_bytes(self) -> int | None:
        return self.inner.size_bytes()


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
    if attack.knowledge is Knowledge.WHITE_BOX and model.gradients is Gradients.NONE:
        raise PluginError(
            f"attack '{attack.name}' needs gradients, and this model has none",
            "take an attack that sees only scores or decisions (`gauntlet list attacks` says which)",
        )
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


def scored(detector: Detector, model: Classifier, x: Tensor, random: SampleRandom) -> NDArray[np.float64]:
    """The detector's scores (n,). Raises ValueError where it breaks its contract."""
    found = np.asarray(detector.score(model, x, random), dtype=np.float64)
    if found.shape != (len(x),) or np.isnan(found).any():
        raise ValueError(f"detector '{detector.name}' must score each input once, never NaN; got shape {found.shape}")
    return found
