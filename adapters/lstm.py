"""A small LSTM that classifies texts by their token ids; what it takes for a word is stored with its weights."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from adapters.recipe import Recipe, train
from adapters.reference_training import own_random_numbers
from adapters.texts import WORD, encode
from adapters.torch_classifier import TorchClassifier, load_state, state_from_bytes, state_to_bytes
from bench.contracts import (
    Adapter,
    Bounds,
    DatasetChoice,
    Gradients,
    Report,
    Samples,
    Training,
    adapter,
)
from bench.errors import PluginError

WORDS = "words"  # the key of what stands beside the weights: JSON in UTF-8, as bytes


class TextNet(nn.Module):
    """(n, length) int64 token ids to (n, classes). It reads up to the last id that is not 0: filling costs nothing."""

    def __init__(self, tokens: int, classes: int, embedding: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, embedding, padding_idx=0)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.hidden = nn.Dropout(dropout)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden, classes)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        lengths = ((ids != 0) * places).amax(1).clamp(min=1)
        words = self.dropout(self.embedding(ids))
        packed = pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
        scores: Tensor = self.linear(self.hidden(self.lstm(packed)[1][0][-1]))
        return scores


class TextClassifier(TorchClassifier):
    """A text net with the tokenizer and the vocabulary that it was trained with."""

    input_dtype = torch.int64

    def __init__(self, net: TextNet, length: int, vocabulary: Sequence[str], classes: int, pattern: str) -> None:
        super().__init__(
            net,
            input_shape=(length,),
            bounds=Bounds(0, len(vocabulary) - 1),
            classes=classes,
            gradients=Gradients.NONE,
            feature_layers=("hidden",),
        )
        self.vocabulary = tuple(vocabulary)
        self.pattern = pattern

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(n, length) int64: what `logits` takes for these texts."""
        ids: np.ndarray[Any, Any] = encode(texts, self.vocabulary, self.input_shape[0], self.pattern)
        return torch.from_numpy(ids)


@adapter("lstm")
class Lstm(Adapter):
    """An LSTM with word embeddings that classifies texts, trained on the spot on any data set of texts."""

    data: DatasetChoice = Field(
        default=DatasetChoice(dataset="scipy_docs"), description="what it is trained on: a data set of texts"
    )
    embedding: int = Field(default=64, ge=1, description="numbers that stand for a word")
    hidden: int = Field(default=64, ge=1, description="size of the state")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="share of numbers left out, in training")
    train: Recipe = Field(
        default=Recipe(epochs=10, batch_size=32, learning_rate=0.005), description="how it is trained"
    )
    repeat: int = Field(default=0, ge=0, description="another one, all else equal: joins the suite's seed")

    @model_validator(mode="after")
    def _fits(self) -> "Lstm":
        given = [name for name in ("adversary", "teacher", "exposure") if getattr(self.train, name) is not None]
        if given:
            raise ValueError(f"train: a model of texts learns from the labels: leave `{'`, `'.join(given)}` out")
        return self

    @property
    def untraceable(self) -> str:
        return "it reads token ids, up to the end of each text"

    def build(self, weights: bytes | None) -> TextClassifier:
        if weights is None:
            raise PluginError(
                "model 'lstm' was built without weights",
                "run it through `gauntlet run`, which trains it once, or name its file under `weights`",
            )
        state = state_from_bytes(weights)
        words = _words(state)
        net = TextNet(len(words["vocabulary"]), words["classes"], self.embedding, self.hidden, self.dropout)
        load_state(net, state)
        return TextClassifier(net, words["length"], words["vocabulary"], words["classes"], words["tokenizer"])

    def training(self) -> Training | None:
        return None if self.weights else _Training(self)


class _Training(Training):
    def __init__(self, model: Lstm) -> None:
        self.model = model
        self.data = model.data

    def recipe(self) -> Mapping[str, Any]:
        return self.model.model_dump(mode="json", exclude={"weights", "data"})

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        if not samples.vocabulary:
            raise PluginError(
                f"model 'lstm' reads texts, and '{self.data.dataset}' has inputs of shape {samples.input_shape}",
                "train it on a data set of texts: `scipy_docs`, or your own by `text_file`",
            )
        model, classes = self.model, len(samples.class_names)
        x, y = samples.fetch(np.arange(len(samples))), torch.from_numpy(samples.labels)
        seed += model.repeat
        with own_random_numbers(seed):
            net = TextNet(len(samples.vocabulary), classes, model.embedding, model.hidden, model.dropout)
            train(net, x, y, model.train, seed=seed, report=report)
        words = {
            "tokenizer": WORD,
            "vocabulary": samples.vocabulary,
            "length": samples.input_shape[0],
            "classes": classes,
        }
        text = json.dumps(words, ensure_ascii=False).encode()
        return state_to_bytes({**net.state_dict(), WORDS: torch.frombuffer(bytearray(text), dtype=torch.uint8)})


def _words(state: dict[str, Tensor]) -> dict[str, Any]:
    """Takes the vocabulary out of the state. Raises PluginError where there is none."""
    if WORDS not in state:
        raise PluginError(
            f"the weights have no '{WORDS}': they do not say which id stands for which word",
            "take a file that the adapter 'lstm' has trained",
        )
    found: dict[str, Any] = json.loads(state.pop(WORDS).numpy().tobytes())
    return found
