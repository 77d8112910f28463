"""Adversarial inputs as outliers: planned, made, judged and scored as attacks and detectors are."""

from pathlib import Path

import numpy as np
import pytest

from adapters.torch_classifier import TorchClassifier
from bench import plugins
from bench.contracts import Adapter, adapter, attacks, detectors
from bench.detection import deceived
from bench.measure import attacked
from bench.metrics.evidence import evidence
from bench.metrics.outliers import auroc
from bench.metrics.rows import rows
from bench.plan import CellPlan
from bench.records import Cell, decode
from bench.resolve import Resolver
from bench.store import Store
from bench.suite import Suite
from bench.worker import Failed, FitTask, Measured, Worker
from tests.attacks import digits
from tests.detectors import nets

plugins.load_built_in()
PGD = {"attack": "pgd", "norm": "linf", "epsilons": [0.1], "args": {"steps": 10}}
DIGITS = {"dataset": "digits", "split": "train", "limit": 300}


@adapter("t_digits_net")
class DigitsNet(Adapter):
    """A trained net on digits."""

    def build(self, weights: bytes | None) -> TorchClassifier:
        return TorchClassifier(digits.module(), input_shape=(1, 8, 8), classes=10, feature_layers=("4",))


def suite(**entry) -> Suite:
    return Suite.model_validate(
        {
            "name": "deception",
            "models": [{"name": "net", "adapter": "t_digits_net"}],
            "datasets": [{"dataset": "digits", "limit": 40}],
            "evaluations": {
                "detectors": [
                    {"detector": "odin_pca", "name": "rss", "adversarial": PGD, "fit_on": DIGITS} | entry,
                ]
            },
            "resources": {"batch_size": 16},
        }
    )


def plan(store: Store, asked: Suite) -> CellPlan:
    while True:
        resolved, todo = Resolver(store, asked, "hardware").resolve()
        if not todo:
            return next(cell for cell in resolved.cells() if cell.evaluation.label == "rss")
        for task in todo:
            assert isinstance(task, FitTask)
            outcome = Worker([], store.blob).fit(task, nets.Quiet())
            assert isinstance(outcome, Measured)
            store.set_trained(task.key, store.put_blob(outcome.data), outcome.seconds)


def cell(plan: CellPlan, store: Store, *, order: int = 1) -> Cell:
    import pyarrow as pa

    outcomes = {task.start: Worker([], store.blob).run(task) for task in list(plan.tasks())[::order]}
    assert all(isinstance(outcome, Measured) for outcome in outcomes.values()), outcomes
    table = pa.concat_tables([decode(outcomes[start].data) for start in sorted(outcomes)])
    ref = plan.evaluation
    return Cell("net", "digits", "rss", ref.kind, table, plugin=ref.plugin, planned=plan.size)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_each_inlier_is_scored_untouched_and_as_the_attack_left_it(store: Store) -> None:
    made = plan(store, suite())
    assert made.size == 2 * made.dataset.size
    whole = cell(made, store)
    assert whole.table == cell(made, store, order=-1).table
    table = whole.table.to_pydict()
    outlier = np.array(table["outlier"])
    assert outlier.sum() == (~outlier).sum() == made.dataset.size
    assert np.array(table["sample"])[outlier].tolist() == np.array(table["sample"])[~outlier].tolist()
    right = np.array(table["prediction"]) == np.array(table["label"])
    broken = np.array([verdict == [True] for verdict in table["broken"]])
    assert broken.any()
    assert not (broken & ~right).any()
    assert not (broken & ~outlier).any()
    scores = np.array(table["score"])
    same = scores[outlier][~broken[outlier]] == pytest.approx(scores[~outlier][~broken[outlier]], rel=1e-6)
    assert same  # what the attack did not break counts as untouched
    [row] = rows([whole])
    assert row.metrics["auroc/rss"].value == auroc(scores[~outlier], scores[broken])[0]
    flagged = np.array(table["flagged"])
    attackable = outlier & right
    assert row.metrics["broken/rss"].value == broken.sum() / attackable.sum()
    assert row.metrics["evaded/rss"].value == (broken & ~flagged).sum() / attackable.sum()
    assert len(evidence([whole])["auroc/rss"].values) == (~outlier).sum() + broken.sum()
    assert {"broken/rss", "evaded/rss", "auroc/rss"} <= set(suite().metric_names())


def test_the_attack_is_judged_as_attacks_are() -> None:
    """The same verdicts as an attack's own records, where the random numbers are the same: without any."""
    model, samples = nets.model(), nets.samples(24)
    args = {"norm": "linf", "steps": 8, "random_start": False}
    detector, attack = detectors.build("energy", {}), attacks.build("pgd", args)
    found = deceived(detector, attack, 0.2, model, samples, np.arange(24), 0).to_pydict()
    plain = attacked(attack, (0.2,), "x", model, samples, np.arange(24), 0).to_pydict()
    right = np.array(plain["prediction"]) == np.array(plain["label"])
    assert [verdict for verdict, good in zip(found["broken"], right, strict=True) if good] == [
        verdict for verdict, good in zip(plain["broken"], right, strict=True) if good
    ]
    for column in ("adversarial_prediction", "forwards", "backwards", "escaped"):
        assert found[column] == plain[column]


def test_an_adaptive_attack_sees_the_detector_and_evades_it_more_often(store: Store) -> None:
    blind = rows([cell(plan(store, suite()), store)])[0].metrics["evaded/rss"].value
    knowing = {**PGD, "attack": "orthogonal_pgd", "args": {"steps": 40}}
    adaptive = rows([cell(plan(store, suite(adversarial=knowing)), store)])[0].metrics["evaded/rss"].value
    assert adaptive > blind


def test_an_adaptive_attack_on_a_detector_without_a_gradient_fails_and_says_why(store: Store) -> None:
    knowing = {**PGD, "attack": "orthogonal_pgd", "args": {"steps": 2}}
    made = plan(store, suite(adversarial=knowing, args={"scores": ["lof"]}))
    outcomes = [Worker([], store.blob).run(task) for task in made.tasks()]
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    assert failed
    assert all("no gradient that an adaptive attack could follow" in outcome.message for outcome in failed)


def test_the_attack_is_a_part_of_the_identity(store: Store) -> None:
    keys = {
        next(plan(store, suite(adversarial={**PGD, **change})).tasks()).key
        for change in ({}, {"epsilons": [0.2]}, {"args": {"steps": 3}}, {"norm": "l2"}, {"attack": "fgsm", "args": {}})
    }
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"outliers": {"dataset": "notmnist"}}, "either `outliers:`"),
        ({"adversarial": None}, "either `outliers:`"),
        ({"adversarial": {**PGD, "epsilons": [0.1, 0.2]}}, "takes one: name the detector once for each"),
    ],
)
def test_a_detector_has_one_kind_of_outliers(entry: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        suite(**entry)
