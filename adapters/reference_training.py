"""Training of the reference models: the same bits for the same data, seed, and number of threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from torch import Tensor, nn

from adapters.reference_nets import binary_weights
from bench.contracts import Frozen, Report, Samples
from bench.errors import PluginError


class Schedule(Frozen):
    """AdamW over shuffled mini-batches with the one-cycle learning rate of Smith and Topin 2018."""

    epochs: int
    batch_size: int
    learning_rate: float  # the highest of the cycle
    weight_decay: float


def tensors(samples: Samples, input_shape: tuple[int, ...], classes: int) -> tuple[Tensor, Tensor]:
    """All inputs (n, *input_shape) float32 and labels (n,) int64. Raises PluginError for data of another shape."""
    if samples.input_shape != input_shape or len(samples.class_names) != classes:
        raise PluginError(
            f"the net takes inputs of shape {input_shape} and {classes} classes, but the training data have "
            f"{samples.input_shape} and {len(samples.class_names)}",
            "train it on the data set 'digits', or write an adapter for these data",
        )
    labels = torch.from_numpy(samples.labels)
    return samples.fetch(torch.arange(len(samples)).numpy()).to(torch.float32), labels


@contextmanager
def own_random_numbers(seed: int) -> Iterator[torch.Generator]:
    """Inside, torch's global CPU generator starts from `seed`; afterwards it stands where it stood. Yields one more."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


def fit(net: nn.Module, x: Tensor, y: Tensor, schedule: Schedule, random: torch.Generator, report: Report) -> None:
    """Train `net` in place on x (n, ...) and y (n,), and leave it in eval mode.

    Weights of which only the sign counts stay in [-1, 1].
    """
    net.train()
    batches = max(len(x) // schedule.batch_size, 1)  # rounded down: BatchNorm cannot train on a batch of one
    optimiser = torch.optim.AdamW(net.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.learning_rate, schedule.epochs * batches)
    latent = [net.get_parameter(name) for name in binary_weights(net)]
    for epoch in range(schedule.epochs):
        total = 0.0
        for rows in torch.randperm(len(x), generator=random).tensor_split(batches):
            loss = F.cross_entropy(net(x[rows]), y[rows])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            cycle.step()
            with torch.no_grad():
                for weight in latent:
                    weight.clamp_(-1, 1)  # beyond, the straight-through gradient is 0 and the weight would be stuck
            total += loss.item() * len(rows)
        report.step(epoch + 1, schedule.epochs, loss=total / len(x))
    net.eval()
