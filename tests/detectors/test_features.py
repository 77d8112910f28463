"""Fitted detectors against scikit-learn, scipy and a few lines of numpy."""

import numpy as np
import pytest
import torch
from scipy import special
from scipy.spatial.distance import cdist
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.neighbors import LocalOutlierFactor

from bench.detectors._features import Moments
from bench.detectors.knn import NearestNeighbours
from bench.detectors.mahalanobis import Mahalanobis
from bench.detectors.odin_pca import OdinPca, rank
from bench.detectors.vim import Vim
from bench.errors import DataError, PluginError
from tests.detectors import nets

FIT, X = nets.samples(), nets.inputs(40, seed=9)
ALL = torch.from_numpy(np.arange(len(FIT)))
INSIDE = nets.inputs(120)


def fitted(detector):
    return detector.restore(detector.fit(nets.model(), FIT, seed=0))


def scores(detector, x=X):
    return detector.score(nets.model(), x, nets.streams(len(x)))


def pooled(x):
    return nets.features(x, "norm").reshape(len(x), 4, 16).mean(axis=2)


@pytest.mark.parametrize("r2", [0.5, 0.75, 0.9, 0.99])
@pytest.mark.parametrize("layer", ["act", "norm"])
def test_rss_and_mahalanobis_are_those_of_scikit_learns_pca(r2: float, layer: str) -> None:
    pca = PCA(r2, svd_solver="full").fit(nets.features(INSIDE, layer))
    a = nets.features(X, layer)
    t = pca.transform(a)
    options = {"r2": r2, "layer": layer, "threshold_source": "train", "fit_batch": 50}
    rss = fitted(OdinPca(**options))
    assert len(rss.known("components")) == pca.n_components_
    assert scores(rss) == pytest.approx(((a - pca.inverse_transform(t)) ** 2).sum(axis=1), rel=1e-9)
    distance = fitted(OdinPca(scores=("mahalanobis",), **options))
    assert scores(distance) == pytest.approx(np.sqrt((t**2 / pca.explained_variance_).sum(axis=1)), rel=1e-9)


def test_pooling_averages_each_channel() -> None:
    pca = PCA(0.9, svd_solver="full").fit(pooled(INSIDE))
    a = pooled(X)
    rss = fitted(OdinPca(layer="norm", pool=True, r2=0.9, threshold_source="train"))
    assert scores(rss) == pytest.approx(((a - pca.inverse_transform(pca.transform(a))) ** 2).sum(axis=1), rel=1e-6)


def test_the_local_outlier_factor_is_scikit_learns_with_its_sign_turned() -> None:
    pca = PCA(0.9, svd_solver="full").fit(nets.features(INSIDE))
    inside = pca.transform(nets.features(INSIDE))
    reference = LocalOutlierFactor(n_neighbors=20, novelty=True).fit(inside)
    lof = fitted(OdinPca(scores=("lof",), r2=0.9, threshold_source="train"))
    assert scores(lof) == pytest.approx(-reference.score_samples(pca.transform(nets.features(X))), rel=1e-5)
    assert lof.threshold == pytest.approx(np.quantile(-reference.negative_outlier_factor_, 0.9), rel=1e-5)


def test_a_far_input_scores_higher_than_a_near_one_by_every_score() -> None:
    far = nets.features(INSIDE).mean(axis=0) + 10 * np.ones(12)
    for score in ("rss", "mahalanobis", "lof"):
        detector = fitted(OdinPca(scores=(score,), r2=0.9))
        near = detector._distances(nets.features(X), themselves=False)
        assert (detector._distances(far[None], themselves=False) > near.max()).all()


def test_combined_flags_are_the_flags_of_the_parts() -> None:
    parts = [fitted(OdinPca(scores=(score,), r2=0.9, quantile=0.6)) for score in ("rss", "lof")]
    flags = np.stack([scores(part) > part.threshold for part in parts])
    for combine, expected in (("or", flags.any(axis=0)), ("and", flags.all(axis=0))):
        both = fitted(OdinPca(scores=("rss", "lof"), r2=0.9, quantile=0.6, combine=combine))
        assert both.threshold == 1.0
        assert ((scores(both) > both.threshold) == expected).all()
    assert flags.any(axis=0).sum() > flags.all(axis=0).sum() > 0


