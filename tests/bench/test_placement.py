"""Which node does what, on lists as Ray gives them."""

from bench.placement import NODE, alone, elsewhere, room, timing_node

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
