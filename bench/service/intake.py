"""What a suite from the network may say: registered names and plain values. No module, no path, no address, no import.

A suite on one's own disk may do all that, since its author is who runs it. Here they are not. The same holds for the
arguments of a model that is registered over the network. Names are those of what is built in, and of what modules bring
that an administrator has registered: those that a suite names are imported when it is read.
"""

import json
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from bench.contracts import REGISTRIES, Plugin
from bench.errors import PluginError, did_you_mean
from bench.service import modules
from bench.service.database import Module
from bench.suite import Suite, no_plugins, parse
from bench.suite_parts import KINDS
from bench.suite_words import leaves
from bench.suite_yaml import Document, Finding, Keys, describe, refusal
from bench.suite_yaml import parse as read

MAX_BYTES = 256 << 10
SOURCE = "suite"  # what stands before line and column in messages

# What paths, addresses and import strings have and no argument needs (a fraction such as 8/255 is read as a number).
SUSPICIOUS = re.compile(r"[/\\:~\x00]|^\.")
PLACES = {"path", "file", "weights", "factory", "uri", "tracking_uri", "url", "repository"}
ASKED = 100  # plugins of a suite whose names are held against those of modules that are not loaded
NO_PLUGIN = {"name", "description", "baseline", "crafted_on", "registered", "resources", "leaderboard"}
TRUST = {"trusted"}  # of adapters whose files can run code
LEAST = {"cpus_per_worker": 0.25}  # each worker is a process with a model loaded
LIMITS = {
    "cpus_per_worker": 256,
    "gpus_per_worker": 16,
    "threads": 64,
    "batch_size": 65_536,
    "timeout": 86_400,
    "retries": 10,
}


def accept(content: bytes, known: Sequence[Module] = (), *, again: bool = False) -> Suite:
    """The suite in YAML or JSON that came over the network. Raises SuiteError with everything that is wrong in it.

    known: the modules that were registered. again: it was accepted before, so that what has been retired since is good.
    """
    document = read(content, SOURCE)
    if findings := [*_unloaded(document, known, again), *_refused(document)]:  # in this order
        raise refusal([*document.findings, *findings])
    with tempfile.TemporaryDirectory(prefix="gauntlet-intake-") as nowhere:
        return parse(content, SOURCE, Path(nowhere), load_plugins=no_plugins)


def needed(content: bytes, known: Sequence[Module], also: Collection[str] = ()) -> list[Module]:
    """The modules that bring what a suite names. also: names of adapters that it needs and does not name itself."""
    document = read(content, SOURCE)
    named = {text for _, text in _texts(document.data, ())} | set(also)
    return [module for module in known if named & _names(module)]


def accept_model(adapter: str, args: Mapping[str, Any], known: Sequence[Module] = ()) -> list[Module]:
    """Whether a model with these arguments, and weights from an upload, may be registered. Raises SuiteError.

    Returns the modules of `known` that it takes to build it.
    """
    content = json.dumps({"adapter": adapter, "args": args}).encode()
    document = read(content, "model")
    findings = [*_unloaded(document, known, again=False), *_walk(document, document.data, ())]
    if not findings and adapter not in REGISTRIES["adapters"]:
        findings.append(document.find(("adapter",), REGISTRIES["adapters"].unknown(adapter)))
    for key in TRUST & args.keys():
        findings.append(
            document.find(("args", key), "is decided where the file lies, not over the network", of_key=True)
        )
    if document.findings or findings:
        raise refusal([*document.findings, *findings])
    return needed(content, known)


def places(cls: type[Plugin]) -> set[str]:
    """The fields of a plugin that no suite from the network may give: what names files, modules or addresses."""
    fields = cls.model_fields.items()
    return {field for field, given in fields if field in PLACES or Path in leaves(given.annotation)}


def _unloaded(document: Document, known: Sequence[Module], again: bool) -> Iterator[Finding]:
    """Load the modules that bring what is named. What is wrong: of a module that cannot be loaded, or was retired."""
    said = list(_texts(document.data, ()))
    for module in known:
        names = _names(module)
        if not (found := [keys for keys, text in said if text in names]):
            continue
        if module.retired and not again:
            yield from _retired(document, module, known)
            continue
        try:
            modules.load(module)
        except PluginError as problem:
            yield document.find(found[0], f"{problem.message} ({problem.hint})" if problem.hint else problem.message)
    yield from _unknown(document, known)


def _retired(document: Document, module: Module, known: Sequence[Module]) -> Iterator[Finding]:
    for keys, kind, name in _plugins(document.data, ()):
        if name in module.brings.get(kind, {}) and name in _names(module):
            near = did_you_mean(name, _there(kind, known) - _names(module))
            message = f"'{name}' is of the module '{module.name}', {modules.retired(module)}{near}"
            yield document.find(keys, f"{message} (`gauntlet adapters list` shows all)")