def test_the_rank_is_the_smallest_whose_share_exceeds_r2() -> None:
    assert rank(np.array([6.0, 3.0, 1.0]), 0.5) == 1
    assert rank(np.array([6.0, 3.0, 1.0]), 0.6) == 2
    assert rank(np.array([6.0, 3.0, 1.0]), 0.95) == 3
    assert rank(np.array([6.0, 3.0, 1e-15, 0.0]), 0.9999999999) == 2
    with pytest.raises(PluginError, match="do not vary"):
        rank(np.zeros(3), 0.5)


def test_moments_in_blocks_are_those_of_the_whole() -> None:
    random = np.random.default_rng(0)
    whole = torch.from_numpy(random.normal(1e4, 1, (101, 5)))
    found = Moments()
    for block in whole.split(17):
        found.add(block)
    assert found.count == 101
    assert found.mean.numpy() == pytest.approx(whole.numpy().mean(axis=0))
    assert (found.scatter / 100).numpy() == pytest.approx(np.cov(whole.numpy().T), abs=1e-9)


def test_the_threshold_is_a_quantile_of_what_was_kept_apart_or_of_what_was_learnt_from() -> None:
    train = fitted(OdinPca(threshold_source="train", quantile=0.8, r2=0.9))
    assert train.threshold == pytest.approx(np.quantile(scores(train, INSIDE), 0.8))
    val = fitted(OdinPca(val_share=0.25, quantile=0.8, r2=0.9))
    apart = INSIDE[np.random.default_rng(0).permutation(120)[:30]]
    assert val.threshold == pytest.approx(np.quantile(scores(val, apart), 0.8))


def test_mahalanobis_is_scikit_learns_within_class_covariance() -> None:
    z, labels = nets.features(INSIDE), FIT.labels
    means = np.stack([z[labels == label].mean(axis=0) for label in range(3)])
    covariance = EmpiricalCovariance(assume_centered=True).fit(z - means[labels])
    expected = np.min([covariance.mahalanobis(nets.features(X) - mean) for mean in means], axis=0)
    assert scores(fitted(Mahalanobis(threshold_source="train"))) == pytest.approx(expected, rel=1e-8)


def test_knn_is_the_kth_distance_of_normalised_features() -> None:
    def unit(x):
        z = nets.features(x)
        return z / np.linalg.norm(z, axis=1, keepdims=True)

    distances = np.sort(cdist(unit(X), unit(INSIDE)), axis=1)
    knn = fitted(NearestNeighbours(k=5, threshold_source="train"))
    assert scores(knn) == pytest.approx(distances[:, 4], rel=1e-5)
    own = np.sort(cdist(unit(INSIDE), unit(INSIDE)), axis=1)[:, 5]  # without itself
    assert knn.threshold == pytest.approx(np.quantile(own, 0.9), rel=1e-5)


def test_vim_is_its_equations() -> None:
    head = nets.model().module.head
    w, b = head.weight.double().numpy(), head.bias.double().numpy()
    u = -np.linalg.pinv(w) @ b
    z = nets.features(INSIDE) - u
    _, _, vt = np.linalg.svd(z)
    outside = vt[4:].T
    alpha = nets.logits(INSIDE).max(axis=1).mean() / np.linalg.norm(z @ outside, axis=1).mean()
    residual = np.linalg.norm((nets.features(X) - u) @ outside, axis=1)
    expected = alpha * residual - special.logsumexp(nets.logits(X), axis=1)
    assert scores(fitted(Vim(dimensions=4, threshold_source="train"))) == pytest.approx(expected, rel=1e-6)


def test_too_few_samples_and_too_many_neighbours_are_told() -> None:
    with pytest.raises(PluginError, match="20 neighbours were asked for, among 17"):
        OdinPca(scores=("lof",)).fit(nets.model(), nets.samples(20), 0)
    with pytest.raises(PluginError, match="1 samples are too few"):
        OdinPca().fit(nets.model(), nets.samples(1), 0)


def test_a_layer_that_is_not_there_is_told_with_its_neighbour() -> None:
    with pytest.raises(PluginError, match="no feature layer 'nrm' - did you mean 'norm'"):
        OdinPca(layer="nrm").fit(nets.model(), FIT, 0)


def test_the_state_of_another_detector_is_refused() -> None:
    with pytest.raises(DataError, match="state of detector 'mahalanobis', not of 'odin_pca'"):
        OdinPca().restore(Mahalanobis().fit(nets.model(), FIT, 0))
