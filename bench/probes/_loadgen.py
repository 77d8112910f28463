"""MLPerf's LoadGen, which issues the queries, keeps the clock, and says whether a run was valid."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import PluginError

Answer = Callable[[Sequence[int]], None]  # of samples by index, all of them done when it returns


@dataclass(frozen=True)
class Verdict:
    """What LoadGen wrote about a run. values: by the keys of its detailed log, times in ns."""

    values: Mapping[str, Any]

    @property
    def valid(self) -> bool:
        return bool(self.values["result_validity"] == "VALID")

    @property
    def reasons(self) -> str:
        """Why a run is not valid, in LoadGen's words."""
        return " ".join(str(self.values.get("result_invalid_reason", "no reason given")).split())

    def number(self, key: str) -> float | None:
        """None where this scenario does not yield it, or too few queries allowed no estimate."""
        value = self.values.get(key)
        return float(value) if value else None


def load(answer: Answer, samples: int, scenario: str, settings: Mapping[str, float]) -> Verdict:
    """Run a scenario of LoadGen ("SingleStream", "MultiStream", "Server", "Offline") in performance mode.

    samples: how many lie ready; queries take from them with replacement. settings: attributes of LoadGen's
    TestSettings. Raises what `answer` raised, and PluginError where LoadGen ends without a result.
    """
    import mlperf_loadgen as loadgen

    problems: list[BaseException] = []

    def issue(queries: Sequence[Any]) -> None:
        try:
            if not problems:
                answer([query.index for query in queries])
        except BaseException as problem:  # noqa: BLE001 - it must not cross LoadGen's C++; it is raised below
            problems.append(problem)
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query.id, 0, 0) for query in queries])

    asked = loadgen.TestSettings()
    asked.scenario = getattr(loadgen.TestScenario, scenario)
    asked.mode = loadgen.TestMode.PerformanceOnly
    for name, value in settings.items():
        setattr(asked, name, value)
    with tempfile.TemporaryDirectory() as folder:
        logs = loadgen.LogSettings()
        logs.enable_trace = False
        output = loadgen.LogOutputSettings()
        output.outdir = folder
        output.copy_summary_to_stdout = False
        logs.log_output = output
        system = loadgen.ConstructSUT(issue, lambda: None)
        library = loadgen.ConstructQSL(samples, samples, lambda _: None, lambda _: None)
        try:
            loadgen.StartTestWithLogSettings(system, library, asked, logs)
        finally:
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(system)
        text = Path(folder, "mlperf_log_detail.txt").read_text()
    if problems:
        raise problems[0]
    return parse(text)


def parse(text: str) -> Verdict:
    """The detailed log of LoadGen. Raises PluginError where it holds no verdict."""
    prefix = ":::MLLOG "
    lines = [json.loads(line.removeprefix(prefix)) for line in text.splitlines() if line.startswith(prefix)]
    values = {line["key"]: line["value"] for line in lines}
    if "result_validity" not in values:
        raise PluginError("LoadGen ended without a result", "run it again; its settings may contradict each other")
    return Verdict(values)
