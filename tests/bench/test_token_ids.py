import numpy as np
import pytest
import torch
from torch import Tensor

from attacks.fgsm import FastGradientSign
from attacks.word_substitution import WordSubstitution
from bench import measure, plugins
from bench.contracts import Bounds, Classifier, Gradients, Norm, Samples
from bench.errors import PluginError, SuiteError
from bench.metrics import rows
from bench.probes.macs_under_attack import MacsUnderAttack
from bench.randomness import SampleRandom
from bench.records import Cell, Kind
from bench.suite import parse
from bench.token_ids import check_vocabulary, gain

plugins.load_built_in()
WORDS = ("", "<unknown>", "awful", "bad", "plain", "good", "great")
WEIGHTS = torch.tensor([0.0, 0.0, -3.0, -1.0, 0.2, 1.0, 2.0])
TEXTS = torch.tensor([[5, 4, 4, 0, 0], [6, 6, 5, 4, 4], [3, 3, 3, 2, 0], [2, 4, 0, 0, 0], [3, 6, 0, 0, 0]])
LABELS = np.array([1, 1, 0, 0, 0])  # the last one is wrong


class BagOfWords(Classifier):
    """The sum of the weights of its words: above 0 means label 1. What k words can do to it is known in closed form."""

    input_shape = (5,)
    bounds = Bounds(0, len(WORDS) - 1)
    classes = 2
    gradients = Gradients.NONE
    vocabulary = WORDS

    def logits(self, x: Tensor) -> Tensor:
        total = WEIGHTS[x].sum(1)
        return torch.stack([-total, total], 1)


def texts(vocabulary=WORDS) -> Samples:
    return Samples(LABELS, lambda rows: TEXTS[rows], (5,), BagOfWords.bounds, ("no", "yes"), "texts", {}, vocabulary)


def fewest(text: Tensor, label: int) -> int:
    """How many words have to be replaced: the most helpful ones first, each by the strongest word of the other side."""
    sign = 1 if label else -1
    own = sorted((sign * WEIGHTS[text[text != 0]]).tolist(), reverse=True)
    worst = min((sign * WEIGHTS).tolist())
    for count in range(len(own) + 1):
        if sum(own[count:]) + count * worst < 0:
            return count
    raise AssertionError("cannot be broken")


def test_on_a_bag_of_words_the_attack_needs_exactly_the_fewest_words():
    needed = [fewest(text, label) for text, label in zip(TEXTS[:4], LABELS[:4], strict=True)]
    assert needed == [1, 2, 2, 1]
    attack = WordSubstitution(candidates=10)
    for epsilon in (1, 2, 3):
        table = measure.attacked(attack, (float(epsilon),), "test", BagOfWords(), texts(), np.arange(5), 0)
        broken = [verdict[0] for verdict in table["broken"].to_pylist()]
        assert broken == [count <= epsilon for count in needed] + [True]
        assert [distance for distance in table["distance"].to_pylist()[:4] if distance is not None] == [
            count for count in needed if count <= epsilon
        ]


def test_the_attack_keeps_the_filling_the_length_and_the_type():
    random = SampleRandom.of(0, "test", range(4))
    moved = WordSubstitution(candidates=2).run(BagOfWords(), TEXTS[:4], torch.from_numpy(LABELS[:4]), 5.0, random)
    assert moved.dtype == torch.int64
    assert torch.equal(moved == 0, TEXTS[:4] == 0)
    assert 0 <= moved.min() <= moved.max() < len(WORDS)
    again = WordSubstitution(candidates=2).run(
        BagOfWords(), TEXTS[2:4], torch.from_numpy(LABELS[2:4]), 5.0, SampleRandom.of(0, "test", [2, 3])
    )
    assert torch.equal(again, moved[2:]), "each text has random numbers of its own"


