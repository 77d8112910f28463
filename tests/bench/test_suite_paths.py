"""Files that a suite names: where they are looked up, and how none leads out of the allowed folders."""

from pathlib import Path

import pytest

from tests.bench.test_suite import GOOD, change, mistakes, suite


def test_files_are_found_beside_the_suite_and_become_absolute(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "net.pt").write_bytes(b"x")
    found = suite(change(("width: 8", "weights: w/net.pt")), tmp_path)
    assert found.models[0].args["weights"] == str(tmp_path.resolve() / "w" / "net.pt")
    near = mistakes(change(("width: 8", "weights: w/nett.pt")), tmp_path)
    assert "no file 'w/nett.pt' - did you mean 'net.pt'?" in near[0]
    assert "'w' is not a file" in mistakes(change(("width: 8", "weights: w")), tmp_path)[0]


def test_data_are_found_below_the_roots_or_left_for_the_data_set_to_name(tmp_path: Path) -> None:
    folder, root = tmp_path / "suites", tmp_path / "data"
    (root / "dots").mkdir(parents=True)
    folder.mkdir()
    (root / "dots" / "test.npz").write_bytes(b"x")
    (root / "dots" / "packed.gz").write_bytes(b"x")

    def path(text: str) -> object:
        changed = change(("limit: 100", f"args: {{path: '{text}'}}"))
        return suite(changed, folder, roots=[root]).datasets[0].args["path"]

    assert path("dots/test.npz") == str(root.resolve() / "dots" / "test.npz")
    assert path("dots/{split}.npz") == str(root.resolve() / "dots" / "{split}.npz")
    assert path("dots/packed") == str(root.resolve() / "dots" / "packed")
    assert path("dots/later.npz") == "dots/later.npz"


@pytest.mark.parametrize("where", ["models", "datasets", "plugins"])
@pytest.mark.parametrize("path", ["../secret", "link/secret", "{tmp}/secret", "loop/x", "a\\0b"])
def test_a_path_that_leaves_the_allowed_folders_is_refused(where: str, path: str, tmp_path: Path) -> None:
    folder = tmp_path / "suites"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    quoted = '"' + path.replace("{tmp}", str(tmp_path)) + '"'
    text = {
        "models": change(("width: 8", f"weights: {quoted}")),
        "datasets": change(("limit: 100", f"args: {{path: {quoted}}}")),
        "plugins": GOOD + f"plugins: [{quoted}]\n",
    }[where]
    if where == "plugins" and "\\0" in path:
        text = text.replace("a\\0b", "a\\0b.py")
    found = mistakes(text, folder, load_plugins=lambda entries, folder: None)
    assert len(found) == 1
    assert "leaves the allowed folders" in found[0]


def test_a_split_cannot_lead_out_of_the_allowed_folders(tmp_path: Path) -> None:
    folder = tmp_path / "suites"
    (folder / "dots").mkdir(parents=True)
    (tmp_path / "secret.npz").write_text("x")
    (folder / "dots" / "linked.npz").symlink_to(tmp_path / "secret.npz")
    text = change(("dataset: t_dots, limit: 100", "dataset: t_free, args: {path: 'dots/{split}.npz'}, split: SPLIT"))
    climbing = mistakes(text.replace("SPLIT", "../../secret"), folder)
    assert "datasets[0].args.path: 'dots/{split}.npz' leaves the allowed folders" in climbing[0]
    assert "datasets[0].split: must be letters, digits" in climbing[1]
    linked = mistakes(text.replace("SPLIT", "linked"), folder)
    assert len(linked) == 1
    assert "leaves the allowed folders" in linked[0]


def test_paths_inside_other_values_are_checked_too(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x")
    nested = "parts: [{file: a.bin}], files: {one: a.bin}, choices: [{dataset: t_dots, args: {path: a.bin}}]"
    args = suite(change(("width: 8", nested)), tmp_path).models[0].args
    there = str(tmp_path.resolve() / "a.bin")
    assert args["parts"][0]["file"] == args["files"]["one"] == args["choices"][0]["args"]["path"] == there
    found = mistakes(change(("width: 8", nested.replace("a.bin", "/etc/passwd"))), tmp_path)
    assert [message.split(": ")[1] for message in found] == [
        "models[0].args.parts[0].file",
        "models[0].args.files.one",
        "models[0].args.choices[0].args.path",
    ]
