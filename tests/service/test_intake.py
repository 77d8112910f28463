"""What a suite from the network may not say."""

import json

import pytest
import yaml

from bench import plugins
from bench.errors import SuiteError
from bench.service.intake import MAX_BYTES, accept

SUITE = {
    "name": "mine",
    "models": [{"name": "cnn", "adapter": "small_cnn"}],
    "datasets": [{"dataset": "digits"}],
    "evaluations": {"attacks": [{"attack": "pgd", "norm": "linf", "epsilons": [0.1], "args": {"steps": 5}}]},
}


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    plugins.load_built_in()


def test_yaml_and_json_give_the_same_suite():
    assert accept(yaml.safe_dump(SUITE).encode()) == accept(json.dumps(SUITE, indent=1).encode())


def test_the_quickstart_is_welcome():
    assert accept((plugins.ROOT / "suites" / "quickstart.yaml").read_bytes()).name == "quickstart"


def model(**entry: object) -> dict[str, object]:
    return {**SUITE, "models": [{"name": "m", **entry}]}


def data(**entry: object) -> dict[str, object]:
    return {**SUITE, "datasets": [entry]}


HOSTILE = {
    "plugins": ({**SUITE, "plugins": ["os"]}, "plugins"),
    "a module file": ({**SUITE, "plugins": ["../../etc/x.py"]}, "plugins"),
    "an import string": (model(adapter="torch", args={"factory": "os:system"}), "modules or addresses"),
    "weights": (model(adapter="small_cnn", args={"weights": "/etc/passwd"}), "weights"),
    "weights of a relative path": (model(adapter="small_cnn", args={"weights": "x.safetensors"}), "weights"),
    "weights of a part": (
        model(adapter="deployed", args={"model": {"adapter": "small_cnn", "args": {"weights": "x"}}, "target": "onnx"}),
        "weights",
    ),
    "a data folder": (data(dataset="image_folder", args={"path": "x", "size": [8, 8]}), "path"),
    "files": (data(dataset="idx", args={"images": "x", "labels": "y"}), "names a file"),
    "an address": (data(dataset="huggingface", args={"repository": "a/b", "size": [8, 8]}), "addresses"),
    "a repository without a slash": (data(dataset="huggingface", args={"repository": "mnist", "size": [8, 8]}), "addr"),
    "a registry elsewhere": (model(adapter="mlflow", args={"uri": "models:/x/1"}), "addresses"),
    "a tracking server": (model(registered="x/1", args={"tracking_uri": "http://169.254.169.254"}), "tracking_uri"),
    "a traversal in a split": (data(dataset="digits", split="../../x"), "path"),
    "a parent folder": (data(dataset="digits", split="..x"), "path"),
    "a huge batch": ({**SUITE, "resources": {"batch_size": 10**9}}, "at most"),
    "many threads": ({**SUITE, "resources": {"threads": 1000}}, "at most"),
    "a thousand workers": ({**SUITE, "resources": {"cpus_per_worker": 0.001}}, "at least 0.25"),
    "a whole rack": ({**SUITE, "resources": {"gpus_per_worker": 1000}}, "at most 16"),
    "markup in a name": ({**SUITE, "name": "<script>"}, "name"),
    "a header in a name": ({**SUITE, "name": "a\r\nSet-Cookie: x"}, "name"),
    "an unknown attack": (
        {**SUITE, "evaluations": {"attacks": [{"attack": "pdg", "norm": "linf", "epsilons": [0.1]}]}},
        "did you mean 'pgd'",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_names_a_place_or_asks_for_too_much_is_refused_with_its_line(what: str):
    suite, told = HOSTILE[what]
    with pytest.raises(SuiteError) as refused:
        accept(yaml.safe_dump(suite, sort_keys=False).encode())
    assert told in str(refused.value)
    assert str(refused.value).startswith("suite:"), "line and column come first"


ALIASES = b"a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n"
RAW = {
    "aliases": (ALIASES, "aliases are refused"),
    "a tag": (b"name: !!python/object/apply:os.system ['true']\n", "tags are refused"),
    "depth in YAML": (b"name: " + b"[" * 50 + b"]" * 50, "nested deeper"),
    "depth in JSON": (b'{"name": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested deeper"),
    "two keys": (b"name: a\nname: b\n", "twice"),
    "bytes that are no text": (b"name: \xff\xfe\n", "UTF-8"),
    "control characters": (b"name: a\x00b\n", "control character"),
    "nothing": (b"", "is empty"),
    "a list": (b"- a\n", "mapping"),
    "two documents": (b"name: a\n---\nname: b\n", "second document"),
    "an infinite number": (b"seed: 1e999\n", "too large"),
}


@pytest.mark.parametrize("what", RAW)
def test_what_yaml_can_do_to_a_reader_is_refused(what: str):
    content, told = RAW[what]
    with pytest.raises(SuiteError, match=told):
        accept(content)


def test_the_largest_text_is_checked_in_no_time():
    import time

    content = b"name: x\nmodels:\n" + b"- {name: a, adapter: nothing, args: {x: 1}}\n" * (MAX_BYTES // 45)
    before = time.thread_time()
    with pytest.raises(SuiteError):
        accept(content)
    assert time.thread_time() - before < 15


def test_json_says_the_same_of_a_character_in_two_halves_as_of_the_character_itself():
    """`json.dumps` writes halves by default; they were refused as no YAML."""
    told = []
    for ascii_ in (True, False):
        text = json.dumps({**model(adapter="small_cnn", label="\U0001f600"), "seed": "\U0001f600"}, ensure_ascii=ascii_)
        with pytest.raises(SuiteError) as refused:
            accept(text.encode())
        told.append([(mistake.path, mistake.message) for mistake in refused.value.mistakes])
    assert told[0] == told[1]
    assert {keys for keys, _ in told[0]} == {"models[0].label", "seed"}
