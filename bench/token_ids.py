"""Texts: inputs that are ids of tokens. Which plugins may meet them, and how far an attack moved one."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Attack, Classifier, Samples
from bench.errors import PluginError

FILLING = 0  # the id that fills up a shorter text
SMALLEST = 1e-4  # in the denominator of the gain, so that an untouched text has one


def check_vocabulary(model: Classifier, samples: Samples) -> None:
    """Raises PluginError where one has token ids and the other has not, or where they number different tokens."""
    if model.vocabulary == samples.vocabulary:
        return
    if not model.vocabulary or not samples.vocabulary:
        apart = ("continuous inputs", "token ids") if samples.vocabulary else ("token ids", "continuous inputs")
        raise PluginError(
            f"the model takes {apart[0]}, and the data are {apart[1]}",
            "evaluate text classifiers on data sets of texts, and others on images or tables",
        )
    pairs = zip(model.vocabulary, samples.vocabulary, strict=False)
    place = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
    what = (
        f"{len(model.vocabulary)} tokens against {len(samples.vocabulary)}"
        if place is None
        else f"id {place} is '{model.vocabulary[place]}' there and '{samples.vocabulary[place]}' here"
    )
    raise PluginError(
        f"the model was trained with another vocabulary than the data have: {what}",
        "give the data set the arguments that it had in training (length, vocabulary, vocabulary_from)",
    )


def check_attack(attack: Attack, model: Classifier) -> None:
    """Raises PluginError where an attack on numbers meets a text, or one on words anything else."""
    if refused := refusal(attack.name, attack.tokens, tokens=bool(model.vocabulary)):
        raise PluginError(refused)


def refusal(name: str, on_tokens: bool, *, tokens: bool) -> str:
    """Why an attack cannot run on these data, and what to do; empty where it can."""
    if on_tokens == tokens:
        return ""
    if tokens:
        return (
            f"'{name}' moves inputs by small amounts, which token ids have no use for: take an attack on words "
            "(`word_substitution`)"
        )
    return f"'{name}' replaces words, and these data are no texts: take it out, or evaluate it in a suite of texts"


def gain(model: Classifier, x: Tensor, moved: Tensor) -> NDArray[np.float64]:
    """Adversarial gain of each text, (n,): how far the answer moves, per share of the words that were replaced.

    D_out / (D_in + 1e-4) (Henderson et al. 2018, arXiv:1811.01302), with D_out the total variation between the two
    answers' class probabilities, and D_in the words that differ over the words of the original: both in [0, 1].
    """
    with torch.no_grad():
        before, after = (model.logits(texts).double().softmax(1) for texts in (x, moved))
    out = (before - after).abs().sum(1) / 2
    words = (x != FILLING).flatten(1).sum(1).clamp(min=1)
    found: NDArray[np.float64] = (out / ((x != moved).flatten(1).sum(1) / words + SMALLEST)).cpu().numpy()
    return found
