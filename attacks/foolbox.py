"""Every attack of Foolbox 3.3.4 by name: `foolbox.l2_carlini_wagner`, `foolbox.boundary`, ...

The parameters of each are read from its constructor's signature, so that a wrong one is an error of the suite. Foolbox
always works in the unit box: parameters that are lengths (`abs_stepsize`, `stepsize`, ...) are shares of `high - low`.
How its global draws become draws of single samples: attacks/foolbox_random.py. What was mended:
attacks/foolbox_mended.py.
"""

import functools
import importlib.util
import inspect
import operator
import re
import sys
import typing
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any, ClassVar, Union

import torch
from pydantic import Field, create_model, model_validator
from torch import Tensor

from attacks.ball import length, project, rowwise
from attacks.foolbox_import import (
    FixedEpsilonAttack,
    Foreign,
    Misclassification,
    PyTorchModel,
    PyTorchTensor,
    TargetedMisclassification,
    exported,
)
from attacks.foolbox_mended import MENDED
from attacks.foolbox_random import SampleDraws, Watched, numpy_from
from attacks.foolbox_start import blended_noise, loses
from attacks.foolbox_table import Traits, snake, traits
from bench.contracts import Allowance, Attack, Bounds, Classifier, Norm, attack, attacks
from bench.errors import PluginError, did_you_mean
from bench.randomness import SampleRandom

PREFIX = "foolbox."
UNIT = Bounds(0.0, 1.0)
ITERATIONS = ("steps", "iterations", "repeats", "binary_search_steps")  # what Foolbox calls the count of them


