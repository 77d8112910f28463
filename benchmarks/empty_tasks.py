"""Plan, schedule and gather many tasks that do next to nothing: what does a task cost, and does the driver grow?

    python benchmarks/empty_tasks.py [--tasks 100000] [--workers 2]

One sample per task, a model that returns zeros, the real store, the real Ray. Prints the driver's resident memory
after each tenth of the tasks, in a Markdown table. Another process does the gathering of nothing, so that what is
measured is the driver that `gauntlet run` has.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bench import plugins, suite
from bench.run import Options, run

PLUGIN = '''
import numpy as np
import torch
from bench.contracts import Adapter, Bounds, Classifier, Dataset, Samples, adapter, dataset

@dataset("nothing")
class Nothing(Dataset):
    """Zeros."""

    n: int = 1000

    def load(self):
        labels = np.zeros(self.n, dtype=np.int64)
        return Samples(labels, lambda i: torch.zeros(len(i), 1), (1,), Bounds(0, 1), ("a", "b"), f"nothing-{self.n}")

class Zeros(Classifier):
    input_shape, bounds, classes = (1,), Bounds(0, 1), 2

    def logits(self, x):
        return torch.zeros(len(x), 2)

@adapter("zeros")
class ZerosAdapter(Adapter):
    """Always the first class."""

    def build(self, weights):
        return Zeros()
'''

SUITE = """
name: empty
plugins: [empty_plugin.py]
models: [{name: zeros, adapter: zeros}]
datasets: [{dataset: nothing, args: {n: TASKS}}]
resources: {batch_size: 1}
"""


class Watch:
    """A display that looks at the driver's memory instead of drawing."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._process = psutil.Process()
        self.rows: list[tuple[int, float, float]] = []

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)

    def phase(self) -> None:
        """One phase only."""

    def begin(self, label: str, total: int, done: int) -> None:
        self._began, self._every = time.perf_counter(), max(1, total // self._steps)
        self._look(0)

    def advance(self, label: str, done: int) -> None:
        if done % self._every == 0:
            self._look(done)

    def _look(self, done: int) -> None:
        seconds, memory = time.perf_counter() - self._began, self._process.memory_info().rss / 2**20
        self.rows.append((done, seconds, memory))
        print(f"| {done:>7} | {seconds:>8.1f} | {memory:>8.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    plugins.load_built_in()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty_plugin.py").write_text(PLUGIN)
        path = folder / "empty.yaml"
        path.write_text(SUITE.replace("TASKS", str(options.tasks)))
        sources: list[plugins.Source] = []

        def load(entries, where):
            for entry in entries:
                sources.append(plugins.read_source(entry, where))
                plugins.load_source(sources[-1])

        parsed = suite.load(path, load_plugins=load)
        print("|   tasks |  seconds | RSS, MiB |\n|--------:|---------:|---------:|")
        watch = Watch(10)
        begun, cpu = time.perf_counter(), time.process_time()
        done = run(parsed, path.read_text(), sources, Options(folder / "out", options.workers), watch)
        seconds = time.perf_counter() - begun
        assert done.status["state"] == "complete"
        assert sum(1 for _ in done.store.keys("records")) == options.tasks
        grown = watch.rows[-1][2] - watch.rows[1][2]
        print(
            f"\n{options.tasks} tasks in {seconds:.0f} s: {options.tasks / seconds:.0f} tasks/s,"
            f" {options.workers} workers,"
            f" {1e3 * (time.process_time() - cpu) / options.tasks:.2f} ms of the driver's CPU time per task;"
            f" the driver grew by {grown:.1f} MiB from the first tenth to the last"
        )


if __name__ == "__main__":
    main()
