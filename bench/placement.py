"""Which node does what: how many workers there is room for, where timings are alone. Pure; nodes are Ray's lists."""

from collections.abc import Mapping, Sequence
from typing import Any

NODE = "ray.io/node-id"  # the label by which Ray knows a node

Nodes = Sequence[Mapping[str, Any]]  # of ray.nodes(): NodeID, Alive, Resources
Amounts = Mapping[str, Any]  # num_cpus and num_gpus of one worker


def room(nodes: Nodes, worker: Amounts, without: str | None = None) -> int:
    """How many such workers the living nodes hold at once, all of them or all but one; 0 where none."""
    return sum(_room(node["Resources"], worker) for node in nodes if node["Alive"] and node["NodeID"] != without)


def timing_node(nodes: Nodes, worker: Amounts, mine: str) -> str | None:
    """The node that timings have to themselves while others work: that of the driver, whose fingerprint they bear.

    None where it has no room for a worker, or no other node can take the rest of the work: then the rest comes first.
    """
    others = room(nodes, worker, without=mine)
    return mine if others and room(nodes, worker) > others else None


def alone(nodes: Nodes, worker: Amounts, mine: str) -> dict[str, Any]:
    """Options of an actor that has the driver's node to itself: all its CPUs, and its GPUs where a worker takes any.

    Where that node holds no worker (a head node without CPUs), an ordinary worker's options.
    """
    for node in nodes:
        if node["Alive"] and node["NodeID"] == mine and _room(node["Resources"], worker):
            gpus = node["Resources"].get("GPU", 0.0) if worker["num_gpus"] else 0.0
            return {"num_cpus": node["Resources"].get("CPU", 0.0), "num_gpus": gpus, "label_selector": {NODE: mine}}
    return dict(worker)


def elsewhere(worker: Amounts, node: str | None) -> dict[str, Any]:
    """Options of an actor anywhere but on this node; None: anywhere."""
    return dict(worker) if node is None else {**worker, "label_selector": {NODE: f"!{node}"}}


def _room(resources: Mapping[str, float], worker: Amounts) -> int:
    wanted = {"CPU": worker["num_cpus"], "GPU": worker["num_gpus"]}
    return min((int(resources.get(name, 0.0) / amount) for name, amount in wanted.items() if amount), default=1)
