"""Foolbox draws for a whole batch from global generators; here each sample gets the draws of its own stream.

`SampleDraws` stands between Foolbox and torch while an attack runs. Every torch draw of Foolbox 3.3.4 is one of
`torch.rand` and `torch.randn`. In a batch, the first axis of what is drawn counts the samples, and each slice comes
from that sample's stream. An attack whose draws cannot be told apart by sample (NumPy's global generator, say) runs on
one sample at a time: then all its draws are that sample's.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bench.contracts import Classifier
from bench.errors import PluginError
from bench.randomness import SampleRandom

# What draws from torch's global generator, of which only the first two are served.
DRAWS = ("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "multinomial",
         "normal", "uniform_", "normal_", "bernoulli_", "random_", "exponential_", "poisson", "dropout")  # fmt: skip


class SampleDraws(TorchFunctionMode):
    """While active, `torch.rand` and `torch.randn` draw from one stream per sample.

    alone: there is one stream, and it serves any shape; else the first axis of what is drawn counts the samples.
    Any other draw from torch's global generator raises PluginError. `outside` lifts all this for the model's own draws.
    """

    def __init__(self, random: SampleRandom, alone: bool) -> None:
        super().__init__()
        if alone and len(random) != 1:
            raise ValueError(f"draws of any shape need one stream, got {len(random)}")
        self.random = random
        self.alone = alone

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name not in DRAWS:
            return func(*args, **(kwargs or {}))
        if name == "rand":
            return self._draw(self.random.uniform, *args, **(kwargs or {}))
        if name == "randn":
            return self._draw(self.random.normal, *args, **(kwargs or {}))
        raise PluginError(f"an attack drew by torch's {name}, which belongs to no sample", "serve it in SampleDraws")

    def _draw(
        self, source: Callable[..., Tensor], *size: Any, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Tensor:
        shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
        if self.alone:
            return source(shape, device=str(device))[0].to(dtype)
        if shape[:1] != (len(self.random),):
            raise PluginError(f"an attack drew {tuple(shape)} for {len(self.random)} samples: not one slice for each")
        return source(shape[1:], device=str(device)).to(dtype)

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Torch as it is, for what is not the attack: the model may be stochastic, and should not be slowed."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            self.__enter__()  # type: ignore[no-untyped-call]


@contextmanager
def numpy_from(random: SampleRandom) -> Iterator[None]:
    """NumPy's global generator, seeded from the only stream of `random`, and put back afterwards."""
    state = np.random.get_state()
    np.random.seed(int(random.integers((1,), 0, 2**32)[0, 0]))
    try:
        yield
    finally:
        np.random.set_state(state)


class Watched(torch.nn.Module):
    """What Foolbox sees of a classifier: inputs in the unit box, and no draws served inside.

    scale, low: `input units = low + scale * unit`. Keeps in `first` the first query of each row that lost its label and
    that `accept` (query (n, ...) -> mask (n,)) lets pass, where a query has one row for each sample. untouched: the
    inputs (n, ...), of an attack that is over for a sample as soon as a query of it has lost its label, but asks on for
    the whole block: what is over is asked no more, and answered as before. A query of the untouched inputs begins anew.
    """

    def __init__(
        self,
        model: Classifier,
        draws: SampleDraws,
        y: Tensor,
        log_softmax: bool,
        accept: Callable[[Tensor], Tensor] | None,
        untouched: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model, self.untouched = model, untouched
        self.low, self.scale = model.bounds.low, model.bounds.high - model.bounds.low
        self.unit = (self.low, self.scale) == (0.0, 1.0)
        self.draws, self.y, self.log_softmax, self.accept = draws, y, log_softmax, accept
        self.first: Tensor | None = None
        self.found = torch.zeros(len(y), dtype=torch.bool, device=y.device)
        self.over = torch.zeros_like(self.found)
        self.answered = torch.zeros(0)

    def forward(self, unit: Tensor) -> Tensor:
        with self.draws.outside():
            x = unit if self.unit else self.low + self.scale * unit
            logits = self.model.logits(x) if self.untouched is None else self._standing(x, unit)
            if self.accept is not None and len(unit) == len(self.y):
                self._remember(unit.detach(), logits.detach())
            # Foolbox changes logits in place (confidence of Carlini-Wagner): never the model's own tensor
            return logits.log_softmax(1) if self.log_softmax else logits.clone()

    def _standing(self, x: Tensor, unit: Tensor) -> Tensor:
        assert self.untouched is not None
        if torch.equal(unit, self.untouched):
            self.over[:] = False
        rows = (~self.over).nonzero()[:, 0]
        if len(rows) == len(x):
            logits = self.model.logits(x)
        else:
            logits = self.answered.index_put((rows,), self.model.rows(rows).logits(x[rows]))
        self.answered = logits.detach()
        self.over |= self.answered.argmax(1) != self.y
        return logits

    def _remember(self, unit: Tensor, logits: Tensor) -> None:
        assert self.accept is not None
        new = ~self.found & (logits.argmax(1) != self.y)
        if bool(new.any()):
            new &= self.accept(unit)
            self.first = torch.zeros_like(unit) if self.first is None else self.first
            self.first[new] = unit[new]
            self.found |= new
