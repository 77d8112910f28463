"""`make test`: the journeys beside all other tests. They wait for Ray and for processes of their own, the others keep
one core busy, so that both take little longer than either. What the journeys print comes last.

    python tests/side_by_side.py [words for both pytest processes]
"""

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main(words: list[str]) -> int:
    """0 where both passed."""
    pytest = [sys.executable, "-m", "pytest", *words]
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the two, which clean up: wait for them
    with tempfile.TemporaryFile() as said:
        beside = [*pytest, "-p", "no:cacheprovider", "tests/journeys"]
        journeys = subprocess.Popen(beside, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        rest = subprocess.Popen([*pytest, "--ignore=tests/journeys"], cwd=ROOT)
        codes = [rest.wait(), journeys.wait()]
        said.seek(0)
        print("\nthe journeys:", flush=True)
        shutil.copyfileobj(said, sys.stdout.buffer)
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
