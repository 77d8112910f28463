"""Whether the parts of a suite fit each other, as far as that can be told before a model is built."""

from collections.abc import Iterator, Mapping

from bench.contracts import Bounds, Norm, Samples
from bench.errors import Mistake
from bench.suite import ModelSpec, Suite

BYTE = 255


def misfits(suite: Suite, loaded: Mapping[str, Samples], outliers: Mapping[str, Samples]) -> Iterator[Mistake]:
    """Models that cannot take the data, outliers of another shape, and radii in L-infinity beyond the bounds.

    loaded: the data sets by label. outliers: those of detectors, by the detectors' labels.
    """
    for label, samples in loaded.items():
        for index, model in enumerate(suite.models):
            yield from _misfit(f"models[{index}].args", model, label, samples)
    evaluations = suite.evaluations
    asked = [(f"attacks[{index}]", attack.norm, attack.epsilons) for index, attack in enumerate(evaluations.attacks)]
    asked += [
        (f"certificates[{index}]", proof.norm, proof.epsilons) for index, proof in enumerate(evaluations.certificates)
    ]
    for index, detector in enumerate(evaluations.detectors):
        where = f"detectors[{index}]"
        if detector.adversarial is not None:
            asked.append((f"{where}.adversarial", detector.adversarial.norm, detector.adversarial.epsilons))
        shape = outliers[detector.name].input_shape if detector.name in outliers else None
        for label, samples in loaded.items():
            if shape is not None and shape != samples.input_shape:
                told = f"inputs of shape {list(shape)}, those of '{label}' have {list(samples.input_shape)}"
                yield Mistake("", f"evaluations.{where}.outliers", told)
    for where, norm, epsilons in asked:
        for label, samples in loaded.items():
            if norm is Norm.LINF and epsilons and (told := _too_large(max(epsilons), label, samples.bounds)):
                yield Mistake("", f"evaluations.{where}.epsilons", told)


def _misfit(where: str, model: ModelSpec, label: str, samples: Samples) -> Iterator[Mistake]:
    signature = model.build().signature
    if signature is None:
        return
    if signature.input_shape != samples.input_shape:
        yield Mistake(
            "",
            f"{where}.input_shape",
            f"'{model.name}' takes inputs of shape {list(signature.input_shape)}, those of '{label}' have "
            f"{list(samples.input_shape)}",
        )
    low, high = samples.bounds
    if not (signature.bounds.low <= low and high <= signature.bounds.high):
        yield Mistake(
            "",
            f"{where}.bounds",
            f"'{model.name}' takes values from {signature.bounds.low:g} to {signature.bounds.high:g}, those of "
            f"'{label}' go from {low:g} to {high:g}",
        )
    if (largest := int(samples.labels.max())) >= signature.classes:
        yield Mistake(
            "",
            f"{where}.classes",
            f"'{model.name}' has {signature.classes} classes, 0 to {signature.classes - 1}, but '{label}' has the "
            f"label {largest}: labels count from 0",
        )


def _too_large(epsilon: float, label: str, bounds: Bounds) -> str:
    """What is wrong with a radius in L-infinity; nothing up to the width of the bounds, where all inputs are near."""
    if epsilon <= (bounds.high - bounds.low) * (1 + 1e-6):
        return ""
    near = f" - did you mean {epsilon:g}/255?" if bounds == (0.0, 1.0) and epsilon <= BYTE else ""
    wide = f"those of '{label}' go from {bounds.low:g} to {bounds.high:g}"
    return f"{epsilon:g} is more than the width of the inputs: {wide}{near}"
