"""The adapter's promises as checks: `gauntlet check-adapter`, and the contract tests over everything registered."""

import hashlib
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.contracts import Adapter, Classifier, Gradients
from bench.errors import GauntletError

ROWS = 4
BATCH_TOLERANCE = 1e-5  # largest difference of a logit, alone against in a batch, relative to the largest logit
DTYPE_TOLERANCE = {torch.float64: 1e-6, torch.float16: 0.0}  # of inputs that float16 holds exactly
SLOPE_TOLERANCE = 0.05  # largest relative difference of a slope, gradient against finite differences
STEPS = (3e-2, 1e-2, 3e-3, 1e-3)  # of the finite differences, relative to the width of the bounds
AGREEMENT = 0.75  # share of the slopes that have to agree: at a kink (ReLU, max) the two differ rightly


@dataclass(frozen=True)
class Breach:
    """The outcome of one check: `ok`, or what is broken and how to mend it.

    An `ok` with a message says why the promise could not be checked.
    """

    name: str
    ok: bool
    message: str = ""


def check(adapter: Adapter, weights: bytes | None, x: Tensor | None = None) -> list[Breach]:
    """Every promise of the adapter's contract, in the order of CHECKS; only the first two where it cannot be built.

    x: (n, *input_shape) in bounds, n of at least 2, as inputs; random ones where None. A check that raises is a breach
    with the error as its message, so this raises nothing on account of the adapter.
    """
    results = [_outcome("spec", lambda: _spec(adapter))]
    built: list[Classifier] = []
    results.append(_outcome("build", lambda: built.append(adapter.build(weights))))
    if not built:
        return results
    model = built[0]
    results.append(_outcome("declared", lambda: _declared(model)))
    if not results[-1].ok:
        return results
    inputs = _random_inputs(model) if x is None else x.to(torch.int64 if model.vocabulary else torch.float32)
    for name, promise in CHECKS.items():
        results.append(_outcome(name, lambda promise=promise: promise(model, inputs.clone())))  # type: ignore[misc]
    return results


class _BrokenError(Exception):
    """A promise is broken; the text says which, and how to mend it."""


class _NotCheckedError(Exception):
    """This promise cannot be checked for this classifier; the text says why."""


def _outcome(name: str, run: Callable[[], object]) -> Breach:
    try:
        run()
    except _NotCheckedError as reason:
        return Breach(name, True, f"not checked: {reason}")
    except (_BrokenError, GauntletError) as broken:
        return Breach(name, False, str(broken))
    except Exception as error:  # noqa: BLE001 - the checker is the boundary to plugin code
        return Breach(name, False, f"raised {type(error).__name__}: {error}")
    return Breach(name, True)


def _promise(kept: bool, broken: str) -> None:
    if not kept:
        raise _BrokenError(broken)


def _random_inputs(model: Classifier) -> Tensor:
    low, high = model.bounds
    if model.vocabulary:
        shape, random = (ROWS, *model.input_shape), torch.Generator().manual_seed(0)
        return torch.randint(int(low), int(high) + 1, shape, generator=random).to(model.device)
    uniform = torch.rand(ROWS, *model.input_shape, generator=torch.Generator().manual_seed(0))
    return (low + (high - low) * uniform).to(model.device)


