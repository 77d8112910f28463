"""A residual network that runs, for each input, only the blocks that a small policy network asks for.

Wu, Nagarajan, Kumar, Rennie, Davis, Grauman and Feris 2018, BlockDrop: Dynamic Inference Paths in Residual Networks,
arXiv:1711.08393, sections 3.1 to 3.3.
"""

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from torch import Tensor, nn

RUNS = 1.0  # logit of each block before training: the policy starts from the whole network


class Block(nn.Module):
    """What a residual block adds to its shortcut: two 3x3 convolutions with BatchNorm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return added


class BlockDrop(nn.Module):
    """(n, channels, height, width) to (n, classes); which blocks run is decided per row.

    widths: maps of each group of `blocks` blocks; the first block of each group but the first halves the maps. The
    shortcut has no parameters: maps are subsampled and padded with zeros (He et al. 2016, option A), so that every
    block can be left out. The policy network has two strided convolutions, of eight and sixteen maps.
    """

    def __init__(self, input_shape: Sequence[int], classes: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(input_shape[0], widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        shapes = [
            (widths[max(0, group - 1)] if number == 0 else width, width, 2 if group and not number else 1)
            for group, width in enumerate(widths)
            for number in range(blocks)
        ]
        self.blocks = nn.ModuleList(Block(*shape) for shape in shapes)
        self.shapes = shapes
        self.linear = nn.Linear(widths[-1], classes)
        self.policy = Policy(input_shape, len(shapes))

    def forward(self, x: Tensor) -> Tensor:
        return self.given(x, self.decide(x))

    def decide(self, x: Tensor) -> Tensor:
        """The blocks that run, (n, blocks) bool: those with a probability of one half or more."""
        chosen: Tensor = self.policy(x) >= 0
        return chosen

    def given(self, x: Tensor, run: Tensor | None = None) -> Tensor:
        """Logits (n, classes) when each row runs the blocks that `run` (n, blocks) bool names for it, and no others.

        run: None for all blocks, always.
        """
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            x = _step(x, block, self.shapes[number], None if run is None else run[:, number])
        scores: Tensor = self.linear(x.mean((2, 3)))
        return scores


class Policy(nn.Module):
    """(n, channels, height, width) to (n, blocks): the logit of each block's probability to run."""

    def __init__(self, input_shape: Sequence[int], blocks: int, width: int = 8) -> None:
        super().__init__()
        last = nn.Linear(4 * width, blocks)
        nn.init.constant_(last.bias, RUNS)
        self.layers = nn.Sequential(
            nn.Conv2d(input_shape[0], width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * width, 4 * width),
            nn.ReLU(),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def _step(x: Tensor, block: nn.Module, shape: tuple[int, int, int], run: Tensor | None) -> Tensor:
    inputs, outputs, stride = shape
    short = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, outputs - inputs))
    if run is None or run.all():
        return F.relu(short + block(x))
    if not run.any():
        return F.relu(short)
    rows = run.nonzero()[:, 0]
    return F.relu(short.index_add(0, rows, block(x[rows])))
