"""Somebody's module at the service: registered by an administrator, named by a user, retired, without a restart."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bench.client import Client
from bench.errors import SuiteError
from tests.journeys.conftest import PATIENCE, SUITE, Project, wait_until
from tests.journeys.test_service import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

MINE = {name: part for name, part in SUITE.items() if name != "plugins"}
BUILT_IN = {
    "name": "plain",
    "models": [{"name": "cnn", "adapter": "small_cnn"}],
    "datasets": [{"dataset": "digits", "limit": 40}],
    "evaluations": {"probes": ["parameters"]},
}
FUSSY = '''
"""It can be imported by the face and not by the dispatcher: as on a machine that lacks a part."""
import sys
from bench.contracts import Adapter, adapter

if "dispatch" in sys.argv:
    raise OSError(f"no table beside {__file__}")


@adapter("fussy")
class Fussy(Adapter):
    """Needs tables."""

    def build(self, weights):
        raise NotImplementedError
'''


class Lab(Project):
    """A project whose folder is on the path of every process, as an installed package is."""

    def environment(self) -> dict[str, str]:
        around = super().environment()
        return {**around, "PYTHONPATH": f"{self.folder / 'site'}:{around.get('PYTHONPATH', '')}"}


@pytest.fixture
def service(project: Project) -> Iterator[Service]:
    site = project.folder / "site"
    site.mkdir()
    (project.folder / "lab.py").rename(site / "lab.py")
    (site / "fussy_lab.py").write_text(FUSSY)
    made = Service(Lab(project.folder))
    yield made
    made.process.terminate()
    made.process.wait(PATIENCE)
    made.log.close()


def ended(client: Client, submission: str) -> dict[str, object]:
    wait_until(lambda: client.get(submission)["ended"] is not None)
    return client.get(submission)


def test_registered_named_measured_and_retired_without_a_restart(service: Service, tmp_path: Path):
    service.wait()
    project, ann = service.project, service.client("ann")
    words = ("tokens", "create", "root", "--role", "admin", "--output", str(service.output))
    root = project.here(*words).strip().splitlines()[-1]
    verb = ("--server", service.url, "--token", root)
    text = yaml.safe_dump(MINE).encode()
    with pytest.raises(SuiteError, match="no adapter 'lab_means'"):
        ann.submit(text)
    assert project.here("adapters", "register", "lab", *verb).splitlines()[-1] == "lab"
    assert "fussy" in project.here("adapters", "register", "fussy_lab", *verb)
    assert "lab_means" in project.here("adapters", "list", *verb)

    mine = ann.submit(text)["id"]
    before = [process.pid for process in service.family()]
    row = ended(ann, mine)
    assert (row["state"], row["failed"]) == ("complete", 0), row
    [line] = ann.leaderboard(mine)["rows"]
    assert 0.85 < line["metrics"]["clean_accuracy"]["value"] < 1
    assert "robust_accuracy/linf/shove/0.1" in line["metrics"]

    fussy = {**BUILT_IN, "name": "fussy", "models": [{"name": "m", "adapter": "fussy"}]}
    broken = ann.submit(yaml.safe_dump(fussy).encode())["id"]
    other = ann.submit(yaml.safe_dump(BUILT_IN).encode())["id"]
    again = ann.submit(text)["id"]
    assert project.here("adapters", "retire", "lab", *verb) == "retired lab\n"
    with pytest.raises(SuiteError, match="'lab_means' is of the module 'lab', retired on"):
        ann.submit(text)
    assert ended(ann, again)["state"] == "complete", "what was accepted goes on"
    assert ended(ann, other)["state"] == "complete"
    row = ended(ann, broken)
    assert row["state"] == "failed"
    assert "plugin 'fussy_lab' cannot be imported: OSError('no table beside fussy_lab.py')" in str(row["message"])
    assert set(before) & {process.pid for process in service.family()}, "the same processes"
    listed = json.loads(project.here("adapters", "list", "--modules", *verb, "--format", "json"))
    assert [(line["module"], line["retired"] is None) for line in listed] == [("fussy_lab", True), ("lab", False)]
