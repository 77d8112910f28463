"""The same model, faster: what attacks ask thousands of times. Never what verifies them.

Passes without a gradient run through a frozen program with fused and prepacked convolutions, passes with one through a
copy whose convolutions keep their weights channels-last. Both are the model up to the rounding of float32, which is
checked on real inputs before they are used; a model that they cannot imitate is attacked as it is, only slower.

On demand the copy computes in bfloat16, or is compiled. Where rounding could turn a prediction, its scores are those of
the program: what an attack takes for broken is broken in float32.
"""

import copy
import warnings
from contextlib import suppress
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from bench.contracts import Classifier, GradientPasses, Gradients, Wrapped
from bench.errors import PluginError
from bench.swift_layers import replaced, simplified

AGREEMENT = 1e-4  # of the largest logit: by so much the logits may differ
STEEPNESS = 1e-3  # of its length: by so much the gradient may differ, for most samples
ROUGH = 3e-2, 0.2  # the same for bfloat16, which has 8 bits of significand
DOUBT = 0.1  # of the largest logit: where the two largest are nearer, bfloat16 does not decide which is larger
SAMPLES = 8  # inputs on which that is checked

Made = tuple[nn.Module, torch.jit.ScriptModule]  # the copy and the program
_KNOWN: WeakKeyDictionary[Classifier, tuple[tuple[object, ...], Made]] = WeakKeyDictionary()


class Swift(Wrapped):
    """`model` with its passes through a copy and a program. Only for a model whose logits are those of its module."""

    def __init__(
        self, model: Classifier, copied: nn.Module, program: torch.jit.ScriptModule, rough: bool = False
    ) -> None:
        super().__init__(model)
        self._copied, self._program, self._rough = copied, program, rough

    def logits(self, x: Tensor) -> Tensor:
        if not len(x):
            return self._model.logits(x)
        if not (torch.is_grad_enabled() and x.requires_grad):
            with torch.no_grad():
                return self._program(x).float()  # type: ignore[no-any-return]
        if not self._rough:
            return self._copied(x).float()  # type: ignore[no-any-return]
        scores: Tensor = self._copied(x.to(torch.bfloat16)).float()
        return scores + self._correction(x.detach(), scores.detach())

    @torch.no_grad()
    def _correction(self, x: Tensor, scores: Tensor) -> Tensor:
        """What scores of bfloat16 lack to those of float32, where rounding could turn the prediction; elsewhere 0."""
        first, second = scores.topk(2, dim=1).values.unbind(1)
        rows = (~(first - second > DOUBT * scores.abs().amax(1))).nonzero()[:, 0]
        correction = torch.zeros_like(scores)
        if len(rows):
            correction[rows] = self._program(x[rows]).float() - scores[rows]
        return correction


def swift(model: Classifier, x: Tensor, gradient_passes: GradientPasses = GradientPasses.FLOAT32) -> Classifier:
    """A faster classifier with the logits and gradients of `model` up to rounding; `model` itself where there is none.

    x: (n, *input_shape), real inputs to check it on. A model on a GPU, one that is stochastic, and one whose gradients
    are not exact (its decisions may hang on a rounding), and one that leaves parts out, stay as they are. Raises
    PluginError where `gradient_passes` asks for what this model does not bear.
    """
    fit = model.module is not None and not model.stochastic and model.gradients is Gradients.EXACT
    # a traced program would take one branch for all inputs
    fit = fit and not any(one.part_names for one in (model, *model.members()))
    if not fit or model.device != "cpu" or not len(x) or x.dtype != torch.float32:
        return model
    sample = x[:SAMPLES]
    try:
        found = Swift(model, *_made(model, sample, gradient_passes), gradient_passes is GradientPasses.BFLOAT16)
        if _agree(model, found, sample):
            return found
        problem = "logits or gradients differ by more than rounding"
    except Exception as error:  # noqa: BLE001 - a foreign module may refuse to be copied or traced: it is only slower
        problem = str(error).partition("\n")[0] or type(error).__name__
    if gradient_passes is GradientPasses.FLOAT32:
        return model
    needs = ", and a C++ compiler on every node" * (gradient_passes is GradientPasses.COMPILED)
    raise PluginError(
        f"gradient_passes: {gradient_passes} does not work with this model: {problem}",
        f"leave gradient_passes out; it needs a torch module that can be copied{needs}",
    )


def _made(model: Classifier, sample: Tensor, gradient_passes: GradientPasses) -> Made:
    """The copy and the program, made once for each model: a worker attacks many blocks with it."""
    assert model.module is not None
    tensors = (*model.module.parameters(), *model.module.buffers())
    state = (gradient_passes, *map(_version, tensors))
    known = _KNOWN.get(model)
    if known is None or known[0] != state:
        known = _KNOWN[model] = state, _make(model.module, sample, gradient_passes)
    return known[1]


def _version(tensor: Tensor) -> tuple[int, int]:
    """Changes as soon as the tensor is changed or replaced. Inference tensors have no counter, and never change."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


def _make(module: nn.Module, sample: Tensor, gradient_passes: GradientPasses) -> Made:
    copied = copy.deepcopy(module).eval().requires_grad_(False)
    with suppress(Exception):  # what cannot be traced by fx keeps its layers as they are
        copied = simplified(copied)
    with warnings.catch_warnings(), torch.no_grad():
        # deprecated in favour of torch.compile, which needs a C++ compiler on every node and a minute per model
        warnings.simplefilter("ignore")
        program = torch.jit.freeze(torch.jit.trace(copied, sample))
        program = torch.jit.optimize_for_inference(program)
    copied = copy.deepcopy(copied).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if gradient_passes is GradientPasses.COMPILED:
        return torch.compile(copied, dynamic=True), program  # type: ignore[return-value]
    return replaced(copied.to(torch.bfloat16) if gradient_passes is GradientPasses.BFLOAT16 else copied), program


def _agree(model: Classifier, found: Swift, sample: Tensor) -> bool:
    """Logits with and without a gradient, of one row and of many, and the gradient itself.

    Where several inputs of a maximum are equal, rounding decides which gets the gradient, and each is right: a few
    samples may differ, up to half the length of the gradient.
    """
    expected, slope = _pass(model, sample)
    got, its_slope = _pass(found, sample)
    with torch.no_grad():
        without = torch.cat([found.logits(sample[:1]) - model.logits(sample[:1]), found.logits(sample) - expected])
    agreement, steepness = ROUGH if found._rough else (AGREEMENT, STEEPNESS)
    room = agreement * float(expected.abs().max())
    near = max(float((got - expected).abs().max()), float(without.abs().max()))
    apart = (its_slope - slope).flatten(1).norm(dim=1) / slope.flatten(1).norm(dim=1).clamp(min=1e-30)
    return near <= room and float(apart.median()) <= steepness and float(apart.max()) <= 0.5


def _pass(model: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        logits = model.logits(leaf)
        (slope,) = torch.autograd.grad(logits.square().sum(), leaf)
    return logits.detach(), slope
