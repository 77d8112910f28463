"""Which node does what: where a worker may be, how many there is room for, where timings are alone. Pure; nodes are
Ray's lists.

Ray's nodes carry labels: their own (`ray start --labels tier=gold`) and Ray's, such as `ray.io/accelerator-type`. A
selector says of some labels what a node has to have: `v`, `!v`, `in(v, w)`, `!in(v, w)`. A node without the label has
none of the values: it fits `!v`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import did_you_mean
from bench.suite import Resources

NODE = "ray.io/node-id"  # the label by which Ray knows a node

Nodes = Sequence[Mapping[str, Any]]  # of ray.nodes(): NodeID, Alive, Resources, Labels
Amounts = Mapping[str, Any]  # of one worker, as Ray wants it: num_cpus, num_gpus, perhaps a label_selector


@dataclass(frozen=True)
class Share:
    """What one worker takes of a node, and of which nodes. gpus None: one where any of them has one to give."""

    cpus: float = 1.0
    gpus: float | None = None
    nodes: tuple[tuple[str, str], ...] = ()  # the selector, in the order of its labels

    @classmethod
    def of(cls, resources: Resources) -> "Share":
        return cls(resources.cpus_per_worker, resources.gpus_per_worker, tuple(sorted(resources.nodes.items())))

    @property
    def weight(self) -> float:
        """In workers of one core and one GPU: what a second of it costs its user."""
        return max(self.cpus, 1.0 if self.gpus is None else self.gpus)

    def __str__(self) -> str:
        parts = [f"{_count(self.cpus, 'CPU')}", *([_count(self.gpus, "GPU")] if self.gpus else [])]
        return " and ".join(parts) + _with(self.nodes)


def amounts(nodes: Nodes, share: Share) -> dict[str, Any]:
    """What one worker takes now. Asked anew, since nodes join and leave."""
    worker: dict[str, Any] = {"num_cpus": share.cpus, "num_gpus": 0.0 if share.gpus is None else share.gpus}
    if share.nodes:
        worker["label_selector"] = dict(share.nodes)
    if share.gpus is None and room(nodes, {**worker, "num_gpus": 1.0}):
        worker["num_gpus"] = 1.0
    return worker


def room(nodes: Nodes, worker: Amounts, without: str | None = None) -> int:
    """How many such workers the living nodes hold at once, all of them or all but one; 0 where none."""
    return sum(fits(node["Resources"], worker) for node in suited(nodes, worker) if node["NodeID"] != without)


def suited(nodes: Nodes, worker: Amounts) -> list[Mapping[str, Any]]:
    """The living nodes whose labels are as such a worker wants them."""
    selector = worker.get("label_selector", {})
    return [node for node in nodes if node["Alive"] and accepts(selector, node.get("Labels", {}))]


def accepts(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels is one of those that are meant."""
    return all(_accepts(wanted, labels.get(label)) for label, wanted in selector.items())


def fits(resources: Mapping[str, float], worker: Amounts) -> int:
    """How many such workers these resources are enough for."""
    wanted = {"CPU": worker["num_cpus"], "GPU": worker["num_gpus"]}
    parts = [int(resources.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items() if amount]
    return max(0, min(parts, default=1))


def nowhere(nodes: Nodes, share: Share) -> tuple[str, str] | None:
    """Why no living node can hold such a worker, and what to do; None where one can."""
    worker = amounts(nodes, share)
    if room(nodes, worker):
        return None
    living = [node for node in nodes if node["Alive"]]
    if there := suited(nodes, worker):
        largest = max((_most(node, "CPU"), _most(node, "GPU")) for node in there)
        what = " and ".join((_count(largest[0], "CPU"), _count(largest[1], "GPU")))
        return (
            f"a worker takes {share}: no such node has as much (the largest has {what})",
            "ask for less (resources.cpus_per_worker, resources.gpus_per_worker), or add a node",
        )
    labels = sorted({f"{label}={value}" for node in living for label, value in node.get("Labels", {}).items()
                     if label != NODE})  # fmt: skip
    near = "".join(did_you_mean(f"{label}={wanted}", labels) for label, wanted in share.nodes)
    return (
        f"no living node{_with(share.nodes)}{near}",
        f"labels that there are: {', '.join(labels) or 'none'}. `ray start --labels KEY=VALUE` gives a node one",
    )


def in_turn(useful: Mapping[Share, int], most: int) -> list[Share]:
    """Workers to ask for, so many at the most: each kind gets one in turn, until it has as many as are of use."""
    found: list[Share] = []
    for number in range(max(useful.values(), default=0)):
        found += [share for share, wanted in useful.items() if wanted > number]
        if len(found) >= most:
            break
    return found[:most]


def timing_node(nodes: Nodes, worker: Amounts, equals: Collection[str]) -> str | None:
    """The node that timings have to themselves while others work, one of `equals`, the first that will do.

    None where none has room for a worker, or no other node can take the rest of the work: then the rest comes first.
    """
    for node in equals:
        others = room(nodes, worker, without=node)
        if others and room(nodes, worker) > others:
            return node
    return None


def alone(nodes: Nodes, worker: Amounts, equals: Collection[str]) -> dict[str, Any] | None:
    """Options of an actor that has one of these nodes to itself: all its CPUs, and its GPUs where a worker takes any.

    equals: nodes with the same fingerprint, the preferred one first. None where none of them holds a worker.
    """
    holding = {node["NodeID"]: node["Resources"] for node in suited(nodes, worker) if fits(node["Resources"], worker)}
    found = [(name, _whole(holding[name], worker)) for name in equals if name in holding]
    if not found:
        return None
    names = [name for name, whole in found if whole == found[0][1]]
    chosen = names[0] if len(names) == 1 else f"in({', '.join(names)})"
    return {**found[0][1], "label_selector": {**worker.get("label_selector", {}), NODE: chosen}}


def elsewhere(worker: Amounts, node: str | None) -> dict[str, Any]:
    """Options of an actor anywhere but on this node; None: anywhere."""
    if node is None:
        return dict(worker)
    return {**worker, "label_selector": {**worker.get("label_selector", {}), NODE: f"!{node}"}}


def _accepts(wanted: str, value: str | None) -> bool:
    if wanted.startswith("!"):
        return not _accepts(wanted[1:], value)
    if wanted.startswith("in("):
        return value in [word.strip() for word in wanted[3:-1].split(",")]
    return value == wanted


def _whole(resources: Mapping[str, float], worker: Amounts) -> dict[str, float]:
    return {"num_cpus": resources.get("CPU", 0.0), "num_gpus": resources.get("GPU", 0.0) if worker["num_gpus"] else 0.0}


def _most(node: Mapping[str, Any], resource: str) -> float:
    return float(node["Resources"].get(resource, 0.0))


def _count(amount: float, what: str) -> str:
    return f"{amount:g} {what}{'' if amount == 1 else 's'}"


def _with(selector: Sequence[tuple[str, str]]) -> str:
    """In words: ` with tier=gold`."""
    return " with " + ", ".join(f"{label}={wanted}" for label, wanted in selector) if selector else ""
