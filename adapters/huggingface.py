"""Data sets of the Hugging Face Hub, or saved by its library. The only file that imports `datasets` (an extra)."""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from adapters.arrays import UNIT, check_indices, check_labels, digest, grouped
from adapters.images import batch
from bench.contracts import Dataset, Samples, dataset
from bench.data import locate
from bench.errors import DataError, did_you_mean


@dataset("huggingface")
class HuggingFace(Dataset):
    """A column of images and one of labels, from the Hub (`repository`) or from a folder (`path`).

    Needs `pip install 'datasets>=4'`. repository: "ylecun/mnist", with its configuration and revision; what is cached
    is read without a network. path: a folder written by `save_to_disk`, as given or below the data folder. Inputs
    are (channels, height, width) float32, value / 255; an image of another size is resampled bilinearly. No code
    of a repository is run. groups: further columns, by whose values metrics can be told apart.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "pillow", "datasets")
    local: ClassVar[bool] = True

    repository: str = Field(default="", pattern=r"^(\w[\w.-]*(/\w[\w.-]*)?)?$")
    path: Path | None = None
    configuration: str | None = None
    revision: str | None = None
    image: str = "image"
    label: str = "label"
    size: tuple[int, int]
    channels: Literal[1, 3] = 3
    groups: tuple[str, ...] = ()
    split: str = Field(default="test", pattern=r"^\w[\w.-]*$")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.repository) == (self.path is not None):
            raise ValueError("give either `repository` (on the Hub) or `path` (a folder written by save_to_disk)")
        return self

    def load(self) -> Samples:
        where = f"{self.path or self.repository} [{self.split}]"
        table, features = self._table()
        for column in (self.image, self.label, *self.groups):
            if column not in features:
                raise DataError(
                    f"{where}: no column '{column}'{did_you_mean(column, features)} (it has {', '.join(features)})",
                    "Name the columns by `image` and `label`",
                )
        labels = np.asarray(table[self.label])
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
            raise DataError(f"{where}: column '{self.label}' must hold integers, found {labels.dtype} {labels.shape}")
        count = int(labels.max()) + 1
        names = tuple(getattr(features[self.label], "names", None) or map(str, range(count)))
        check_labels(labels, names, where)  # the Hub's mark for a hidden label is -1

        def encoded(row: int) -> tuple[bytes, str]:
            return _encoded(table[row][self.image], f"{where}: image {row}")

        def fetch(indices: NDArray[np.int64]) -> Tensor:
            return batch(encoded, check_indices(indices, len(labels)).tolist(), self.size, self.channels)

        labels = labels.astype(np.int64)
        contents = (digest(encoded(row)[0]) for row in range(len(labels)))
        identity = digest("images", [self.channels, *self.size], labels, *contents)
        found = Samples(labels, fetch, (self.channels, *self.size), UNIT, names, identity)
        return grouped(found, {name: np.asarray(table[name]) for name in self.groups}, where)

    def _table(self) -> tuple[Any, dict[str, Any]]:
        """The split, its images left encoded, and the features by column."""
        try:
            import datasets
        except ImportError as error:
            raise DataError(
                f"{self.repository or self.path}: reading it needs the package `datasets`: {error}",
                "pip install 'datasets>=4'",
            ) from error
        if self.repository and Path(self.repository).exists():
            raise DataError(
                f"{self.repository}: a file of that name lies in the working folder and would be read instead",
                "Run from another folder, or read what lies there by `path`",
            )
        try:
            if self.path is not None:
                everything = datasets.load_from_disk(str(locate(self.path)))
                splits = everything if isinstance(everything, datasets.DatasetDict) else {"all": everything}
            else:
                splits = datasets.load_dataset(self.repository, self.configuration, revision=self.revision)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise DataError(
                f"{self.repository or self.path}: {type(error).__name__}: {error}",
                "Check name, configuration and revision. Without a network: fetch it into the library's cache elsewhere"
                " and copy that, or copy a folder written by save_to_disk and name it in `path`",
            ) from error
        if self.split not in splits:
            hint = did_you_mean(self.split, splits)
            raise DataError(
                f"{self.repository or self.path}: no split '{self.split}'{hint} (it has {', '.join(splits)})"
            )
        table = splits[self.split]
        features = dict(table.features)
        if isinstance(features.get(self.image), datasets.Image):
            table = table.cast_column(self.image, datasets.Image(decode=False))
        return table, features


def _encoded(cell: Any, where: str) -> tuple[bytes, str]:
    if not isinstance(cell, dict) or not (cell.get("bytes") or cell.get("path")):
        raise DataError(f"{where}: not an encoded image but {type(cell).__name__}", "Cast the column to datasets.Image")
    content = cell.get("bytes")
    return (content if content else Path(cell["path"]).read_bytes()), where
