"""What each plugin promises: the whole architecture in one package.

A plugin is a frozen pydantic class. Its fields are its keys in a suite, its parameters in MLflow and a part of its
cache key; the first line of its docstring is its help. It is registered by decorator:

    from bench.contracts import Attack, Norm, attack

    @attack("fgsm")
    class FastGradientSign(Attack):
        \"\"\"One step of size epsilon along the sign of the loss gradient.\"\"\"

| kind     | promises                                                        | decorator   |
|----------|-----------------------------------------------------------------|-------------|
| Adapter  | builds a Classifier from its fields and the bytes of its weights | `@adapter`  |
| Dataset  | hands out inputs and labels by index, and knows its own digest    | `@dataset`  |
| Attack   | moves inputs, inside its threat model, so that the label is lost  | `@attack`   |
| Probe    | measures what a classifier costs                                  | `@probe`    |
| Detector | scores how outlying an input is; larger is more outlying, always  | `@detector` |
| Certificate | proves that no input in a ball loses the label                 | `@certificate` |

They stand in data.py, models.py (with Training) and evaluations.py of this package, threat models in threats.py.
tests/contracts/ runs these promises over everything registered; `gauntlet check-adapter` runs the adapter's.
"""

from collections.abc import Mapping
from typing import Any

from bench.contracts.data import AdapterChoice as AdapterChoice
from bench.contracts.data import Dataset as Dataset
from bench.contracts.data import DatasetChoice as DatasetChoice
from bench.contracts.data import Samples as Samples
from bench.contracts.evaluations import Attack as Attack
from bench.contracts.evaluations import Certificate as Certificate
from bench.contracts.evaluations import Detector as Detector
from bench.contracts.evaluations import Figure as Figure
from bench.contracts.evaluations import JointAttack as JointAttack
from bench.contracts.evaluations import Learner as Learner
from bench.contracts.evaluations import PairedProbe as PairedProbe
from bench.contracts.evaluations import Probe as Probe
from bench.contracts.models import Adapter as Adapter
from bench.contracts.models import Classifier as Classifier
from bench.contracts.models import Loading as Loading
from bench.contracts.models import Report as Report
from bench.contracts.models import Signature as Signature
from bench.contracts.models import Training as Training
from bench.contracts.models import Wrapped as Wrapped
from bench.contracts.plugin import Plugin as Plugin
from bench.contracts.threats import KNOWING as KNOWING
from bench.contracts.threats import Allowance as Allowance
from bench.contracts.threats import Budget as Budget
from bench.contracts.threats import ThreatModel as ThreatModel
from bench.contracts.threats import strongest as strongest
from bench.registry import Registry
from bench.words import Bounds as Bounds
from bench.words import Frozen as Frozen
from bench.words import Goal as Goal
from bench.words import GradientPasses as GradientPasses
from bench.words import Gradients as Gradients
from bench.words import Judging as Judging
from bench.words import Keep as Keep
from bench.words import Knowledge as Knowledge
from bench.words import Norm as Norm
from bench.words import Realisation as Realisation

adapters: Registry[Adapter] = Registry("adapter", "adapters", Adapter)  # type: ignore[type-abstract]
datasets: Registry[Dataset] = Registry("dataset", "datasets", Dataset)  # type: ignore[type-abstract]
attacks: Registry[Attack] = Registry("attack", "attacks", Attack)  # type: ignore[type-abstract]
probes: Registry[Probe] = Registry("probe", "probes", Probe)  # type: ignore[type-abstract]
detectors: Registry[Detector] = Registry("detector", "detectors", Detector)  # type: ignore[type-abstract]
certificates: Registry[Certificate] = Registry("certificate", "certificates", Certificate)  # type: ignore[type-abstract]

REGISTRIES: Mapping[str, Registry[Any]] = {
    registry.plural: registry for registry in (adapters, datasets, attacks, probes, detectors, certificates)
}

adapter = adapters.register
dataset = datasets.register
attack = attacks.register
probe = probes.register
detector = detectors.register
certificate = certificates.register
