"""The verbs beside `run`, as a user calls them."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from bench.__main__ import main
from tests.journeys.conftest import HERE, Finished, Project

pytestmark = pytest.mark.timeout(3600)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GAUNTLET_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_a_model_registered_by_name_is_benchmarked_by_that_name(project: Project):
    done = project.gauntlet(
        "models", "register", "shelf", "--adapter", "lab_means", "--plugin", "lab.py", "--output", "out"
    )
    assert done.stdout.strip() == "shelf/1"
    [line] = json.loads(project.here("models", "list", "--output", "out", "--format", "json"))
    assert (line["name"], line["version"], line["adapter"]) == ("shelf", 1, "lab_means")
    assert json.loads(project.here("models", "show", "shelf", "--output", "out"))["adapter"] == "lab_means"
    project.suite(models=[{"name": "direct", "adapter": "lab_means"}, {"name": "shelved", "registered": "shelf/1"}])
    rows = {row["model"]: row for row in project.run("out", "--workers", "1")["rows"]}
    assert rows["shelved"]["failures"] == []
    assert rows["shelved"]["metrics"] == rows["direct"]["metrics"]
    project.here("models", "remove", "shelf", "--output", "out")
    assert json.loads(project.here("models", "list", "--output", "out", "--format", "json")) == []


def test_a_distribution_with_an_entry_point_is_found(project: Project):
    """Installed metadata, as pip would leave them; the module is the user's own."""
    site = project.folder / "site"
    info = site / "lab_tools-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-tools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gauntlet.plugins]\nlab = installed_lab\n")
    shutil.copy(HERE / "lab.py", site / "installed_lab.py")
    words = ["list", "adapters", "--format", "json"]
    assert "lab_means" not in project.here(*words)
    environment = project.environment() | {"PYTHONPATH": str(site)}
    project.environment = lambda: environment  # type: ignore[method-assign]
    assert "lab_means" in project.gauntlet(*words).stdout
    (site / "installed_lab.py").write_text("1 / 0")
    assert (
        "entry point 'lab' (installed_lab) cannot be imported: ZeroDivisionError"
        in project.gauntlet(*words, code=3).stderr
    )


def test_the_adapter_contract_says_what_a_class_keeps_and_breaks(project: Project):
    done = project.gauntlet("check-adapter", "lab_means", "--plugin", "lab.py")
    assert "NO" not in done.stdout.split()
    broken = (
        (project.folder / "lab.py")
        .read_text()
        .replace("return self._net(x.float())", "return self._net(x.float()) + torch.rand(1)")
    )
    (project.folder / "lab.py").write_text(broken)
    done = project.gauntlet("check-adapter", "lab_means", "--plugin", "lab.py", code=3)
    assert "determini" in done.stdout
    assert "NO" in done.stdout.split()


def test_the_schema_accepts_the_quickstart_and_refuses_a_typo(here: Path, capsys: pytest.CaptureFixture[str]):
    import yaml

    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    suite = yaml.safe_load((ROOT / "suites" / "quickstart.yaml").read_text())
    jsonschema.validate(suite, schema)
    suite["evaluations"]["attacks"][0]["epsilon"] = [0.1]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(suite, schema)


@pytest.mark.parametrize("kind", ["attacks", "adapters", "probes", "detectors", "datasets", "suites"])
def test_every_kind_is_listed_with_a_line_about_each(here: Path, capsys: pytest.CaptureFixture[str], kind: str):
    assert main(["list", kind, "--format", "json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert lines
    assert all(line["name"] and line["about"] for line in lines)
    assert main(["list", kind]) == 0
    assert lines[0]["name"] in capsys.readouterr().out


def test_data_that_are_missing_are_named_with_their_place(here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "list"]) == 0
    assert "mnist" in capsys.readouterr().out
    (here / "suite.yaml").write_text("name: x\nmodels: [{name: m, adapter: small_cnn}]\ndatasets: [{dataset: mnist}]\n")
    assert main(["plan", "suite.yaml"]) == 4
    err = capsys.readouterr().err
    assert "t10k-images" in err
    assert str(here / "data") in err
    assert "gauntlet data fetch mnist" in err


def test_a_plan_starts_nothing_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", str(ROOT / "suites" / "quickstart.yaml")]) == 0
    out = capsys.readouterr().out
    assert "train cnn" in out
    assert "30 evaluations never run here" in out
    assert list(here.iterdir()) == []


def test_an_expected_error_shows_no_traceback_unless_asked(here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["leaderboard", "nosuch"]) == 4
    assert "Traceback" not in capsys.readouterr().err
    assert main(["--debug", "leaderboard", "nosuch"]) == 4
    assert "Traceback" in capsys.readouterr().err
    assert main(["run", "--nosuch"]) == 2
    assert main(["run", "nosuch.yaml"]) == 2


def test_a_damaged_store_is_noticed_repaired_and_measured_again(finished: Finished):
    project = finished.project
    before = project.records()
    victim = next((project.folder / "out" / "store" / "records").rglob("*.parquet"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 3] ^= 1
    victim.write_bytes(data)
    assert "1 damaged files" in project.here("store", "verify", "--output", "out", code=4)
    assert "verify --repair" in project.here("leaderboard", "out", code=4)
    project.here("store", "verify", "--repair", "--output", "out")
    project.run("out", "--workers", "1")
    assert project.records() == before
    shutil.rmtree(project.folder / "out" / "runs")
    assert "files were removed" in project.here("store", "gc", "--output", "out")
    assert not list((project.folder / "out" / "store").rglob("*.parquet"))


def test_the_doctor_looks_at_everything_a_run_needs(project: Project):
    out = project.gauntlet("doctor").stdout
    for what in ("import names", "plugins", "processor", "Ray", "starts, with room for"):
        assert what in out
