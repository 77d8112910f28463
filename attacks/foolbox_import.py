"""The one door to Foolbox: what is used of it, imported without the warnings of its age."""

import os
import warnings

# Foolbox imports its model zoo, and that GitPython, which refuses to be imported where there is no program `git`.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

with warnings.catch_warnings():
    # Foolbox 3.3.4 takes gaussian_filter from a module that SciPy 2 drops; SciPy is pinned below that by the lock
    warnings.filterwarnings("ignore", message="Please import `gaussian_filter`", category=DeprecationWarning)
    from eagerpy.tensor.pytorch import PyTorchTensor
    from foolbox import attacks as exported
    from foolbox.attacks import boundary_attack
    from foolbox.attacks.additive_noise import LinfAdditiveUniformNoiseAttack, LinfRepeatedAdditiveUniformNoiseAttack
    from foolbox.attacks.base import Attack as Foreign
    from foolbox.attacks.base import FixedEpsilonAttack
    from foolbox.attacks.boundary_attack import BoundaryAttack
    from foolbox.attacks.fast_minimum_norm import L0FMNAttack
    from foolbox.attacks.hop_skip_jump import HopSkipJumpAttack
    from foolbox.attacks.sparse_l1_descent_attack import SparseL1DescentAttack
    from foolbox.criteria import Misclassification, TargetedMisclassification
    from foolbox.models.pytorch import PyTorchModel

__all__ = [
    "BoundaryAttack",
    "FixedEpsilonAttack",
    "Foreign",
    "HopSkipJumpAttack",
    "L0FMNAttack",
    "LinfAdditiveUniformNoiseAttack",
    "LinfRepeatedAdditiveUniformNoiseAttack",
    "Misclassification",
    "PyTorchModel",
    "PyTorchTensor",
    "SparseL1DescentAttack",
    "TargetedMisclassification",
    "boundary_attack",
    "exported",
]
