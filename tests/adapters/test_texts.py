import json

import numpy as np
import pytest
import torch

from adapters.lstm import Lstm, TextNet
from adapters.scipy_docs import ScipyDocs
from adapters.text_file import TextFile
from adapters.texts import encode, tokenize, vocabulary_of
from adapters.torch_classifier import state_from_bytes, state_to_bytes
from bench.contracts import Report
from bench.errors import DataError, PluginError
from bench.probes.macs import Macs

REVIEWS = [
    ("A fine, fine film!", "good"),
    ("not a fine film", "bad"),
    ("a dull film", "bad"),
    ("a bright film", "good"),
] * 8


class Quiet(Report):
    def step(self, done: int, total: int, **figures: float) -> None: ...


def write(folder, suffix: str, rows=REVIEWS, split: str = "train"):
    path = folder / f"reviews-{split}{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    else:
        mark = "\t" if suffix == ".tsv" else ","
        path.write_text("\n".join([f"text{mark}label"] + [f'"{text}"{mark}{label}' for text, label in rows]) + "\n")
    return folder / f"reviews-{{split}}{suffix}"


def test_words_are_cut_as_the_documentation_says():
    assert tokenize("Don't re-use x_1, naïve 3.5!") == [
        *("don", "'", "t", "re", "-", "use", "x", "1", ",", "naïve", "3", ".", "5", "!"),
    ]


