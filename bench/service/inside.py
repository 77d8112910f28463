"""The process in which strangers' files are read: `python -m bench.service.inside JOB`, started by bench.service.apart.

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
    from bench import models, verbs

    verbs.prepare()
    weights = Path(given["path"]).read_bytes()
    args = {**given["args"], "weights": given["file"]}
    version = models.register(given["name"], given["adapter"], args, weights, given["uri"], owner=given["owner"])
    return {"version": version}


JOBS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"scan": _scan, "register": _register}


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
        told = {"status": 400, "error": "it takes more memory than there is for it", "hint": "is it a model?"}
    json.dump(told, out)
    out.flush()


if __name__ == "__main__":
    main()
