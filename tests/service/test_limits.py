"""The file with the quotas."""

import dataclasses
import math
import re
from pathlib import Path

import pytest

from bench.errors import SuiteError
from bench.service.limits import RATE, limits
from bench.service.queue import Quotas
from bench.service.retention import Days


def test_what_the_file_says_holds_and_the_rest_stays(tmp_path: Path):
    assert limits(None).quotas == Quotas()
    (tmp_path / "quotas.yaml").write_text("running: 2\nbytes: 1000\nseconds: 1.5\nrate: 3\n")
    found = limits(tmp_path / "quotas.yaml")
    assert found.quotas == dataclasses.replace(Quotas(), running=2, bytes=1000, seconds=1.5)
    assert found.rate == 3.0
    (tmp_path / "quotas.yaml").write_text("running: 2\n")
    assert limits(tmp_path / "quotas.yaml").rate == RATE
    (tmp_path / "quotas.yaml").write_text("autoscaled: 7\n")
    assert limits(tmp_path / "quotas.yaml").autoscaled == 7


def test_days_are_told_by_name_and_may_be_for_ever(tmp_path: Path):
    assert limits(None).days == Days()
    assert Days().audit == 365, "a year unless told otherwise"
    (tmp_path / "quotas.yaml").write_text("days: {events: 30, audit: for ever}\n")
    assert limits(tmp_path / "quotas.yaml").days == dataclasses.replace(Days(), events=30, audit=math.inf)


WRONG = {
    "a misspelt name": ("runing: 2\n", r"quotas\.yaml:1:1: runing: no such limit - did you mean 'running'\?"),
    "zero": ("running: 0\n", r"quotas\.yaml:1:10: running: must be a whole number above 0"),
    "half a task": ("running: 1\ntasks: 1.5\n", r"quotas\.yaml:2:8: tasks: must be a whole number"),
    "a word": ("rate: fast\n", r"quotas\.yaml:1:7: rate: must be a number above 0"),
    "no workers": ("autoscaled: 0\n", "autoscaled: must be a whole number above 0"),
    "yes": ("waiting: true\n", "must be a whole number"),
    "days of nothing": ("days: {event: 3}\n", r"1:8: days\.event: nothing of that name.*did you mean 'events'\?"),
    "half a day": (
        "days: {audit: 0.5}\n",
        r"1:15: days\.audit: must be .* 1 at the least, or 'for ever'",
    ),
    "days that are none": ("days: {audit: never}\n", r"days\.audit: must be .* got 'never'"),
    "one number of days": ("days: 30\n", "days: must be a mapping of events, audit"),
    "twice": ("rate: 1\nrate: 2\n", "twice"),
    "a list": ("- 1\n", "mapping"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_mistake_in_it_is_told_with_its_place(what: str, tmp_path: Path):
    (tmp_path / "quotas.yaml").write_text(WRONG[what][0])
    with pytest.raises(SuiteError) as told:
        limits(tmp_path / "quotas.yaml")
    assert re.search(WRONG[what][1], str(told.value))
