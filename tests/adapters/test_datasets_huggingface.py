"""The Hugging Face adapter without its library, and with it where the extra is installed."""

import sys
from pathlib import Path

import numpy as np
import pytest

from adapters.huggingface import HuggingFace
from bench.errors import DataError
from tests.adapters.formats import write_image


def test_without_the_library_the_error_is_the_command_that_installs_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    with pytest.raises(DataError, match="pip install 'datasets>=4'"):
        HuggingFace(repository="ylecun/mnist", size=(28, 28), channels=1).load()


@pytest.mark.parametrize("arguments", [{}, {"repository": "a/b", "path": "c"}])
def test_exactly_one_source_is_asked_for(arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="give either `repository`"):
        HuggingFace(size=(28, 28), **arguments)


@pytest.mark.parametrize("name", ["../secret", "/etc", "a/b/c", "https://host/x"])
def test_a_repository_is_a_name_not_a_path_or_an_address(name: str) -> None:
    with pytest.raises(ValueError, match="repository"):
        HuggingFace(repository=name, size=(28, 28))


def test_a_saved_data_set_is_read_and_its_mistakes_are_named(tmp_path: Path, monkeypatch) -> None:
    library = pytest.importorskip("datasets", reason="the extra `huggingface` is not installed")
    images = [write_image(tmp_path / f"{i}.png", np.full((4, 6), 10 * i, np.uint8)).read_bytes() for i in range(3)]
    columns = library.Features({"img": library.Image(), "kind": library.ClassLabel(names=["x", "y"])})
    content = {"img": [{"path": None, "bytes": image} for image in images], "kind": [1, 0, 1]}
    table = library.Dataset.from_dict(content, features=columns)
    library.DatasetDict({"test": table}).save_to_disk(str(tmp_path / "saved"))
    arguments = {"path": tmp_path / "saved", "size": (4, 6), "channels": 1}
    samples = HuggingFace(image="img", label="kind", **arguments).load()
    assert samples.class_names == ("x", "y")
    assert samples.labels.tolist() == [1, 0, 1]
    assert samples.fetch(np.array([2, 0])).mul(255).round().mean((1, 2, 3)).tolist() == [20.0, 0.0]
    with pytest.raises(DataError, match=r"no column 'image' \(it has img, kind\)|did you mean"):
        HuggingFace(**arguments).load()
    with pytest.raises(DataError, match="no split 'train'"):
        HuggingFace(split="train", image="img", label="kind", **arguments).load()


def test_without_a_network_a_repository_that_is_not_cached_is_a_data_error(tmp_path: Path, monkeypatch) -> None:
    library = pytest.importorskip("datasets", reason="the extra `huggingface` is not installed")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(DataError, match="Without a network"):
        HuggingFace(repository="nobody/nothing", size=(28, 28)).load()
