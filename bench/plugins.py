"""Finds plugins: the built-in packages, entry points, and the modules that a suite names. All enter by the same door.

A plugin registers itself when its module is imported; one that fails to import is an error. What a suite names is
read once, by the driver, and travels to the workers as source, so that a node needs no copy of it. An installed module
travels as its name, and may be pinned: then it is loaded where its package has the sources that it should have.
"""

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import pkgutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType

from bench.errors import OperatorError, PluginError, did_you_mean

ROOT = Path(__file__).resolve().parents[1]
BUILT_IN = ("adapters", "attacks", "bench.probes", "bench.detectors", "bench.certificates")
PACKAGES = ("bench", "adapters", "attacks", "reports", "suites")
ENTRY_POINTS = "gauntlet.plugins"
_LIMIT = 4 << 20  # bytes of source that travel with a suite
_CODE = tuple(importlib.machinery.SOURCE_SUFFIXES + importlib.machinery.EXTENSION_SUFFIXES)
_loaded: dict[str, str] = {}  # installed modules that were named, with the digest that they were pinned to


@dataclass(frozen=True)
class Source:
    """A module that a suite names, with what it takes to import it elsewhere."""

    module: str
    origin: str  # where the driver found it; "" for a module that has to be installed
    files: Mapping[str, bytes]  # path relative to the module's folder -> content; empty for an installed module
    is_package: bool = False
    pinned: str = ""  # of an installed module: what `installed_digest` has to say of it

    @property
    def digest(self) -> str:
        hasher = hashlib.blake2b(self.module.encode(), digest_size=16)
        for name, content in sorted(self.files.items()):
            hasher.update(f"\0{name}\0{len(content)}\0".encode() + content)
        return hasher.hexdigest()


def load_built_in() -> None:
    """Import every module of the built-in packages and every entry point of the group `gauntlet.plugins`."""
    check_import_names()
    for package in BUILT_IN:
        _import_all(importlib.import_module(package))
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            loaded = entry.load()
        except Exception as problem:
            raise PluginError(
                f"entry point '{entry.name}' ({entry.value}) cannot be imported: {problem!r}"
            ) from problem
        if isinstance(loaded, ModuleType):
            _import_all(loaded)


def check_import_names() -> None:
    """Refuse to run where another distribution owns or shadows one of our packages. Raises OperatorError."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != ROOT / package:
            raise OperatorError(
                f"the package '{package}' is imported from {found or 'nowhere'}, not from {ROOT / package}",
                "another distribution has a package of that name: remove it, or run in an environment of its own",
            )


def read_source(entry: str, folder: Path) -> Source:
    """What a suite's `plugins:` entry names: a .py file or a package folder beside the suite, or an installed module.

    Raises PluginError where there is nothing of that name, or too much of it.
    """
    path = folder / entry
    if path.suffix == ".py" and path.is_file():
        return Source(path.stem, str(path.resolve()), {path.name: path.read_bytes()})
    if path.is_dir() and (path / "__init__.py").is_file():
        files = {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*.py"))}
        if sum(map(len, files.values())) > _LIMIT:
            raise PluginError(f"plugin package {path} holds over {_LIMIT >> 20} MiB of source", "install it instead")
        return Source(path.name, str(path.resolve()), files, is_package=True)
    if entry.endswith(".py") or "/" in entry:
        beside = [file.name for file in folder.glob("*.py")]
        raise PluginError(f"no plugin file '{entry}' in {folder.resolve()}{did_you_mean(entry, beside)}")
    if _spec(entry) is None:
        raise PluginError(f"no module '{entry}'", "name a .py file beside the suite, or install the module")
    return Source(entry, "", {})


def load_source(source: Source) -> None:
    """Import a module that a suite names, from where it lies, or from a copy where this machine does not have it.

    Raises PluginError, naming the cause, where it cannot be imported or hides a module that exists.
    """
    known = sys.modules.get(source.module)
    if known is not None and getattr(known, "__gauntlet__", None) == source.digest:
        return
    if not source.files:
        _load_installed(source.module, source.pinned)
        return
    if not hasattr(known, "__gauntlet__") and (known is not None or _is_elsewhere(source)):
        raise PluginError(f"plugin '{source.module}' would hide an installed module of that name", "rename the file")
    path = _place(source)
    main = path / "__init__.py" if source.is_package else path
    spec = importlib.util.spec_from_file_location(
        source.module, main, submodule_search_locations=[str(path)] if source.is_package else None
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__gauntlet__ = source.digest  # type: ignore[attr-defined]
    sys.modules[source.module] = module
    try:
        spec.loader.exec_module(module)
        _import_all(module)
    except PluginError:
        del sys.modules[source.module]
        raise
    except Exception as problem:
        del sys.modules[source.module]
        raise PluginError(f"plugin {source.origin} cannot be imported: {problem!r}") from problem


def installed_digest(module: str) -> str:
    """Digest of all code of the package that an installed module belongs to, which is found and not imported.

    Raises PluginError where there is no such package.
    """
    top = module.partition(".")[0]
    importlib.invalidate_caches()  # it may have been installed since this process began
    spec = _spec(top)
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    if folders:
        found = {str(file.relative_to(folder)): file for folder in folders for file in folder.rglob("*")}
    else:
        found = {Path(spec.origin).name: Path(spec.origin)} if spec and spec.origin else {}
    code = {name: file for name, file in found.items() if name.endswith(_CODE) and file.is_file()}
    if not code:
        raise PluginError(f"no module '{top}' is installed here", "install it on every machine of the service")
    hasher = hashlib.blake2b(module.encode(), digest_size=16)
    for name, file in sorted(code.items()):
        hasher.update(f"\0{name}\0".encode() + hashlib.blake2b(file.read_bytes()).digest())
    return hasher.hexdigest()


def loaded_digest(module: str) -> str | None:
    """What an installed module was pinned to when this process loaded it; None where it has not."""
    return _loaded.get(module)


def source_digest(cls: type) -> str:
    """Digest of all the source that a plugin class is made of: its module, its bases', and what these import of ours.

    The engine (bench.contracts and its like) is left out: it has a digest of its own.
    """
    hasher = hashlib.blake2b(digest_size=16)
    modules = {base.__module__ for base in cls.__mro__}
    for name, content in sorted(_closure(frozenset(filter(_is_plugin, modules))).items()):
        hasher.update(f"{name}\0{len(content)}\0".encode() + content)
    return hasher.hexdigest()


ENGINE = (  # beside bench.contracts: what measures, and what plugins call of the engine to make a figure or weights
    *(
        "attacking",
        "budgets",
        "detection",
        "disturbance",
        "examples",
        "goals",
        "gpu",
        "gradient_checks",
        "joint",
        "levels",
    ),
    *("measure", "memory", "metering", "randomness", "records", "saliency", "strikes", "swift", "swift_layers"),
    "token_ids",
)


def engine_digest() -> str:
    """Digest of the engine's files that decide what stands in a record."""
    files = [*sorted((ROOT / "bench" / "contracts").glob("*.py")), *(ROOT / "bench" / f"{name}.py" for name in ENGINE)]
    return hashlib.blake2b(b"".join(file.read_bytes() for file in files), digest_size=16).hexdigest()


