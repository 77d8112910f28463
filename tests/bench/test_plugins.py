"""Plug-ins: found, imported once, shipped as source, and never hiding anything."""

import re
import sys
from pathlib import Path

import pytest

from bench import plugins
from bench.contracts import attacks
from bench.errors import OperatorError, PluginError

BODY = '''
from bench.contracts import Detector, detector

@detector("t_{name}")
class Mine(Detector):
    """A detector."""

    def score(self, model, x):
        return {value}
'''


@pytest.fixture(autouse=True)
def _forget():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("t_plugin"):
            del sys.modules[name]


def write(folder: Path, value: int = 1) -> Path:
    path = folder / "t_plugin.py"
    path.write_text(BODY.format(name="mine", value=value))
    return path


def test_a_module_beside_the_suite_is_imported_and_registers_itself(tmp_path: Path):
    write(tmp_path)
    source = plugins.read_source("t_plugin.py", tmp_path)
    plugins.load_source(source)
    assert "t_mine" in plugins.sys.modules["t_plugin"].Mine.name


def test_a_worker_without_the_file_imports_a_copy_of_it(tmp_path: Path):
    path = write(tmp_path)
    source = plugins.read_source("t_plugin.py", tmp_path)
    path.unlink()
    plugins.load_source(source)
    assert sys.modules["t_plugin"].__file__ != str(path)


def test_a_package_beside_the_suite_is_imported_with_all_its_modules(tmp_path: Path):
    package = tmp_path / "t_plugin_pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text(BODY.format(name="pack", value=1))
    plugins.load_source(plugins.read_source("t_plugin_pack", tmp_path))
    assert "t_plugin_pack.part" in sys.modules


def test_a_plugin_that_would_hide_a_module_is_refused(tmp_path: Path):
    (tmp_path / "json.py").write_text("")
    with pytest.raises(PluginError, match="would hide an installed module"):
        plugins.load_source(plugins.read_source("json.py", tmp_path))


def test_an_import_error_names_the_file_and_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "t_plugin.py").write_text("1 / 0")
    with pytest.raises(PluginError, match=r"t_plugin\.py cannot be imported: ZeroDivisionError"):
        plugins.load_source(plugins.read_source("t_plugin.py", tmp_path))
    assert "t_plugin" not in sys.modules


def test_a_file_that_is_not_there_names_the_nearest_one(tmp_path: Path):
    write(tmp_path)
    with pytest.raises(PluginError, match=r"did you mean 't_plugin\.py'"):
        plugins.read_source("t_plugn.py", tmp_path)
    with pytest.raises(PluginError, match="no module 'nosuchmodule'"):
        plugins.read_source("nosuchmodule", tmp_path)


def test_the_source_of_a_plugin_is_a_part_of_its_identity(tmp_path: Path):
    digests = []
    for value in (1, 2, 1):
        write(tmp_path, value)
        plugins.load_source(plugins.read_source("t_plugin.py", tmp_path))
        digests.append(plugins.source_digest(sys.modules["t_plugin"].Mine))
    assert digests[0] == digests[2] != digests[1]


def test_the_source_of_an_installed_module_that_a_suite_names_is_a_part_of_its_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_loaded", {})
    elsewhere, digests = tmp_path / "suites", []
    elsewhere.mkdir()
    for value in (1, 2, 1):
        path = tmp_path / "t_plugin_there.py"
        path.write_text(BODY.format(name="there", value=value))
        plugins.load_source(plugins.read_source("t_plugin_there", elsewhere))
        digests.append(plugins.source_digest(sys.modules["t_plugin_there"].Mine))
        del sys.modules["t_plugin_there"]
    assert digests[0] == digests[2] != digests[1]


def test_the_source_of_a_plugin_includes_what_it_imports_of_ours():
    plugins.load_built_in()
    closure = plugins._closure(frozenset({attacks.get("pgd").__module__}))
    assert {"attacks.pgd", "attacks.ball"} <= set(closure)
    assert not any(name.startswith("bench.contracts") for name in closure)


def test_a_package_that_shadows_one_of_ours_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plugins.check_import_names()
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "attacks", raising=False)
    with pytest.raises(OperatorError, match="the package 'attacks' is imported from"):
        plugins.check_import_names()


def test_what_the_engine_measures_with_is_a_part_of_its_digest():
    told = {"contracts", "errors", "names", "metrics"}  # words, messages and statistics: they decide no record
    for name in ("measure", "detection"):
        source = (plugins.ROOT / "bench" / f"{name}.py").read_text()
        used = set(re.findall(r"^from bench\.(\w+)", source, flags=re.MULTILINE))
        assert used - told <= set(plugins.ENGINE)
