"""A detector's fit is a task: made once, kept by its content, and scored with wherever the scores are made."""

from pathlib import Path

import numpy as np
import pytest

import tests.detectors.plugins  # noqa: F401 - registers a model and its data
from bench import detection, plugins
from bench.contracts import detectors
from bench.disturbance import Disturbance
from bench.names import COST_SUFFIX
from bench.plan import CellPlan
from bench.records import Kind, Reason, decode
from bench.resolve import Resolver
from bench.store import Store
from bench.suite import Suite
from bench.worker import Failed, FitTask, Measured, Worker
from tests.detectors.nets import Quiet

plugins.load_built_in()


def suite(detector: dict, **changes) -> Suite:
    entry = {"detector": "odin_pca", "name": "rss", "outliers": {"dataset": "t_far"}, **detector}
    return Suite.model_validate(
        {
            "name": "fits",
            "models": [{"name": "net", "adapter": "t_small"}],
            "datasets": [{"dataset": "t_near"}],
            "evaluations": {"detectors": [entry]},
            "resources": {"batch_size": 16},
            **changes,
        }
    )


def resolver(store: Store, asked: Suite) -> Resolver:
    return Resolver(store, asked, "hardware")


def fit(store: Store, asked: Suite) -> FitTask:
    [task] = resolver(store, asked).resolve()[1]
    outcome = Worker([], store.blob).fit(task, Quiet())
    assert isinstance(outcome, Measured)
    store.set_trained(task.key, store.put_blob(outcome.data), outcome.seconds)
    return task


def cell(store: Store, asked: Suite, label: str = "rss") -> CellPlan:
    resolved, todo = resolver(store, asked).resolve()
    assert todo == []
    return next(cell for cell in resolved.cells() if cell.evaluation.label == label)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_a_fit_is_planned_once_and_not_again_when_it_is_done(store: Store) -> None:
    resolved, todo = resolver(store, suite({})).resolve()
    assert [task.label for task in todo] == ["rss on net"]
    assert resolved.fits[0].state is None
    task = fit(store, suite({}))
    found, todo = resolver(store, suite({})).resolve()
    assert todo == []
    assert found.submission == resolved.submission
    assert (found.fits[0].key, found.fits[0].data.split) == (task.key, "train")
    assert found.fits[0].seconds > 0
    assert found.fits[0].size == len(store.blob(found.fits[0].state))


def test_its_identity_is_model_detector_data_seed_and_threads(store: Store) -> None:
    def key(detector: dict, **changes) -> str:
        return resolver(store, suite(detector, **changes)).resolve()[1][0].key

    same = {
        key({}),
        key({"name": "other"}),
        key({"outliers": {"dataset": "t_near"}}),
        key({"fit_on": {"dataset": "t_near", "split": "train"}}),
    }
    others = [
        key({"args": {"r2": 0.5}}),
        key({"fit_on": {"dataset": "t_far"}}),
        key({"fit_on": {"dataset": "t_near", "split": "train", "limit": 50}}),
        key({}, seed=1),
        key({}, resources={"batch_size": 16, "threads": 2}),
        key({}, models=[{"name": "net", "adapter": "t_small", "args": {"dropout": 0.5}}]),
    ]
    assert len(same) == 1
    assert len({*same, *others}) == 1 + len(others)


def test_tasks_have_other_keys_when_the_state_is_another(store: Store) -> None:
    keys = set()
    for seed in (0, 1):
        asked = suite({}, seed=seed)
        fit(store, asked)
        keys.add(next(cell(store, asked).tasks()).key)
    assert len(keys) == 2


def test_scores_in_tasks_are_those_of_the_whole_and_carry_the_flags(store: Store) -> None:
    asked = suite({"args": {"quantile": 0.5}})
    fit(store, asked)
    plan = cell(store, asked)
    worker = Worker([], store.blob)
    outcomes = [worker.run(task) for task in plan.tasks()]
    assert all(isinstance(outcome, Measured) for outcome in outcomes)
    tables = [decode(outcome.data).to_pydict() for outcome in outcomes]
    scores, outlier, flagged = (
        np.concatenate([table[name] for table in tables]) for name in ("score", "outlier", "flagged")
    )
    ready = detectors.build("odin_pca", {"quantile": 0.5}).restore(store.blob(plan.fit.state))
    assert (flagged == (scores > ready.threshold)).all()
    assert outlier.sum() == 40
    assert scores[outlier].mean() > scores[~outlier].mean()
    again = [Worker([], store.blob).run(task).data for task in reversed(list(plan.tasks()))]
    assert again[::-1] == [outcome.data for outcome in outcomes]


def test_the_cost_of_a_detector_is_an_evaluation_of_its_own_that_uses_the_same_fit(store: Store) -> None:
    asked = suite({"cost": True})
    fit(store, asked)
    plan = cell(store, asked, f"rss{COST_SUFFIX}")
    assert plan.evaluation.kind is Kind.COST
    assert plan.evaluation.exclusive
    assert plan.fit.state == cell(store, asked).fit.state
    [task] = plan.tasks()
    figures = {figure["name"]: figure for figure in decode(Worker([], store.blob).run(task).data).to_pylist()}
    assert set(figures) == {"overhead/rss", "detector_passes/rss"}
    assert figures["detector_passes/rss"]["value"] == 1
    assert figures["overhead/rss"]["value"] > -1
    assert {*figures} <= set(asked.metric_names())


def test_a_fit_that_fails_says_why(store: Store) -> None:
    [task] = resolver(store, suite({"args": {"layer": "nrm"}})).resolve()[1]
    outcome = Worker([], store.blob).fit(task, Quiet())
    assert isinstance(outcome, Failed)
    assert outcome.reason is Reason.ADAPTER
    assert "no feature layer 'nrm' - did you mean 'norm'" in outcome.message


def test_a_detector_that_needs_no_fit_plans_none(store: Store) -> None:
    resolved, todo = resolver(store, suite({"detector": "energy"})).resolve()
    assert (resolved.fits, todo) == ((), [])


def test_each_block_that_a_fit_asks_for_is_a_sign_of_life(store: Store) -> None:
    [task] = resolver(store, suite({"args": {"fit_batch": 20}})).resolve()[1]
    report = Quiet()
    Worker([], store.blob).fit(task, report)
    shares = [done / total for done, total in report.steps]
    assert len(shares) >= 5  # 90 samples to learn from, 10 for the threshold
    assert shares == sorted(shares)
    assert shares[0] == 0.2
    assert shares[-1] == 1


def test_a_cost_that_was_disturbed_is_flagged(store: Store, monkeypatch) -> None:
    def crowded(work, device):
        work()
        return Disturbance(share=0.5, switches=300.0, drift=0.0)

    monkeypatch.setattr(detection, "watched", crowded)
    asked = suite({"cost": True})
    fit(store, asked)
    [task] = cell(store, asked, f"rss{COST_SUFFIX}").tasks()
    overhead, passes = decode(Worker([], store.blob).run(task).data).to_pylist()
    assert overhead["flags"] == [
        "contended: its thread had the core for 50% of the time; 300 involuntary context switches per second"
    ]
    assert passes["flags"] == []
