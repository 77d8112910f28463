"""Attacks on some of the pixels: pixel subsets, gradient overlap, patches, single pixels."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

import attacks.cw
import attacks.ddn
import attacks.jsma  # noqa: F401 - all three register attacks
from attacks.one_pixel import OnePixel, one_pixel_map
from attacks.overlap import gradient_overlap
from attacks.patch import Patch
from attacks.pgd import ProjectedGradientDescent
from attacks.restricted import Restricted, RestrictedMinimal, Where
from bench.contracts import Bounds, Classifier, Norm
from bench.errors import PluginError
from tests.attacks import digits


class Bare(Classifier):
    """A module as a classifier."""

    bounds, classes = Bounds(0, 1), 2

    def __init__(self, net: nn.Module | None) -> None:
        self.net = net

    @property
    def module(self) -> nn.Module | None:
        return self.net

    def logits(self, x: Tensor) -> Tensor:
        assert self.net is not None
        return self.net(x)


def test_the_gradient_overlap_counts_paths() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(75, 2)
    ).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = gradient_overlap(Bare(net), torch.rand(1, 1, 5, 5))[0, 0]
    windows = torch.tensor([2.0, 3.0, 3.0, 3.0, 2.0])  # of three that hold each row: those inside the image
    torch.testing.assert_close(found, torch.outer(windows, windows) / 9)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(PluginError, match="where: gradient"):
        gradient_overlap(Bare(None), torch.rand(1, 1, 5, 5))


@pytest.mark.parametrize("where", list(Where))
def test_only_the_chosen_share_of_the_pixels_moves(where: Where) -> None:
    x, y = digits.right(12)
    attack = Restricted(share=0.25, where=where, args={"steps": 10})
    moved = attack.run(digits.model(), x, y, 0.3, digits.streams(12))
    free = attack.free(digits.model(), x, y, digits.streams(12))
    assert free.flatten(1).sum(1).tolist() == [16] * 12
    assert bool((moved == x)[~free].all())
    assert float((moved - x).abs().max()) <= 0.3 + 1e-6
    assert bool((moved != x)[free].any())


def test_all_pixels_are_no_restriction_and_few_steep_ones_beat_few_random_ones() -> None:
    x, y = digits.right(60)

    def broken(moved: Tensor) -> int:
        return int((digits.module()(moved).argmax(1) != y).sum())

    args = {"steps": 20, "random_start": False}
    whole = ProjectedGradientDescent(**args).run(digits.model(), x, y, 0.3, digits.streams(60))
    same = Restricted(share=1.0, args=args).run(digits.model(), x, y, 0.3, digits.streams(60))
    torch.testing.assert_close(same, whole)
    steep, random = (
        broken(Restricted(share=0.2, where=where, args=args).run(digits.model(), x, y, 0.3, digits.streams(60)))
        for where in (Where.GRADIENT, Where.RANDOM)
    )
    assert random < steep <= broken(whole)


def test_the_restricted_attack_is_checked_beforehand() -> None:
    with pytest.raises(PluginError, match="did you mean 'pgd'"):
        Restricted(attack="pdg")
    with pytest.raises(ValidationError, match="no norm 'l1'"):
        Restricted(norm=Norm.L1)
    assert Restricted(args={"steps": 7}).inner_plugins() == (ProjectedGradientDescent(steps=7),)


@pytest.mark.parametrize(
    ("inside", "norm", "args"),
    [("cw", "l2", {"steps": 30, "binary_search": 3}), ("jsma", "l0", {}), ("one_pixel", "l0", {}), ("ddn", "l2", {})],
)
def test_a_search_for_the_smallest_distance_keeps_to_the_free_pixels_and_finds_no_shorter_way(
    inside: str, norm: str, args: dict
) -> None:
    x, y = digits.right(12)
    attack = RestrictedMinimal(attack=inside, norm=norm, args=args, share=0.3)
    moved = attack.run(digits.model(), x, y, None, digits.streams(12))
    free = attack.free(digits.model(), x, y, digits.streams(12))
    assert bool((moved == x)[~free].all())
    assert bool((digits.module()(moved).argmax(1) != y).any())
    if inside == "jsma":  # greedy: fewer pixels to choose from may lead it to a shorter way
        return
    whole = attack.inner().run(digits.model(), x, y, None, digits.streams(12))
    lost, lost_freely = ((digits.module()(one).argmax(1) != y) for one in (moved, whole))
    assert not bool((lost & ~lost_freely).any())
    far, free_far = ((one - x).flatten(1) for one in (moved, whole))
    size = (lambda d: (d != 0).sum(1)) if norm == "l0" else (lambda d: d.norm(dim=1))
    assert bool((size(far)[lost] >= 0.9 * size(free_far)[lost]).all())  # cw searches: its ways are not quite shortest
    with pytest.raises(PluginError, match="has epsilons: restricted_minimal needs one that looks for a smallest"):
        RestrictedMinimal(attack="pgd", norm="l2")


def test_a_patch_is_one_square_within_its_budget_and_is_no_weaker_than_white_and_black_squares() -> None:
    x, y = digits.right(40)
    moved = Patch(positions=49).run(digits.model(), x, y, 4.5, digits.streams(40))
    changed = (moved != x)[:, 0]
    for image in changed[changed.flatten(1).any(1)]:
        rows, columns = image.any(1).nonzero()[:, 0], image.any(0).nonzero()[:, 0]
        assert int(rows.max() - rows.min()) < 2
        assert int(columns.max() - columns.min()) < 2
    plain = torch.zeros(40, dtype=torch.bool)
    for top in range(7):
        for left in range(7):
            for colour in (0.0, 1.0):
                covered = x.clone()
                covered[:, :, top : top + 2, left : left + 2] = colour
                plain |= digits.module()(covered).argmax(1) != y
    broken = digits.module()(moved).argmax(1) != y
    assert int(broken.sum()) >= int(plain.sum()) > 0
    assert torch.equal(Patch().run(digits.model(), x, y, 0.5, digits.streams(40)), x)


def test_one_pixel_asks_every_pixel_and_takes_the_worst() -> None:
    x, y = digits.right(30)
    moved = OnePixel(batch=50).run(digits.model(), x, y, None, digits.streams(30))
    for row in range(30):
        worst = {}
        for place in range(64):
            for value in (0.0, 1.0):
                tried = x[row].clone()
                tried.view(-1)[place] = value
                logits = digits.module()(tried[None])[0]
                others = torch.cat([logits[: y[row]], logits[y[row] + 1 :]])
                worst[place, value] = float(others.max() - logits[y[row]])
        found = one_pixel_map(digits.model(), x[row], y[row])
        assert float(found.max()) == pytest.approx(max(worst.values()), abs=1e-4)
        if max(worst.values()) > 0:
            assert int((moved[row] != x[row]).sum()) == 1
            assert int(digits.module()(moved[row : row + 1]).argmax()) != int(y[row])
        else:
            assert torch.equal(moved[row], x[row])
    assert not torch.equal(moved, x)
