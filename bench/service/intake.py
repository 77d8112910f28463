"""What a suite from the network may say: registered names and plain values. No module, no path, no address, no import.

A suite on one's own disk may do all that, since its author is who runs it. Here they are not. The same holds for the
arguments of a model that is registered over the network.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.contracts import REGISTRIES, Plugin
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


def accept(content: bytes) -> Suite:
    """The suite in YAML or JSON that came over the network. Raises SuiteError with everything that is wrong in it."""
    document = read(content, SOURCE)
    if findings := list(_refused(document)):
        raise refusal([*document.findings, *findings])
    with tempfile.TemporaryDirectory(prefix="gauntlet-intake-") as nowhere:
        return parse(content, SOURCE, Path(nowhere), load_plugins=no_plugins)


def accept_model(adapter: str, args: Mapping[str, Any]) -> None:
    """Whether a model with these arguments, and weights from an upload, may be registered. Raises SuiteError."""
    document = read(json.dumps({"adapter": adapter, "args": args}).encode(), "model")
    findings = list(_walk(document, document.data, ()))
    if adapter not in REGISTRIES["adapters"]:
        findings.append(document.find(("adapter",), REGISTRIES["adapters"].unknown(adapter)))
    for key in TRUST & args.keys():
        findings.append(
            document.find(("args", key), "is decided where the file lies, not over the network", of_key=True)
        )
    if document.findings or findings:
        raise refusal([*document.findings, *findings])


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
        kinds = KINDS.keys() & value.keys()
        for kind in kinds:
            yield from _plugin(document, kind, value, keys)
        refused = any(_is_local(kind, value[kind]) for kind in kinds)
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


def _plugin(document: Document, kind: str, entry: Mapping[str, Any], keys: Keys) -> Iterator[Finding]:
    """What a plugin of this name takes as a file, and plugins that take nothing else."""
    name, args = entry[kind], entry.get("args")
    registry = REGISTRIES[f"{kind}s"]
    if not isinstance(name, str) or name not in registry:
        return
    cls: type[Plugin] = registry.get(name)
    if _is_local(kind, name):
        message = (
            f"'{name}' works on files, modules or addresses that its arguments name: not in a suite from the network"
        )
        instead = "; say `registered: NAME` of a model that a maintainer has accepted" if kind == "adapter" else ""
        yield document.find((*keys, kind), message + instead)
        return
    for field in args if isinstance(args, Mapping) else ():
        if field not in PLACES and field in cls.model_fields and Path in leaves(cls.model_fields[field].annotation):
            yield document.find((*keys, "args", field), "names a file: not in a suite from the network", of_key=True)


def _is_local(kind: str, name: Any) -> bool:
    registry = REGISTRIES[f"{kind}s"]
    return isinstance(name, str) and name in registry and registry.get(name).local
