"""What is run beyond a suite where its figures are suspect: stronger attacks, planned from the records of the others.

Pure: the same records give the same attacks, so that a run that was killed goes on with them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any

from bench.contracts import Goal, Knowledge, Norm
from bench.metrics import indicators
from bench.metrics.robustness import Attacked
from bench.plan import DatasetRef, EvaluationRef, Resolved
from bench.records import Cell, Kind
from bench.suite import AttackSpec


class Remedy(StrEnum):
    """What makes an attack stronger where something speaks against the ones that were run."""

    ADAPTIVE_LOSS = "adaptive loss"  # unmoved by the scale of the logits
    AVERAGED = "averaged over passes"
    NO_GRADIENTS = "without gradients"


REMEDIES: Mapping[str, tuple[Remedy, ...]] = {  # by what bench.metrics.indicators finds
    "probabilities": (Remedy.ADAPTIVE_LOSS,),
    "saturated": (Remedy.ADAPTIVE_LOSS,),
    "no gradient of the loss": (Remedy.ADAPTIVE_LOSS,),
    "rounded loss": (Remedy.ADAPTIVE_LOSS,),
    "lagging loss": (Remedy.ADAPTIVE_LOSS,),
    "undeclared noise": (Remedy.AVERAGED, Remedy.NO_GRADIENTS),
    "not averaged": (Remedy.AVERAGED,),
    "no gradient": (Remedy.NO_GRADIENTS,),
    "no growth": (Remedy.NO_GRADIENTS,),
    "unbounded": (Remedy.NO_GRADIENTS,),
    "rough": (Remedy.NO_GRADIENTS,),
    "black box": (Remedy.ADAPTIVE_LOSS, Remedy.NO_GRADIENTS),
}


@dataclass(frozen=True)
class Stronger:
    """An attack, and what it needs of the data."""

    attack: str
    args: Mapping[str, Any]
    classes: int = 2
    images: bool = False
    norms: tuple[Norm, ...] = (Norm.LINF, Norm.L2, Norm.L1)


STRONGER: Mapping[Remedy, tuple[Stronger, ...]] = {  # of each the first that the data allow
    Remedy.ADAPTIVE_LOSS: (Stronger("apgd_dlr", {"restarts": 5}, classes=3), Stronger("cw", {}, norms=(Norm.L2,))),
    Remedy.AVERAGED: (Stronger("apgd_ce", {"eot": 20}),),
    Remedy.NO_GRADIENTS: (Stronger("square", {"queries": 10_000}, images=True), Stronger("simba", {"queries": 10_000})),
}


def suspicions(cells: Sequence[Cell], norm: str) -> list[str]:
    """The keys of REMEDIES that the records of one model on one data set give rise to, for attacks of a norm."""
    found: dict[str, None] = {}
    for cell in cells:
        if cell.kind is Kind.CLEAN and cell.table.num_rows:
            told = {
                "probabilities": indicators.probabilities(cell.table),
                "saturated": indicators.saturated(cell.table),
            }
            found |= dict.fromkeys([*filter(told.get, told), *indicators.marked(cell.table)])
        elif cell.kind is Kind.ATTACK and cell.norm == norm:
            found |= dict.fromkeys(sign for signs in cell.table["signs"].to_pylist() for sign in signs or ())
    attacks = [(Attacked.of(cell), cell) for cell in cells if cell.kind is Kind.ATTACK and cell.norm == norm]
    epsilons = {epsilon for _, cell in attacks for epsilon in cell.epsilons}
    if any(indicators.black_box_gain(attacks, epsilon) for epsilon in sorted(epsilons)):
        found["black box"] = None
    return [key for key in REMEDIES if key in found]


def escalated(resolved: Resolved, cells: Iterable[Cell]) -> Iterator[tuple[AttackSpec, Remedy, tuple[str, str]]]:
    """The stronger attacks that the records call for: each with its remedy, and the (model, data set) it is for.

    Of a norm in which the suite has an untargeted white-box attack, at all epsilons of these. cells: of the suite's own
    evaluations; those of a model on a data set follow each other.
    """
    datasets = {ref.label: ref for ref in resolved.datasets}
    own = [ref for ref in resolved.evaluations if not ref.remedy]
    for (model, dataset), group in groupby(cells, key=lambda cell: (cell.model, cell.dataset)):
        mine = list(group)
        for norm, epsilons in _attacked(own).items():
            keys = suspicions(mine, norm)
            for remedy in dict.fromkeys(remedy for key in keys for remedy in REMEDIES[key]):
                chosen = _chosen(remedy, Norm(norm), datasets[dataset])
                if chosen is not None and not _there(chosen, norm, epsilons, own):
                    label = f"escalated.{norm}.{chosen.attack}"
                    spec = AttackSpec(
                        attack=chosen.attack, name=label, norm=Norm(norm), epsilons=epsilons, args=dict(chosen.args)
                    )
                    yield spec, remedy, (model, dataset)


def _attacked(evaluations: Iterable[EvaluationRef]) -> dict[str, tuple[float, ...]]:
    """By norm the epsilons of untargeted white-box attacks."""
    found: dict[str, set[float]] = {}
    for ref in evaluations:
        threat = ref.threat
        if threat and threat.goal is Goal.UNTARGETED and threat.knowledge is Knowledge.WHITE_BOX and ref.epsilons:
            found.setdefault(threat.norm, set()).update(ref.epsilons)
    return {norm: tuple(sorted(epsilons)) for norm, epsilons in found.items()}


def _chosen(remedy: Remedy, norm: Norm, data: DatasetRef) -> Stronger | None:
    fitting = (
        one
        for one in STRONGER[remedy]
        if norm in one.norms and data.classes >= one.classes and (data.images or not one.images)
    )
    return next(fitting, None)


def _there(chosen: Stronger, norm: str, epsilons: tuple[float, ...], own: Sequence[EvaluationRef]) -> bool:
    """Whether the suite makes that very attack itself."""
    return any(
        ref.plugin == chosen.attack
        and ref.norm == norm
        and set(epsilons) <= set(ref.epsilons)
        and all(ref.args.get(name) == value for name, value in chosen.args.items())
        for ref in own
    )
