"""The adapter `sklearn`: scores of scikit-learn classifiers, from files that cannot run code."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from adapters.sklearn_model import SklearnModel
from bench.contracts import Gradients
from bench.errors import PluginError
from tests.adapters.models import images, sklearn_estimator, skops_bytes

FIELDS = {"input_shape": (1, 8, 8), "classes": 3}
TREE = "sklearn.tree._tree.Tree"


def data(classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(90) % classes
    return np.random.default_rng(1).random((90, 64)) + labels[:, None] / 2, labels


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(max_iter=200),
        make_pipeline(StandardScaler(), RidgeClassifier()),
        SVC(),
        RandomForestClassifier(7, random_state=0, n_jobs=-1),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_its_decisions_are_those_of_the_estimator(estimator) -> None:
    estimator.fit(*data())
    x = images(40) * 1.5
    model = SklearnModel(trusted=(TREE,), **FIELDS).build(skops_bytes(estimator))
    logits = model.logits(x)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert np.array_equal(logits.argmax(1).numpy(), estimator.predict(x.flatten(1).double().numpy()))


def test_softmax_of_the_logits_is_the_probability_of_a_logistic_regression() -> None:
    for classes in (2, 3):
        estimator = sklearn_estimator(classes)
        model = SklearnModel(**(FIELDS | {"classes": classes})).build(skops_bytes(estimator))
        probability = torch.softmax(model.logits(images(10)), 1).numpy()
        np.testing.assert_allclose(probability, estimator.predict_proba(images(10).flatten(1).numpy()), atol=1e-6)


def test_mean_and_std_are_inside() -> None:
    estimator = sklearn_estimator()
    model = SklearnModel(mean=0.5, std=0.25, **FIELDS).build(skops_bytes(estimator))
    truth = estimator.decision_function(((images(5).double() - 0.5) / 0.25).flatten(1).numpy())
    np.testing.assert_allclose(model.logits(images(5)).numpy(), truth, rtol=1e-5, atol=1e-5)


def test_it_is_a_black_box() -> None:
    model = SklearnModel(**FIELDS).build(skops_bytes(sklearn_estimator()))
    assert model.gradients is Gradients.NONE
    assert not model.logits(images(2).requires_grad_()).requires_grad


def test_it_uses_one_thread_whatever_the_file_says() -> None:
    forest = RandomForestClassifier(3, n_jobs=-1, random_state=0).fit(*data())
    model = SklearnModel(trusted=(TREE,), **FIELDS).build(skops_bytes(forest))
    assert model.estimator.n_jobs == 1


def test_a_pickle_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(PluginError, match=r"(?s)runs code when it is loaded.*skops\.io\.dump"):
        SklearnModel(**FIELDS).build(pickle.dumps(sklearn_estimator()))


def test_types_that_are_not_known_to_be_safe_have_to_be_trusted_by_name() -> None:
    forest = RandomForestClassifier(3, random_state=0).fit(*data())
    with pytest.raises(PluginError, match=rf"(?s){TREE}.*`trusted:`"):
        SklearnModel(**FIELDS).build(skops_bytes(forest))


def test_a_file_that_is_damaged_is_refused() -> None:
    with pytest.raises(PluginError, match="is no skops file"):
        SklearnModel(**FIELDS).build(skops_bytes(sklearn_estimator())[:200])


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (
            LogisticRegression().fit(data()[0], data()[1] + 1),
            r"classes of LogisticRegression are \[1, 2, 3\], not 0 ... 2",
        ),
        (sklearn_estimator(2), r"are \[0, 1\], not 0 ... 2"),
        (StandardScaler().fit(data()[0]), "neither decision_function nor predict_proba"),
    ],
    ids=["labels from 1", "two classes", "no classifier"],
)
def test_an_estimator_that_cannot_be_this_model_is_refused(estimator, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        SklearnModel(**FIELDS).build(skops_bytes(estimator))


def test_another_number_of_scores_than_classes_is_refused() -> None:
    labels = np.arange(90) % 4
    one_against_one = SVC(decision_function_shape="ovo").fit(data()[0] + labels[:, None], labels)
    model = SklearnModel(**(FIELDS | {"classes": 4})).build(skops_bytes(one_against_one))
    with pytest.raises(PluginError, match=r"returned shape \(2, 6\) for 2 inputs, not \(2, 4\)"):
        model.logits(images(2))
