"""Runs one foreign program for the supervisor, so that nothing of it outlives the one who wanted it.

    python -m bench.service.keeper [--user NAME] SIGNAL PROGRAM [ARGUMENT ...]

The program gets a session of its own. When this process's stdin ends (the supervisor has gone, however it went) or it
is asked to end, the program gets SIGNAL, and SIGKILL when that does not help. What the program leaves of its process
group is killed: a web server's workers would keep its port. Ends with the program's exit code.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

GRACE = 20.0  # seconds that the program has to end
GLANCE = 0.1  # seconds between two looks at it


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.service.keeper")
    parser.add_argument("--user", default=None)
    parser.add_argument("signal", type=lambda name: signal.Signals[f"SIG{name}"])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(words)
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    threading.Thread(target=_wait_for_end, args=(asked,), daemon=True).start()
    whose = {"user": given.user, "group": given.user, "extra_groups": [], "cwd": "/"} if given.user else {}
    program = subprocess.Popen(given.command, stdin=subprocess.DEVNULL, start_new_session=True, **whose)
    while program.poll() is None:
        if asked.wait(GLANCE):
            _tell(program.pid, given.signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(GRACE)
            break
    _tell(program.pid, signal.SIGKILL)
    return program.wait()


def _wait_for_end(asked: threading.Event) -> None:
    while os.read(0, 1024):  # not sys.stdin, whose lock Python needs to end
        pass
    asked.set()


def _tell(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # nothing of it is left
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