def _unknown(document: Document, known: Sequence[Module]) -> Iterator[Finding]:
    """Names that are near those of a module which is not loaded: what reads the suite knows of none such."""
    asked = islice(_plugins(document.data, ()), ASKED) if known else ()
    for keys, kind, name in asked:
        there, here = _there(kind, known), REGISTRIES[kind]
        if name not in here and name not in there and (near := did_you_mean(name, there)) != did_you_mean(name, here):
            yield document.find(keys, f"no {here.kind} '{name}'{near} (`gauntlet adapters list` shows all)")


def _there(kind: str, known: Sequence[Module]) -> set[str]:
    """All names that may be used."""
    rows = [module.brings.get(kind, {}) for module in known if not module.retired]
    return set(REGISTRIES[kind]).union(*rows)


def _texts(value: Any, keys: Keys) -> Iterator[tuple[Keys, str]]:
    """Every text that may name a plugin, with its place."""
    if isinstance(value, Mapping):
        for key in value:
            if key not in NO_PLUGIN:
                yield from _texts(value[key], (*keys, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*keys, index))
    elif isinstance(value, str):
        yield keys, value


def _plugins(value: Any, keys: Keys) -> Iterator[tuple[Keys, str, str]]:
    """Place, kind and name of every plugin that is named where it is sure that this is one."""
    for place, text in _texts(value, keys):
        if place[-1] in KINDS:
            yield place, f"{place[-1]}s", text
        elif place[-1] == "family":
            yield place, "adapters", text
        elif place[-2:-1] == ("probes",):
            yield place, "probes", text


def _names(module: Module) -> set[str]:
    """What it brings, without what has been built in since under that name."""
    top = module.name.partition(".")[0]
    return {
        name
        for kind, name in module.names()
        if name not in REGISTRIES[kind] or REGISTRIES[kind].get(name).__module__.partition(".")[0] == top
    }


def _refused(document: Document) -> Iterator[Finding]:
    data = document.data
    if data.get("plugins"):
        yield document.find(
            ("plugins",), "a suite from the network loads no modules: only what is installed", of_key=True
        )
    resources = data.get("resources")
    for key, value in resources.items() if isinstance(resources, dict) else ():
        if key in LEAST and isinstance(value, int | float) and value < LEAST[key]:
            yield document.find(("resources", key), f"at least {LEAST[key]} here, got {describe(value)}")
        elif key in LIMITS and isinstance(value, int | float) and value > LIMITS[key]:
            yield document.find(("resources", key), f"at most {LIMITS[key]} here, got {describe(value)}")
    for top in ("models", "datasets", "evaluations"):
        yield from _walk(document, data.get(top), (top,))


def _walk(document: Document, value: Any, keys: Keys) -> Iterator[Finding]:
    if isinstance(value, Mapping):
        for kind in KINDS.keys() & value.keys():
            yield from _plugin(document, f"{kind}s", value[kind], (*keys, kind), value.get("args"), (*keys, "args"))
        if "family" in value:  # a recipe: its arguments stand beside it
            yield from _plugin(document, "adapters", value["family"], (*keys, "family"), value, keys)
        refused = any(_is_local(f"{kind}s", value[kind]) for kind in KINDS.keys() & value.keys())
        for key, item in value.items():
            here = (*keys, key)
            if refused and key == "args":
                continue  # what is refused as a whole is not gone through
            if "args" in keys and key in PLACES and item is not None:
                message = "names a place, and a suite from the network names none: use what is registered here"
                yield document.find(here, message, of_key=True)
            elif key == "registered":
                continue  # a name with a version, which has a pattern of its own
            else:
                yield from _walk(document, item, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(document, item, (*keys, index))
    elif isinstance(value, str) and SUSPICIOUS.search(value):
        message = f"{describe(value)} looks like a path, an address or an import: a suite from the network has none"
        yield document.find(keys, message)


def _plugin(document: Document, kind: str, name: Any, place: Keys, args: Any, below: Keys) -> Iterator[Finding]:
    """What a plugin of this name takes as a file, and plugins that take nothing else. below: where its `args` stand."""
    registry = REGISTRIES[kind]
    if not isinstance(name, str) or name not in registry:
        return
    cls: type[Plugin] = registry.get(name)
    if _is_local(kind, name):
        message = (
            f"'{name}' works on files, modules or addresses that its arguments name: not in a suite from the network"
        )
        instead = "; say `registered: NAME` of a model that a maintainer has accepted" if kind == "adapters" else ""
        yield document.find(place, message + instead)
        return
    for field in args if isinstance(args, Mapping) else ():
        if field not in PLACES and field in places(cls):
            yield document.find((*below, field), "names a file: not in a suite from the network", of_key=True)


def _is_local(kind: str, name: Any) -> bool:
    registry = REGISTRIES[kind]
    return isinstance(name, str) and name in registry and registry.get(name).local
