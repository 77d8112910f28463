"""YAML -> Suite, with every mistake at once, each at its line and column.

    suite = load(Path("suites/quickstart.yaml"), overrides=["datasets[0].limit=100"])

The nouns are in bench.suite_parts, the grammar in bench.suite_yaml, the checks in bench.suite_checks.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from bench import suite_yaml
from bench.errors import PluginError
from bench.suite_checks import Checks, LoadPlugins
from bench.suite_overrides import override, use_profile
from bench.suite_parts import (
    AttackSpec,
    DatasetSpec,
    DetectorSpec,
    Evaluations,
    Leaderboard,
    ModelSpec,
    ProbeSpec,
    Resources,
    Suite,
)
from bench.suite_schema import json_schema
from bench.suite_words import troubles
from bench.suite_yaml import Document, Keys

__all__ = [
    "AttackSpec",
    "DatasetSpec",
    "DetectorSpec",
    "Evaluations",
    "Leaderboard",
    "ModelSpec",
    "ProbeSpec",
    "Resources",
    "Suite",
    "json_schema",
    "load",
    "parse",
    "to_yaml",
]


def no_plugins(entries: Sequence[str], folder: Path) -> None:
    """Stands for the loader of plugins where there is none. Raises PluginError."""
    raise PluginError(f"plugin '{entries[0]}' cannot be loaded here", "remove it: only built-in plugins can be used")


def load(
    path: Path,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    roots: Sequence[Path] = (),
    load_plugins: LoadPlugins = no_plugins,
) -> Suite:
    """The suite in a file.

    profile: one of the suite's own, whose changes come first. overrides: `KEY=VALUE` each, such as
    `models[0].args.width=8`; VALUE is YAML. roots: folders besides the suite's own and the current one where files may
    lie; relative paths are looked up beside the suite, then in each of them.
    load_plugins: called with one entry of `plugins:` at a time, and the suite's folder, before names are checked;
    raises PluginError. Afterwards paths among the arguments are absolute, save those of data sets that
    are not there (yet).

    Raises SuiteError with everything that is wrong, in the order of the file.
    """
    return _check(suite_yaml.read(path), path.parent, profile, overrides, roots, load_plugins)


def parse(
    content: bytes,
    source: str,
    folder: Path,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    roots: Sequence[Path] = (),
    load_plugins: LoadPlugins = no_plugins,
) -> Suite:
    """Like `load`, for YAML that is at hand. `source` stands before line and column; paths are relative to `folder`."""
    return _check(suite_yaml.parse(content, source), folder, profile, overrides, roots, load_plugins)


def to_yaml(suite: Suite) -> str:
    """The suite as YAML with all its defaults; reading it back gives an equal suite."""
    return suite_yaml.write(suite.model_dump(mode="json"))


def _check(
    document: Document,
    folder: Path,
    profile: str | None,
    overrides: Sequence[str],
    roots: Sequence[Path],
    load_plugins: LoadPlugins,
) -> Suite:
    if profile is not None:
        use_profile(document, profile)
    for number, assignment in enumerate(overrides):
        override(document, assignment, number)
    checks = Checks(document, folder, roots)
    findings = list(checks.run(load_plugins))
    suite = None
    try:
        suite = Suite.model_validate_json(json.dumps(document.data), strict=True)
    except ValidationError as error:
        told = {finding.keys for finding in findings}
        findings += [
            document.find(trouble.keys, trouble.message, of_key=trouble.at_key)
            for trouble in troubles(error, document.data, Suite)
            if trouble.keys not in told
        ]
    if not any(_concerns_metrics(finding.keys) for finding in (*findings, *document.findings)):
        checks.findings.clear()
        findings += checks.board()
    findings = [finding for finding in findings if not document.is_refused(finding.keys)]
    if findings or document.findings or suite is None:
        raise suite_yaml.refusal([*document.findings, *findings])
    return suite


def _concerns_metrics(keys: Keys) -> bool:
    """Whether a mistake there leaves open which metrics there are, as that of an unknown key at the top does."""
    return not keys or keys[0] in ("evaluations", "plugins") or keys[0] not in Suite.model_fields
