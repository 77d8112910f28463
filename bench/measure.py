"""One task on one loaded model: records. Torch, and no Ray.

The engine, not the attack, decides what is broken. A sample that is wrong untouched is broken at distance 0 and is not
attacked; epsilons are walked upwards, and what is broken at one is broken at all larger ones; a result counts only
after one clean pass of the stored input, inside the bounds and inside the ball.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.attacking import Attacking
from bench.contracts import (
    Attack,
    Budget,
    Certificate,
    Classifier,
    Goal,
    GradientPasses,
    Gradients,
    Judging,
    Keep,
    Knowledge,
    PairedProbe,
    Probe,
    Samples,
    certificates,
)
from bench.errors import PluginError
from bench.examples import Keeper
from bench.goals import targets_of
from bench.gradient_checks import examine
from bench.joint import Joint
from bench.metering import Untouched, judged
from bench.randomness import SampleRandom, seed_of
from bench.records import figures_table, samples_table
from bench.strikes import TOLERANCE
from bench.swift import swift
from bench.token_ids import check_attack, check_vocabulary

ONCE = Judging(passes=1)
NOT_AVERAGED = ["not averaged"]  # the model is stochastic, and the attack follows single passes

Indices = NDArray[np.int64]


def clean(
    model: Classifier, samples: Samples, indices: Indices, examined: int = 0, judging: Judging = ONCE
) -> pa.Table:
    """Predictions, confidences and scores of untouched inputs; of the first `examined`, what gradients are worth."""
    labels, x, scores = untouched(model, samples, indices)
    if labels.max() >= model.classes:
        raise PluginError(
            f"the label {labels.max()} is none of the model's {model.classes} classes, 0 to {model.classes - 1}",
            "labels count from 0; or the model is one for other data",
        )
    prediction, kept = judged_untouched(model, x, labels, indices, judging)
    return samples_table(
        {
            "sample": indices,
            "label": labels,
            "prediction": prediction,
            "signs": _signs(model, x, labels, indices, np.flatnonzero((prediction == labels)[:examined])),
            "confidence": confidence_of(scores),
            "logits": list(scores.cpu().numpy().astype(np.float32)),
            "kept": list(kept[:, None]) if model.stochastic else [None] * len(indices),
            **groups_of(samples, indices),
        }
    )


def _signs(
    model: Classifier, x: Tensor, labels: NDArray[np.int32], indices: Indices, rows: Indices
) -> list[list[str] | None]:
    """What bench.gradient_checks finds at these rows, which are right untouched; None for others and tokens."""
    signs: list[list[str] | None] = [None] * len(x)
    if len(rows) and x.is_floating_point():
        y = torch.from_numpy(labels[rows].astype(np.int64)).to(model.device)
        random = SampleRandom.of(0, "gradient checks", [int(index) for index in indices[rows]])
        with Untouched(model, "the check of the gradients"):
            for row, found in zip(rows, examine(model, x[rows], y, random), strict=True):
                signs[row] = found
    return signs


def attacked(
    attack: Attack,
    epsilons: tuple[float, ...],
    purpose: str,
    model: Classifier,
    samples: Samples,
    indices: Indices,
    seed: int,
    judging: Judging = ONCE,
    keep: Keep | None = None,
    surrogate: Classifier | None = None,
    *,
    goal: Goal = Goal.UNTARGETED,
    budget: Budget | None = None,
    gradient_passes: GradientPasses = GradientPasses.FLOAT32,
    prove: bool = False,
) -> pa.Table:
    """What an attack does to a block of samples.

    epsilons: ascending, in input units. purpose: keeps this attack's random numbers apart from another's. judging: how
    the untouched and the adversarial inputs of a stochastic model are judged. keep: how what it crafts is kept in the
    records (bench.examples). surrogate: what the attack sees in the place of the model, which still judges. goal: with
    a target, only what reaches it is broken. budget: of each sample at each epsilon (bench.budgets).
    gradient_passes: of an attack that is given a faster copy of the model (bench.swift). prove: leave alone what the
    attack's certificate proves.
    """
    seen = surrogate or model
    _check_surrogate(seen, model)
    check_gradients(attack, seen)
    check_attack(attack, model)
    labels, x, scores = untouched(model, samples, indices)
    prediction, unmoved = judged_untouched(model, x, labels, indices, judging)
    n = len(indices)
    attacking = Attacking(
        attack, epsilons, purpose, model, seen, swift(seen, x, gradient_passes) if attack.swift else seen,
        x, labels, indices, prediction, np.repeat(unmoved[:, None], len(epsilons), axis=1),
        _targets(goal, scores, labels, seed, indices), seed, judging, budget,
        Keeper(x, model.bounds, keep), Joint(attack, epsilons, model, indices, goal, budget),
    )  # fmt: skip
    right = np.flatnonzero(prediction == labels)
    proved = _proofs(attack, epsilons, model, x, labels, right) if prove else None
    if attack.minimal:
        attacking.search()
    else:
        attacking.walk(proved)
    blind = seen.stochastic and attack.knowledge is Knowledge.WHITE_BOX and not attack.averages
    table = samples_table(
        {
            "sample": indices,
            "label": labels,
            "prediction": prediction,
            "confidence": confidence_of(scores),
            **attacking.columns(),
            "fit_queries": [attack.fit_queries] * n,
            "gradients": [str(seen.gradients)] * n,
            "signs": [NOT_AVERAGED if blind else None] * n,
            "transferred": [_transferred(attack, model, surrogate)] * n,
            "proved": [None] * n if proved is None else list(proved),
            **groups_of(samples, indices),
        }
    )
    again = seed_of(seed, "verify rounded", purpose, *map(int, indices[:1]))
    return attacking.keeper.beside(table, lambda rounded: judged(model, rounded, labels, judging, again)[0])


def _check_surrogate(seen: Classifier, model: Classifier) -> None:
    if (*seen.input_shape, seen.bounds) != (*model.input_shape, model.bounds):
        raise PluginError(
            f"the attack is crafted on inputs {tuple(seen.input_shape)} in {tuple(seen.bounds)}, "
            f"this model takes {tuple(model.input_shape)} in {tuple(model.bounds)}",
            "craft on a model that takes the same inputs",
        )


def _targets(goal: Goal, scores: Tensor, labels: NDArray[np.int32], seed: int, indices: Indices) -> Tensor | None:
    """Of each sample the class that it is to be moved to: the same for every attack of a suite."""
    if goal is Goal.UNTARGETED:
        return None
    random = SampleRandom.of(seed, "targets", [int(index) for index in indices])
    return targets_of(goal, scores, torch.from_numpy(labels.astype(np.int64)).to(scores.device), random)


def check_gradients(attack: Attack, model: Classifier) -> None:
    """Raises PluginError where the attack needs gradients, and the model that it sees has none."""
    if attack.knowledge is Knowledge.WHITE_BOX and model.gradients is Gradients.NONE:
        raise PluginError(
            f"attack '{attack.name}' needs gradients, and this model has none",
            "take an attack that sees only scores or decisions (`gauntlet list attacks` says which)",
        )


def _transferred(attack: Attack, model: Classifier, surrogate: Classifier | None) -> bool | None:
    """Whether it was crafted on another model than the one that judges; None for an attack that does not transfer."""
    if surrogate is not None:
        return surrogate is not model
    return model.source is not None if attack.knowledge is Knowledge.TRANSFER else None


def certified(
    certificate: Certificate,
    epsilons: tuple[float, ...],
    model: Classifier,
    samples: Samples,
    indices: Indices,
    judging: Judging = ONCE,
) -> pa.Table:
    """At which epsilons a certificate proves each sample of a block. What is wrong untouched is never proved."""
    labels, x, scores = untouched(model, samples, indices)
    prediction, _ = judged_untouched(model, x, labels, indices, judging)
    with Untouched(model, f"certificate '{certificate.name}'"):
        proved = _proved(certificate, epsilons, model, x, labels, np.flatnonzero(prediction == labels))
    return samples_table(
        {
            "sample": indices,
            "label": labels,
            "prediction": prediction,
            "confidence": confidence_of(scores),
            "proved": list(proved),
            **groups_of(samples, indices),
        }
    )


def _proved(
    certificate: Certificate, epsilons: tuple[float, ...], model: Classifier, x: Tensor, labels: Any, rows: Indices
) -> NDArray[np.bool_]:
    """(n, k) bool; rows: those that are right untouched. What is not proved at an epsilon is not at larger ones."""
    proved = np.zeros((len(x), len(epsilons)), dtype=bool)
    for column, epsilon in enumerate(epsilons):
        if len(rows):
            y = torch.from_numpy(labels[rows].astype(np.int64)).to(model.device)
            found = certificate.proves(model, x[rows], y, epsilon).cpu().numpy().astype(bool)
            if found.shape != (len(rows),):
                raise ValueError(f"certificate '{certificate.name}' must judge each input once, got {found.shape}")
            rows = rows[found]
            proved[rows, column] = True
    return proved


def _proofs(
    attack: Attack, epsilons: tuple[float, ...], model: Classifier, x: Tensor, labels: Any, rows: Indices
) -> NDArray[np.bool_] | None:
    """What spares samples an attack; None where it asks for no proof, or its certificate cannot judge the model."""
    if attack.proved_by is None or attack.norm not in certificates.get(attack.proved_by).norms:
        return None
    certificate = certificates.build(attack.proved_by, {"norm": attack.norm})
    try:
        if not len(rows):  # asked all the same: whether it can judge the model is not for one block to say
            _proved(certificate, epsilons, model, x, labels, np.arange(1))
        return _proved(certificate, epsilons, model, x, labels, rows)
    except PluginError:
        return None  # the model is then attacked in full, and the records say that no proof was tried


def probed(probe: Probe, model: Classifier, samples: Samples, artefact: bytes | None, hardware: str | None) -> pa.Table:
    """What a probe measures."""
    with Untouched(model, f"probe '{probe.name}'"):
        return figures_table(probe.measure(model, samples, artefact), hardware)


def compared(
    probe: PairedProbe, model: Classifier, baseline: Classifier, samples: Samples, hardware: str | None
) -> pa.Table:
    """What a probe measures of a model against its baseline."""
    with Untouched(model, f"probe '{probe.name}'"), Untouched(baseline, f"probe '{probe.name}'"):
        return figures_table(probe.compare(model, baseline, samples), hardware)


def check_bounds(model: Classifier, samples: Samples) -> None:
    """Raises PluginError where the data reach beyond the model's bounds: an attack would be clipped out of its ball."""
    (low, high), (least, most) = samples.bounds, model.bounds
    if low < least - TOLERANCE or high > most + TOLERANCE:
        raise PluginError(
            f"the model takes inputs from {least:g} to {most:g}, and the data lie between {low:g} and {high:g}",
            "give the model or the data set the other's `bounds`; models that are trained here take inputs from 0 to 1",
        )


