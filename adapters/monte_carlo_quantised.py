"""Quantisation without training: how often random samples of the weights' distribution hit each weight."""

import torch
from pydantic import Field
from torch import Tensor

from adapters.derived import Derivation, Derived
from adapters.torch_classifier import state_from_bytes, state_to_bytes
from bench.contracts import (
    Classifier,
    Realisation,
    Training,
    adapter,
)
from bench.errors import PluginError
from bench.randomness import seed_of

UNIT = ".unit"  # ends the name of the factor between a layer's hits and its weights


@adapter("monte_carlo_quantised")
class MonteCarloQuantised(Derived):
    """Another model with the weights of every layer replaced by whole numbers of hits, without any training.

    Mordido et al. 2019, "Monte Carlo Quantization": per layer of n weights, N = K·n equidistant samples, moved together
    by a random part of their distance, are drawn from the distribution with probabilities |w| / Σ|w|; a weight becomes
    its sign × its hits × Σ|w| / N. Larger K is closer to the model and takes more bits. Activations stay float.
    model: the adapter of the float model; its weights are a state dict. The file holds the hits, as int8 or int16.
    """

    samples_per_weight: float = Field(default=1.0, gt=0, le=1000, description="K")
    repeat: int = Field(default=0, ge=0, description="another draw: joins the suite's seed")

    def build(self, weights: bytes | None) -> Classifier:
        if weights is None:
            raise PluginError(f"model '{self.name}' was built without weights", "run it through `gauntlet run`")
        state = state_from_bytes(weights)
        units = {name.removesuffix(UNIT): state.pop(name) for name in list(state) if name.endswith(UNIT)}
        bits = {name: _bits(state[name]) for name in units}
        for name, unit in units.items():
            state[name] = state[name].to(torch.float32) * unit
        built = self.original().build(state_to_bytes(state))
        built.realisation = Realisation.SIMULATED
        if built.module is not None:
            for layer_name, layer in built.module.named_modules():
                weight = f"{layer_name.removeprefix('inner.')}.weight"  # `inner` is what a normalisation wraps
                if weight in bits:
                    object.__setattr__(layer, "operand_bits", (bits[weight], 32))
        return built

    def training(self) -> Training:
        return _Drawing(self)


class _Drawing(Derivation):
    def __init__(self, model: MonteCarloQuantised) -> None:
        super().__init__(model)
        self.model = model

    def derive(self, parent: bytes, seed: int) -> bytes:
        out: dict[str, Tensor] = {}
        for name, value in state_from_bytes(parent).items():
            out[name] = value
            if value.ndim >= 2 and value.is_floating_point():
                random = torch.Generator().manual_seed(seed_of(seed + self.model.repeat, name))
                found, unit = hits(value, self.model.samples_per_weight, random)
                out[name] = found.to(torch.int8 if int(found.abs().max()) < 128 else torch.int16)
                out[name + UNIT] = torch.tensor(unit, dtype=torch.float32)
        return state_to_bytes(out)


def hits(weight: Tensor, samples_per_weight: float, random: torch.Generator) -> tuple[Tensor, float]:
    """(signed hits, unit) with weight ≈ hits × unit: int64 of the weight's shape, and Σ|w| / N.

    Sample i of N = round(K·n) falls on (i + ξ) / N of the cumulated magnitudes, one ξ in [0, 1) for all. So each weight
    gets the hits that it expects, rounded up or down, and the hits sum to N. Raises PluginError for weights that are
    all zero, and for more hits than int16 holds.
    """
    magnitudes = weight.detach().double().abs().flatten()
    total = float(magnitudes.sum())
    if not total > 0:
        raise PluginError("a layer's weights are all zero, so there is nothing to draw from")
    n = max(1, round(samples_per_weight * len(magnitudes)))
    offset = float(torch.rand((), generator=random, dtype=torch.float64))
    ends = magnitudes.cumsum(0) / total * n
    ends[-1] = n
    below = (ends - offset).ceil().clamp(0, n)  # samples below the end of each weight's part
    found = torch.diff(below, prepend=torch.zeros(1, dtype=torch.float64)).to(torch.int64)
    if int(found.max()) > torch.iinfo(torch.int16).max:
        raise PluginError("a weight is hit more than 32,767 times", "use fewer `samples_per_weight`")
    return found.reshape(weight.shape) * weight.detach().sign().to(torch.int64), total / n


def _bits(found: Tensor) -> int:
    """Of a signed number as large as the largest."""
    return 1 + int(found.abs().max()).bit_length()
