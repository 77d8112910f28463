"""bench/metrics/proofs.py and the rows made of certificates."""

import pytest

from bench.contracts import Frozen
from bench.errors import PluginError
from bench.metrics.evidence import evidence
from bench.metrics.rows import rows
from bench.records import Cell, Kind, samples_table


class Case(Frozen):
    broken: list[list[bool]]
    proved: list[list[bool]] | None = None


def cells(attacked: Case, certified: list[list[bool]]) -> list[Cell]:
    n = len(certified)
    whole = {"sample": range(n), "label": [0] * n, "prediction": [0] * n}
    attack = whole | {
        "broken": attacked.broken,
        "distance": [{2: 0.05, 1: 0.15, 0: None}[sum(b)] for b in attacked.broken],
    }
    if attacked.proved is not None:
        attack |= {"proved": attacked.proved}
    proof = whole | {"proved": certified}
    common = {"model": "m", "dataset": "d", "norm": "linf", "epsilons": (0.1, 0.2)}
    return [
        Cell(evaluation="pgd", kind=Kind.ATTACK, table=samples_table(attack), **common),
        Cell(evaluation="planes", kind=Kind.CERTIFICATE, table=samples_table(proof), **common),
    ]


def test_certified_accuracy_is_the_share_of_proved_samples_at_each_epsilon() -> None:
    broken = [[False, False], [False, False], [False, True], [True, True]]
    [row] = rows(cells(Case(broken=broken), [[True, True], [True, False], [False, False], [False, False]]))
    assert row.metrics["certified_accuracy/linf/planes/0.1"].value == 0.5
    assert row.metrics["certified_accuracy/linf/planes/0.2"].value == 0.25
    assert row.metrics["robust_accuracy/linf/pgd/0.2"].value == 0.5


def test_models_are_told_apart_by_what_is_proved() -> None:
    proved = [[True, False], [True, True], [False, False]]
    found = evidence(cells(Case(broken=[[False, False]] * 3), proved))
    assert found["certified_accuracy/linf/planes/0.1"].values.tolist() == [1, 1, 0]
    assert found["certified_accuracy/linf/planes/0.2"].values.tolist() == [0, 1, 0]
    assert found["robust_accuracy/linf/worst/0.1"].values.tolist() == [1, 1, 1], "a proof is no attack"


def test_a_sample_that_is_proved_and_broken_is_an_error_that_names_it() -> None:
    broken = [[False, False], [True, True]]
    with pytest.raises(PluginError, match=r"sample 1 is proved at linf 0.1 by 'planes', and broken there by 'pgd'"):
        rows(cells(Case(broken=broken), [[True, False], [True, False]]))


def test_an_attacks_own_proofs_are_counted_on_the_row() -> None:
    case = Case(broken=[[False, False], [False, True]], proved=[[True, True], [True, False]])
    [row] = rows(cells(case, [[False, False], [False, False]]))
    assert "robust_accuracy/linf/pgd: proved: 2 of 2 samples at 0.1 were not attacked" in row.flags
    assert "robust_accuracy/linf/pgd: proved: 1 of 2 samples at 0.2 were not attacked" in row.flags
