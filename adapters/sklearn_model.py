"""scikit-learn classifiers: scores without gradients, for black-box attacks."""

import zipfile
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from adapters.described import Described, required
from adapters.torch_classifier import Normalised, check_input, check_output, no_rows, statistics
from bench.contracts import Classifier, Gradients, adapter
from bench.errors import PluginError

SMALLEST = 1e-12  # probabilities below count as this, so that logits stay finite


@adapter("sklearn")
class SklearnModel(Described):
    """A scikit-learn classifier from a skops file; no gradients, so for black-box attacks only.

    trusted: types that you have reviewed and allow in the file, besides those skops knows to be safe (tree ensembles
    need `sklearn.tree._tree.Tree`). Inputs are flattened to (n, features) float64. Logits are `decision_function`, or
    the logarithm of `predict_proba` (not below log 1e-12); the classes have to be 0, 1, ...
    """

    requires: ClassVar[tuple[str, ...]] = ("scikit-learn", "skops", "numpy")

    trusted: tuple[str, ...] = ()

    def build(self, weights: bytes | None) -> "SklearnClassifier":
        return SklearnClassifier(self, _load(required(self, weights, "a skops file"), self.trusted))

    def place(self, classifier: Classifier, device: str) -> Classifier:
        """Stays on the CPU, whatever the device."""
        return classifier


class SklearnClassifier(Classifier):
    """A fitted estimator. One thread per pass: its own `n_jobs` are set to 1."""

    gradients = Gradients.NONE

    def __init__(self, fields: SklearnModel, estimator: Any) -> None:
        self.input_shape = fields.input_shape
        self.bounds = fields.bounds
        self.classes = fields.classes
        self.gradients_reason = "scikit-learn has none"
        self.estimator = estimator
        self._prepare = Normalised(nn.Identity(), *statistics(fields.input_shape, fields.mean, fields.std))
        self._score = next((name for name in ("decision_function", "predict_proba") if hasattr(estimator, name)), "")
        if not self._score:
            raise PluginError(
                f"{type(estimator).__name__} has neither decision_function nor predict_proba",
                "use a classifier that gives scores (SVC: probability=True, or the default decision_function)",
            )
        known = np.asarray(getattr(estimator, "classes_", ()))
        if not np.array_equal(known, np.arange(fields.classes)):
            raise PluginError(
                f"the classes of {type(estimator).__name__} are {known.tolist()}, not 0 ... {fields.classes - 1}",
                "fit it on integer labels that start at 0, or correct `classes` of the model",
            )
        parameters = estimator.get_params()
        estimator.set_params(**{name: 1 for name in parameters if name.split("__")[-1] == "n_jobs"})

    def logits(self, x: Tensor) -> Tensor:
        """(n, classes) float32 without gradient. Two classes: (0, score), whose softmax is the sigmoid of the score."""
        check_input(x, self.input_shape)
        if not len(x):
            return no_rows(x, self.classes).detach()
        rows = self._prepare(x.detach().to(torch.float64)).flatten(1).numpy()
        scores = np.asarray(getattr(self.estimator, self._score)(rows), dtype=np.float64)
        if self._score == "predict_proba":
            scores = np.log(np.maximum(scores, SMALLEST))
        elif scores.ndim == 1:
            scores = np.stack([np.zeros_like(scores), scores], axis=1)
        return check_output(torch.from_numpy(scores), len(x), self.classes)


def _load(data: bytes, trusted: tuple[str, ...]) -> Any:
    if not zipfile.is_zipfile(BytesIO(data)) or "schema.json" not in zipfile.ZipFile(BytesIO(data)).namelist():
        raise PluginError(
            "the file is no skops file; a pickle or joblib file runs code when it is loaded, which Gauntlet never does",
            "where you trust it, load it yourself and save it with `skops.io.dump(estimator, path)`",
        )
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return skops.io.loads(data, trusted=list(trusted))
    except UntrustedTypesFoundException as problem:
        types = [name for name in skops.io.get_untrusted_types(data=data) if name not in trusted]
        raise PluginError(
            f"the file needs types that are not known to be safe: {', '.join(types)}",
            "where you trust whoever made it, add them to `trusted:` of the model",
        ) from problem
    except Exception as problem:  # foreign bytes: skops raises whatever the damage leads to
        raise PluginError(
            f"the skops file cannot be loaded: {problem!r}", "save it again with skops.io.dump"
        ) from problem
