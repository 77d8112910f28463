"""The process that makes leaderboards and tells MLflow: `python -m bench.service.reporter`.

bench.service.beside starts it, and starts it again. A JSON object on a line of stdin is something to do, one on a line
of stdout its answer; it is told ids and paths, and reads the rest in the output folder. When its stdin ends the
dispatcher has gone, and so is this process, whatever it is at: the next dispatcher has it done again.
"""

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from bench import plugins, results, verbs
from bench.errors import GauntletError, TrackingError
from bench.results import Analysis
from bench.runs import Run
from bench.service.server import log_lines

NICE = 5  # below the dispatcher, which keeps the workers busy; above these, which Ray runs at 15
KEPT = 8  # analyses: MLflow is told of what has just been drawn

log = logging.getLogger(__name__)


class Desk:
    """What it does, and the latest analyses, which the leaderboard and MLflow have in common."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[str, Analysis]] = {}

    def draw(self, given: Mapping[str, Any]) -> list[str]:
        """Write a submission's leaderboard, its cards and its pictures."""
        run = _run(given)
        found = self._analysis(run)
        verbs.write_reports(run, found, run.reports)
        verbs.write_json(run, found)
        return []

    def publish(self, given: Mapping[str, Any]) -> list[str]:
        """Log it to MLflow. Returns what its owner is told. Raises TrackingError."""
        run = _run(given)
        return verbs.publish(run, self._analysis(run), given["uri"], given["owner"])

    def _analysis(self, run: Run) -> Analysis:
        """Made once as long as the run has not been taken up again, which its status says."""
        stamp = run.read("status.json")
        known = self._kept.pop(run.folder, None)
        found = known[1] if known and known[0] == stamp else results.analysis(run)
        self._kept[run.folder] = stamp, found
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return found


def answer(act: Callable[[Mapping[str, Any]], list[str]], given: Mapping[str, Any]) -> dict[str, Any]:
    """What it led to, as JSON. A bug is told, too: the next submission may not meet it."""
    try:
        for name, digest in given["modules"]:
            plugins.load_source(plugins.Source(name, "", {}, pinned=digest))
        return {"told": act(given)}
    except GauntletError as problem:
        kind = "tracking" if isinstance(problem, TrackingError) else "expected"
        return {"error": kind, "message": problem.message, "hint": problem.hint}
    except Exception as problem:
        log.exception("a submission met a bug", extra={"submission": given["submission"]})
        what = f"a bug of the service: {type(problem).__name__}: {problem}"
        return {"error": "expected", "message": what, "hint": "its log has the traceback"}


def main() -> None:
    """Only answers go to stdout: what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, where it is for the dispatcher to say what follows
    log_lines()
    asked: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    verbs.prepare()
    desk = Desk()
    while True:
        given = json.loads(asked.get())
        act = {"draw": desk.draw, "publish": desk.publish}[given["verb"]]
        print(json.dumps(answer(act, given)), file=out, flush=True)


def _listen(asked: "SimpleQueue[bytes]") -> None:
    with os.fdopen(0, "rb", closefd=False) as lines:
        for line in lines:
            asked.put(line)
    os._exit(0)


def _run(given: Mapping[str, Any]) -> Run:
    return Run(Path(given["output"]), given["submission"])


if __name__ == "__main__":
    main()
