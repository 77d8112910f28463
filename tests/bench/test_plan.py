"""A plan covers every sample once, and a key changes with everything that decides a record and nothing else."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.jobs import TaskJob
from bench.plan import DatasetRef, EvaluationRef, ModelRef, Resolved, planned
from bench.records import Kind
from bench.service.tickets import Ticket
from bench.suite import Resources


def model(**changes: Any) -> ModelRef:
    given_ = {"label": "m", "plugin": "torch", "args": {"weights": "/a/w.pt", "k": 1}, "weights": "w1", "source": "s"}
    return ModelRef(**{**given_, "where": ("weights",), **changes})


def dataset(**changes: Any) -> DatasetRef:
    return DatasetRef(
        **{"label": "d", "plugin": "npz", "split": "test", "digest": "x", "size": 10, "classes": 2, **changes}
    )


def attack(**changes: Any) -> EvaluationRef:
    given_ = {"label": "pgd", "plugin": "pgd", "kind": Kind.ATTACK, "norm": "linf", "epsilons": (0.1,)}
    return EvaluationRef(**{**given_, **changes})


def resolved(**changes: Any) -> Resolved:
    return Resolved(
        **{
            "suite": "s", "seed": 0, "block": 4, "threads": 1, "engine": "e",
            "models": (model(),), "datasets": (dataset(),), "evaluations": (attack(),), **changes,
        }
    )  # fmt: skip


def keys(plan: Resolved) -> list[str]:
    return [task.key for cell in plan.cells() for task in cell.tasks()]


@given(size=st.integers(1, 300), block=st.integers(1, 70))
def test_the_tasks_of_a_cell_cover_every_sample_once(size: int, block: int):
    [cell] = resolved(datasets=(dataset(size=size),), block=block).cells()
    tasks = list(cell.tasks())
    assert [i for task in tasks for i in range(task.start, task.stop)] == list(range(size))
    assert len(tasks) == cell.count == planned([cell])
    assert len({task.key for task in tasks}) == len(tasks)


@pytest.mark.parametrize(
    "changes",
    [
        {"models": (model(weights="w2"),)},
        {"models": (model(source="t"),)},
        {"models": (model(args={"k": 2}),)},
        {"models": (model(versions={"torch": "3"}),)},
        {"datasets": (dataset(digest="y"),)},
        {"datasets": (dataset(limit=5),)},
        {"evaluations": (attack(args={"steps": 3}),)},
        {"evaluations": (attack(norm="l2"),)},
        {"evaluations": (attack(epsilons=(0.1, 0.2)),)},
        {"seed": 1},
        {"threads": 2},
        {"engine": "f"},
        {"block": 5},
    ],
)
def test_what_decides_a_record_changes_every_key_and_the_submission(changes: dict[str, Any]):
    assert set(keys(resolved())).isdisjoint(keys(resolved(**changes)))
    assert resolved().submission != resolved(**changes).submission


@pytest.mark.parametrize(
    "changes",
    [
        {"suite": "another"},
        {"models": (model(label="other name"),)},
        {"models": (model(args={"weights": "/elsewhere/w.pt", "k": 1}),)},
        {"datasets": (dataset(label="other name"),)},
        {"datasets": (dataset(plugin="idx", args={"path": "/elsewhere"}),)},
        {"evaluations": (attack(label="other name"),)},
    ],
)
def test_names_and_places_change_no_key(changes: dict[str, Any]):
    assert keys(resolved()) == keys(resolved(**changes))


def test_timings_come_last_and_belong_to_one_hardware():
    latency = attack(label="latency", kind=Kind.PROBE, exclusive=True, hardware="h1")
    plan = resolved(models=(model(), model(label="n", weights="w2")), evaluations=(latency, attack()))
    assert [cell.evaluation.label for cell in plan.cells()] == ["pgd", "pgd", "latency", "latency"]
    assert [cell.count for cell in plan.cells()] == [3, 3, 1, 1]
    other = resolved(evaluations=(latency.model_copy(update={"hardware": "h2"}),))
    assert set(keys(plan)).isdisjoint(keys(other))


def test_what_a_probe_is_told_to_last_comes_on_top_of_the_timeout():
    mlperf = attack(label="mlperf", kind=Kind.PROBE, exclusive=True, hardware="h1", least_seconds=600.0)
    plan = resolved(evaluations=(mlperf, attack()))
    quick, long = (TaskJob(next(cell.tasks())) for cell in plan.cells())
    stream = SimpleNamespace(resources=Resources(timeout=10.0), submission="s")
    assert [Ticket(job, stream, 1.0, 0.0).timeout for job in (quick, long)] == [10.0, 610.0]


def test_a_pattern_chooses_cells():
    plan = resolved(models=(model(), model(label="n")))
    assert [cell.label for cell in plan.cells("n/*")] == ["n/d/pgd"]
    assert list(plan.cells("nothing/*")) == []


def test_a_detectors_cell_covers_its_outliers_behind_the_inliers():
    ref = attack(label="msp", kind=Kind.DETECTOR, outliers=dataset(digest="o", size=7))
    [cell] = resolved(evaluations=(ref,)).cells()
    assert cell.size == 17
    assert list(cell.tasks())[-1].stop == 17
