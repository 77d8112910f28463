"""Registered models: what builds one, and its weights, kept in MLflow's model registry so that any node can fetch them.

A version holds two files: `gauntlet.json`, the spec (adapter, arguments, digest of the weights, what the built
classifier takes), and the weights as they were given. Nothing is pickled and nothing in it is ever executed.
The digest of the spec is a tag of the version, and the digest of the weights stands in the spec: a file that was
changed in the artifact store is noticed when it is fetched. What a version was registered from is a tag as well, so
that a model that stands there already need not be built to be found.
"""

import getpass
import hashlib
import json
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

import bench
from bench import tracking
from bench.contracts import Adapter, Frozen, adapters
from bench.errors import DataError, PluginError, TrackingError, did_you_mean
from bench.plugins import source_digest
from bench.publication import mlflow_key

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

EXPERIMENT = "gauntlet.models"  # where MLflow keeps the files of registered models
SPEC = "gauntlet.json"
SPEC_TAG = "gauntlet.spec"  # digest of gauntlet.json
WEIGHTS_TAG = "gauntlet.weights"  # digest of the weights
GIVEN_TAG = "gauntlet.given"  # digest of what decides the spec: _Given.digest
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,149}")
REFERENCE = re.compile(rf"(?:models:/)?(?P<name>{NAME.pattern})(?:/(?P<version>[1-9][0-9]*|latest))?")


class WeightsFact(Frozen):
    """The weights of a registered model: name of the file, blake2b digest (16 bytes, hexadecimal), size."""

    file: str
    digest: str
    size_bytes: int


class Spec(Frozen):
    """How a registered model is built, and what came out when it was registered."""

    adapter: str
    args: dict[str, Any]  # JSON values; `weights` is reduced to the file's name
    weights: WeightsFact | None
    input_shape: tuple[int, ...]
    bounds: tuple[float, float]
    classes: int
    gauntlet: str  # the version that registered it


@dataclass(frozen=True)
class Entry:
    """A version in the model registry. `adapter` is empty for a model that something else than Gauntlet registered."""

    name: str
    version: int
    adapter: str
    created: datetime
    source: str  # artifact URI of its files
    owner: str = ""  # who registered it; empty where nobody wrote that down


def register(
    name: str,
    adapter_name: str,
    args: Mapping[str, Any],
    weights: bytes | None,
    uri: str,
    artifacts: str | None = None,
    *,
    owner: str | None = None,
    curves: Mapping[str, Sequence[float]] | None = None,
) -> int:
    """Store a model under a name; returns its version, counted from 1.

    args: the adapter's fields, as JSON values. weights: the content of the file that `args["weights"]` names, where it
    names one. A model that is not there yet is built, so that what does not build is not registered. The same content
    under the same name gives the version that is already there. owner: whose it is; None: the account that runs this.
    curves: of the training that made the weights, a point an epoch: they stand in a run that the version names as its
    source. Raises PluginError (unknown adapter, wrong arguments, weights that do not fit) and TrackingError.
    """
    if not NAME.fullmatch(name):
        raise PluginError(f"'{name}' cannot name a model", "use letters, digits, '_', '-' and '.', 150 at the most")
    given = _given(adapter_name, args, weights)
    with tracking.connect(uri) as client:
        versions = _versions(client, name)
        for entry in versions:
            if entry.tags.get(GIVEN_TAG) == given.digest:
                return int(entry.version)
        spec = given.spec()
        text = spec.model_dump_json(indent=2)
        for entry in versions:
            if entry.tags.get(SPEC_TAG) == _digest(text.encode()):
                return int(entry.version)
        home = tracking.experiment(client, EXPERIMENT, uri, artifacts)
        told = {mlflow_key(f"training/{curve}"): points for curve, points in (curves or {}).items()}
        run = tracking.write_curves(client, home, name, told) if told else None
        files = {SPEC: text.encode()}
        if spec.weights is not None and weights is not None:
            files[spec.weights.file] = weights
        logged = _logged(client, home, name, run, files)
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        tags = {"gauntlet.adapter": adapter_name, SPEC_TAG: _digest(text.encode()), "gauntlet.model": logged.model_id}
        tags |= {GIVEN_TAG: given.digest, "gauntlet.owner": owner or getpass.getuser()}
        if spec.weights is not None:
            tags[WEIGHTS_TAG] = spec.weights.digest
        known = logged.model_id if uri.startswith("http") else None  # without a server MLflow looks it up elsewhere
        made = client.create_model_version(name, logged.artifact_location, run_id=run, tags=tags, model_id=known)
        return int(made.version)


