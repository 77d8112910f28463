"""Modules of adapters that an administrator registers: from the face to a worker, and back again."""

import json
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

from bench import plugins
from bench.client import ServiceError
from bench.contracts import REGISTRIES
from bench.errors import PluginError, SuiteError
from bench.plan import CellPlan
from bench.resolve import Resolver
from bench.service import apart, intake, modules, offers
from bench.service.access import Role
from bench.service.database import Database, Module, User
from bench.service.modules import Modules
from bench.service.queue import Refused
from bench.store import Store
from bench.worker import Failed, Measured, Worker
from tests.service.house import House, house
from tests.service.lab import FILES, forget, installed

__all__ = ["house", "installed"]  # fixtures

SUITE = {
    "name": "lab",
    "models": [{"name": "flat", "adapter": "lab_flat", "args": {"factor": 2.0}}],
    "datasets": [{"dataset": "digits", "limit": 20}],
    "evaluations": {"attacks": [{"attack": "lab_darken", "norm": "linf", "epsilons": [0.1]}]},
}
TEXT = yaml.safe_dump(SUITE).encode()


def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process apart would find out, found out here: quicker."""

    def at_once(job: str, given: dict[str, str], **_: object) -> dict[str, object]:
        assert job == "module"
        for registry in REGISTRIES.values():
            for name in [name for name in registry if name.startswith("lab_")]:
                del registry._classes[name]
        forget()
        try:
            digest, brings = offers.brought(given["module"])
        except PluginError as problem:
            raise Refused(400, problem.message, problem.hint) from None
        return json.loads(json.dumps({"digest": digest, "brings": brings}))

    monkeypatch.setattr(modules, "apart", at_once)


def row(name: str = "lab_pack.nets") -> Module:
    digest, brings = modules.look(name)
    return Module(name=name, digest=digest, brings=brings, owner="root", registered=time.time(), retired=None)


# --- from end to end


def test_a_module_is_registered_named_measured_and_retired(house: House, installed: Path):
    admin, ann = house.client("root", Role.ADMIN), house.client("ann")
    with pytest.raises(SuiteError, match="no adapter 'lab_flat'"):
        ann.submit(TEXT)
    made = admin.register_adapters("lab_pack.nets")  # a process apart imports it
    assert made["brings"] == {"adapters": ["lab_flat", "lab_local"], "attacks": ["lab_darken"]}
    assert (made["owner"], made["retired"], made["note"]) == ("root", None, "")
    assert "lab_flat" not in REGISTRIES["adapters"], "nobody has asked for it"

    told = ann.adapters()
    names = {line["name"]: line for line in told["adapters"]}
    assert names["lab_flat"]["module"] == "lab_pack.nets"
    assert names["lab_flat"]["about"] == "Scores that are a sum of pixels."
    assert set(names["lab_flat"]["arguments"]["properties"]) == {"factor"}, "no files from the network"
    jsonschema.validate({"factor": 2.0}, names["lab_flat"]["arguments"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"factr": 2.0}, names["lab_flat"]["arguments"])
    assert names["small_cnn"]["module"] == "adapters.reference"
    assert "lab_local" not in names, "it takes modules from its arguments"
    assert {"torch", "mlflow"}.isdisjoint(names)

    known = Modules(house.database).all()
    mine = ann.submit(TEXT)
    assert "lab_flat" in REGISTRIES["adapters"]
    suite = intake.accept(house.queue.get(mine["id"]).text.encode(), known, again=True)
    (done,) = _measured(suite, [modules.source(module) for module in known], house.folder)
    assert isinstance(done, Measured)

    (installed / "scale.py").write_text("SCALE = 3.0\n")
    assert "changed since it was registered" in admin.adapters()["modules"][0]["note"]
    with pytest.raises(SuiteError, match=r"has been changed since it was registered .*adapters register lab_pack.nets"):
        ann.submit(TEXT)
    (installed / "scale.py").write_text(FILES["scale.py"])

    admin.retire_adapters("lab_pack.nets")
    with pytest.raises(SuiteError) as refused:
        ann.submit(TEXT)
    assert "suite:" in str(refused.value)
    assert "'lab_flat' is of the module 'lab_pack.nets', retired on 2" in str(refused.value)
    assert "'lab_darken' is of the module" in str(refused.value), "all that is wrong, at once"
    assert intake.accept(TEXT, Modules(house.database).all(), again=True), "what was accepted goes on"
    assert "lab_flat" not in {line["name"] for line in ann.adapters()["adapters"]}
    with pytest.raises(ServiceError, match=r"retired on .* already"):
        admin.retire_adapters("lab_pack.nets")
    with pytest.raises(ServiceError, match=r"no module 'lab_pack.net' is registered - did you mean 'lab_pack.nets'"):
        admin.retire_adapters("lab_pack.net")
    log = house.call("GET", "/v1/audit?limit=1000", house.token("root", Role.ADMIN)).json()["entries"]
    told = [(e["owner"], e["verb"], e["object"], e["status"]) for e in reversed(log) if "adapters" in e["verb"]]
    assert told == [
        ("root", "register_adapters", "lab_pack.nets", 201),
        ("root", "retire_adapters", "lab_pack.nets", 204),
        ("root", "retire_adapters", "lab_pack.nets", 409),
        ("root", "retire_adapters", "lab_pack.net", 404),
    ]


def _cells(suite: object, folder: Path) -> list[CellPlan]:
    resolved, trainings = Resolver(Store(str(folder / "store")), suite, "no hardware").resolve()  # type: ignore[arg-type]
    assert trainings == []
    return list(resolved.cells(None))


def _measured(suite: object, sources: list[plugins.Source], folder: Path) -> list[object]:
    """By a worker that has just begun, and learns with the task what it needs."""
    forget()
    worker = Worker((), Store(str(folder / "store")).blob)
    return [worker.run(next(iter(cell.tasks())), sources) for cell in _cells(suite, folder) if cell.evaluation.epsilons]


# --- what may be registered


def refused(monkeypatch: pytest.MonkeyPatch, name: str) -> str:
    """The reason, which comes before anything is started."""
    monkeypatch.setattr(apart.subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    with pytest.raises(Refused) as told:
        modules.look(name)
    assert told.value.status == 400
    return str(told.value)


HOSTILE = [
    "", ".", "..", "a..b", ".a", "a.", "/etc/passwd", "../x", "a/b", "a\\b", "a b", "a\n", "a;b", "a-b", "os:system",
    "http://x/y", "a\x00", "x.py/", "üben", "1a", "-m", "--help", "a" * 201, "__main__", "$(id)", "<b>", "lab.__init__",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_dotted_name_is_refused_before_anything_is_imported(
    house: House, monkeypatch: pytest.MonkeyPatch, name: str
):
    assert "no dotted name of a module" in refused(monkeypatch, name)
    token = house.token("hostile", Role.ADMIN)
    answer = house.call("POST", "/v1/adapters", token, json={"module": name})
    assert answer.status_code == 422
    assert all(row.name == "lab_pack.nets" for row in Modules(house.database).all())


@pytest.mark.parametrize(("name", "of"), [("os", "Python"), ("antigravity", "Python"), ("bench.cli", "Gauntlet")])
def test_what_is_ours_or_pythons_is_no_module_of_adapters(monkeypatch: pytest.MonkeyPatch, name: str, of: str):
    assert f"'{name}' is a part of {of}" in refused(monkeypatch, name)


CASES = {
    "nothing": ("import torch\n", r"registers nothing\n"),
    "only what is local": (
        FILES["nets.py"].partition("@attack")[0].replace('@adapter("lab_flat")\n', ""),
        "nothing that a suite from the network may name",
    ),
    "a name that is taken": (FILES["nets.py"].replace("lab_flat", "small_cnn"), "two adapters are named 'small_cnn'"),
    "a name with markup": (FILES["nets.py"].replace("lab_flat", "<b>"), "cannot name one of its adapters"),
    "no such name": ("from lab_pack import nothing_such\n", r"ImportError.*\(__init__\.py\)"),
    "an end": ("import sys; sys.exit('bye')\n", "cannot be imported: SystemExit"),
    "a class of another package": (
        "from bench.contracts import adapter\nfrom lab_other import Other\nadapter('lab_x')(Other)\n",
        "'lab_x' is defined in lab_other, another package",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_a_module_that_brings_nothing_or_too_much_is_refused_with_the_reason(
    installed: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    inside(monkeypatch)
    source, reason = CASES[what]
    (installed / "odd.py").write_text(source)
    (installed.parent / "lab_other.py").write_text(
        'from bench.contracts import Adapter\nclass Other(Adapter):\n    """x"""\n    def build(self, weights): ...\n'
    )
    with pytest.raises(Refused, match=reason) as told:
        modules.look("lab_pack.odd")
    assert str(installed.parent) not in str(told.value), "no path of the server"


def test_a_module_that_is_not_installed_names_the_nearest_one(monkeypatch: pytest.MonkeyPatch):
    told = refused(monkeypatch, "foolbx.nets")
    assert "no module 'foolbx' is installed here - did you mean 'foolbox'?\n  install it on every machine" in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import time; time.sleep(999)\n", "importing it took more than 15 s"),
        ("import os; os._exit(3)\n", "importing it broke the process"),
        ("import ctypes; ctypes.string_at(0)\n", "importing it broke the process"),
        ("x = bytearray(20 << 30)\n", "MemoryError|more memory"),
        ("import os; assert 'GAUNTLET_DATABASE' not in os.environ, 'seen'\n", "registers nothing"),
    ],
)
def test_an_import_that_hangs_or_breaks_costs_an_answer(
    installed: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
):
    (installed / "odd.py").write_text(source)
    monkeypatch.setattr(modules, "SECONDS", 15.0 if "15 s" in reason else 300.0)  # the others end by themselves
    monkeypatch.setenv("GAUNTLET_DATABASE", "postgresql://secret")
    with pytest.raises(Refused, match=reason) as told:
        modules.look("lab_pack.odd")
    assert told.value.status == 400


# --- what suites may say of it


def test_only_what_a_suite_names_is_loaded_and_what_is_broken_is_nobody_elses(
    installed: Path, monkeypatch: pytest.MonkeyPatch
):
    inside(monkeypatch)
    good = row()
    broken = Module(
        name="lab_gone.nets", digest="0" * 32, brings={"adapters": {"lab_lost": {}}}, owner="root", registered=0.0
    )
    for registry in REGISTRIES.values():
        for name in [name for name in registry if name.startswith("lab_")]:
            del registry._classes[name]
    forget()
    other = {**SUITE, "models": [{"name": "lab_lost", "adapter": "small_cnn"}], "evaluations": {}}
    assert intake.accept(yaml.safe_dump(other).encode(), [good, broken]), "a label is no adapter"
    assert "lab_flat" not in REGISTRIES["adapters"]
    assert intake.accept(TEXT, [good, broken]).models[0].adapter == "lab_flat"
    lost = {**SUITE, "models": [{"name": "m", "adapter": "lab_lost"}]}
    with pytest.raises(SuiteError, match=r"no module 'lab_gone' is installed here .install it on every machine"):
        intake.accept(yaml.safe_dump(lost).encode(), [good, broken])
    near = {**SUITE, "models": [{"name": "m", "adapter": "lab_losd"}]}
    with pytest.raises(SuiteError, match="no adapter 'lab_losd' - did you mean 'lab_lost'"):
        intake.accept(yaml.safe_dump(near).encode(), [good, broken])


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"adapter": "lab_local"}, "works on files, modules or addresses"),
        ({"adapter": "lab_flat", "args": {"table": "x"}}, "names a file"),
        ({"adapter": "lab_flat", "args": {"weights": "x"}}, "names a place"),
        ({"recipe": {"family": "lab_local"}}, "works on files, modules or addresses"),
        ({"adapter": "lab_flat", "args": {"factor": "lots"}}, "factor"),
    ],
)
def test_what_holds_for_adapters_that_are_built_in_holds_for_these(
    installed: Path, monkeypatch: pytest.MonkeyPatch, model: dict[str, object], reason: str
):
    inside(monkeypatch)
    with pytest.raises(SuiteError, match=reason):
        intake.accept(yaml.safe_dump({**SUITE, "models": [{"name": "m", **model}]}).encode(), [row()])


def test_a_model_of_an_upload_may_be_built_by_it(installed: Path, monkeypatch: pytest.MonkeyPatch):
    inside(monkeypatch)
    known = [row()]
    assert intake.accept_model("lab_flat", {"factor": 3.0}, known) == known
    assert intake.accept_model("small_cnn", {}, known) == []
    known[0].retired = 86400.0
    with pytest.raises(SuiteError, match="retired on 1970-01-02"):
        intake.accept_model("lab_flat", {}, known)


def test_what_cannot_be_imported_is_tried_again_after_a_minute_and_not_before(
    installed: Path, monkeypatch: pytest.MonkeyPatch
):
    inside(monkeypatch)
    module, asked, look = row(), [], modules.look
    modules._tried.clear()
    forget()
    monkeypatch.setattr(modules, "look", lambda name: asked.append(name) or look(name))
    monkeypatch.setattr(modules, "apart", _refusing)
    for _ in range(3):
        with pytest.raises(PluginError, match=r"module 'lab_pack\.nets': no scale"):
            modules.load(module)
    assert asked == ["lab_pack.nets"]
    inside(monkeypatch)
    monkeypatch.setattr(modules, "AGAIN", 0.0)
    modules.load(module)
    assert len(asked) == 2


def _refusing(*_: object, **__: object) -> dict[str, object]:
    raise Refused(400, "no scale")


# --- what runs is what was registered


def test_a_process_that_has_another_version_of_it_says_so(installed: Path, monkeypatch: pytest.MonkeyPatch):
    inside(monkeypatch)
    before = row()
    modules.load(before)
    (installed / "scale.py").write_text("SCALE = 3.0\n")
    with pytest.raises(PluginError, match=r"has been changed since it was registered"):
        modules.load(before)
    now = Module(name=before.name, digest=plugins.installed_digest(before.name), brings=before.brings)
    with pytest.raises(PluginError, match="loaded here as it was before"):
        modules.load(now)
    assert "restart the service's processes" in modules.note(now)


def test_a_worker_without_it_fails_the_task_and_its_model_and_goes_on(
    installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    inside(monkeypatch)
    suite = intake.accept(TEXT, [module := row()])
    (task,) = [next(iter(cell.tasks())) for cell in _cells(suite, tmp_path) if cell.evaluation.epsilons]
    worker = Worker((), Store(str(tmp_path / "store")).blob)
    forget()
    elsewhere = plugins.Source("lab_pack.nets", "", {}, pinned="0" * 32)
    failed = worker.run(task, [elsewhere])
    assert isinstance(failed, Failed)
    assert (failed.model, "is not here as it was registered" in failed.message) == (True, True)
    assert isinstance(worker.run(task, [modules.source(module)]), Measured)


def test_its_sources_are_a_part_of_what_its_records_are_kept_under(
    installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    inside(monkeypatch)
    keys = []
    for scale in ("1.0", "3.0", "1.0"):
        (installed / "scale.py").write_text(f"SCALE = {scale}\n")
        suite = intake.accept(TEXT, [row()])
        keys.append([task.key for cell in _cells(suite, tmp_path) for task in cell.tasks()])
    assert keys[0] == keys[2]
    assert set(keys[0]).isdisjoint(keys[1]), "what it imports of its own package counts"


# --- the database


def test_a_name_belongs_to_one_module_for_good(database: Database):
    with database.writing() as session:
        session.add(User(name="root", role="admin", created=0.0))
    known = Modules(database, clock=lambda: 86400.0)
    brings = {"adapters": {"wide": {"about": "", "local": False}}}
    known.register("root", "lab_a.nets", "1" * 32, brings)
    with pytest.raises(Refused, match=r"one of the adapters of module 'lab_a.nets' is named 'wide' already"):
        known.register("root", "lab_b.nets", "2" * 32, brings)
    known.register("root", "lab_b.nets", "2" * 32, {"attacks": brings["adapters"]})
    known.retire("lab_a.nets")
    with pytest.raises(Refused, match=r"'lab_a.nets' \(retired on 1970-01-02\) is named 'wide' already"):
        known.register("root", "lab_c.nets", "3" * 32, brings)
    again = known.register("root", "lab_a.nets", "4" * 32, brings)
    assert (again.digest, again.retired) == ("4" * 32, None)
    assert [(found.name, found.digest) for found in known.all()] == [
        ("lab_a.nets", "4" * 32), ("lab_b.nets", "2" * 32),
    ]  # fmt: skip


def test_the_digest_is_of_all_code_of_the_package_and_imports_nothing(installed: Path):
    code = (
        "import sys; from bench.plugins import installed_digest as of; print(of('lab_pack.nets')); print(*sys.modules)"
    )

    def told() -> tuple[str, str]:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        digest, _, names = done.stdout.partition(" ")
        return digest, names

    first, names = told()
    assert "lab_pack" not in names.split()
    assert first == told()[0]
    (installed / "more.txt").write_text("no code")
    assert first == told()[0]
    (installed / "more.py").write_text("")
    assert first != told()[0]
