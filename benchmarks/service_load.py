"""The face under load: many users hand in, list and look at submissions at the same time.

    python benchmarks/service_load.py [--users 20] [--submissions 10] [--database URL]

The face is a process of its own (`gauntlet serve`), and each user stays below its rate limit; each
user is a thread with a client of its own, which hands in so many suites and looks at each twice. No dispatcher is at
work. Prints the seconds of each kind of request, as Markdown, and the face's memory before and after.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import requests

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.client import Client
from bench.service.access import Access, Role
from bench.service.database import Database

ROOT = Path(__file__).parents[1]
SUITE = (ROOT / "suites" / "quickstart.yaml").read_bytes()
PAUSE = 0.2  # seconds between a user's requests: five per second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--submissions", type=int, default=10)
    parser.add_argument("--database", default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(given.database or f"sqlite:///{folder}/service.db")
        database.upgrade()
        tokens = [Access(database).create(f"load{user}", Role.SUBMITTER) for user in range(given.users)]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        words = [sys.executable, "-m", "bench", "serve", "--output", folder, "--port", str(port)]
        environment = {**os.environ, "GAUNTLET_DATABASE": database.url, "PYTHONPATH": str(ROOT)}
        face = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        try:
            drive(f"http://127.0.0.1:{port}", tokens, given.submissions, psutil.Process(face.pid))
        finally:
            face.terminate()
            face.wait(30)
            database.close()


def drive(url: str, tokens: list[str], count: int, face: psutil.Process) -> None:
    while True:
        try:
            requests.get(f"{url}/ready", timeout=2).raise_for_status()
            break
        except requests.RequestException:
            time.sleep(0.2)
    before = face.memory_info().rss
    took: dict[str, list[float]] = {"submit": [], "show": [], "list": []}
    problems: list[str] = []

    def timed(kind: str, act: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        done = act()
        took[kind].append(time.perf_counter() - began)
        time.sleep(PAUSE)
        return done

    def user(token: str) -> None:
        client = Client(url, token)
        try:
            for _ in range(count):
                made = timed("submit", lambda: client.submit(SUITE))["id"]
                timed("show", lambda made=made: client.get(made))
                timed("list", client.submissions)
        except Exception as problem:  # noqa: BLE001 - told below
            problems.append(f"{type(problem).__name__}: {problem}")

    threads = [threading.Thread(target=user, args=(token,)) for token in tokens]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    print("| request | count | p50, ms | p99, ms | slowest, ms |\n|---|---|---|---|---|")
    for kind, all_of in took.items():
        p99 = statistics.quantiles(all_of, n=100)[98] if len(all_of) > 1 else all_of[0]
        figures = (statistics.median(all_of), p99, max(all_of))
        print(f"| {kind} | {len(all_of)} |" + "".join(f" {1000 * figure:.0f} |" for figure in figures))
    print(
        f"\n{sum(map(len, took.values())) / seconds:.0f} requests per second, {len(problems)} problems {problems[:3]}"
    )
    print(f"memory of the face: {before / 2**20:.0f} MiB before, {face.memory_info().rss / 2**20:.0f} MiB after")


if __name__ == "__main__":
    main()