def _logged(client: "MlflowClient", home: str, name: str, run: str | None, files: Mapping[str, bytes]) -> "LoggedModel":
    """A model of these files in MLflow's experiment `home`, without a version yet. run: whose training made it."""
    logged = client.create_logged_model(home, name.replace(".", "_"), source_run_id=run, tags={"model": name})
    with tempfile.TemporaryDirectory(prefix="gauntlet-") as folder:
        for file, content in files.items():
            Path(folder, file).write_bytes(content)
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    return logged


def list_models(uri: str) -> list[Entry]:
    """Every version of every registered model, by name, newest first."""
    with tracking.connect(uri) as client:
        found = [_entry(version) for version in _versions(client)]
    return sorted(found, key=lambda entry: (entry.name, -entry.version))


def builders(references: Collection[str], uri: str) -> set[str]:
    """Names of the adapters that registered models are built by. References to what is not there are passed over."""
    entries = list_models(uri)
    found: set[str] = set()
    for name, version in map(parse, references):
        versions = [entry for entry in entries if entry.name == name and version in (None, entry.version)]
        found.update(entry.adapter for entry in versions[:1])  # the newest comes first
    return found


def origin(reference: str, uri: str) -> str:
    """Which version a reference means, who registered it and when: `resnet/2, registered by ada on 2026-11-21`."""
    with tracking.connect(uri) as client:
        found = _entry(_find(client, reference, uri))
    by = f" by {found.owner}" if found.owner else ""
    return f"{found.name}/{found.version}, registered{by} on {found.created:%Y-%m-%d}"


def show(reference: str, uri: str) -> tuple[Entry, Spec]:
    """A version and its spec; `name` alone is the newest. Raises TrackingError, and DataError for a damaged one."""
    with tracking.connect(uri) as client:
        found = _find(client, reference, uri)
        with tempfile.TemporaryDirectory(prefix="gauntlet-") as folder:
            return _entry(found), _read_spec(found, tracking.download(str(found.source), uri, Path(folder)))


def remove(reference: str, uri: str) -> list[int]:
    """Take one version (`name/3`), or all of them (`name`), out of the registry; returns which.

    The files stay until `mlflow gc` is run. Raises TrackingError where there is no such model or version.
    """
    with tracking.connect(uri) as client:
        name, number = parse(reference)
        found = _find(client, reference, uri)
        gone = [found] if number else _versions(client, name)
        for version in gone:
            client.delete_model_version(name, version.version)
            if "gauntlet.model" in version.tags:
                client.delete_logged_model(version.tags["gauntlet.model"])
            if version.run_id:
                client.delete_run(version.run_id)
        if not _versions(client, name):
            client.delete_registered_model(name)
        return sorted(int(version.version) for version in gone)


def fetch(reference: str, uri: str) -> tuple[Spec, bytes | None]:
    """The spec and the weights of a registered model, both checked against their digests.

    reference: `models:/name/3`, `name/3`, or `name` for the newest. Raises TrackingError where it is not there or was
    not registered by Gauntlet, DataError where the files are not those that were registered.
    """
    with tracking.connect(uri) as client, tempfile.TemporaryDirectory(prefix="gauntlet-") as folder:
        found = _find(client, reference, uri)
        files = tracking.download(str(found.source), uri, Path(folder))
        spec = _read_spec(found, files)
        if spec.weights is None:
            return spec, None
        file = files / spec.weights.file
        weights = file.read_bytes() if file.is_file() else None
        if weights is None or _digest(weights) != spec.weights.digest:
            state = "missing" if weights is None else "not those that were registered"
            raise DataError(
                f"model '{found.name}/{found.version}' at {tracking.shown(uri)}: its weights are {state} "
                f"({spec.weights.file}, digest {spec.weights.digest})",
                f"register them again: `gauntlet models register {found.name} --adapter {spec.adapter} ...`",
            )
        return spec, weights


def bundle(reference: str, uri: str) -> bytes:
    """A registered model as one artefact, for the adapter `mlflow`: a line of JSON, then the weights.

    The line has the adapter, its arguments, and the digest of the adapter's source with the versions it names, so that
    the digest of these bytes identifies everything that decides what is built. Raises as `fetch`, and PluginError
    where the adapter is not known here.
    """
    spec, weights = fetch(reference, uri)
    cls = adapters.get(spec.adapter) if spec.adapter in adapters else None
    if cls is None:
        raise PluginError(
            f"registered model '{reference}': {adapters.unknown(spec.adapter)}",
            "name the module that registers this adapter under `plugins:` in the suite",
        )
    head = {
        "adapter": spec.adapter,
        "args": spec.args,
        "weights": spec.weights.digest if spec.weights else None,
        "source": source_digest(cls),
        "requires": {name: installed(name) for name in cls.requires},
    }
    return json.dumps(head, sort_keys=True).encode() + b"\n" + (weights or b"")


