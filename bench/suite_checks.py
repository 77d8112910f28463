"""What a suite's structure cannot say: names against the registries, arguments against the plugins, files, metrics.

Works on the data as they were read, so that one mistake hides no other.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bench.contracts import (
    REGISTRIES,
    Adapter,
    AdapterChoice,
    Attack,
    Certificate,
    Dataset,
    DatasetChoice,
    PairedProbe,
    Plugin,
)
from bench.errors import GauntletError, did_you_mean
from bench.suite_attacks import Asked, Troubles, shortcomings, shortcomings_of_crafter
from bench.suite_base import MAX_ENTRIES
from bench.suite_board import LABEL
from bench.suite_board_checks import BoardChecks
from bench.suite_folders import Folders
from bench.suite_parts import (
    KINDS,
    PATTERNS,
    REGISTERED,
    RESERVED,
    Evaluations,
    Resources,
    default_label,
)
from bench.suite_words import leaves, model_in, troubles
from bench.suite_yaml import Document, Finding, Keys, describe

LoadPlugins = Callable[[Sequence[str], Path], None]

EVALUATIONS = ("attack", "probe", "detector", "certificate")
# the field of a plugin that stands beside its name, not under `args`
BESIDE = {"attack": "norm", "certificate": "norm", "dataset": "split"}


class Checks:
    """All checks of one document. Findings gather in `findings`; paths in the document's data become absolute."""

    def __init__(self, document: Document, folder: Path, roots: Sequence[Path]) -> None:
        self.document = document
        self.folders = Folders(folder, roots)
        self.findings: list[Finding] = []

    def find(self, keys: Keys, message: str, *, of_key: bool = False) -> None:
        self.findings.append(self.document.find(keys, message, of_key=of_key))

    def run(self, load_plugins: LoadPlugins) -> list[Finding]:
        """Everything but the columns of the leaderboard, which need a suite whose evaluations are right."""
        self.plugins(load_plugins)
        for keys, entry in self.entries("models"):
            self.model(keys, entry)
        data = [self.plugin(keys, entry, "dataset") for keys, entry in self.entries("datasets")]
        tokens = {plugin.tokens for plugin in data if isinstance(plugin, Dataset)}
        for keys, entry in self.entries("evaluations", "attacks"):
            self.attack(keys, entry, tokens)
        for keys, entry in self.entries("evaluations", "probes"):
            self.plugin(keys, entry, "probe")
        for keys, entry in self.entries("evaluations", "detectors"):
            self.detector(keys, entry, tokens)
        for keys, entry in self.entries("evaluations", "certificates"):
            self.plugin(keys, entry, "certificate")
        self.baselines()
        self.surrogates()
        labels = [
            (keys, _label(entry, kind))
            for kind in EVALUATIONS
            for keys, entry in self.entries("evaluations", f"{kind}s")
        ]
        self.unique("evaluations", labels)
        self.unique("models", [(keys, entry.get("name")) for keys, entry in self.entries("models")])
        self.unique("data sets", [(keys, _label(entry, "dataset")) for keys, entry in self.entries("datasets")])
        return self.findings

    def entries(self, *path: str) -> Iterator[tuple[Keys, dict[str, Any]]]:
        """The mappings in a list of the document. What is no list, or no mapping, is refused by the structure."""
        found = self.document.data
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        for index, entry in enumerate(found[:MAX_ENTRIES] if isinstance(found, list) else ()):
            if path[-1] == "probes" and isinstance(entry, str):
                yield (*path, index), {"probe": entry}
            elif isinstance(entry, dict):
                yield (*path, index), entry

    def plugins(self, load: LoadPlugins) -> None:
        listed = self.document.data.get("plugins")
        for index, entry in enumerate(listed[:MAX_ENTRIES] if isinstance(listed, list) else ()):
            if not isinstance(entry, str):
                continue
            keys = ("plugins", index)
            if refused := self.folders.refuses_module(entry):
                self.find(keys, refused)
                continue
            try:
                load([entry], self.folders.folder)
            except GauntletError as error:
                self.find(keys, f"{error.message} ({error.hint})" if error.hint else error.message)

    def model(self, keys: Keys, entry: dict[str, Any]) -> None:
        if entry.get("recipe") is not None:
            self.recipe((*keys, "recipe"), entry)
            return
        if "registered" not in entry:
            self.plugin(keys, entry, "adapter")
            return
        name, args = entry["registered"], entry.get("args", {})
        if "adapter" in entry or not isinstance(name, str) or not isinstance(args, dict):
            return
        if "uri" in args:
            self.find((*keys, "args", "uri"), "is given by `registered:`, remove it", of_key=True)
        if "mlflow" not in REGISTRIES["adapters"]:
            self.find((*keys, "registered"), REGISTRIES["adapters"].unknown("mlflow"))
        elif re.fullmatch(REGISTERED, name):
            self.arguments(REGISTRIES["adapters"].get("mlflow"), {**args, "uri": f"models:/{name}"}, keys, "registered")

    def recipe(self, keys: Keys, entry: dict[str, Any]) -> None:
        """Check `recipe: {family: NAME, ...}`: the name is an adapter that trains, the rest are its arguments."""
        if entry.get("args"):
            self.find((*keys[:-1], "args"), "belongs into `recipe:`, beside `family:`", of_key=True)
        if not isinstance(recipe := entry["recipe"], dict):
            return
        registry = REGISTRIES["adapters"]
        families = [name for name in registry if registry.get(name).training is not Adapter.training]
        family = recipe.get("family")
        if not isinstance(family, str):
            near = next((key for key in recipe if did_you_mean(str(key), ["family"])), None)
            meant = f" (not '{near}:')" if near not in (None, "family") else ""
            self.find(keys, f"needs `family:`{meant}, an adapter that trains ({', '.join(families)})")
        elif family not in registry:
            hint = did_you_mean(family, families)
            self.find((*keys, "family"), f"no family '{family}'{hint} (there are: {', '.join(families)})")
        elif family not in families:
            self.find((*keys, "family"), f"'{family}' is not trained: name it under `adapter:`")
        else:
            given = {name: value for name, value in recipe.items() if name != "family"}
            self.paths(registry.get(family), given, keys, None)
            recipe |= given
            self.arguments(registry.get(family), given, keys, "family", below=())

    def attack(self, keys: Keys, entry: dict[str, Any], tokens: Collection[bool]) -> None:
        if isinstance(found := self.plugin(keys, entry, "attack"), Attack):
            evaluations, resources = self.document.data["evaluations"], self.document.data.get("resources")
            size = resources.get("batch_size") if isinstance(resources, dict) else None
            block = size if isinstance(size, int) and size > 0 else Resources().batch_size
            self.take(shortcomings(Asked(keys, entry, found), evaluations.get("budget"), block, tokens))
        self.learner(keys, entry, "attack")

    def detector(self, keys: Keys, entry: dict[str, Any], tokens: Collection[bool]) -> None:
        self.plugin(keys, entry, "detector")
        self.plugin((*keys, "outliers"), entry.get("outliers"), "dataset")
        crafter, below = entry.get("adversarial"), (*keys, "adversarial")
        if isinstance(crafter, dict) and isinstance(found := self.plugin(below, crafter, "attack"), Attack):
            self.take(shortcomings_of_crafter(Asked(below, crafter, found), tokens))
        self.learner(keys, entry, "detector")

    def take(self, troubles: Troubles) -> None:
        for keys, message in troubles:
            self.find(keys, message)

    def plugin(self, keys: Keys, entry: Any, kind: str) -> Plugin | None:
        """Check one `{kind: NAME, args: {...}}`: the name, and the arguments by the plugin's own rules.

        Returns the plugin, where they accept these.
        """
        if not isinstance(entry, dict) or (cls := self.named(keys, entry, kind)) is None:
            return None
        args = {} if entry.get("args") is None else entry["args"]
        if not isinstance(args, dict):
            return None
        split = str(entry.get("split", cls.model_fields["split"].default)) if kind == "dataset" else None
        self.paths(cls, args, (*keys, "args"), split)
        given = dict(args)
        if (beside := BESIDE.get(kind)) is not None:
            if given.pop(beside, None) is not None:
                message = f"belongs beside `{kind}:`, not under `args:`"
                self.find((*keys, "args", beside), message, of_key=True)
            given |= self.beside(cls, entry, keys)
        if issubclass(cls, Attack | Certificate) and not getattr(cls, "minimal", False) and not entry.get("epsilons"):
            self.radii(cls.name, entry, keys)
        for stray in [key for key in entry if key in cls.model_fields and key not in ("name", beside, "args")]:
            if stray not in KINDS[kind].model_fields:
                self.find((*keys, stray), f"is an argument of '{cls.name}': put it under `args:`", of_key=True)
                given.setdefault(stray, entry[stray])
        return self.arguments(cls, given, keys, kind) if self.works_through(cls, given, keys) else None

    def named(self, keys: Keys, entry: dict[str, Any], kind: str) -> type[Plugin] | None:
        registry = REGISTRIES[f"{kind}s"]
        if not isinstance(name := entry.get(kind), str):
            for meant in [key for key in entry if key in registry and key not in KINDS[kind].model_fields][:1]:
                self.find((*keys, kind), f"is missing: write `{kind}: {meant}`, and its arguments under `args:`")
            return None
        if name not in registry:
            self.find((*keys, kind), registry.unknown(name))
            return None
        found: type[Plugin] = registry.get(name)
        return found

    def works_through(self, cls: type[Plugin], given: dict[str, Any], keys: Keys) -> bool:
        """Whether a plugin with fields `attack`, `args` and `norm` of its own can have the attack that these name."""
        fields, told = cls.model_fields, len(self.findings)
        if not {"attack", "args", "norm"} <= fields.keys():
            return True
        name, args, norm = (
            given.get(key, fields[key].get_default(call_default_factory=True)) for key in ("attack", "args", "norm")
        )
        below = (*keys, "args")
        if isinstance(name, str) and name not in REGISTRIES["attacks"]:
            self.find((*below, "attack"), REGISTRIES["attacks"].unknown(name))
        elif isinstance(name, str) and isinstance(args, dict):
            self.arguments(REGISTRIES["attacks"].get(name), {**args, "norm": norm}, below, "attack")
        return len(self.findings) == told

    def learner(self, keys: Keys, entry: dict[str, Any], kind: str) -> None:
        """Check what a detector or attack is fitted on: named in its place, or the split `train` of each data set."""
        known = REGISTRIES[f"{kind}s"]
        if not isinstance(name := entry.get(kind), str) or name not in known:
            return
        if kind == "attack" and known.get(name).fits and entry.get("crafted_on") is not None:
            self.find((*keys, "crafted_on"), f"'{name}' crafts on a model of its own: remove it", of_key=True)
        if entry.get("fit_on") is not None:
            self.plugin((*keys, "fit_on"), entry["fit_on"], "dataset")
            if not known.get(name).fits:
                self.find((*keys, "fit_on"), f"'{name}' is not fitted: remove it", of_key=True)
        elif known.get(name).fits:
            for _, data in self.entries("datasets"):
                chosen, every = data.get("dataset"), REGISTRIES["datasets"]
                splits = every.get(chosen).splits if isinstance(chosen, str) and chosen in every else ()
                if splits and "train" not in splits:
                    message = f"needs `fit_on:`: the data set '{chosen}' has no split 'train' to fit '{name}' on"
                    self.find((*keys, kind), message)

    def surrogates(self) -> None:
        """Each `crafted_on:` is a model of the suite."""
        known = [entry["name"] for _, entry in self.entries("models") if isinstance(entry.get("name"), str)]
        for keys, entry in self.entries("evaluations", "attacks"):
            name = entry.get("crafted_on")
            if isinstance(name, str) and name not in known:
                self.find((*keys, "crafted_on"), f"no model '{name}' in this suite{did_you_mean(name, known)}")

    def baselines(self) -> None:
        """Each `baseline:` is a model of the suite, and a probe that compares has something to compare with."""
        known = [str(entry.get("name")) for _, entry in self.entries("models")]
        given = [(keys, entry["baseline"]) for keys, entry in self.entries("models") if entry.get("baseline")]
        for keys, name in given:
            if isinstance(name, str) and name not in known:
                self.find((*keys, "baseline"), f"no model '{name}' in this suite{did_you_mean(name, known)}")
        for keys, entry in self.entries("evaluations", "probes"):
            name = entry.get("probe")
            if given or not isinstance(name, str) or name not in REGISTRIES["probes"]:
                continue
            if issubclass(REGISTRIES["probes"].get(name), PairedProbe):
                self.find(keys, f"'{name}' compares a model with its baseline: add `baseline: NAME` to a model")

    def radii(self, name: str, entry: dict[str, Any], keys: Keys) -> None:
        if not any(did_you_mean(key, ["epsilons"]) for key in entry if key != "epsilons"):  # told at that key
            self.find((*keys, "epsilons"), f"is missing: '{name}' needs the radii of the ball, such as [2/255, 8/255]")

    def beside(self, cls: type[Plugin], entry: dict[str, Any], keys: Keys) -> dict[str, Any]:
        """The norm or split that the plugin is built with; its own first one where the suite names a wrong one."""
        if issubclass(cls, Attack | Certificate):
            field, known, default = "norm", [str(norm) for norm in cls.norms], str(cls.norms[0])
        else:
            assert issubclass(cls, Dataset)
            field, known, default = "split", list(cls.splits), None
        value = entry.get(field, default)
        if not isinstance(value, str):
            return {}
        if known and value not in known:
            listed = ", ".join(known)
            message = f"'{cls.name}' has no {field} '{value}'{did_you_mean(value, known)} (it has: {listed})"
            self.find((*keys, field), message)
            return {field: default or known[0]}
        if field == "split" and not re.fullmatch(LABEL, value):
            self.find((*keys, field), f"{PATTERNS[LABEL]}, got {describe(value)}")
            return {}
        return {field: value}

    def arguments(
        self, cls: type[Plugin], given: Mapping[str, Any], keys: Keys, kind: str, below: Keys = ("args",)
    ) -> Plugin | None:
        """The plugin, or None where its own rules refuse its arguments. These stand under `below`, beside its name."""
        try:
            return cls.model_validate_json(json.dumps(given), strict=True)
        except ValidationError as error:
            for trouble in troubles(error, given, cls):
                if not trouble.keys:  # about the whole: at the name
                    self.find((*keys, kind), trouble.message)
                elif trouble.keys[0] == BESIDE.get(kind):
                    self.find((*keys, *trouble.keys), trouble.message)
                else:
                    self.find((*keys, *below, *trouble.keys), trouble.message, of_key=trouble.at_key)
        except GauntletError as error:
            self.find((*keys, kind), error.message)
        except Exception as error:  # noqa: BLE001 - a foreign plugin's own validators may raise anything
            self.find((*keys, kind), f"'{cls.name}' cannot check these arguments, a bug of the plugin: {error!r}")
        return None

    def paths(self, cls: type[BaseModel], args: dict[str, Any], keys: Keys, split: str | None) -> None:
        """Make the paths among the arguments absolute, in place, and check the data sets that they choose."""
        for name, field in cls.model_fields.items():
            if args.get(name) is None:
                continue
            if (inner := model_in(field.annotation)) is not None:
                items = enumerate(args[name]) if isinstance(args[name], list) else [(None, args[name])]
                for index, item in items:
                    below = (*keys, name) if index is None else (*keys, name, index)
                    if issubclass(inner, DatasetChoice):
                        self.plugin(below, item, "dataset")
                    elif issubclass(inner, AdapterChoice):
                        self.plugin(below, item, "adapter")
                    elif isinstance(item, dict):
                        self.paths(inner, item, below, split)
            elif Path in leaves(field.annotation):
                args[name] = self.absolute(args[name], (*keys, name), split)

    def absolute(self, value: Any, keys: Keys, split: str | None) -> Any:
        """A path argument (or several) made absolute. split: of the data set; None: of a model, has to be there."""
        if isinstance(value, list):
            return [self.absolute(item, (*keys, index), split) for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {key: self.absolute(item, (*keys, key), split) for key, item in value.items()}
        if not isinstance(value, str):
            return value
        path, wrong = self.folders.absolute(value, split, weights=keys[-1] == "weights")
        if wrong:
            self.find(keys, wrong)
        return path

    def unique(self, what: str, labels: Sequence[tuple[Keys, Any]]) -> None:
        first: dict[str, Keys] = {}
        for keys, label in labels:
            if not isinstance(label, str):
                continue
            if what == "evaluations" and label in RESERVED:
                self.find((*keys, "name"), f"'{label}' is the engine's own: add a different `name:`")
            elif label in first:
                place = self.document.place(first[label])
                where = f"line {place.line}" if place.line else str(place)
                message = f"two {what} are called '{label}' (the other: {where}): add a `name:` to one of them"
                self.find((*keys, "name"), message)
            first.setdefault(label, keys)

    def board(self) -> list[Finding]:
        """Check the leaderboard. The evaluations must be right."""
        evaluations = self.document.data.get("evaluations", {})
        compared = any(entry.get("baseline") for _, entry in self.entries("models"))
        metrics = Evaluations.model_validate_json(json.dumps(evaluations), strict=True).metric_names(compared)
        models = [str(entry.get("name")) for _, entry in self.entries("models")]
        datasets = [str(_label(entry, "dataset")) for _, entry in self.entries("datasets")]
        return BoardChecks(self.document, metrics, models, datasets, self.findings).run()


def _label(entry: Mapping[str, Any], kind: str) -> Any:
    plugin = entry.get(kind)
    return entry.get("name", default_label(plugin) if isinstance(plugin, str) else None)
