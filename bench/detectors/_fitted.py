"""What every fitted detector has in common: which samples it learns from, its threshold, its state as bytes."""

import json
from abc import abstractmethod
from typing import Annotated, Literal, Self

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr
from torch import Tensor

from bench.contracts import Classifier, Detector, Samples
from bench.detectors._features import Rows, blocks
from bench.errors import DataError, PluginError
from bench.randomness import SampleRandom

Arrays = dict[str, NDArray[np.float64]]


class Fitted(Detector):
    """Learns arrays from inliers, and a threshold: the `quantile` of their own distances.

    On what was learnt from, distances are too small: a threshold from there flags more inliers than 1 − quantile.
    So by default `val_share` of the samples, drawn by the seed, is kept apart for the threshold.
    """

    fits = True
    requires = ("torch", "numpy", "scikit-learn")

    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.9
    threshold_source: Literal["train", "val"] = "val"
    val_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    fit_batch: Annotated[int, Field(gt=0)] = 1000

    _arrays: Arrays = PrivateAttr(default_factory=dict)

    @abstractmethod
    def learn(self, model: Classifier, samples: Samples, rows: Rows) -> Arrays:
        """What is to be remembered of the samples at `rows`."""

    @abstractmethod
    def distances(self, model: Classifier, x: Tensor) -> NDArray[np.float64]:
        """(n, parts): how far inputs lie from what was learnt; a detector with one score has one part."""

    def own_distances(self, model: Classifier, samples: Samples, rows: Rows) -> NDArray[np.float64]:
        """`distances` of the very samples that were learnt from, each as if it were not its own neighbour."""
        return np.concatenate([self.distances(model, x) for x in blocks(model, samples, rows, self.fit_batch)])

    def fit(self, model: Classifier, samples: Samples, seed: int) -> bytes:
        rows = np.arange(len(samples))
        apart = rows
        if self.threshold_source == "val":
            shuffled = np.random.default_rng(seed).permutation(len(samples))
            held = round(self.val_share * len(samples))
            apart, rows = np.sort(shuffled[:held]), np.sort(shuffled[held:])
        if not len(rows) or not len(apart):
            raise PluginError(
                f"detector '{self.name}': {len(samples)} samples are too few to learn from some and set the threshold "
                "on others",
                "fit on more data",
            )
        arrays = self.learn(model, samples, rows)
        ready = self._knowing(arrays)
        if self.threshold_source == "train":
            found = ready.own_distances(model, samples, rows)
        else:
            found = np.concatenate([ready.distances(model, x) for x in blocks(model, samples, apart, self.fit_batch)])
        thresholds = np.quantile(found, self.quantile, axis=0)
        facts = {"detector": self.name, "n_fit": len(rows), "n_threshold": len(apart)}
        whole = {name: np.ascontiguousarray(array) for name, array in {**arrays, "thresholds": thresholds}.items()}
        # one entry: safetensors writes several in any order, and the same state would have many digests
        return safetensors.numpy.save(whole, {"gauntlet": json.dumps(facts)})

    def restore(self, state: bytes) -> Self:
        """Raises DataError for the state of another detector."""
        length = int.from_bytes(state[:8], "little")
        facts = json.loads(state[8 : 8 + length]).get("__metadata__", {}).get("gauntlet", "{}")
        found = json.loads(facts).get("detector")
        if found != self.name:
            raise DataError(f"this is the state of detector '{found}', not of '{self.name}'")
        return self._knowing(safetensors.numpy.load(state))

    def score(self, model: Classifier, x: Tensor, random: SampleRandom) -> NDArray[np.float64]:
        return self.combined(self.distances(model, x))

    def combined(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, parts) -> (n,)"""
        return distances[:, 0]

    @property
    def threshold(self) -> float | None:
        return float(self._arrays["thresholds"][0]) if "thresholds" in self._arrays else None

    def known(self, name: str) -> NDArray[np.float64]:
        """An array that was learnt. Raises PluginError before the fit."""
        if name not in self._arrays:
            raise PluginError(f"detector '{self.name}' has not been fitted", "call `fit`, then `restore` its state")
        return self._arrays[name]

    def tensor(self, name: str, like: Tensor) -> Tensor:
        """The same as a float64 tensor on the device of another."""
        return torch.from_numpy(self.known(name)).to(like.device, torch.float64)

    def _knowing(self, arrays: Arrays) -> Self:
        copy = self.model_copy()
        copy._arrays = arrays
        return copy
