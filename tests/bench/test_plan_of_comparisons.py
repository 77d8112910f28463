"""What a baseline, a paired probe and fresh processes make of a plan."""

from bench.plan import DatasetRef, EvaluationRef, ModelRef, Resolved
from bench.records import Kind


def resolved(control: str = "net", processes: int = 3, weights: str = "w1") -> Resolved:
    models = (
        ModelRef(label="net", plugin="a", weights=weights),
        ModelRef(label="small", plugin="b", weights="w2", baseline=control),
    )
    data = DatasetRef(label="d", plugin="d", split="test", digest="x", size=10, classes=2)
    paired = EvaluationRef(
        label="paired", plugin="p", kind=Kind.PROBE, exclusive=True, paired=True, processes=processes, hardware="h"
    )
    size = EvaluationRef(label="size", plugin="s", kind=Kind.PROBE)
    return Resolved(
        suite="s", seed=0, block=4, threads=1, engine="e", models=models, datasets=(data,), evaluations=(paired, size)
    )


def test_only_models_with_a_baseline_are_paired_and_the_task_names_it():
    cells = list(resolved().cells("*/paired"))
    assert [cell.label for cell in cells] == ["small/d/paired"]
    assert cells[0].baseline is not None
    assert cells[0].baseline.label == "net"
    assert [cell.baseline for cell in resolved().cells("*/size")] == [None, None]


def test_each_process_is_a_task_with_a_key_of_its_own():
    [cell] = resolved().cells("*/paired")
    tasks = list(cell.tasks())
    assert cell.count == len(tasks) == len({task.key for task in tasks}) == 3


def test_the_weights_of_the_baseline_are_a_part_of_the_identity_and_those_of_a_stranger_are_not():
    [first], [second] = (list(resolved(weights=weights).cells("*/paired")) for weights in ("w1", "w3"))
    assert first.identity != second.identity
    [alone], [other] = (list(resolved(weights=weights).cells("small/*/size")) for weights in ("w1", "w3"))
    assert alone.identity == other.identity


def test_another_baseline_is_another_submission():
    assert resolved("net").submission != resolved("small").submission


def crafted(on: str | None, weights: str = "w1") -> Resolved:
    attack = EvaluationRef(label="pgd", plugin="pgd", kind=Kind.ATTACK, norm="linf", epsilons=(0.1,), crafted_on=on)
    return resolved(weights=weights).model_copy(update={"evaluations": (attack,)})


def test_what_an_attack_is_crafted_on_is_a_part_of_the_identity_by_its_weights():
    own, other = (next(iter(crafted(on).cells("small/*"))) for on in (None, "net"))
    assert own.surrogate is None
    assert other.surrogate is not None
    assert other.surrogate.label == "net"
    [changed] = crafted("net", "w3").cells("small/*")
    assert len({own.identity, other.identity, changed.identity}) == 3
    assert crafted("net").submission != crafted("small").submission
