"""What plugins are and take, as somebody is told who may name them in a suite from the network."""

import re
from typing import Any

from bench import plugins
from bench.contracts import REGISTRIES, Plugin
from bench.errors import PluginError
from bench.plugins import Source
from bench.service.database import Brings
from bench.service.intake import places
from bench.suite_schema import arguments_schema

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # of a plugin: it stands in messages, and on pages
ABOUT = 300  # characters


def offer(kind: str, name: str) -> dict[str, Any]:
    """`about`: its first line; `local`: no suite from the network may name it; of an adapter `arguments`: their JSON
    schema, without those that name files or addresses. Raises PluginError where its fields have no schema."""
    cls: type[Plugin] = REGISTRIES[kind].get(name)
    told: dict[str, Any] = {"about": cls.summary()[:ABOUT], "local": cls.local}
    if kind == "adapters":
        schema, closed = arguments_schema("adapter", name), places(cls)
        fields = {field: given for field, given in schema["properties"].items() if field not in closed}
        required = [field for field in schema["required"] if field not in closed]
        told["arguments"] = {**schema, "properties": fields, "required": required}
    return told


def brought(module: str) -> tuple[str, Brings]:
    """Import an installed module; the digest of its package, and what it registers.

    Raises PluginError for one that cannot be imported, registers nothing that can be named from the network, or
    registers what another package defines.
    """
    top, known = module.partition(".")[0], {kind: set(registry) for kind, registry in REGISTRIES.items()}
    digest = plugins.installed_digest(module)
    plugins.load_source(Source(module, "", {}, pinned=digest))
    found: Brings = {}
    for kind, registry in REGISTRIES.items():
        for name in registry:
            if name in known[kind]:
                continue
            defined = registry.get(name).__module__
            if defined.partition(".")[0] != top:
                raise PluginError(f"'{name}' is defined in {defined}, another package", "register that module")
            if not NAME.fullmatch(name):
                raise PluginError(f"{name!r} cannot name one of its {kind}", "letters, digits, '_', '-' and '.'")
            found.setdefault(kind, {})[name] = offer(kind, name)
    if all(told["local"] for named in found.values() for told in named.values()):
        what = "nothing that a suite from the network may name" if found else "nothing"
        hint = "name the one whose classes stand under @adapter, @attack, ...; entry points need no registering"
        raise PluginError(f"module '{module}' registers {what}", hint)
    return digest, found
