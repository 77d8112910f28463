"""Where the files that a suite names may lie: beside it, in the data folders, in the current one. Links do not help."""

from collections.abc import Sequence
from pathlib import Path

from bench.errors import did_you_mean
from bench.suite_yaml import describe


class Folders:
    """folder: the suite's own. roots: where relative paths are looked up after it."""

    def __init__(self, folder: Path, roots: Sequence[Path]) -> None:
        self.folder = folder
        self._bases = [folder.resolve(), *(root.resolve() for root in roots)]
        self._here = Path.cwd().resolve()
        self._allowed = [*self._bases, self._here]

    def refuses_module(self, entry: str) -> str:
        """Why a plugin's file or folder may not be loaded; empty where it may, or the entry is the name of a module."""
        path = _resolve(self.folder / entry)
        is_path = "/" in entry or entry.endswith(".py") or path is None or path.exists()
        return self._leaves(entry) if is_path and not self._inside(path) else ""

    def absolute(self, text: str, split: str | None, *, weights: bool) -> tuple[str, str]:
        """A path made absolute, and what is wrong with it; what is wrong, or not there yet, stays as it is.

        split: of the data set whose file it is; None: of a model, and it has to be there. weights: it is a file.
        """
        bases = self._bases if split is None else [*self._bases, self._here]
        for base in bases:
            path = _resolve(base / text)
            if path is not None and any(self._serves(file) for file in _files(path, split)):
                wrong = weights and not path.is_file()
                return str(path), f"{describe(text)} is not a file: name the file of the weights" if wrong else ""
        if not all(self._inside(file) for base in bases for file in _files(_resolve(base / text), split)):
            return text, self._leaves(text)
        if split is not None:
            return text, ""
        parent = (self._bases[0] / text).parent
        siblings = [file.name for file in parent.iterdir()] if parent.is_dir() else []
        looked = ", ".join(map(str, self._bases))
        return text, f"no file {describe(text)}{did_you_mean(Path(text).name, siblings)} (looked in {looked})"

    def _serves(self, path: Path | None) -> bool:
        return path is not None and self._inside(path) and path.exists()

    def _inside(self, path: Path | None) -> bool:
        return path is not None and any(path.is_relative_to(root) for root in self._allowed)

    def _leaves(self, text: str) -> str:
        roots = ", ".join(dict.fromkeys(map(str, self._allowed)))
        return (
            f"{describe(text)} leaves the allowed folders, itself or by a link: put the file into one of them ({roots})"
        )


def _resolve(path: Path) -> Path | None:
    """Where a path really leads, or None where it leads nowhere (a loop of links, a name no file can have)."""
    try:
        resolved = path.resolve()
        resolved.exists()
    except (OSError, RuntimeError, ValueError):
        return None
    return resolved


def _files(path: Path | None, split: str | None) -> list[Path | None]:
    """The files that a path may mean: a data set's may name the split, or be packed."""
    if path is None or split is None:
        return [path]
    named = Path(str(path).replace("{split}", split))
    return [_resolve(named), _resolve(named.with_name(f"{named.name}.gz"))]
