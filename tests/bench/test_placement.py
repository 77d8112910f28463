"""Which node does what, on lists as Ray gives them."""

import pytest

from bench.placement import NODE, Share, accepts, alone, amounts, elsewhere, in_turn, nowhere, room, timing_node

WORKER = {"num_cpus": 2.0, "num_gpus": 0.0}


def node(name: str, cpus: float = 4.0, alive: bool = True, gpus: float = 0.0):
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus} if cpus else {}}


def test_room_is_what_whole_workers_the_living_nodes_hold():
    nodes = [node("a", 5), node("b", 4), node("dead", 8, alive=False), node("head", 0)]
    assert room(nodes, WORKER) == 4
    assert room(nodes, WORKER, without="a") == 2


def test_a_worker_that_takes_a_gpu_counts_by_the_scarcer_of_the_two():
    assert room([node("a", 8, gpus=1)], {"num_cpus": 1.0, "num_gpus": 0.5}) == 2


def test_timings_take_the_drivers_node_only_where_another_can_do_the_rest():
    assert timing_node([node("a"), node("b")], WORKER, ["a"]) == "a"
    assert timing_node([node("a"), node("b")], WORKER, ["b", "a"]) == "b"
    assert timing_node([node("a")], WORKER, ["a"]) is None
    assert timing_node([node("a"), node("b", 1)], WORKER, ["a"]) is None
    assert timing_node([node("a"), node("b", alive=False)], WORKER, ["a"]) is None
    assert timing_node([node("head", 0), node("b")], WORKER, ["head"]) is None
    assert timing_node([node("head", 0), node("b"), node("c")], WORKER, ["head", "b"]) == "b"


def test_who_is_alone_takes_all_of_the_drivers_node():
    nodes = [node("a", 16, gpus=2), node("b")]
    assert alone(nodes, WORKER, ["a"]) == {"num_cpus": 16, "num_gpus": 0, "label_selector": {NODE: "a"}}
    found = alone(nodes, {**WORKER, "num_gpus": 1.0}, ["a"])
    assert found is not None
    assert found["num_gpus"] == 2
    assert alone([node("a", 0), node("b")], WORKER, ["a"]) is None


def test_others_start_anywhere_but_there_and_anywhere_once_it_is_free():
    assert elsewhere(WORKER, "a") == {**WORKER, "label_selector": {NODE: "!a"}}
    assert elsewhere(WORKER, None) == WORKER


@pytest.mark.parametrize(
    ("wanted", "fits_gold", "fits_silver", "fits_none"),
    [
        ("gold", True, False, False),
        ("!gold", False, True, True),
        ("in(gold, silver)", True, True, False),
        ("in(gold,copper)", True, False, False),
        ("!in(gold, silver)", False, False, True),
    ],
)
def test_a_label_is_held_against_a_selector_as_ray_does(wanted: str, fits_gold, fits_silver, fits_none):
    found = [accepts({"tier": wanted}, labels) for labels in ({"tier": "gold"}, {"tier": "silver"}, {"site": "lab"})]
    assert found == [fits_gold, fits_silver, fits_none]
    assert not accepts({"tier": "gold", "site": "lab"}, {"tier": "gold"}), "all of them"


def test_only_nodes_with_the_labels_have_room():
    nodes = [node("a"), {**node("b"), "Labels": {"tier": "gold"}}]
    worker = {**WORKER, "label_selector": {"tier": "gold"}}
    assert room(nodes, worker) == 2
    assert timing_node(nodes, worker, ["b"]) is None, "no other node can take the rest"
    found = alone(nodes, worker, ["a", "b"])
    assert found is not None
    assert found["label_selector"] == {"tier": "gold", NODE: "b"}
    assert elsewhere(worker, "c")["label_selector"] == {"tier": "gold", NODE: "!c"}


def test_a_timing_takes_any_of_the_nodes_that_are_as_large_as_the_first():
    found = alone([node("a", 4), node("b", 4), node("c", 8)], WORKER, ["b", "a", "c"])
    assert found == {"num_cpus": 4, "num_gpus": 0, "label_selector": {NODE: "in(b, a)"}}


def test_who_leaves_the_number_of_gpus_out_gets_one_where_a_suited_node_has_one_now():
    some = {"num_cpus": 1.0, "num_gpus": 1.0}
    gpu = {**node("g", 4, gpus=1), "Labels": {"tier": "gold"}}
    assert amounts([node("a"), gpu], Share()) == some
    assert amounts([node("a")], Share()) == {**some, "num_gpus": 0.0}
    assert amounts([node("a"), {**gpu, "Alive": False}], Share())["num_gpus"] == 0
    assert amounts([node("a"), gpu], Share(nodes=(("tier", "!gold"),)))["num_gpus"] == 0
    assert amounts([node("a"), gpu], Share(gpus=0.0))["num_gpus"] == 0
    assert amounts([node("a"), gpu], Share(cpus=8))["num_gpus"] == 0, "its node is too small"


def test_what_no_node_can_hold_is_said_with_what_there_is():
    nodes = [{**node("a", 4), "Labels": {"tier": "silver", NODE: "a"}}, node("b", 8, alive=False)]
    assert nowhere(nodes, Share(cpus=4)) is None
    assert nowhere(nodes, Share(cpus=8)) == (
        "a worker takes 8 CPUs: no such node has as much (the largest has 4 CPUs and 0 GPUs)",
        "ask for less (resources.cpus_per_worker, resources.gpus_per_worker), or add a node",
    )
    why = nowhere(nodes, Share(gpus=0.5, nodes=(("tier", "sliver"),)))
    assert why is not None
    assert why[0] == "no living node with tier=sliver - did you mean 'tier=silver'?"
    assert why[1].startswith("labels that there are: tier=silver. ")
    assert "labels that there are: none" in (nowhere([], Share()) or ("", ""))[1]


def test_a_larger_worker_costs_more():
    assert [Share().weight, Share(cpus=4).weight, Share(cpus=0.5, gpus=0).weight, Share(gpus=2).weight] == [
        1,
        4,
        0.5,
        2,
    ]
    assert Share(cpus=0.25).weight == 1, "it may get a GPU"


def test_workers_are_asked_for_in_turn_up_to_so_many():
    small, large = Share(), Share(cpus=8)
    assert in_turn({small: 3, large: 1}, 100) == [small, large, small, small]
    assert in_turn({small: 50, large: 50}, 5) == [small, large, small, large, small]
    assert in_turn({large: 2}, 1) == [large]
    assert in_turn({small: 0}, 5) == in_turn({}, 5) == []
