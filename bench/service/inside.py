"""The process in which strangers' files are read, and modules imported for the first time, started by
bench.service.apart: `python -m bench.service.inside JOB`.

A JSON object on stdin, another one on stdout. It imports what its job needs and nothing else.
"""

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.errors import GauntletError, OperatorError


def _scan(given: Mapping[str, Any]) -> dict[str, Any]:
    from bench.service.scan import scan

    return {"kind": scan(Path(given["path"]))}


def _register(given: Mapping[str, Any]) -> dict[str, Any]:
    from bench import models, plugins, verbs

    verbs.prepare()
    for name, digest in given["modules"]:
        plugins.load_source(plugins.Source(name, "", {}, pinned=digest))
    weights = Path(given["path"]).read_bytes()
    args = {**given["args"], "weights": given["file"]}
    version = models.register(given["name"], given["adapter"], args, weights, given["uri"], owner=given["owner"])
    return {"version": version}


def _module(given: Mapping[str, Any]) -> dict[str, Any]:
    from bench import plugins
    from bench.service.offers import brought

    plugins.load_built_in()
    digest, brings = brought(given["module"])
    return {"digest": digest, "brings": brings}


JOBS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "scan": _scan, "register": _register, "module": _module,
}  # fmt: skip


def main() -> None:
    """Only the answer goes to stdout: what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    given = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_DATA, (given["memory"], given["memory"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        told = JOBS[sys.argv[1]](given)
    except GauntletError as problem:
        status = 503 if isinstance(problem, OperatorError) else 400
        told = {"status": status, "error": problem.message, "hint": problem.hint}
    except MemoryError:
        told = {"status": 400, "error": "it takes more memory than there is for it", "hint": None}
    json.dump(told, out)
    out.flush()


if __name__ == "__main__":
    main()
