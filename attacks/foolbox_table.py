"""What is to be known of each attack of Foolbox 3.3.4 beyond its signature: norms, knowledge, and how it may be run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bench.contracts import Knowledge, Norm

ANY = (Norm.L2, Norm.LINF, Norm.L1)  # follows one path, so that the first success is the nearest in each of these


@dataclass(frozen=True)
class Traits:
    """How one attack is run."""

    norms: tuple[Norm, ...]
    knowledge: Knowledge = Knowledge.WHITE_BOX
    alone: bool = False  # samples of a batch influence each other, or draws belong to none: one sample at a time
    alone_if: tuple[str, object] | None = None  # the same, where this parameter has this value
    exhaustive: bool = False  # goes over every value of the input, or over a grid
    starts: bool = False  # needs an adversarial starting point
    may_start: bool = False  # can use one
    images: bool = False  # inputs are (channels, height, width)
    targeted: bool = False  # towards the runner-up class; sees log-probabilities, since its fitness needs their scale
    blank: bool = False  # hands back zeros where it found nothing
    ends: bool = False  # for a sample when a query of it has lost its label; yet goes on until the last one has
    unable: tuple[type[Exception], str] | None = None  # how it says that one sample cannot be attacked
    requires: tuple[str, ...] = ()
    defaults: Mapping[str, object] = field(default_factory=dict)  # that differ from Foolbox's
    withheld: Mapping[str, str] = field(default_factory=dict)  # parameter -> why it cannot be given
    refused: str = ""  # why the attack cannot be used, and what to use instead


WITHHELD = {
    "distance": "the norm of the evaluation is used: set `norm`",
    "tensorboard": "nothing is written while an attack runs",
}
NUMBA = ("numba",)
L2, LINF, L1, L0 = (Norm.L2,), (Norm.LINF,), (Norm.L1,), (Norm.L0,)
DECISION = Knowledge.DECISION
QUICK = {"abort_early": False}  # Foolbox: True, which compares the loss of the whole batch
ADAM = "ignores Adam and its parameters: use foolbox.{}, with random_start: false for the iterative method"

SPECIAL = {
    "binarization_refinement": Traits(
        ANY,
        DECISION,
        alone=True,
        exhaustive=True,
        starts=True,
        unable=(ValueError, "threshold does not match what is done by the model"),
    ),
    "binary_search_contrast_reduction": Traits(ANY, DECISION),
    "boundary": Traits(L2, DECISION, starts=True),
    "dataset": Traits(
        ANY,
        DECISION,
        refused="needs a data set fed by hand, and looks at no more of it than the batch has samples: "
        "use foolbox.hop_skip_jump or foolbox.linear_search_blended_uniform_noise",
    ),
    "ddn": Traits(L2),
    "ead": Traits(L1, blank=True, alone_if=("abort_early", True), defaults=QUICK),
    "gaussian_blur": Traits(ANY, DECISION, images=True, ends=True),
    "gen": Traits(LINF, Knowledge.SCORE, alone=True, targeted=True),
    "hop_skip_jump": Traits(
        (Norm.L2, Norm.LINF),
        DECISION,
        starts=True,
        withheld={
            "constraint": "it follows the norm of the evaluation: set `norm`",
            "stepsize_search": "grid_search mixes the samples of a batch: geometric_progression is always used",
        },
    ),
    "inversion": Traits(ANY, DECISION),
    "l2_carlini_wagner": Traits(L2, blank=True, alone_if=("abort_early", True), defaults=QUICK),
    "l2_fmn": Traits(L2, refused="never projects on its ball, so that its distances are too long: use foolbox.ddn"),
    "l2_contrast_reduction": Traits(L2, DECISION),
    "l2_deep_fool": Traits(L2, ends=True),
    "linf_deep_fool": Traits(LINF, ends=True),
    "linear_search_blended_uniform_noise": Traits(ANY, DECISION, ends=True),
    "linear_search_contrast_reduction": Traits(ANY, DECISION),
    "newton_fool": Traits(
        L2,
        refused="divides by a squared gradient norm that underflows, and returns NaN for most inputs: "
        "use foolbox.l2_deep_fool or foolbox.ddn",
    ),
    "pointwise": Traits(
        (Norm.L2, Norm.L0),
        DECISION,
        alone=True,
        exhaustive=True,
        starts=True,
        defaults={"init_attack": "foolbox.salt_and_pepper_noise"},
        withheld={"l2_binary_search": "it follows the norm of the evaluation (on for l2, off for l0): set `norm`"},
    ),
    "salt_and_pepper_noise": Traits(L2, DECISION),
    "sparse_l1_descent": Traits(L1),
    "spatial": Traits(ANY, DECISION, images=True, exhaustive=True, ends=True, alone_if=("grid_search", False)),
    "virtual_adversarial": Traits(L2, alone=True, unable=(RuntimeError, "Gradient vanished")),
}


def snake(class_name: str) -> str:
    """`L2CarliniWagnerAttack` -> `l2_carlini_wagner`."""
    stem = class_name.removesuffix("Attack").replace("LInf", "Linf")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", stem).lower()


def traits(name: str) -> Traits:
    """The traits of an attack by its name without `foolbox.`. Raises KeyError where the name tells no norm."""
    if name in SPECIAL:
        special = SPECIAL[name]
        return replace(special, withheld={**WITHHELD, **special.withheld})
    norm = {"l0": L0, "l1": L1, "l2": L2, "linf": LINF, "linfinity": LINF}[name.partition("_")[0]]
    found = Traits(norm, withheld=WITHHELD)
    if "noise" in name:
        return replace(found, knowledge=DECISION)
    if "brendel_bethge" in name:
        return replace(found, alone=True, starts=True, requires=NUMBA)
    if "fmn" in name:
        return replace(found, may_start=True)
    if "adam_basic_iterative" in name:
        return replace(found, refused=ADAM.format(name.replace("basic_iterative", "projected_gradient_descent")))
    return found
