"""From records to the lines of a leaderboard: every metric of a model on a data set, and what must be said about it.

A flag reads `SUBJECT: KIND: DETAIL`. The subject is a metric, or the part of its name before a `/` that several share;
the kinds are explained in `KINDS`, and in docs/metrics.md.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import names
from bench.contracts import Knowledge, ThreatModel, strongest
from bench.metrics import confidence, corruption, indicators, joint, outliers, robustness
from bench.metrics.efficiency import merged
from bench.metrics.proofs import check_proofs, proofs, proved_counts
from bench.metrics.robustness import Attacked
from bench.records import Cell, Failure, Kind, Metric, Row, judged

KINDS: Mapping[str, str] = {
    "incomplete": "Part of the work behind this figure is missing; the figure covers only what is there.",
    "escaped": "The attack returned inputs outside its ball or the input's bounds. Those never count.",
    "proved": "Bounds prove that no attack inside the ball can break these samples. They count as standing, and no "
    "attack was spent on them.",
    "suspect": "The robustness may be misjudged: something says that the attacks' gradients are not to be trusted.",
    "surrogate": "The model's gradients are stand-ins (a straight-through estimator, say): a white-box attack may have "
    "missed what attacks without gradients find.",
    "escalated": "A stronger attack that the suite did not name: figures of this model were suspect, and it asked for "
    "such attacks in that case. What they break counts in the worst case.",
    "stopped": "The attack's budget was used up before the attack was done; what it had found until then counts.",
    "not reproducible": "The clock limits the attack: another machine, or another load, gives another figure.",
    "transferred": "Crafted on a model that this one was made from, by an attacker who does not know what was "
    "added: it is not ranked with figures of attackers who do.",
    "floor": "Nothing survives, so that this epsilon tells no models apart.",
    "not found": "The search found no adversarial input at all for some samples, at any distance. A search without "
    "limit should always find one: the attack may have failed, not the model resisted.",
    "undefined": "The figure does not exist for these records.",
    "nan": "The model's scores were NaN for some samples. They count as wrong.",
    "contended": "The machine was busy with something else during the timing: the figure is not ranked.",
    "simulated": "The speed is not real: the model's arithmetic is imitated by slower or faster one. It is not ranked.",
    "mixed": "What the figure is made of was measured under different conditions (two runtimes, two machines). It is "
    "not ranked.",
    "invalid": "MLPerf's LoadGen calls the run invalid: the figure is not ranked.",
    "uncertified": "The run was shorter than the MLPerf rules ask.",
    "source": "Which counter of the machine the figure was read from.",
    "unavailable": "This machine has no means to measure the figure.",
    "not settled": "The timing never became steady during the warm-up.",
    "too few queries": "A percentile is given only from enough queries to stand on.",
    "dynamic": "The model does more work for some inputs than for others; the figure is the mean.",
    "devices": "Records of this table were computed on several kinds of processors or GPUs, which round differently: a "
    "sample at the very boundary may fall on either side.",
    "unknown": "The figure could not be had.",
}


def rows(cells: Iterable[Cell]) -> list[Row]:
    """One Row per (model, data set), in the order given, with one row's records in memory at a time.

    The cells of a row must follow each other. Raises ValueError where they do not, and where records break the schema.
    """
    finished: list[Row] = []
    devices: list[set[str]] = []  # that computed the records of each
    seen: set[tuple[str, str]] = set()
    for key, group in groupby(cells, key=lambda cell: (cell.model, cell.dataset)):
        if key in seen:
            raise ValueError(f"the cells of model '{key[0]}' on data set '{key[1]}' do not follow each other")
        seen.add(key)
        line = _Line(*key)
        finished.append(line.fill(group))
        devices.append(line.devices)
    together = set().union(*devices)
    return [_of_devices(row, mine, together) for row, mine in zip(finished, devices, strict=True)]


def _of_devices(row: Row, mine: set[str], together: set[str]) -> Row:
    """The row, flagged where the records of the table come of several devices."""
    if len(together) <= 1 or not mine:
        return row
    others = sorted(together - mine)
    told = f"computed on {' and '.join(sorted(mine))}" + (f"; others here on {' and '.join(others)}" if others else "")
    return row.model_copy(
        update={"flags": (*row.flags, *(f"{name}: devices: {told}" for name in _accuracies(row.metrics)))}
    )


def _accuracies(metrics: Iterable[str]) -> list[str]:
    """What the names of accuracies begin with."""
    subjects = dict.fromkeys(name.partition("/")[0] for name in metrics)
    return [subject for subject in subjects if subject.endswith("_accuracy")]


class _Line:
    """A row while it is being filled."""

    def __init__(self, model: str, dataset: str) -> None:
        self.model, self.dataset = model, dataset
        self.metrics: dict[str, Metric] = {}
        self.flags: list[str] = []
        self.failures: list[Failure] = []
        self.attacked: dict[str, list[tuple[Attacked, Cell]]] = {}  # by norm
        self.certified: list[Cell] = []
        self.hardware: set[str] = set()
        self.threats: dict[str, ThreatModel] = {}
        self.devices: set[str] = set()  # that computed its records
        self.seen = False  # the model learnt from these data
        self.classes = 0  # that the model tells apart; 0 before its scores are seen

    def fill(self, cells: Iterable[Cell]) -> Row:
        for cell in cells:
            self.devices |= set() if cell.kind.figures else set(cell.devices)
            self.failures += cell.failures
            self.seen |= cell.seen
            _BY_KIND[cell.kind](self, cell)
        for norm, attacks in self.attacked.items():
            self.worst(norm, attacks)
        check_proofs(self.certified, self.attacked)
        if self.seen:
            for subject in _accuracies(self.metrics):
                self.flag(subject, "seen", "the model was trained on these very data")
        return Row(
            model=self.model,
            dataset=self.dataset,
            metrics=self.metrics,
            flags=tuple(dict.fromkeys(self.flags)),
            failures=tuple(self.failures),
            hardware="+".join(sorted(self.hardware)) or None,
            threats=self.threats,
        )

    def add(self, name: str, metric: Metric, cell: Cell) -> str:
        """Keep a metric; where two evaluations yield one name, the later's is `NAME.LABEL`. Returns the name kept."""
        kept = f"{name}.{cell.evaluation}" if name in self.metrics else name
        if kept in self.metrics:
            raise ValueError(f"evaluation '{cell.evaluation}' yields '{name}' twice")
        self.metrics[kept] = metric
        return kept

    def flag(self, subject: str, kind: str, detail: str) -> None:
        self.flags.append(f"{subject}: {kind}: {detail}")

    def check_complete(self, subject: str, cell: Cell) -> None:
        planned = _planned(cell)
        if cell.table.num_rows < planned:
            self.flag(subject, "incomplete", f"{cell.table.num_rows} of {planned} samples have records")

    def clean(self, cell: Cell) -> None:
        name = self.add(names.CLEAN_ACCURACY, robustness.clean_accuracy(cell.table), cell)
        self.check_complete(name, cell)
        for error, metric in corruption.errors(cell.table).items():
            self.add(error, metric, cell)
        for refusal, metric in robustness.refusals(cell.table).items():
            self.add(refusal, metric, cell)
        for told in (
            indicators.probabilities(cell.table),
            indicators.saturated(cell.table),
            *indicators.signs(cell.table),
        ):
            if told:
                self.flag(name, "suspect", told)
        unclear = int((cell.table["prediction"].to_numpy() == -1).sum())
        if unclear:
            self.flag(name, "nan", f"{unclear} of {cell.table.num_rows} samples have NaN scores and count as wrong")
        else:
            self.calibration(cell)

    def attack(self, cell: Cell) -> None:
        if cell.norm is None:
            raise ValueError(f"attack '{cell.evaluation}' has no norm")
        attacked = Attacked.of(cell)
        self.attacked.setdefault(cell.norm, []).append((attacked, cell))
        subject = f"robust_accuracy/{cell.norm}/{cell.evaluation}" if cell.epsilons else cell.evaluation
        for epsilon in cell.epsilons:
            name = names.robust_accuracy(cell.norm, cell.evaluation, epsilon)
            self.add(name, robustness.robust_accuracy(attacked, epsilon), cell)
            if cell.table.num_rows and not cell.table["quantised_prediction"].null_count:
                self.add(names.quantised(name), robustness.quantised_accuracy(cell, epsilon), cell)
            rate = name.replace("robust_accuracy", "attack_success", 1)
            self.add(rate, robustness.success_rate(attacked, epsilon), cell)
        for name, metric in (*robustness.of_passes(cell).items(), *joint.figures(cell).items()):
            self.add(name, metric, cell)
        if any(signs for signs in cell.table["signs"].to_pylist()):
            self.flag(
                subject, "suspect", "the model is random, the attack followed single passes: let it average (eot)"
            )
        if cell.minimal or not cell.epsilons:
            subject = self.distance(cell.norm, attacked, cell)
        if (moved := robustness.adversarial_gain(cell.table)) is not None:
            self.add(names.adversarial_gain(cell.norm, cell.evaluation), moved, cell)
        for spent, metric in robustness.passes(cell.table).items():
            self.add(f"{spent}/{cell.norm}/{cell.evaluation}", metric, cell)
        self.cost(cell)
        self.check_complete(subject, cell)
        self.threat(subject, cell)
        if cell.knowledge == "white-box" and "surrogate" in cell.table["gradients"].unique().to_pylist():
            self.flag(subject, "surrogate", "the attack followed a backward pass that is not the model's derivative")
        if True in cell.table["transferred"].unique().to_pylist():
            self.flag(subject, "transferred", "the attacker saw the model that this one was made from, not this one")
        self.certified += [cell]  # its own proofs have to hold as well
        for epsilon, count in proved_counts(cell):
            self.flag(subject, "proved", f"{count} of {cell.table.num_rows} samples at {epsilon:g} were not attacked")
        left = robustness.escaped(cell.table)
        if left:
            self.flag(subject, "escaped", f"of {left} of {cell.table.num_rows} samples a result did not count")

    def threat(self, subject: str, cell: Cell) -> None:
        """The threat model that a cell's records were made in: crafted on the model itself, nothing was transferred."""
        if cell.threat is None:
            return
        threat, transferred = cell.threat, cell.table["transferred"].unique().to_pylist()
        if False in transferred:
            threat = threat.model_copy(update={"knowledge": Knowledge.WHITE_BOX})
        self.threats[f"{cell.norm}/{cell.evaluation}"] = threat
        if cell.remedy:
            self.flag(subject, "escalated", f"run because other figures are suspect: {cell.remedy}")
        if threat.budget is None:
            return
        if stopped := robustness.stopped(cell.table):
            self.flag(subject, "stopped", f"at {stopped} of {cell.table.num_rows} samples, {threat.budget.text}")
        if threat.budget.seconds is not None:
            self.flag(subject, "not reproducible", f"limited by the clock: {threat.budget.text}")

    def distance(self, norm: str, attacked: Attacked, cell: Cell) -> str:
        metric = robustness.median_distance(attacked)
        name = self.add(names.median_distance(norm, cell.evaluation), metric, cell)
        missed = int(np.isinf(attacked.distance).sum())
        if missed:
            median = "; the median lies among them" if metric.value is None else ""
            self.flag(name, "not found", f"{missed} of {len(attacked.samples)} samples were never broken{median}")
        return name

    def worst(self, norm: str, attacks: Sequence[tuple[Attacked, Cell]]) -> None:
        everyone = [(attacked, cell) for attacked, cell in attacks if not attacked.targeted]
        epsilons = {names.worst_case(norm, epsilon): epsilon for _, cell in everyone for epsilon in cell.epsilons}
        counted = [f"{norm}/{cell.evaluation}" for _, cell in everyone if cell.table.num_rows and not cell.remedy]
        if threats := [self.threats[name] for name in counted if name in self.threats]:
            self.threats[f"{norm}/{names.WORST}"] = strongest(threats)
        for name, epsilon in sorted(epsilons.items(), key=lambda item: item[1]):
            metric = robustness.worst_case([attacked for attacked, _ in attacks], epsilon)
            self.metrics[name] = metric
            made = [cell for attacked, cell in attacks if attacked.reaches(epsilon)]
            planned = max(_planned(cell) for cell in made)
            if (metric.n or 0) < planned:
                short = ", ".join(cell.evaluation for cell in made if cell.table.num_rows < planned)
                self.flag(name, "incomplete", f"over {metric.n} of {planned} samples (records missing from {short})")
            if told := indicators.black_box_gain(attacks, epsilon):
                self.flag(name, "suspect", told)
            if metric.value == 0:
                self.flag(name, "floor", f"none of {metric.n} samples survives")

    def certificate(self, cell: Cell) -> None:
        if cell.norm is None:
            raise ValueError(f"certificate '{cell.evaluation}' has no norm")
        self.certified += [cell]
        for epsilon, proved in zip(cell.epsilons, proofs(cell).T, strict=True):
            name = names.certified_accuracy(cell.norm, cell.evaluation, epsilon)
            self.add(name, robustness.share(proved), cell)
            self.check_complete(name, cell)

    def probe(self, cell: Cell) -> None:
        groups: dict[str, list[dict[str, Any]]] = {}
        for figure in cell.table.to_pylist():
            groups.setdefault(figure["name"], []).append(figure)
            self.hardware |= {figure["hardware"]} - {None}
        for group, figures in groups.items():
            metric, flags = merged(figures)
            name = self.add(group, metric, cell)
            self.flags += [f"{name}: {flag}" for flag in flags]
            if cell.failures:
                self.flag(name, "incomplete", f"{len(cell.failures)} of its processes failed")

    def calibration(self, cell: Cell) -> None:
        """Of records that hold scores: how far confidence can be believed, and what it is worth for abstaining."""
        table = cell.table
        if not table.num_rows or table["logits"].null_count:
            return
        self.classes = len(table["logits"][0])
        for name, metric in confidence.figures(table).items():
            self.add(name, metric, cell)

    def cost(self, cell: Cell) -> None:
        if cell.fit_seconds is not None:
            self.add(names.fit_seconds(cell.evaluation), Metric(value=cell.fit_seconds), cell)
        if cell.state_bytes is not None:
            self.add(names.state_bytes(cell.evaluation), Metric(value=cell.state_bytes), cell)
        for queries in cell.table["fit_queries"].drop_null().unique().to_pylist() if cell.kind is Kind.ATTACK else ():
            self.add(names.fit_queries(cell.evaluation), Metric(value=queries), cell)

    def detector(self, cell: Cell) -> None:
        self.cost(cell)
        self.check_complete(names.auroc(cell.evaluation), cell)
        for name, share in robustness.deceived(cell.table).items():
            self.add(f"{name}/{cell.evaluation}", share, cell)
        cell = replace(cell, table=judged(cell.table))
        scores = cell.table["score"].to_numpy().astype(np.float64)
        outlying = cell.table["outlier"].to_numpy().astype(bool)
        inside, outside = scores[~outlying], scores[outlying]
        if not len(inside) or not len(outside):
            self.add(names.auroc(cell.evaluation), Metric(value=None, n=len(scores)), cell)
            detail = f"{len(inside)} inliers and {len(outside)} outliers have scores; both are needed"
            self.flag(names.auroc(cell.evaluation), "undefined", detail)
            return
        value, low, high = outliers.auroc(inside, outside)
        self.add(names.auroc(cell.evaluation), Metric(value=value, low=low, high=high, n=len(scores)), cell)
        for name, figure in _DETECTOR_FIGURES.items():
            self.add(f"{name}/{cell.evaluation}", Metric(value=figure(inside, outside), n=len(scores)), cell)
        if not cell.table["flagged"].null_count:
            flagged = cell.table["flagged"].to_numpy().astype(bool)
            for name, part in outliers.at_threshold(flagged[~outlying], flagged[outlying]).items():
                self.add(f"{name}/{cell.evaluation}", Metric(value=part, n=len(scores)), cell)
        if self.classes and not cell.table["confidence"].null_count:
            sure = cell.table["confidence"].to_numpy().astype(np.float64)
            for name, metric in confidence.joint(sure, ~_wrong(cell) & ~outlying, self.classes).items():
                self.add(f"{name}/{cell.evaluation}", metric, cell)
        for name, metric in confidence.selective(scores[~outlying], _wrong(cell)[~outlying]).items():
            self.add(f"{name}/{cell.evaluation}", metric, cell)


def _wrong(cell: Cell) -> NDArray[np.bool_]:
    return np.asarray(cell.table["prediction"].to_numpy() != cell.table["label"].to_numpy())


def _planned(cell: Cell) -> int:
    """How many samples were to be measured."""
    return cell.planned or int(cell.table.num_rows) + sum(failure.stop - failure.start for failure in cell.failures)


_BY_KIND: Mapping[Kind, Callable[[_Line, Cell], None]] = {
    Kind.CLEAN: _Line.clean,
    Kind.ATTACK: _Line.attack,
    Kind.PROBE: _Line.probe,
    Kind.DETECTOR: _Line.detector,
    Kind.COST: _Line.probe,
    Kind.CERTIFICATE: _Line.certificate,
}

_Scores = NDArray[np.float64]
_DETECTOR_FIGURES: Mapping[str, Callable[[_Scores, _Scores], float]] = {
    "detection_error": outliers.detection_error,
    "ap_out": outliers.ap_out,
    "ap_in": outliers.ap_in,
    "fpr95": outliers.fpr95,
    "fpr95_id_positive": outliers.fpr95_id_positive,
}
