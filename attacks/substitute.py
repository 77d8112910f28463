"""The substitute attack (Papernot et al. 2017, arXiv:1602.02697): a net of one's own, taught by the model's answers."""

from typing import Annotated, ClassVar, Self

import safetensors.torch
import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attacks.outer import Outer
from bench.contracts import Classifier, Knowledge, Norm, Samples, attack
from bench.errors import PluginError
from bench.randomness import SampleRandom

Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


class Imitation(Classifier):
    """A perceptron that takes the inputs of `model`."""

    def __init__(self, model: Classifier, hidden: tuple[int, ...]) -> None:
        self.input_shape, self.bounds, self.classes = model.input_shape, model.bounds, model.classes
        layers: list[nn.Module] = [nn.Flatten()]
        fed = torch.Size(model.input_shape).numel()
        for units in hidden:
            layers += [nn.Linear(fed, units), nn.ReLU()]
            fed = units
        self.net = nn.Sequential(*layers, nn.Linear(fed, model.classes))

    @property
    def module(self) -> nn.Module:
        return self.net

    def logits(self, x: Tensor) -> Tensor:
        low, high = self.bounds
        scores: Tensor = self.net((x - low) / (high - low))
        return scores


@attack("substitute")
class Substitute(Outer):
    """Teaches a net of its own by the model's decisions, attacks that net, and tries the result on the model.

    Knows nothing of the model but what class it answers with, of `images` samples that are not attacked and of their
    variations: after each of `rounds` trainings of `epochs` epochs every input so far is moved by `stride` (a share of
    the bounds' width) along the sign of the substitute's gradient for its class, and the model is asked for the class
    of the result. It is taught once per model, and its queries are counted. `attack` and `args`: what is run on it.
    """

    norms: ClassVar[tuple[Norm, ...]] = tuple(Norm)
    knowledge: ClassVar[Knowledge] = Knowledge.DECISION
    requires: ClassVar[tuple[str, ...]] = ("torch", "safetensors")
    fits: ClassVar[bool] = True
    role: ClassVar[str] = "is run on the substitute"

    images: Annotated[int, Field(ge=1, description="samples that it starts from")] = 150
    rounds: Annotated[int, Field(ge=1, le=12, description="trainings; between two the inputs double")] = 6
    epochs: Annotated[int, Field(ge=1, description="of each training")] = 10
    stride: Annotated[float, Field(gt=0, le=1, description="of the augmentation: lambda of the paper")] = 0.1
    hidden: Widths = Field(default=(200, 200), description="units of each hidden layer of the substitute")
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    batch_size: Annotated[int, Field(ge=1)] = 128

    _state: dict[str, Tensor] | None = PrivateAttr(default=None)

    @property
    def takes_targets(self) -> bool:
        return False  # it was taught the model's own classes

    @property
    def fit_queries(self) -> int | None:
        return None if self._state is None else int(self._state["queries"])

    def fit(self, model: Classifier, samples: Samples, seed: int) -> bytes:
        """See Learner.fit. At most `images * 2 ** (rounds - 1)` queries (algorithm 1 of the paper).

        What the model refuses to answer teaches nothing, and does not double. Raises PluginError where there are fewer
        samples than `images`, and where none is answered.
        """
        if len(samples) < self.images:
            raise PluginError(
                f"attack 'substitute' starts from {self.images} images, and there are {len(samples)} to learn from",
                "set `images` lower, or name a larger data set under `fit_on:`",
            )
        random = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(samples), generator=random)[: self.images]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of the first weights, and of a model that draws
            pupil = Imitation(model, self.hidden)
            optimiser = torch.optim.Adam(pupil.net.parameters(), self.learning_rate)
            asked = samples.fetch(chosen.numpy()).to(torch.float32)
            x, y, queries = *_answered(model, asked), len(asked)
            self._teach(pupil, optimiser, x, y, random)
            for _ in range(self.rounds - 1):
                asked = self._varied(pupil, x, y)
                moved, decided = _answered(model, asked)
                x, y, queries = torch.cat([x, moved]), torch.cat([y, decided]), queries + len(asked)
                self._teach(pupil, optimiser, x, y, random)
        return safetensors.torch.save({**pupil.net.state_dict(), "queries": torch.tensor(queries)})

    def restore(self, state: bytes) -> Self:
        copy = self.model_copy()
        copy._state = safetensors.torch.load(state)
        return copy

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. Asks nothing of the model: what it knows, it has learnt before."""
        if self._state is None:
            raise PluginError("attack 'substitute' has not been taught", "call `fit`, then `restore` its state")
        with torch.device("meta"):  # no random weights are drawn for what is replaced
            pupil = Imitation(model, self.hidden)
        learnt = {name: value for name, value in self._state.items() if name != "queries"}
        pupil.net.load_state_dict(learnt, assign=True)
        pupil.net.eval().requires_grad_(False).to(x.device)
        pupil.device = str(x.device)
        return self.inner().run(pupil, x, y, epsilon, random)

    def _varied(self, pupil: Imitation, x: Tensor, y: Tensor) -> Tensor:
        """x moved along the sign of the gradient of each input's own class.

        Of the logarithm of its probability, which has the sign of the probability's gradient and does not underflow.
        """
        low, high = pupil.bounds
        leaf = x.clone().requires_grad_()
        own = -cross_entropy(pupil.logits(leaf), y, reduction="sum")
        (slope,) = torch.autograd.grad(own, leaf)
        return (x + self.stride * (high - low) * slope.sign()).clamp(low, high)

    def _teach(
        self, pupil: Imitation, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor, random: torch.Generator
    ) -> None:
        for _ in range(self.epochs):
            for rows in torch.split(torch.randperm(len(x), generator=random), self.batch_size):
                optimiser.zero_grad()
                torch.autograd.backward(cross_entropy(pupil.logits(x[rows]), y[rows]))
                optimiser.step()


@torch.no_grad()
def _answered(model: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Those of x that the model answers, and its answers. On the CPU, where the substitute is taught."""
    answers = []
    for part in torch.split(x, 256):
        asked = part.to(model.device)
        decision = model.logits(asked).argmax(1).cpu()
        answers.append(torch.where(model.refuses(asked), -1, decision) if model.can_refuse else decision)
    y = torch.cat(answers)
    if not bool((y >= 0).any()):
        raise PluginError("attack 'substitute' learns from answers, and the model refused every input")
    return x[y >= 0], y[y >= 0]
