"""Random numbers belong to the sample, and to nothing else."""

import torch

from bench.randomness import SampleRandom, seed_of


def test_a_samples_draws_do_not_depend_on_its_neighbours_or_their_order():
    together = SampleRandom.of(1, "pgd", [3, 5, 8]).uniform((2, 2))
    alone = SampleRandom.of(1, "pgd", [5]).uniform((2, 2))
    turned = SampleRandom.of(1, "pgd", [8, 5]).uniform((2, 2))
    assert torch.equal(together[1], alone[0])
    assert torch.equal(together[1], turned[1])


def test_dropping_rows_leaves_the_streams_of_the_others_where_they_stand():
    whole = SampleRandom.of(1, "pgd", [3, 5, 8])
    whole.normal((4,))
    later = whole.normal((4,))
    part = SampleRandom.of(1, "pgd", [3, 5, 8])
    part.normal((4,))
    assert torch.equal(part.rows([0, 2]).normal((4,)), later[[0, 2]])


def test_seed_purpose_and_index_each_make_another_stream():
    draws = {
        tuple(SampleRandom.of(seed, purpose, [index]).uniform((3,))[0].tolist())
        for seed in (0, 1)
        for purpose in ("a", "b")
        for index in (0, 1)
    }
    assert len(draws) == 8


def test_seeds_do_not_change_between_versions_of_python_or_numpy():
    assert seed_of(0, "pgd", 7) == 2398693796219046543


def test_draws_have_the_distribution_they_claim():
    random = SampleRandom.of(0, "t", range(50))
    uniform = random.uniform((400,), -2, 3)
    assert uniform.min() >= -2
    assert uniform.max() < 3
    assert abs(uniform.mean() - 0.5) < 0.05
    normal = random.normal((400,))
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
    integers = random.integers((400,), 0, 4)
    assert sorted(integers.unique().tolist()) == [0, 1, 2, 3]
