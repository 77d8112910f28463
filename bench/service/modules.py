"""Modules that an administrator has registered: what suites from the network may name beside what is built in.

Code comes in by whoever installs it, on every machine of the service. What is registered is a name and the digest of
the package that it belongs to; a process imports it when a suite needs it, if its package is that very one, and after
a process apart could.
"""

import math
import re
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import packages_distributions
from typing import Any

from sqlalchemy import select, text

from bench import plugins
from bench.errors import PluginError, did_you_mean
from bench.plugins import PACKAGES, Source
from bench.service.apart import apart
from bench.service.database import Brings, Database, Module
from bench.service.queue import Refused

NAME = r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*$"
LONGEST = 200
SECONDS = 60.0  # to import it, and everything built in before
PATH = re.compile(r"(?<![\w.])/(?:[^\s'\"(),:/]+/)+")
AGAIN = 60.0  # seconds before what could not be imported is tried again: something that it needs may have come
_turn = threading.Lock()
_tried: set[tuple[str, str]] = set()  # names and digests of what a process apart could import on this machine
_failed: dict[tuple[str, str], tuple[float, PluginError]] = {}  # and of what it could not, with when and why


class Modules:
    """Modules in a database."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def all(self) -> list[Module]:
        """Retired ones, too: what was accepted before goes on, and their names stay theirs."""
        with self._database.reading() as session:
            return list(session.scalars(select(Module).order_by(Module.name)))

    def register(self, owner: str, name: str, digest: str, brings: Brings) -> Module:
        """A module as it is now; one that is known is registered anew. Raises Refused: 409 for a name that is taken."""
        with self._database.writing() as session:
            if self._database.engine.dialect.name == "postgresql":  # else two could take a name together
                session.execute(text("LOCK TABLE modules IN SHARE ROW EXCLUSIVE MODE"))
            for other in session.scalars(select(Module).where(Module.name != name)):
                for kind, plugin in other.names():
                    if plugin in brings.get(kind, {}):
                        which = f"module '{other.name}'" + (f" ({retired(other)})" if other.retired else "")
                        hint = "give it another name: records and leaderboards tell plugins apart by theirs"
                        raise Refused(409, f"one of the {kind} of {which} is named '{plugin}' already", hint)
            made = session.get(Module, name)
            if made is None:
                made = Module(name=name)
                session.add(made)
            made.digest, made.brings, made.owner = digest, brings, owner
            made.registered, made.retired = self._clock(), None
            return made

    def retire(self, name: str) -> None:
        """New suites cannot name what it brings; what was accepted goes on. Raises Refused: 404, 409."""
        with self._database.writing() as session:
            found = session.get(Module, name, with_for_update=True)
            if found is None:
                near = did_you_mean(name, session.scalars(select(Module.name)))
                raise Refused(404, f"no module '{name}' is registered{near}", "`gauntlet adapters list` shows all")
            if found.retired:
                raise Refused(409, f"module '{name}' is {retired(found)} already", "register it to have it back")
            found.retired = self._clock()


def look(name: str) -> tuple[str, Brings]:
    """Import an installed module in a process apart; the digest of its package and what it registers.

    Raises Refused: 400 with the reason.
    """
    top = name.partition(".")[0]
    if not re.fullmatch(NAME, name) or len(name) > LONGEST:
        raise Refused(400, f"{name[:LONGEST]!r} is no dotted name of a module", "such as my_lab.nets; never a path")
    if top in sys.stdlib_module_names or top in PACKAGES:
        of = "Gauntlet" if top in PACKAGES else "Python"
        raise Refused(400, f"module '{name}' is a part of {of}", "name one that was installed beside it")
    try:
        plugins.installed_digest(name)
    except PluginError as problem:
        raise Refused(400, problem.message + did_you_mean(top, packages_distributions()), problem.hint) from None
    try:
        told = apart("module", {"module": name}, seconds=SECONDS, doing="importing it", hint="does it work at import?")
    except Refused as refused:
        raise Refused(refused.status, without_paths(refused.message), without_paths(refused.hint)) from None
    _tried.add((name, told["digest"]))
    return told["digest"], told["brings"]


def load(module: Module) -> None:
    """Import a registered module in this process. Raises PluginError with the reason, which names no path."""
    name, again = module.name, f"an administrator has to register it again: `gauntlet adapters register {module.name}`"
    if plugins.installed_digest(name) != module.digest:
        raise PluginError(f"module '{name}' has been changed since it was registered", again)
    if plugins.loaded_digest(name) is None:
        with _turn:
            _must_be_importable(name, module.digest)
    try:
        plugins.load_source(source(module))
    except PluginError as problem:
        raise PluginError(without_paths(problem.message), problem.hint) from problem


def _must_be_importable(name: str, digest: str) -> None:
    """Raises PluginError; at once, where that was found out a moment ago: who asks again and again costs nothing."""
    key = name, digest
    if key in _tried:
        return
    when, why = _failed.get(key, (-math.inf, None))
    if why is None or time.monotonic() - when > AGAIN:
        try:
            look(name)
            return
        except Refused as refused:
            why = PluginError(f"module '{name}': {refused.message}", refused.hint)
            _failed[key] = time.monotonic(), why
    raise PluginError(why.message, why.hint)


def source(module: Module) -> Source:
    """What tells a worker to load it, too."""
    return Source(module.name, "", {}, pinned=module.digest)


def note(module: Module) -> str:
    """What keeps this machine, or this process, from using it; empty where nothing does."""
    try:
        now = plugins.installed_digest(module.name)
    except PluginError as problem:
        return problem.message
    if now != module.digest:
        return "changed since it was registered: register it again, and restart the service's processes"
    if plugins.loaded_digest(module.name) not in (None, module.digest):
        return "loaded here as it was before: restart the service's processes"
    return ""


def retired(module: Module) -> str:
    """`retired on 2026-11-21` (UTC)."""
    return f"retired on {datetime.fromtimestamp(module.retired or 0.0, UTC):%Y-%m-%d}"


def without_paths(message: str) -> str:
    """Files by their last names: where they lie on the machine is not for everybody."""
    return PATH.sub("", message)


def as_json(module: Module) -> dict[str, Any]:
    """As the face tells of it."""
    brings = {kind: sorted(named) for kind, named in module.brings.items()}
    return {
        "module": module.name, "brings": brings, "digest": module.digest, "owner": module.owner,
        "registered": module.registered, "retired": module.retired, "note": "" if module.retired else note(module),
    }  # fmt: skip
