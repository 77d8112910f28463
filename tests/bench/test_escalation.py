"""What is suspect is attacked again, by what the records call for; the same records call for the same."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from bench import plugins, results
from bench.contracts import Adapter, Classifier, adapters, attacks
from bench.escalation import REMEDIES, STRONGER, Remedy, suspicions
from bench.jobs import AnyJob, TaskJob
from bench.metrics.indicators import SIGNS
from bench.progress import Lines
from bench.records import Cell, Kind, Row, samples_table
from bench.run import Options, run
from bench.runs import Run
from bench.suite import Resources, Suite, parse
from bench.worker import Outcome, Worker
from tests.attacks import digits
from tests.metrics import cells

SUITE = """
name: suspect
plugins: []
models:
  - {name: honest, adapter: t_scaled}
  - {name: masked, adapter: t_scaled, args: {scale: 1000}}
datasets:
  - {dataset: digits, limit: 40}
evaluations:
  escalate: true
  attacks:
    - {attack: pgd, norm: linf, epsilons: [0.02, 0.1], args: {steps: 5, random_start: false}}
resources: {batch_size: 25}
leaderboard: {columns: [clean_accuracy, robust_accuracy/linf/worst/0.1]}
"""
DLR = "robust_accuracy/linf/escalated.linf.apgd_dlr/0.1"
PGD, WORST = "robust_accuracy/linf/pgd/0.1", "robust_accuracy/linf/worst/0.1"


class Scaled(Adapter):
    """The digits net with logits of any scale: a large one masks the gradient of the cross-entropy."""

    scale: float = 1.0

    def build(self, weights: bytes | None) -> Classifier:
        return _Net(digits.module(), self.scale)


class _Net(digits.DigitsNet):
    def __init__(self, module: torch.nn.Module, scale: float) -> None:
        super().__init__(module)
        self.scale = scale

    def logits(self, x: Tensor) -> Tensor:
        return self.scale * super().logits(x)

    @property
    def module(self) -> None:  # its logits are not those of the module
        return None


class Inline:
    """Workers in this very process."""

    def __init__(self) -> None:
        self.worker, self.done = Worker((), lambda key: b""), 0

    def dispatch(
        self, jobs: Iterator[AnyJob], sink: Callable[[AnyJob, Outcome, int], None], *, resources: Resources,
        progress: Callable[[str, int, int], None], canceled: Callable[[], bool], alone: bool,
        sources: Sequence[plugins.Source],
    ) -> None:  # fmt: skip
        for job in jobs:
            assert isinstance(job, TaskJob)
            sink(job, self.worker.run(job.task), 1)
            self.done += 1


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Suite:
    plugins.load_built_in()
    monkeypatch.setattr(Scaled, "name", "t_scaled")
    monkeypatch.setitem(adapters._classes, "t_scaled", Scaled)
    return parse(SUITE.encode(), "s.yaml", tmp_path)


def made(suite: Suite, output: Path) -> tuple[Run, dict[str, Row], int]:
    workers = Inline()
    done = run(suite, SUITE, (), Options(output), Lines(io.StringIO()), workforce=workers)
    assert done.failures == []
    return done, {row.model: row for row in results.rows(done)}, workers.done


def test_a_masked_model_is_attacked_again_with_an_adaptive_loss_and_an_honest_one_is_not(
    suite: Suite, tmp_path: Path
) -> None:
    done, rows, count = made(suite, tmp_path / "out")
    masked, honest = rows["masked"], rows["honest"]
    assert masked.metrics[PGD].value == masked.metrics["clean_accuracy"].value, "the masking worked"
    assert masked.metrics[DLR].value < masked.metrics[PGD].value - 0.1
    assert masked.metrics[WORST].value == masked.metrics[DLR].value
    assert f"{DLR.rpartition('/')[0]}: escalated: run because other figures are suspect: adaptive loss" in masked.flags
    assert not any("escalated" in name for name in honest.metrics)
    assert count == 2 * (2 + 2) + 2
    assert masked.threats["linf/worst"] == honest.threats["linf/worst"], "what was added leaves it comparable"
    assert results.shown(done)[-2:] == (DLR.replace("0.1", "0.02"), DLR)


def test_a_run_that_was_stopped_goes_on_with_the_same_attacks_and_a_finished_one_adds_none(
    suite: Suite, tmp_path: Path
) -> None:
    done, rows, _ = made(suite, tmp_path / "out")
    resolved = done.resolved
    again, same, count = made(suite, tmp_path / "out")
    assert (count, same, again.resolved) == (0, rows, resolved)
    plan = next(plan for plan in resolved.cells() if plan.evaluation.remedy)
    assert plan.model.label == "masked"
    lost = next(plan.tasks()).key
    for path in (tmp_path / "out" / "store").rglob(f"{lost}*"):
        path.unlink()
    _, mended, count = made(suite, tmp_path / "out")
    assert (count, mended) == (1, rows)


def test_without_the_wish_nothing_is_added(suite: Suite, tmp_path: Path) -> None:
    quiet = suite.model_copy(update={"evaluations": suite.evaluations.model_copy(update={"escalate": False})})
    _, rows, count = made(quiet, tmp_path / "out")
    assert not any("escalated" in name for row in rows.values() for name in row.metrics)
    assert count == 2 * (2 + 2)


def test_every_indicator_has_its_remedy_and_every_remedy_an_attack_that_takes_its_arguments() -> None:
    plugins.load_built_in()
    assert set(SIGNS) <= set(REMEDIES)
    for remedy in Remedy:
        for one in STRONGER[remedy]:
            for norm in one.norms:
                attacks.build(one.attack, {**one.args, "norm": norm})


def clean(signs: list[list[str] | None], scores: np.ndarray | None = None) -> Cell:
    n = len(signs)
    logits = np.tile([3.0, 0.0, 1.0], (n, 1)) if scores is None else scores
    columns = {"sample": range(n), "label": [0] * n, "prediction": [0] * n, "logits": list(logits), "signs": signs}
    return Cell("m", "d", "clean", Kind.CLEAN, samples_table(columns))


def attack(name: str, broken: list[bool], knowledge: str, signs: list[str] | None = None) -> Cell:
    made = replace(cells.attack(name, [[one] for one in broken], [0.1]), knowledge=knowledge)
    place = made.table.schema.get_field_index("signs")
    column = pa.array([signs] * len(broken), pa.list_(pa.string()))
    return replace(made, table=made.table.set_column(place, made.table.schema.field(place), column))


def test_the_records_tell_what_is_suspect() -> None:
    honest = clean([[], [], None])
    pgd = attack("pgd", [False] * 3, "white-box")
    assert suspicions([honest, pgd], "linf") == []
    assert suspicions([clean([["no gradient"], ["no gradient"]]), pgd], "linf") == ["no gradient"]
    assert suspicions([clean([[]] * 20 + [["rough"]] * 2), pgd], "linf") == [], "below the room of that sign"
    assert suspicions([clean([[]] * 2, np.eye(3)[:2]), pgd], "linf") == ["probabilities"]
    assert suspicions([clean([[]] * 2, 500 * np.eye(3)[:2]), pgd], "linf") == ["saturated"]
    assert suspicions([honest, attack("pgd", [False] * 3, "white-box", ["not averaged"])], "linf") == ["not averaged"]
    assert suspicions([honest, pgd, attack("square", [True, False, False], "score")], "linf") == ["black box"]
    assert suspicions([honest, pgd, attack("square", [True, False, False], "score")], "l2") == []
