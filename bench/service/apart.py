"""What reads strangers' files, and what imports a module for the first time, works in a process of its own: with little
memory, little time, and no secrets of ours.

So a file that breaks its reader costs its sender an answer of 400, and the face nothing.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from bench.service.queue import Refused

SECONDS = 120.0
MEMORY = 8 << 30  # bytes, private ones (RLIMIT_DATA)
PASSED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG", "LC_ALL", "OMP_NUM_THREADS")  # of the environment


def apart(
    job: str,
    given: Mapping[str, Any],
    *,
    seconds: float = SECONDS,
    memory: int = MEMORY,
    doing: str = "reading it",
    hint: str = "is it a model?",
) -> dict[str, Any]:
    """What a job of bench.service.inside answers. doing, hint: for messages of what it does not answer to.

    Raises Refused: 400 where the file or module is at fault, 503 where something around it is away.
    """
    command = [sys.executable, "-m", "bench.service.inside", job]
    with tempfile.TemporaryDirectory(prefix="gauntlet-apart-") as folder:
        ours = {name: os.environ[name] for name in PASSED if name in os.environ}
        try:
            done = subprocess.run(
                command, input=json.dumps({**given, "memory": memory}), env={**ours, "TMPDIR": folder},
                capture_output=True, text=True, timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Refused(400, f"{doing} took more than {seconds:g} s", hint) from None
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or [f"code {done.returncode}"]
        raise Refused(400, f"{doing} broke the process: {last[0][:200]}", hint) from None
    if "error" in told:
        raise Refused(told["status"], told["error"], hint if told["hint"] is None else told["hint"])
    return told
