"""Structured pruning: channels are really removed, a few at a time, and the net learns in between."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from pydantic import Field
from torch import Tensor, nn

from adapters.compressed import Compressed, Stages
from adapters.recipe import train
from adapters.torch_classifier import TorchClassifier, load_state, state_from_bytes
from bench.contracts import Realisation, Report, Samples, adapter
from bench.errors import PluginError
from bench.randomness import seed_of
from bench.saliency import feature_maps, flops_per_map, importance, normalised

Criterion = Literal[
    "taylor", "weight_norm", "mean_activation", "sd_activation", "apoz", "obd", "mutual_information", "random", "oracle"
]


@adapter("pruned_channels")
class PrunedChannels(Compressed):
    """A CNN with its least important channels removed for good, iteratively, and fine-tuned.

    Molchanov et al. 2017: rank the channels of all convolutions by `criterion` on `images` training samples, remove
    `at_once` of them, update the weights `updates` times in mini-batches as large as those of `train`, until the share
    `keep` is left; then train by `train`. The last channel of a convolution stays, and hidden linear layers keep their
    width. What each criterion is, is told by the probe `channel_criteria`; torch-pruning removes the channels, with
    BatchNorm and the inputs of the next layer.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "torch-pruning")
    realised = Realisation.REAL_SHAPES

    criterion: Criterion = Field(default="taylor", description="what ranks the channels")
    keep: float = Field(default=0.5, gt=0, le=1, description="share of the channels that stay, of all convolutions")
    at_once: int = Field(default=1, ge=1, description="channels of a removal")
    updates: int = Field(default=20, ge=0, description="steps of SGD (momentum .9) after each removal")
    update_rate: float = Field(default=1e-3, gt=0, description="learning rate of these")
    images: int = Field(default=256, ge=1, description="training samples that channels are ranked on, drawn each time")
    normalised: bool = Field(default=True, description="divide each layer's importance by its L2 norm (but `random`)")
    flops_weight: float = Field(
        default=0.0, ge=0, description="times a map's millions of FLOPs, is subtracted from its importance"
    )

    fine_tune: bool = Field(default=True, description="train by `train` when the last channel is gone")

    def check(self, net: nn.Module) -> None:
        super().check(net)
        feature_maps(net)

    def compress(
        self, net: nn.Module, x: Tensor, y: Tensor, samples: Samples, *, seed: int, report: Report
    ) -> nn.Module:
        widths = channels(net)
        surplus = sum(widths) - max(len(widths), round(self.keep * sum(widths)))
        removals = -(-surplus // self.at_once)
        stages = Stages(report, removals + self.fine_tune)
        if stages.state:
            net = shaped(net, stages.state)
            load_state(net, stages.state)
        for number in range(stages.done, removals):
            count = min(self.at_once, surplus - number * self.at_once)
            random = torch.Generator().manual_seed(seed_of(seed, "removal", number))
            rows = torch.randperm(len(x), generator=random)[: self.images]
            removed = weakest(self.ranking(net.eval(), x[rows], y[rows], random), count)
            remove(net, removed, x[:1])
            loss = self._update(net, x, y, random)
            left = dict(zip((f"channels/{each.convolution}" for each in feature_maps(net)), channels(net), strict=True))
            stages.end(net.state_dict(), **({} if loss is None else {"loss": loss}), **left)
        if self.fine_tune:
            train(net, x, y, self.train, seed=seed, report=stages, bounds=samples.bounds)
        return net

    def ranking(self, net: nn.Module, x: Tensor, y: Tensor, random: torch.Generator) -> list[Tensor]:
        """Importance of every channel, (channels,) float64 per convolution, with the cost of its FLOPs subtracted.

        `random` is never normalised: the norm would spare the narrower layers, and any channel is to go as likely.
        """
        found = importance(self.criterion, net, x, y, random)
        found = normalised(found) if self.normalised and self.criterion != "random" else found
        costs = flops_per_map(net, x[:1])
        return [layer - self.flops_weight * cost for layer, cost in zip(found, costs, strict=True)]

    def build(self, weights: bytes | None) -> TorchClassifier:
        if weights is None:
            return super().build(None)  # the error
        state = state_from_bytes(weights)
        net = shaped(self.net(), state)
        load_state(net, state)
        return self.classifier(net)

    def _update(self, net: nn.Module, x: Tensor, y: Tensor, random: torch.Generator) -> float | None:
        """The steps between two removals; the mean loss over them."""
        optimiser = torch.optim.SGD(net.parameters(), self.update_rate, momentum=0.9)
        net.train()
        total = 0.0
        for _ in range(self.updates):
            rows = torch.randint(len(x), (self.train.batch_size,), generator=random)
            loss = F.cross_entropy(net(x[rows]), y[rows])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            total += loss.item()
        net.eval()
        return total / self.updates if self.updates else None


def channels(net: nn.Module) -> list[int]:
    """How many each convolution has."""
    return [len(net.get_submodule(each.convolution).get_parameter("weight")) for each in feature_maps(net)]


def weakest(ranking: list[Tensor], count: int) -> list[list[int]]:
    """The `count` least important channels of all layers, as ascending indices per layer; of equals, the earlier one.

    At least one channel stays in each layer, so it may be fewer.
    """
    order = torch.cat(ranking).sort(stable=True).indices.tolist()
    places = [(layer, channel) for layer, each in enumerate(ranking) for channel in range(len(each))]
    chosen: list[list[int]] = [[] for _ in ranking]
    for layer, channel in (places[index] for index in order):
        if sum(map(len, chosen)) < count and len(chosen[layer]) < len(ranking[layer]) - 1:
            chosen[layer].append(channel)
    return [sorted(each) for each in chosen]


def remove(net: nn.Module, removed: list[list[int]], example: Tensor) -> None:
    """Take these channels, per convolution, out of the net in place: its tensors get smaller.

    It then computes what it computed with the maps of these channels set to zero. example: (1, *shape).
    """
    import torch_pruning

    net.eval()
    graph = torch_pruning.DependencyGraph().build_dependency(net, example_inputs=example)
    for each, indices in zip(feature_maps(net), removed, strict=True):
        if indices:
            layer = net.get_submodule(each.convolution)
            group = graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, idxs=indices)
            if not graph.check_pruning_group(group):
                raise PluginError(f"removing {len(indices)} channels of '{each.convolution}' would leave a layer empty")
            group.prune()


def shaped(net: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """The same layers with the widths that their tensors have in `state`; the values are not set. In place."""
    for name, layer in net.named_modules():
        weight = state.get(f"{name}.weight")
        if weight is None:
            continue
        if isinstance(layer, nn.Conv2d):
            layer.out_channels, layer.in_channels = weight.shape[0], weight.shape[1]
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = weight.shape
        elif isinstance(layer, nn.BatchNorm2d):
            layer.num_features = len(weight)
        for part, value in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            if (given := state.get(f"{name}.{part}")) is not None and given.ndim == value.ndim:
                value.data = value.data.new_zeros(given.shape)
    return net