def untouched(model: Classifier, samples: Samples, indices: Indices) -> tuple[NDArray[np.int32], Tensor, Tensor]:
    check_vocabulary(model, samples)
    check_bounds(model, samples)
    x = samples.fetch(indices).to(model.device)
    if x.dtype in (torch.float16, torch.bfloat16):
        raise PluginError(
            f"the data set hands out {str(x.dtype).removeprefix('torch.')}: a small ball has few points in it",
            "hand out float32 inputs; a model may compute in any precision inside",
        )
    torch.manual_seed(
        seed_of("untouched", *map(int, indices[:1]))
    )  # for a plugin that draws globally: at least steadily
    with torch.no_grad():
        scores = model.logits(x)
    if scores.shape != (len(indices), model.classes):
        raise ValueError(f"logits have shape {tuple(scores.shape)}, not ({len(indices)}, {model.classes})")
    return samples.labels[indices].astype(np.int32), x, scores.float()


def judged_untouched(
    model: Classifier, x: Tensor, labels: NDArray[np.int32], indices: Indices, judging: Judging
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    return judged(model, x, labels, judging, seed_of("judge untouched", *map(int, indices[:1])))


def groups_of(samples: Samples, indices: Indices) -> dict[str, list[list[str]]]:
    """The column `groups` of the records; nothing where the data have none."""
    columns = {name: np.asarray(column)[indices] for name, column in samples.groups.items()}
    if not columns:
        return {}
    return {"groups": [[f"{name}={column[row]}" for name, column in columns.items()] for row in range(len(indices))]}


def confidence_of(scores: Tensor) -> NDArray[np.float32]:
    return scores.double().softmax(dim=1).amax(dim=1).float().cpu().numpy()