def test_the_gain_is_change_of_answer_per_share_of_words():
    moved = TEXTS.clone()
    moved[0, 0] = 2
    found = gain(BagOfWords(), TEXTS, moved)
    before, after = (1 / (1 + np.exp(-2 * total)) for total in (1.4, -2.6))
    assert found[0] == pytest.approx((before - after) / (1 / 3 + 1e-4), rel=1e-6)
    assert found[1:].tolist() == [0, 0, 0, 0]


def test_the_leaderboard_gets_the_mean_gain_of_the_texts_that_were_attacked():
    table = measure.attacked(WordSubstitution(candidates=10), (3.0,), "test", BagOfWords(), texts(), np.arange(5), 0)
    gains = table["gain"].to_pylist()
    assert gains[4] is None, "it was wrong untouched, and not attacked"
    cell = Cell("m", "d", "words", Kind.ATTACK, table, norm="l0", epsilons=(3.0,), knowledge="score")
    metric = rows.rows([cell])[0].metrics["adversarial_gain/l0/words"]
    assert metric.n == 4
    assert metric.value == pytest.approx(np.mean(gains[:4]))
    assert metric.low <= metric.value <= metric.high


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ((), "takes token ids, and the data are continuous"),
        ((*WORDS[:3], "worse", *WORDS[4:]), "id 3 is 'bad' there and 'worse' here"),
        (WORDS[:-1], "7 tokens against 6"),
    ],
)
def test_a_model_and_data_that_number_different_words_are_refused(vocabulary, message):
    with pytest.raises(PluginError, match=message):
        check_vocabulary(BagOfWords(), texts(vocabulary))
    with pytest.raises(PluginError, match=message):
        measure.clean(BagOfWords(), texts(vocabulary), np.arange(2))


def test_an_attack_on_numbers_is_refused_by_the_engine_too():
    class WithSlope(BagOfWords):
        gradients = Gradients.EXACT

    with pytest.raises(PluginError, match="'fgsm' moves inputs by small amounts"):
        measure.attacked(FastGradientSign(norm=Norm.LINF), (0.1,), "test", WithSlope(), texts(), np.arange(2), 0)


def test_the_operations_of_texts_under_attack_ask_for_an_attack_on_words():
    probe = MacsUnderAttack(epsilon=0.1, attack="fgsm")
    with pytest.raises(PluginError, match="'fgsm' moves inputs by small amounts"):
        probe.measure(WithModule(), texts(), None)
    words = MacsUnderAttack(epsilon=2, norm=Norm.L0, attack="word_substitution", inputs=4)
    found = {figure.name: figure.value for figure in words.measure(WithModule(), texts(), None)}
    assert found["attacked_macs"] == 7 * 2
    assert found["attacked_macs/ratio"] == 1


class WithModule(BagOfWords):
    """A linear layer over the counts of words."""

    def __init__(self) -> None:
        self._module = torch.nn.Linear(7, 2, bias=False).requires_grad_(False)

    @property
    def module(self) -> torch.nn.Module:
        return self._module

    def logits(self, x: Tensor) -> Tensor:
        return self._module(torch.nn.functional.one_hot(x, 7).sum(1).float())


SUITE = """
name: texts
models: [{name: m, adapter: small_cnn}]
datasets: [{dataset: DATA}]
evaluations:
  attacks:
    - {attack: ATTACK}
"""


@pytest.mark.parametrize(
    ("data", "attack", "message"),
    [
        (
            "scipy_docs",
            "square, norm: linf, epsilons: [0.1]",
            "'square' moves inputs by small amounts, which token ids",
        ),
        (
            "digits",
            "word_substitution, norm: l0, epsilons: [2]",
            "'word_substitution' replaces words, and these data are",
        ),
    ],
)
def test_an_attack_that_does_not_suit_the_data_is_told_at_its_line_before_anything_runs(
    tmp_path, data, attack, message
):
    with pytest.raises(SuiteError) as told:
        parse(SUITE.replace("DATA", data).replace("ATTACK", attack).encode(), "s.yaml", tmp_path)
    assert message in str(told.value)
    assert ":7:" in str(told.value)
