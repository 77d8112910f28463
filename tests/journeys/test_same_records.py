"""One worker or several, stopped, killed or not, in any order: the same records, byte for byte."""

import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.journeys.conftest import ATTACKS, Project

pytestmark = pytest.mark.timeout(3600)
BLOCKS = 10  # of 32 among 300 samples


def test_three_workers_stopped_by_ctrl_c_and_then_killed_give_the_bytes_of_one_undisturbed(
    alone: Project, tmp_path: Path
):
    """What the gate holds back cannot end before the signal comes, however late that is."""
    tasks = BLOCKS * (1 + len(ATTACKS))
    words = ("run", "suite.yaml", "--output", "disturbed", "--workers", "3")
    with alone.started(*words, gate=tmp_path) as run:
        run.reach(lambda: len(alone.stored("disturbed")) >= 3)
        run.signal(signal.SIGINT)  # as a terminal does: to the whole group
        out, err = run.end(code=130)
    assert "the same command continues" in err
    assert "Traceback" not in err
    assert out == ""
    stopped = alone.stored("disturbed")
    assert 3 <= len(stopped) < tasks

    tokens = [tmp_path / str(number) for number in range(4)]
    for token in tokens:
        token.touch()
    with alone.started(*words, gate=tmp_path) as victim:
        victim.reach(lambda: len(alone.stored("disturbed")) > tasks - BLOCKS)
        victim.signal(signal.SIGKILL)
    killed = alone.stored("disturbed")
    assert tasks - BLOCKS < len(killed) <= tasks - BLOCKS + len(tokens)
    assert '"running"' in (next((alone.folder / "disturbed" / "runs").iterdir()) / "status.json").read_text()

    document = alone.run("disturbed", "--workers", "3")
    assert document["rows"][0]["failures"] == []
    ended = alone.stored("disturbed")
    assert len(ended) == tasks
    assert stopped.items() <= killed.items() <= ended.items(), "what was measured is not run again"
    assert alone.records("disturbed") == alone.records("one")


def test_another_batch_size_gives_the_same_verdicts(alone: Project):
    alone.run("wide", "--workers", "1", "--batch-size", "256")
    for name in ("one", "wide"):
        alone.records(name)
    narrow, wide = (
        pq.read_table(alone.folder / name / "export.parquet", columns=["evaluation", "sample", "broken"]).to_pylist()
        for name in ("one", "wide")
    )
    assert len(narrow) == len(wide) == (1 + len(ATTACKS)) * 300
    changed = sum(a != b for a, b in zip(narrow, wide, strict=True))
    assert changed <= 0.002 * len(narrow), f"{changed} of {len(narrow)} verdicts depend on the batch size"