class FoolboxAttack(Attack):
    """Base of the generated classes; not registered itself."""

    foreign: ClassVar[type[Foreign]]
    traits: ClassVar[Traits]
    passed: ClassVar[tuple[str, ...]]  # fields handed to Foolbox's constructor
    requires: ClassVar[tuple[str, ...]] = ("torch", "foolbox", "eagerpy")

    @model_validator(mode="before")
    @classmethod
    def _allowed(cls, given: Any) -> Any:
        if cls.traits.refused:
            raise ValueError(f"{cls.name} is refused: it {cls.traits.refused}")
        for package in cls.traits.requires:
            if importlib.util.find_spec(package) is None:
                raise ValueError(f"{cls.name} needs the package {package}: run `pip install {package}` on every node")
        for key, why in cls.traits.withheld.items():
            if isinstance(given, dict) and key in given:
                raise ValueError(f"{cls.name} takes no `{key}`: {why}")
        return given

    @model_validator(mode="after")
    def _fits(self) -> "FoolboxAttack":
        init = getattr(self, "init_attack", None)
        if init is not None:
            usable = [name for name in attacks if attacks.get(name).minimal and name != self.name]
            if init not in usable:
                raise ValueError(
                    f"init_attack: no minimal attack '{init}'{did_you_mean(init, usable)} "
                    "(`gauntlet list attacks` shows which are minimal)"
                )
            attacks.build(init, {})  # a refused one says why
        return self

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. A sample for which nothing is found, or no starting point, comes back as it was.

        Raises PluginError for inputs that are not images, where the attack needs images.
        """
        if len(x) == 0:
            return x
        if self.traits.images and x.ndim != 4:
            raise PluginError(
                f"{self.name} moves images (channels, height, width); this model takes {tuple(x.shape[1:])}",
                "use foolbox.binary_search_contrast_reduction, or another attack without a geometry",
            )
        low, scale = model.bounds.low, model.bounds.high - model.bounds.low
        rows, start = self._start(model, x, y, random)
        in_box = functools.partial(_to_unit, bounds=Bounds(*model.bounds))
        unit, unit_start = in_box(x), None if start is None else in_box(start)
        radius = None if epsilon is None or self.minimal else epsilon / scale
        moved = unit.clone()
        alone = self._alone or (start is not None and model.stochastic)  # a start that no longer is one ends the batch
        for group in torch.split(rows, 1 if alone else max(len(rows), 1)):
            if len(group):
                begin = None if unit_start is None else unit_start[group]
                part = model.rows(group)
                moved[group] = self._attack(part, unit[group], y[group], begin, radius, random.rows(group))
        usable = moved.isfinite().flatten(1).all(1)
        if self.traits.blank:
            usable &= moved.flatten(1).any(1)
        moved = torch.where(rowwise(usable, x), moved, unit)
        adversarial = torch.where(moved == unit, x, moved * scale + low)
        if radius is None or epsilon is None:
            adversarial = adversarial.clamp(*model.bounds)
            if start is None or len(rows) == 0:
                return adversarial
            kept = rows[~loses(model, rows, adversarial[rows], y)]  # Brendel-Bethge loses what it began with
            adversarial[kept] = start[kept]
            return adversarial
        return project(adversarial, x, self.norm, epsilon, Bounds(*model.bounds))

    @property
    def allowance(self) -> Allowance:
        """Its count of iterations, whatever Foolbox calls it; one where it has none, unless it is exhaustive."""
        counts = (getattr(self, name, None) for name in ITERATIONS)
        found = next((count for count in counts if count is not None), None if self.exhaustive else 1)
        return Allowance(steps=found)

    @property
    def _alone(self) -> bool:
        """Whether samples are attacked one at a time."""
        when = self.traits.alone_if
        return self.traits.alone or (when is not None and getattr(self, when[0]) == when[1])

    def _start(self, model: Classifier, x: Tensor, y: Tensor, random: SampleRandom) -> tuple[Tensor, Tensor | None]:
        """The rows (k,) that can be attacked, and starting points for all rows, where the attack takes them."""
        rows = torch.arange(len(x), device=x.device)
        init = getattr(self, "init_attack", None)
        if init is not None:
            start = attacks.build(init, {}).run(model, x, y, None, random)
            return rows[loses(model, rows, start, y)], start
        if not self.traits.starts:
            return rows, None
        start, found = blended_noise(model, x, y, random)
        return rows[found], start

    def _attack(
        self,
        model: Classifier,
        unit: Tensor,
        y: Tensor,
        start: Tensor | None,
        radius: float | None,
        random: SampleRandom,
    ) -> Tensor:
        """Foolbox's attack on these samples (k, ...) in the unit box. A fixed radius: the first broken query counts."""
        draws = SampleDraws(random, alone=self._alone)
        accept = None if radius is None else lambda query: length(query - unit, self.norm) <= radius * (1 + 1e-6)
        untouched = unit if self.traits.ends else None
        watched = Watched(model, draws, y, self.traits.targeted, accept, untouched).eval()
        seen = PyTorchModel(watched, bounds=UNIT, device=model.device)
        options: dict[str, Any] = {} if radius is None else {"epsilon": radius}
        if start is not None:
            options["starting_points"] = PyTorchTensor(start)
        with numpy_from(random) if self._alone else nullcontext(), draws, _known_warnings():
            try:
                moved: Tensor = self._foreign().run(seen, unit, _goal(seen, unit, y, self.traits), **options)
            except (ValueError, RuntimeError) as error:
                if model.stochastic and start is not None and "starting_points are not adversarial" in str(error):
                    return start  # the model has changed its mind
                unable = self.traits.unable
                if unable is None or not (isinstance(error, unable[0]) and unable[1] in str(error)):
                    raise
                return unit if start is None else start
        if watched.first is None:
            return moved
        return torch.where(rowwise(watched.found, unit), watched.first, moved)

    def _foreign(self) -> Any:
        arguments = {key: getattr(self, key) for key in self.passed}
        if self.name == "foolbox.hop_skip_jump":
            arguments["constraint"] = str(self.norm)
        if self.name == "foolbox.pointwise":
            arguments["l2_binary_search"] = self.norm is Norm.L2
        return self.foreign(**arguments)


def _to_unit(x: Tensor, bounds: Bounds) -> Tensor:
    return x if bounds == UNIT else ((x - bounds.low) / (bounds.high - bounds.low)).clamp(0, 1)


def _goal(model: Any, unit: Tensor, y: Tensor, traits: Traits) -> Any:
    """To lose the label; for an attack that needs a target, to reach the class that is second best now."""
    if not traits.targeted:
        return Misclassification(y)
    with torch.no_grad():
        logits = model(unit).scatter(1, y[:, None], -torch.inf)
    return TargetedMisclassification(logits.argmax(1))