def _import_all(package: ModuleType) -> None:
    for info in pkgutil.iter_modules(getattr(package, "__path__", []), package.__name__ + "."):
        importlib.import_module(info.name)


def _load_installed(module: str, pinned: str) -> None:
    known = _loaded.get(module, pinned)
    if known != pinned:
        raise PluginError(f"module '{module}' is loaded here as it was before", "restart this process of the service")
    if pinned and module not in _loaded and installed_digest(module) != pinned:
        raise PluginError(
            f"module '{module}' is not here as it was registered", "install the same version on every machine"
        )
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as problem:
        raise PluginError(f"plugin '{module}' cannot be imported: {problem!r}") from problem
    _loaded[module] = pinned


def _is_elsewhere(source: Source) -> bool:
    """Whether the name is that of another module (`python -m` puts the current folder on the path: then it is ours)."""
    spec = importlib.util.find_spec(source.module)
    main = Path(source.origin, "__init__.py") if source.is_package else Path(source.origin)
    return spec is not None and (spec.origin is None or Path(spec.origin).resolve() != main)


def _spec(module: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None


def _place(source: Source) -> Path:
    """The file or folder to import from: the driver's where it is the same here, else a copy."""
    origin = Path(source.origin)
    folder = origin if source.is_package else origin.parent
    if all((folder / name).is_file() and (folder / name).read_bytes() == text for name, text in source.files.items()):
        return origin
    copy = Path(tempfile.mkdtemp(prefix="gauntlet-plugin-")) / source.module
    for name, content in source.files.items():
        file = copy / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return copy if source.is_package else copy / origin.name


def _is_plugin(module: str) -> bool:
    top = module.partition(".")[0]
    known = sys.modules.get(top)
    if module.startswith(tuple(BUILT_IN)) or hasattr(known, "__gauntlet__") or top in _entry_point_packages():
        return True
    return any(top == named.partition(".")[0] for named in _loaded)


@cache
def _entry_point_packages() -> frozenset[str]:
    return frozenset(entry.module.partition(".")[0] for entry in importlib.metadata.entry_points(group=ENTRY_POINTS))


def _closure(modules: frozenset[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    todo: list[str] = sorted(modules)
    while todo:
        name = todo.pop()
        file = getattr(sys.modules.get(name), "__file__", None)
        if name in found or file is None:
            continue
        found[name] = Path(file).read_bytes()
        if file.endswith(".py"):
            todo += [imported for imported in _imports(found[name], name) if _is_plugin(imported)]
    return found


@lru_cache(maxsize=1024)
def _imports(source: bytes, module: str) -> Sequence[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                is_package = hasattr(sys.modules.get(module), "__path__")
                above = parts[: len(parts) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names
