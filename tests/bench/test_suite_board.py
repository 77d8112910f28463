"""What `leaderboard:` may say of published figures and of scores, and how each mistake is told."""

from pathlib import Path

import pytest

from tests.bench.test_suite import GOOD, mistakes, suite

MORE = """\
  published:
    - {metric: clean_accuracy, model: net, value: .97, source: 'Somebody 2019, table 2'}
    - {metric: clean_accuracy, model: oth*, value: .9, source: a, recomputed: {model: net, source: b}}
  scores:
    - name: overall
      of:
        - {metric: clean_accuracy, weight: 2}
        - {metric: t_count/all, worst: 1e6, best: 10, scale: log}
"""


def changed(old: str, new: str) -> str:
    assert MORE.count(old) == 1, old
    return GOOD + MORE.replace(old, new)


def test_published_figures_and_scores_are_read(tmp_path: Path) -> None:
    found = suite(GOOD + MORE, tmp_path)
    first, second = found.leaderboard.published
    assert (first.value, first.source) == (0.97, "Somebody 2019, table 2")
    assert second.recomputed is not None
    assert second.recomputed.model == "net"
    assert found.metric_names()[-1] == "score/overall"


def test_a_score_may_rank_and_be_a_column(tmp_path: Path) -> None:
    text = (GOOD + MORE).replace("rank_by: t_count/all", "rank_by: score/overall")
    assert suite(text, tmp_path).leaderboard.shown[0] == "score/overall"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("model: net, value", "model: nett, value", "published[0].model: 'nett' matches no model of this suite"),
        ("value: .97", "value: 97", "published[0].value: 'clean_accuracy' lies between 0 and 1, got 97"),
        ("model: oth*", "model: '*'", "of 'net' on 't_dots' has a published figure already (published[0])"),
        ("recomputed: {model: net,", "recomputed: {model: no,", "recomputed.model: no model 'no' in this suite"),
        ("recomputed: {model: net,", "recomputed: {", "needs either `value:` (computed elsewhere) or `model:`"),
        ("clean_accuracy, model: net", "clean_acuracy, model: net", "yields no metric 'clean_acuracy' - did you mean"),
        (", source: 'Somebody 2019, table 2'", "", "published[0].source: is missing"),
        ("worst: 1e6, best: 10, ", "", "say what counts 0 (`worst:`) and what counts 1 (`best:`)"),
        ("worst: 1e6", "worst: 0", "a logarithm needs ends above 0"),
        ("worst: 1e6", "worst: 10", "must differ from `worst:`"),
        ("t_count/all", "clean_accuracy", "'clean_accuracy' stands twice in this score"),
        ("t_count/all", "score/overall", "yields no metric 'score/overall'"),
        ("weight: 2", "weight: 0", "must be greater than 0"),
    ],
)
def test_each_mistake_is_told_at_its_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert any(said in one for one in mistakes(changed(old, new), tmp_path)), mistakes(changed(old, new), tmp_path)