def parse(reference: str) -> tuple[str, int | None]:
    """Name and version of `models:/name/3`, `name/3`, `name` or `name/latest` (version None: the newest)."""
    found = REFERENCE.fullmatch(reference)
    if found is None:
        raise TrackingError(f"'{reference}' names no registered model", "write `name`, `name/3` or `models:/name/3`")
    version = found["version"]
    return found["name"], None if version in (None, "latest") else int(version)


@dataclass(frozen=True)
class _Given:
    """What a model is registered from, checked but not built."""

    adapter: Adapter
    args: Mapping[str, Any]  # JSON values; `weights` is reduced to the file's name
    file: str
    weights: bytes | None

    @property
    def digest(self) -> str:
        """Of everything that decides the spec."""
        weights = None if self.weights is None else _digest(self.weights)
        source = source_digest(type(self.adapter))
        parts = [self.adapter.name, self.args, self.file, weights, source, bench.__version__]
        return _digest(json.dumps(parts, sort_keys=True).encode())

    def spec(self) -> Spec:
        """Builds the model. Raises PluginError."""
        model, weights = self.adapter.build(self.weights), self.weights
        fact = None
        if weights is not None:
            fact = WeightsFact(file=self.file, digest=_digest(weights), size_bytes=len(weights))
        return Spec(
            adapter=self.adapter.name,
            args=dict(self.args),
            weights=fact,
            input_shape=tuple(model.input_shape),
            bounds=(float(model.bounds.low), float(model.bounds.high)),
            classes=model.classes,
            gauntlet=bench.__version__,
        )


def _given(adapter_name: str, args: Mapping[str, Any], weights: bytes | None) -> _Given:
    if adapter_name == "mlflow":
        raise PluginError("a registered model cannot be registered again through the adapter 'mlflow'")
    kept = dict(args)
    named = kept.get("weights")
    if named is not None and weights is None:
        raise PluginError(f"adapter '{adapter_name}' names the weights '{named}', and no bytes were given with it")
    file = Path(str(named)).name if named is not None else "weights.bin"
    if weights is not None:
        kept["weights"] = file
    try:
        adapter = adapters.build(adapter_name, kept)
        text = json.dumps(kept, allow_nan=False)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise PluginError(f"adapter '{adapter_name}': {where}: {error.errors()[0]['msg']}") from error
    except (TypeError, ValueError) as error:
        raise PluginError(f"adapter '{adapter_name}': its arguments are not JSON values: {error}") from error
    if weights is None and adapter.training() is not None:
        raise PluginError(f"adapter '{adapter_name}' trains its weights", "train it first, and give the weights file")
    return _Given(adapter, json.loads(text), file, weights)


def _versions(client: "MlflowClient", name: str | None = None) -> "list[ModelVersion]":
    wanted = f"name = '{name}'" if name else None
    return tracking.paged(lambda token: client.search_model_versions(wanted, page_token=token))


def _find(client: "MlflowClient", reference: str, uri: str) -> "ModelVersion":
    name, number = parse(reference)
    versions = {int(version.version): version for version in _versions(client, name)}
    if not versions:
        near = did_you_mean(name, {version.name for version in _versions(client)})
        raise TrackingError(
            f"no registered model '{name}' at {tracking.shown(uri)}{near}", "`gauntlet models list` shows all"
        )
    if number is not None and number not in versions:
        known = ", ".join(map(str, sorted(versions)))
        raise TrackingError(f"model '{name}' at {tracking.shown(uri)} has no version {number} (it has {known})")
    return versions[number or max(versions)]


def _read_spec(found: "ModelVersion", files: Path) -> Spec:
    """The spec among downloaded files. A model of another tool has none, and is not loaded: that may run code."""
    what = f"model '{found.name}/{found.version}'"
    if SPEC_TAG not in found.tags:
        raise TrackingError(
            f"{what} was not registered by Gauntlet; loading an MLflow flavor may run code from the file "
            "(a pickle), which Gauntlet never does",
            "save its state dict as safetensors, or the program by torch.export or ONNX, and register that: "
            f"`gauntlet models register {found.name} --adapter torch ...`",
        )
    file = files / SPEC
    text = file.read_bytes() if file.is_file() else b""
    if _digest(text) != found.tags[SPEC_TAG]:
        raise DataError(f"{what}: its {SPEC} is not the one that was registered", "register the model again")
    return Spec.model_validate_json(text)


def _entry(version: "ModelVersion") -> Entry:
    created = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    return Entry(
        version.name,
        int(version.version),
        version.tags.get("gauntlet.adapter", ""),
        created,
        str(version.source),
        version.tags.get("gauntlet.owner", ""),
    )


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