@contextmanager
def _known_warnings() -> Iterator[None]:
    """Two warnings that tell a user nothing: the outcome stands in the records, and the index order is Foolbox's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*failed to draw sufficient random inputs")
        warnings.filterwarnings("ignore", message="torch.meshgrid")
        warnings.filterwarnings("ignore", message="At the first initialisation the optimizer needs to be compiled")
        yield


def _checked(name: str, hint: Any) -> Any:
    """The type of a constructor's parameter, made strict: no text for a number, no truth for a count, no NaN."""
    if hint is bool:
        return Annotated[bool, Field(strict=True)]
    if hint is int:
        return (
            Annotated[int, Field(strict=True)] if name == "channel_axis" else Annotated[int, Field(strict=True, ge=1)]
        )
    if hint is float:
        return Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
    if typing.get_origin(hint) is Union:
        return functools.reduce(operator.or_, [_checked(name, part) for part in typing.get_args(hint)])
    return hint


def _fields(foreign: type, known: Traits) -> dict[str, Any]:
    """Fields from the signature of a Foolbox attack's constructor."""
    hints = typing.get_type_hints(foreign.__init__)  # type: ignore[misc]
    fields: dict[str, Any] = {"norm": (Norm, known.norms[0])}
    for parameter in inspect.signature(foreign).parameters.values():
        if parameter.name in known.withheld or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        hint: Any = hints[parameter.name]
        default: Any = known.defaults.get(parameter.name, parameter.default)
        if parameter.name == "init_attack":
            fields["init_attack"] = (str | None, default)
        else:
            required = default is inspect.Parameter.empty
            default = ... if required else float(default) if hint is float else default
            fields[parameter.name] = (_checked(parameter.name, hint), default)
    return fields


def _summary(foreign: type, known: Traits) -> str:
    """The first sentence of Foolbox's own docstring, without references."""
    text = re.sub(r"\s*\[#?\w+\]_", "", " ".join((foreign.__doc__ or "").split("\n\n")[0].split()))
    sentence = text.split(". ")[0].rstrip(".") + "."
    return f"Refused: it {known.refused}." if known.refused else sentence


def _register(foreign: type[Foreign]) -> None:
    """Generate and register the class for one attack of Foolbox."""
    stem = snake(foreign.__name__)
    known = traits(stem)
    fields = _fields(foreign, known)
    cls = create_model(
        f"Foolbox{foreign.__name__}",
        __base__=FoolboxAttack,
        __module__=__name__,
        __doc__=_summary(foreign, known),
        **fields,
    )
    cls.foreign = MENDED.get(foreign, foreign)
    cls.traits = known
    cls.passed = tuple(key for key in fields if key not in ("norm", "init_attack"))
    cls.norms, cls.knowledge = known.norms, known.knowledge
    cls.minimal = not issubclass(foreign, FixedEpsilonAttack)
    cls.exhaustive = known.exhaustive
    cls.requires = FoolboxAttack.requires + known.requires
    setattr(sys.modules[__name__], cls.__name__, cls)
    attack(PREFIX + stem)(cls)


def _public() -> list[type[Foreign]]:
    """The concrete attack classes that Foolbox exports, each once (it has second names for some)."""
    found = {value for value in vars(exported).values() if inspect.isclass(value) and issubclass(value, Foreign)}
    return sorted((cls for cls in found if not inspect.isabstract(cls)), key=lambda cls: cls.__name__)


for _foreign_class in _public():
    _register(_foreign_class)


def table() -> str:
    """Every registered attack as a Markdown table: what docs/attacks.md holds."""
    lines = ["| name | norms | knowledge | search | what it does |", "|---|---|---|---|---|"]
    for name in attacks:
        cls = attacks.get(name)
        search = "minimal" if cls.minimal else "fixed"
        single = ", single" if issubclass(cls, FoolboxAttack) and cls.traits.alone else ""
        lines.append(f"| `{name}` | {', '.join(cls.norms)} | {cls.knowledge} | {search}{single} | {cls.summary()} |")
    return "\n".join(lines)
