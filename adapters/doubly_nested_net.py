"""A doubly nested network: each pair (stage, channel group) ends a smaller network that needs nothing of the others.

Kim, Hong, Choi and Kim 2018, Doubly Nested Network for Resource-Efficient Inference, arXiv:1806.07568: channels are
sorted into groups, and a group is computed from groups of its own number or below ("channel-causal"). So the network of
the first d stages and the first w groups is a slice, and growing it in either direction repeats no work.
"""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn

Subnet = tuple[int, int]  # (stages, groups), both from 1


class CausalStage(nn.Module):
    """A 3x3 convolution, BatchNorm and ReLU per group; group g sees the maps of groups 1 to g of the stage before."""

    def __init__(self, inputs: int, groups: int, width: int, pool: bool, *, first: bool) -> None:
        super().__init__()
        seen = [inputs if first else inputs * group for group in range(1, groups + 1)]
        self.groups = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(2) if pool else nn.Identity(),
            )
            for channels in seen
        )


class DoublyNested(nn.Module):
    """(n, channels, height, width) to (n, classes) by the networks of `path`, one after the other.

    A row leaves at the first network whose largest softmax probability reaches `threshold`, the others go on; at the
    last one all leave. What a network has computed, the next one goes on from. Each stage has one classifier, shared by
    its widths: the mean of each map, weighted per group, summed over the groups that are there. `pools`: which stages
    end by halving the maps.
    """

    def __init__(
        self, input_shape: Sequence[int], classes: int, width: int, groups: int, pools: Sequence[bool]
    ) -> None:
        super().__init__()
        self.depth, self.width = len(pools), groups
        self.stages = nn.ModuleList(
            CausalStage(input_shape[0] if stage == 0 else width, groups, width, pool, first=stage == 0)
            for stage, pool in enumerate(pools)
        )
        self.heads = nn.ModuleList(
            nn.ModuleList(nn.Linear(width, classes, bias=group == 0) for group in range(groups)) for _ in pools
        )
        self.path: tuple[Subnet, ...] = staircase(self.depth, groups)
        self.threshold = 1.0

    def forward(self, x: Tensor) -> Tensor:
        if len(self.path) == 1:  # nothing to decide, so that other runtimes can follow it
            return _Grid(self, x).logits(*self.path[0])
        return self.run(x)[0]

    def run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, classes), and at which network of `path` each row left, (n,) int64."""
        rows, left, found = torch.arange(len(x), device=x.device), torch.zeros(len(x), dtype=torch.int64), []
        grid = _Grid(self, x)
        for number, (depth, width) in enumerate(self.path):
            logits = grid.logits(depth, width)
            done = logits.detach().softmax(1).amax(1) >= self.threshold
            done |= number == len(self.path) - 1
            found.append((rows[done], logits[done]))
            left[rows[done].cpu()] = number
            rows = rows[~done]
            if not len(rows):
                break
            if done.any():
                grid.keep(~done)
        order = torch.cat([taken for taken, _ in found]).argsort()
        return torch.cat([logits for _, logits in found])[order], left

    def every(self, x: Tensor) -> dict[Subnet, Tensor]:
        """The logits (n, classes) of all depth * width networks, for the price of the largest."""
        grid = _Grid(self, x)
        return {subnet: grid.logits(*subnet) for subnet in product(range(1, self.depth + 1), range(1, self.width + 1))}


class _Grid:
    """The maps of (stage, group) that were computed for the rows still asked for."""

    def __init__(self, net: DoublyNested, x: Tensor) -> None:
        self.net, self.x = net, x
        self.maps: dict[Subnet, Tensor] = {}
        self.scores: dict[Subnet, Tensor] = {}

    def keep(self, rows: Tensor) -> None:
        """Forget all other rows. rows: (n,) bool."""
        self.x = self.x[rows]
        self.maps = {cell: maps[rows] for cell, maps in self.maps.items()}
        self.scores = {cell: scores[rows] for cell, scores in self.scores.items()}

    def logits(self, depth: int, width: int) -> Tensor:
        parts = [self._score(depth, group) for group in range(1, width + 1)]
        return torch.stack(parts).sum(0)

    def _score(self, stage: int, group: int) -> Tensor:
        if (stage, group) not in self.scores:
            heads: nn.ModuleList = self.net.heads[stage - 1]  # type: ignore[assignment]
            self.scores[stage, group] = heads[group - 1](self._maps(stage, group).mean((2, 3)))
        return self.scores[stage, group]

    def _maps(self, stage: int, group: int) -> Tensor:
        if (stage, group) not in self.maps:
            below = [self.x] if stage == 1 else [self._maps(stage - 1, one) for one in range(1, group + 1)]
            layers: nn.ModuleList = self.net.stages[stage - 1].groups  # type: ignore[assignment]
            self.maps[stage, group] = layers[group - 1](torch.cat(below, 1))
        return self.maps[stage, group]


def staircase(depth: int, width: int) -> tuple[Subnet, ...]:
    """From (1, 1) to (depth, width), growing by one stage or one group at a time, in turn as evenly as they come."""
    path, stage, group = [(1, 1)], 1, 1
    while (stage, group) != (depth, width):
        deeper = group == width or (stage < depth and (stage - 1) * (width - 1) <= (group - 1) * (depth - 1))
        stage, group = (stage + 1, group) if deeper else (stage, group + 1)
        path.append((stage, group))
    return tuple(path)
