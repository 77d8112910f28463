"""Where a row's figures come from, and how to have them again."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from bench import names
from bench.plan import EvaluationRef
from bench.records import Row
from bench.runs import Run

BUDGETS = ("steps", "queries", "iterations", "restarts")  # arguments of attacks that say how much they may spend


def families(run: Run) -> dict[str, dict[str, str]]:
    """By model: its adapter, and how its speed is real where the suite says so (bench.contracts.Realisation)."""
    return {
        ref.label: {"family": ref.plugin, "realisation": str(ref.args.get("realisation") or "")}
        for ref in run.resolved.models
    }


def sweeps(run: Run) -> list[dict[str, Any]]:
    """Attacks that the suite makes at several budgets, all else equal: what accuracy against iterations is drawn from.

    By attack, norm, epsilon and the argument that differs: the metric of each budget, ascending.
    """
    groups: dict[tuple[str, str, float, str, str], list[tuple[int, str]]] = {}
    for ref in run.resolved.evaluations:
        for budget, spent, rest in _budgets(ref) if ref.norm else ():
            for epsilon in ref.epsilons:
                key = (ref.plugin, str(ref.norm), epsilon, budget, rest)
                metric = names.robust_accuracy(str(ref.norm), ref.label, epsilon)
                groups.setdefault(key, []).append((spent, metric))
    return [
        {"attack": plugin, "norm": norm, "epsilon": epsilon, "budget": budget, "points": tuple(sorted(points))}
        for (plugin, norm, epsilon, budget, _), points in groups.items()
        if len({spent for spent, _ in points}) > 1
    ]


def _budgets(ref: EvaluationRef) -> Iterator[tuple[str, int, str]]:
    """Each number that limits an attack, its own argument or the suite's `budget:`: name, value, and all else."""
    limits = ref.threat.budget.model_dump(exclude_none=True) if ref.threat and ref.threat.budget else {}
    goal = ref.threat.goal if ref.threat else ""
    for limiting, others, known in ((ref.args, limits, BUDGETS), (limits, ref.args, ("gradients", "queries"))):
        for name in (name for name in known if isinstance(limiting.get(name), int)):
            rest = {key: value for key, value in limiting.items() if key != name}
            yield name, limiting[name], json.dumps([limiting is limits, rest, others, goal], sort_keys=True)


def rerun(run: Run, model: str, dataset: str) -> str:
    """The command that measures this row again: the one that was given, for this row only."""
    words = list(run.manifest["command"])[1:]
    if words[:1] != ["run"]:  # not started from the command line
        words = ["run", str(run.folder / "resolved.yaml")]
    kept: list[str] = []
    for word in words:
        if kept[-1:] == ["--only"]:
            kept.pop()
        elif not word.startswith("--only="):
            kept.append(word)
    return shlex.join(["gauntlet", *kept, "--only", f"{model}/{dataset}/*"])


def facts(run: Run, row: Row) -> dict[str, dict[str, str]]:
    """Everything that decided the figures of a row, by heading."""
    resolved, manifest = run.resolved, run.manifest
    model = next(ref for ref in resolved.models if ref.label == row.model)
    data = next(ref for ref in resolved.datasets if ref.label == row.dataset)
    found = {
        "Model": {
            "adapter": model.plugin,
            "registered model": str(manifest.get("origins", {}).get(row.model) or ""),
            "weights": f"blake2b {model.weights}" if model.weights else "none: built from its arguments alone",
            **({"made by training": model.training} if model.training else {}),
            **{name: _text(value) for name, value in model.args.items()},
            "adapter's source": model.source,
            **model.versions,
        },
        "Data set": {
            "registered name": data.plugin,
            "split": data.split,
            "samples": str(data.size),
            "classes": str(data.classes),
            "digest": data.digest,
        },
        "Evaluations": {ref.label: _evaluation(ref) for ref in resolved.evaluations},
        "Run": {
            "submission": run.submission,
            "seed": str(resolved.seed),
            "samples in a task": str(resolved.block),
            "started": str(manifest.get("started") or "unknown"),
            "revision": f"{manifest.get('git_revision')}{' with changes' if manifest.get('git_dirty') else ''}",
            "Python": str(manifest.get("python") or "unknown"),
            **{name: str(value) for name, value in manifest.get("versions", {}).items()},
        },
        "Hardware": {
            **{name.replace("_", " "): str(value) for name, value in manifest["hardware"].items()},
            **({"digest of the machine that timed": row.hardware} if row.hardware else {}),
        },
    }
    return {heading: {name: value for name, value in named.items() if value} for heading, named in found.items()}


def _evaluation(ref: EvaluationRef) -> str:
    words = [ref.plugin, ref.norm or "", ref.knowledge or ""]
    words += [] if ref.threat is None else [ref.threat.goal, ref.threat.spends]
    if ref.epsilons:
        words.append(f"ε {', '.join(f'{epsilon:g}' for epsilon in ref.epsilons)}")
    if ref.outliers is not None:
        words.append(f"outliers {ref.outliers.label} (digest {ref.outliers.digest})")
    words += [f"{name}={_text(value)}" for name, value in _left(ref.args).items()]
    return " · ".join(filter(None, words))


def _left(args: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in args.items() if name != "norm"}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