def _apart(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest logit."""
    return float((a - b).abs().max() / torch.maximum(a.abs().max(), torch.tensor(1e-30)))


# --- the promises -----------------------------------------------------------------------------------------------------


def _spec(adapter: Adapter) -> None:
    twin = type(adapter).model_validate_json(adapter.model_dump_json())
    _promise(twin == adapter, f"rebuilt from its own JSON it differs: {twin!r} - let every field survive JSON")
    _promise(pickle.loads(pickle.dumps(adapter)) == adapter, "pickled and unpickled it differs")  # noqa: S301 - our own


def _declared(model: Classifier) -> None:
    low, high = model.bounds
    _promise(math.isfinite(low) and math.isfinite(high) and low < high, f"bounds {low}, {high} are no interval")
    shape = tuple(model.input_shape)
    _promise(bool(shape) and all(size > 0 for size in shape), f"input_shape {shape} is not made of positive sizes")
    _promise(model.classes >= 2, f"classes is {model.classes}: a classifier has at least 2")
    tokens = len(model.vocabulary)
    _promise(not tokens or (low, high) == (0, tokens - 1), f"bounds {low}, {high} are not the ids of {tokens} tokens")
    _promise(len(set(model.part_names)) == len(model.part_names), f"two parts have one name: {model.part_names}")
    _promise(
        isinstance(model.gradients, Gradients), f"gradients is {model.gradients!r}, not a bench.contracts.Gradients"
    )


def _logits(model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.logits(x)


def _shape(model: Classifier, x: Tensor) -> None:
    out = _logits(model, x)
    _promise(
        tuple(out.shape) == (len(x), model.classes),
        f"logits of {len(x)} inputs have shape {tuple(out.shape)}, not ({len(x)}, {model.classes})",
    )
    _promise(out.dtype == torch.float32, f"logits are {out.dtype}, not torch.float32")


def _finite(model: Classifier, x: Tensor) -> None:
    ends = torch.stack([torch.full_like(x[0], model.bounds.low), torch.full_like(x[0], model.bounds.high)])
    for what, inputs in (("random inputs", x), ("constant inputs at the two bounds", ends)):
        _promise(bool(_logits(model, inputs).isfinite().all()), f"logits of {what} are not all finite")


def _deterministic(model: Classifier, x: Tensor) -> None:
    if model.stochastic:
        raise _NotCheckedError("declared stochastic")
    first, *others = (_logits(model, x) for _ in range(3))
    _promise(
        all(torch.equal(first, other) for other in others),
        "two passes of the same inputs differ - dropout in training mode? Call eval(), or declare `stochastic`",
    )


def _batch(model: Classifier, x: Tensor) -> None:
    if model.stochastic:
        raise _NotCheckedError("declared stochastic")
    _promise(len(x) > 1, "at least 2 inputs are needed to compare a row alone with a row in a batch")
    together = _logits(model, x)
    alone = torch.cat([_logits(model, x[row : row + 1]) for row in range(len(x))])
    difference = max(_apart(together, alone), _apart(together, _logits(model, x.flip(0)).flip(0)))
    _promise(
        difference <= BATCH_TOLERANCE,
        f"a row's logits depend on its neighbours: they differ by {difference:.2g} of the largest logit - BatchNorm in "
        "training mode, or a fixed batch size? Call eval()",
    )


def _modes(model: Classifier, x: Tensor) -> None:
    if model.module is None:
        raise _NotCheckedError("there is no module")
    trained = [name for name, parameter in model.module.named_parameters() if parameter.requires_grad]
    _promise(not trained, f"parameters are not frozen: {', '.join(trained[:5])} - call requires_grad_(False)")
    training = [name or "the module itself" for name, module in model.module.named_modules() if module.training]
    _promise(model.stochastic or not training, f"in training mode: {', '.join(training[:5])} - call eval()")


def _untouched(model: Classifier, x: Tensor) -> None:
    before, inputs = _digest(model), x.clone()
    _logits(model, x)
    if model.gradients is not Gradients.NONE:
        _gradient(model, x)
    for layer in model.feature_layers:
        model.features(x, layer)
    _promise(torch.equal(x, inputs), "a pass changes its inputs in place")
    _promise(_digest(model) == before, "a pass changes the module's parameters, buffers or modes")


def _digest(model: Classifier) -> str:
    hasher = hashlib.blake2b()
    if model.module is not None:
        for name, value in model.module.state_dict().items():
            hasher.update(name.encode())
            if isinstance(value, Tensor):
                hasher.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        hasher.update(bytes(module.training for module in model.module.modules()))
    return hasher.hexdigest()


def _empty(model: Classifier, x: Tensor) -> None:
    shape = tuple(_logits(model, x[:0]).shape)
    _promise(shape == (0, model.classes), f"logits of an empty batch have shape {shape}, not (0, {model.classes})")


def _one(model: Classifier, x: Tensor) -> None:
    shape = tuple(_logits(model, x[:1]).shape)
    _promise(shape == (1, model.classes), f"logits of one input have shape {shape}, not (1, {model.classes})")


def _dtypes(model: Classifier, x: Tensor) -> None:
    if model.vocabulary:
        same = model.stochastic or torch.equal(_logits(model, x.to(torch.int32)), _logits(model, x))
        _promise(same, "logits of int32 token ids are not those of int64 ones")
        return
    x = x.to(torch.float16).to(torch.float32)
    expected = _logits(model, x)
    for dtype, tolerance in DTYPE_TOLERANCE.items():
        out = _logits(model, x.to(dtype))
        _promise(out.dtype == torch.float32, f"logits of {dtype} inputs are {out.dtype}, not torch.float32")
        difference = 0.0 if model.stochastic else _apart(expected, out)
        _promise(
            difference <= tolerance,
            f"logits of {dtype} inputs differ from those of float32 by {difference:.2g} of the largest - convert first",
        )


def _features(model: Classifier, x: Tensor) -> None:
    for layer in model.feature_layers:
        out = model.features(x, layer)
        _promise(
            out.ndim > 1 and len(out) == len(x) and out.dtype == torch.float32,
            f"features of '{layer}' are {out.dtype} of shape {tuple(out.shape)}, not float32 ({len(x)}, ...)",
        )


def _parts(model: Classifier, x: Tensor) -> None:
    ran = model.parts(x)
    expected = (len(x), len(model.part_names))
    _promise(
        ran.dtype == torch.bool and tuple(ran.shape) == expected,
        f"parts of {len(x)} inputs are {ran.dtype} of shape {tuple(ran.shape)}, not bool {expected}",
    )
    if not model.stochastic:
        alone = torch.cat([model.parts(x[row : row + 1]) for row in range(len(x))])
        _promise(torch.equal(ran, alone), "which parts run for an input depends on its neighbours in the batch")


# --- gradients --------------------------------------------------------------------------------------------------------


def _weighing(model: Classifier, x: Tensor) -> Tensor:
    """Fixed weights of the logits, so that one backward pass sees all of them."""
    return torch.randn(model.classes, generator=torch.Generator().manual_seed(1)).to(x.device)


def _gradient(model: Classifier, x: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    total = (model.logits(x) * _weighing(model, x)).sum()
    return torch.autograd.grad(total, x)[0]


def _gradients(model: Classifier, x: Tensor) -> None:
    if model.gradients is Gradients.NONE:
        _no_gradient(model, x)
        return
    middle = (model.bounds.low + model.bounds.high) / 2
    x = middle + 0.9 * (x - middle)  # so that the steps of finite differences stay in bounds
    gradient = _gradient(model, x)
    _promise(bool(gradient.isfinite().all()), "gradients are not all finite")
    _promise(bool(gradient.any()), f"declared {model.gradients}, but every gradient is zero")
    if model.gradients is Gradients.EXACT and not model.stochastic:
        _exact(model, x, gradient)


def _no_gradient(model: Classifier, x: Tensor) -> None:
    if model.vocabulary:
        return  # whole numbers take no gradient
    x = x.detach().clone().requires_grad_()
    try:
        out = model.logits(x)
        slope = torch.autograd.grad(out.sum(), x, allow_unused=True)[0] if out.requires_grad else None
    except (RuntimeError, NotImplementedError, GauntletError):
        return  # the contract lets it refuse
    _promise(slope is None, "declared without gradients, but they pass - declare `exact` or `surrogate`")


def _exact(model: Classifier, x: Tensor, gradient: Tensor) -> None:
    """Slopes along the gradient, its largest coordinates and a random direction, against central differences."""
    width = model.bounds.high - model.bounds.low
    directions = _directions(gradient)
    slopes = torch.stack([(gradient * along).flatten(1).sum(1) for along in directions])
    unit = float(slopes.abs().max())
    best = torch.full_like(slopes, math.inf)
    for step in (size * width for size in STEPS):
        for row, along in enumerate(directions):
            up, down = ((_logits(model, x + side * step * along) @ _weighing(model, x)) for side in (1, -1))
            measured = (up - down).double() / (2 * step)
            off = (measured - slopes[row]).abs() / torch.maximum(measured.abs(), slopes[row].abs()).clamp(min=1e-30)
            negligible = measured.abs().maximum(slopes[row].abs()) < 1e-3 * unit  # below the rounding of float32
            best[row] = torch.minimum(best[row], torch.where(negligible, 0.0, off).to(best.dtype))
    share = float((best <= SLOPE_TOLERANCE).double().mean())
    _promise(
        share >= AGREEMENT,
        f"declared exact, but only {share:.0%} of the slopes agree with finite differences - declare `surrogate` or "
        "`none`, or mend the backward pass",
    )


def _directions(gradient: Tensor) -> list[Tensor]:
    flat = gradient.flatten(1)
    random = torch.randn(flat.shape, generator=torch.Generator().manual_seed(2)).to(flat.device)
    directions = [random / random.norm(dim=1, keepdim=True)]
    directions.append(flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-30))
    for column in flat.abs().topk(min(2, flat.shape[1]), dim=1).indices.T:
        directions.append(torch.zeros_like(flat).scatter_(1, column[:, None], 1.0))
    return [along.reshape(gradient.shape) for along in directions]


CHECKS: dict[str, Callable[[Classifier, Tensor], None]] = {
    "shape": _shape,
    "finite": _finite,
    "deterministic": _deterministic,
    "batch": _batch,
    "modes": _modes,
    "untouched": _untouched,
    "empty": _empty,
    "one": _one,
    "dtypes": _dtypes,
    "features": _features,
    "parts": _parts,
    "gradients": _gradients,
}