def test_the_most_frequent_words_get_an_id_and_equals_go_by_the_alphabet():
    words = vocabulary_of(["b a c", "c a", "c d"], 5)
    assert words == ("", "<unknown>", "c", "a", "b")
    assert encode(["c D a zz", "a", "c c c c c"], words, 4).tolist() == [[2, 1, 3, 1], [3, 0, 0, 0], [2, 2, 2, 2]]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_file_of_the_user_gives_the_same_samples_in_every_format(tmp_path, suffix):
    path = write(tmp_path, suffix)
    write(tmp_path, suffix, [("a fine day", "good")], "test")
    train, test = (TextFile(path=path, split=split, length=5).load() for split in ("train", "test"))
    assert train.class_names == ("bad", "good")
    assert train.labels[:4].tolist() == [1, 0, 0, 1]
    assert train.vocabulary == test.vocabulary
    words = [train.vocabulary[token] for token in train.fetch(np.array([0]))[0]]
    assert words == ["a", "fine", ",", "fine", "film"]
    assert [test.vocabulary[token] for token in test.fetch(np.array([0]))[0]] == ["a", "fine", "<unknown>", "", ""]
    assert train.digest == TextFile(path=write(tmp_path, ".jsonl"), split="train", length=5).load().digest


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".csv", "text,lable\nhello,1\n", r"csv:2: no column 'label' - did you mean 'lable'"),
        (".jsonl", '{"text": "hello", "label": 0}\n{"text": \n', r"jsonl:2: no JSON"),
        (".jsonl", "[1, 2]\n", r"jsonl:1: list, not an object"),
        (".csv", "text,label\n,0\nhello,1\n", r"text 0 has no word"),
        (".csv", "text,label\n", "no texts"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_line(tmp_path, suffix, content, message):
    path = tmp_path / f"texts{suffix}"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        TextFile(path=path, split="train").load()


def test_a_label_that_training_never_saw_is_told_with_the_nearest_one(tmp_path):
    path = write(tmp_path, ".csv")
    write(tmp_path, ".csv", [("fine", "goood")], "test")
    with pytest.raises(DataError, match=r"text 0: unknown label 'goood' - did you mean 'good'"):
        TextFile(path=path).load()


def test_the_sentences_of_scipy_are_dealt_out_by_docstring_and_most_of_each_field_is_there():
    train, test = (ScipyDocs(split=split).load() for split in ("train", "test"))
    assert len(train) > 2 * len(test) > 1000
    assert train.vocabulary == test.vocabulary
    assert min(np.bincount(train.labels)) > 200
    rows = {tuple(row.tolist()) for row in train.fetch(np.arange(len(train)))}
    assert len(rows) == len(train), "no two texts are equal"


def trained(tmp_path, **changed) -> tuple[Lstm, bytes, TextFile]:
    path = write(tmp_path, ".csv")
    data = TextFile(path=path, split="train", length=6)
    fields = {"data": {"dataset": "text_file", "args": {"path": str(path), "length": 6}}, "embedding": 8, "hidden": 8}
    adapter = Lstm.model_validate(
        fields | {"dropout": 0.0, "train": {"epochs": 30, "batch_size": 8, "learning_rate": 0.02}} | changed
    )
    training = adapter.training()
    assert training is not None
    return adapter, training.train(data.load(), None, 0, Quiet()), data


def test_it_learns_a_negation_which_no_bag_of_words_with_these_lengths_would_need_and_keeps_its_vocabulary(tmp_path):
    adapter, weights, data = trained(tmp_path)
    samples, model = data.load(), adapter.build(weights)
    assert model.vocabulary == samples.vocabulary
    texts = [text for text, _ in REVIEWS[:4]]
    assert torch.equal(model.encode(texts), samples.fetch(np.arange(4)))
    assert model.logits(model.encode(texts)).argmax(1).tolist() == samples.labels[:4].tolist()
    adapter2, again, _ = trained(tmp_path)
    assert weights == again
    assert adapter2 == adapter


def test_weights_without_a_vocabulary_are_refused(tmp_path):
    adapter, weights, _ = trained(tmp_path, train={"epochs": 1, "batch_size": 8})
    state = state_from_bytes(weights)
    del state["words"]
    with pytest.raises(PluginError, match="do not say which id stands for which word"):
        adapter.build(state_to_bytes(state))


def test_it_refuses_to_be_trained_on_images():
    from adapters.digits import Digits

    with pytest.raises(PluginError, match=r"reads texts, and 'scipy_docs' has inputs of shape \(1, 8, 8\)"):
        Lstm().training().train(Digits(split="train").load(), None, 0, Quiet())


def test_filling_changes_nothing_and_costs_nothing():
    torch.manual_seed(0)
    net = TextNet(tokens=20, classes=3, embedding=5, hidden=7, dropout=0.5).eval()
    short = torch.randint(1, 20, (4, 6))
    long = torch.cat([short, torch.zeros((4, 9), dtype=torch.int64)], 1)
    torch.testing.assert_close(net(short), net(long))
    alone = torch.cat([net(long[row : row + 1]) for row in range(4)])
    torch.testing.assert_close(net(long), alone)


def test_the_states_are_those_of_the_equations_of_the_lstm():
    torch.manual_seed(0)
    net = TextNet(tokens=20, classes=3, embedding=5, hidden=7, dropout=0.0).eval()
    ids = torch.randint(1, 20, (1, 6))
    weights = (net.lstm.weight_ih_l0, net.lstm.weight_hh_l0, net.lstm.bias_ih_l0 + net.lstm.bias_hh_l0)
    state = cell = torch.zeros(7)
    for token in ids[0]:
        i, f, g, o = (weights[0] @ net.embedding.weight[token] + weights[1] @ state + weights[2]).chunk(4)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        state = o.sigmoid() * cell.tanh()
    torch.testing.assert_close(net(ids)[0], net.linear(state))


def test_operations_grow_with_the_length_of_the_text(tmp_path):
    adapter, weights, data = trained(tmp_path, train={"epochs": 1, "batch_size": 8})
    samples = data.load()
    found = {figure.name: figure for figure in Macs(inputs=32).measure(adapter.build(weights), samples, None)}
    words = (samples.fetch(np.arange(32)) != 0).sum(1).double()
    per_word = 4 * 8 * (8 + 8)  # four gates, of an embedding and a state of eight numbers each
    assert found["macs"].flags[0].startswith("dynamic: ")
    assert found["macs"].value == pytest.approx(float(words.mean()) * per_word + 8 * 2)
    assert found["macs/max"].value == float(words.max()) * per_word + 8 * 2
