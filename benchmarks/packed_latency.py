"""One-bit inference against float torch of the same net: paired, batch of one, per layer shape and for whole nets.

    python benchmarks/packed_latency.py [--rounds 400] [--batch 1]

One thread. A round asks float, packed, packed, float; the figure is the median over rounds of float time / packed time,
with its 95 % order-statistic interval: above 1 packed is faster. The float net has its signs taken beforehand, so that
it multiplies and nothing else. Packing the activations is inside the packed time; compiling (stated) is not. All
outputs must be equal, or the script fails. Weights are random: no time depends on them. Prints Markdown.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from scipy import stats
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from adapters.binarised import Binarised
from adapters.binarised_nets import BinaryWeightLinear
from adapters.packed import PackedClassifier, _Layer, _Signed, float_thresholds
from adapters.packed_kernels import kernels
from adapters.reference_nets import BinaryConv2d, Sign, sign
from adapters.torch_classifier import TorchClassifier

SHAPES = [  # channels, maps, kernel, stride, height and width
    (64, 128, 6, 2, 14), (128, 128, 5, 1, 5),  # the 64-map net of the suite
    (256, 512, 6, 2, 14), (512, 512, 5, 1, 5),  # the 256-map net
    (64, 128, 4, 2, 8), (128, 128, 3, 1, 3),  # digits, 64 maps
    (128, 128, 3, 1, 16), (256, 256, 3, 1, 16), (256, 256, 1, 1, 16),
    (8, 8, 3, 1, 8), (3, 16, 3, 1, 32), (4, 4, 1, 1, 64),
]  # fmt: skip
NETS = [("mnist", 64), ("mnist", 128), ("mnist", 256), ("digits", 16), ("digits", 64)]


def presigned(layer: nn.Module) -> nn.Module:
    """A binary layer as a float one, with +1 and -1 for weights."""
    if isinstance(layer, BinaryWeightLinear):
        return _Signed(layer)
    if not isinstance(layer, BinaryConv2d):
        return layer
    plain = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, bias=False)
    plain.weight = nn.Parameter(sign(layer.weight.detach()), requires_grad=False)
    return plain


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def paired(slow: Callable[[], object], fast: Callable[[], object], rounds: int) -> str:
    """Cells of a table: both medians in microseconds, the ratio and its interval."""
    for _ in range(50):
        slow(), fast()
    times = [[timed(slow), timed(fast), timed(fast), timed(slow)] for _ in range(rounds)]
    ratios = sorted((a + d) / (b + c) for a, b, c, d in times)
    low = int(stats.binom.ppf(0.025, rounds, 0.5))
    first = 1e6 * statistics.median((a + d) / 2 for a, _, _, d in times)
    second = 1e6 * statistics.median((b + c) / 2 for _, b, c, _ in times)
    interval = f"{ratios[low]:.2f} to {ratios[rounds - 1 - low]:.2f}"
    return f"{first:.0f} | {second:.0f} | {statistics.median(ratios):.2f} | {interval}"


def layer_row(shape: tuple[int, int, int, int, int], batch: int, rounds: int) -> str:
    channels, maps, size, stride, side = shape
    convolution = BinaryConv2d(channels, maps, size, stride=stride, bias=False)
    gate = nn.Sequential(nn.BatchNorm2d(channels), Sign()).eval()
    x = torch.randn(batch, channels, side, side)
    packed = _Layer(convolution, *float_thresholds(gate, torch.Size((1, *x.shape[1:]))))
    plain = nn.Sequential(*gate, presigned(convolution)).eval()
    assert torch.equal(plain(x), torch.from_numpy(packed(x.numpy())).float())
    cells = paired(lambda: plain(x), lambda: packed(x.numpy()), rounds)
    return f"| {channels} → {maps}, {size}×{size}, stride {stride}, {side}×{side} | {cells} |"


def whole(data: str, width: int) -> TorchClassifier:
    made = Binarised(variant="C", width=width, data={"dataset": data})
    net = made.net().train()
    for _ in range(5):
        net(torch.rand(64, *made.shape))  # so that BatchNorm knows what it is given
    return made.classifier(net.eval())


def net_row(data: str, width: int, batch: int, rounds: int) -> str:
    source = whole(data, width)
    packed = PackedClassifier(source)
    plain = nn.Sequential(*map(presigned, source.module)).eval()
    x = torch.rand(batch, *source.input_shape)
    assert torch.equal(source.logits(x), packed.logits(x))
    assert torch.equal(plain(x), packed.logits(x))
    return f"| C{width}, {data} | {paired(lambda: plain(x), lambda: packed.logits(x), rounds)} |"


def compile_seconds() -> float:
    """Of both kernels, for both types of numbers: what building the first packed model of a process costs."""
    start = time.perf_counter()
    kernels()
    PackedClassifier(whole("digits", 16))
    return time.perf_counter() - start


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--batch", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, one thread, batch {given.batch}; compiled in {compile_seconds():.1f} s\n")
    for heading, rows in (
        ("BatchNorm, sign and binary convolution", [layer_row(s, given.batch, given.rounds) for s in SHAPES]),
        ("whole net", [net_row(*net, given.batch, given.rounds) for net in NETS]),
    ):
        print(f"| {heading} | float, µs | packed, µs | float / packed | 95 % |\n|---|---|---|---|---|")
        print("\n".join(rows), end="\n\n")


if __name__ == "__main__":
    main()
