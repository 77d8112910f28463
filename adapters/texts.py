"""From texts to token ids: how words are cut, which of them have an id, and Samples made of them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapters.arrays import check_indices, check_labels, digest
from bench.contracts import Bounds, Samples
from bench.errors import DataError

WORD = r"[^\W_]+|[^\w\s]"  # letters and digits, or one other sign; text is put into lower case first
FILLING, UNKNOWN = "", "<unknown>"  # ids 0 and 1: what fills up a shorter text, and a word outside the vocabulary


def tokenize(text: str, pattern: str = WORD) -> list[str]:
    """The words and signs of a text, in lower case, in order."""
    return re.findall(pattern, text.lower())


def vocabulary_of(texts: Iterable[str], size: int) -> tuple[str, ...]:
    """The token of each id: FILLING, UNKNOWN, then the most frequent ones; of equals, the first in the alphabet.

    size: how many tokens at the most, the two included; at least 3.
    """
    counted = Counter(token for text in texts for token in tokenize(text))
    ranked = sorted(counted, key=lambda token: (-counted[token], token))
    return (FILLING, UNKNOWN, *ranked[: size - 2])


def encode(texts: Sequence[str], vocabulary: Sequence[str], length: int, pattern: str = WORD) -> NDArray[np.int64]:
    """(n, length) token ids; what is longer is cut off, what is shorter is filled up with 0."""
    ids = {token: number for number, token in enumerate(vocabulary)}
    out = np.zeros((len(texts), length), dtype=np.int64)
    for row, text in enumerate(texts):
        found = [ids.get(token, 1) for token in tokenize(text, pattern)[:length]]
        out[row, : len(found)] = found
    return out


def text_samples(
    ids: NDArray[np.int64], labels: NDArray[np.int64], vocabulary: tuple[str, ...], names: Sequence[str], where: str
) -> Samples:
    """Samples of token ids (n, length). where: names the data in messages. Raises DataError."""
    if not len(ids):
        raise DataError(f"{where}: no texts", "each split needs one at least")
    empty = np.flatnonzero((ids == 0).all(axis=1))
    if len(empty):
        raise DataError(
            f"{where}: text {empty[0]} has no word ({len(empty)} texts have none)", "take these texts out of the file"
        )
    check_labels(labels, names, where)

    def fetch(indices: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(ids[check_indices(indices, len(ids))])

    return Samples(
        labels=labels,
        fetch=fetch,
        input_shape=ids.shape[1:],
        bounds=Bounds(0, len(vocabulary) - 1),
        class_names=tuple(names),
        digest=digest(ids, labels, list(vocabulary), list(names)),
        vocabulary=vocabulary,
    )
