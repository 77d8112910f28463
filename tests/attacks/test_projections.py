"""attacks/projections.py against scipy's solvers of the same problems."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from attacks.projections import onto_hyperplane, onto_l0_ball, onto_l1_ball, onto_l2_ball, onto_simplex
from bench.contracts import Norm


def problems(n: int = 20, k: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, k, generator=generator)
    w = torch.randn(n, k, generator=generator)
    w[::4, 1] = 0.0
    return x, w, torch.randn(n, generator=generator)


def shortest(x: np.ndarray, w: np.ndarray, c: float, norm: Norm) -> float | None:
    """The least norm by linear programming (L1, Linf) or SLSQP (L2); None where the plane misses the box."""
    k = len(x)
    bounds = list(zip(-x, 1 - x, strict=True))
    if norm is Norm.L2:
        plane = {"type": "eq", "fun": lambda d: w @ d - c}
        inside = linprog(np.zeros(k), A_eq=w[None], b_eq=[c], bounds=bounds)
        if not inside.success:
            return None
        found = minimize(
            lambda d: d @ d, inside.x, bounds=bounds, constraints=[plane], options={"ftol": 1e-12, "maxiter": 500}
        )
        return float(np.sqrt(found.fun))
    single = norm is Norm.LINF
    above = np.hstack([np.eye(k), -np.ones((k, 1)) if single else -np.eye(k)])
    below = np.hstack([-np.eye(k), -np.ones((k, 1)) if single else -np.eye(k)])
    extra = 1 if single else k
    found = linprog(
        np.r_[np.zeros(k), np.ones(extra)], A_ub=np.vstack([above, below]), b_ub=np.zeros(2 * k),
        A_eq=np.r_[w, np.zeros(extra)][None], b_eq=[c], bounds=bounds + [(0, None)] * extra,
    )  # fmt: skip
    return float(found.fun) if found.success else None


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2, Norm.L1])
def test_the_move_onto_a_plane_in_a_box_is_as_short_as_a_solver_finds(norm: Norm) -> None:
    x, w, c = problems()
    moves = onto_hyperplane(x, w, c, norm, 0.0, 1.0)
    assert bool(((x + moves >= -1e-6) & (x + moves <= 1 + 1e-6)).all())
    order = {Norm.LINF: np.inf, Norm.L2: 2, Norm.L1: 1}[norm]
    missed = 0
    for row in range(len(x)):
        expected = shortest(x[row].double().numpy(), w[row].double().numpy(), float(c[row]), norm)
        gained = float(w[row] @ moves[row])
        if expected is None:
            missed += 1
            farthest = torch.where(w[row] * c[row].sign() > 0, 1 - x[row], -x[row]) * (w[row] != 0)
            assert gained == pytest.approx(float(w[row] @ farthest), abs=1e-4)
        else:
            assert gained == pytest.approx(float(c[row]), abs=1e-4)
            assert float(np.linalg.norm(moves[row].numpy(), order)) == pytest.approx(expected, abs=1e-3)
    assert 0 < missed < 15


def test_the_projection_on_an_l1_ball_in_a_box_is_the_nearest_point_that_a_solver_finds() -> None:
    x, delta, _ = problems(12)
    found = onto_l1_ball(delta, x, 0.8, 0.0, 1.0)
    assert float(found.abs().sum(1).max()) <= 0.8
    for row in range(len(x)):
        aim, start = delta[row].double().numpy(), x[row].double().numpy()
        # d = p - m with p, m >= 0 makes the L1 norm linear
        best = minimize(
            lambda z, aim=aim: ((z[:6] - z[6:] - aim) ** 2).sum(), np.zeros(12),
            bounds=[(0, 1 - v) for v in start] + [(0, v) for v in start],
            constraints=[{"type": "ineq", "fun": lambda z: 0.8 - z.sum()}], options={"ftol": 1e-12, "maxiter": 500},
        )  # fmt: skip
        got = float(((found[row].double().numpy() - aim) ** 2).sum())
        assert got == pytest.approx(float(best.fun), abs=1e-4)


def test_what_fits_is_left_where_it_is() -> None:
    x = torch.full((2, 3), 0.5)
    delta = torch.tensor([[0.1, -0.1, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(onto_l1_ball(delta, x, 0.8, 0.0, 1.0), delta)
    none = onto_hyperplane(x, torch.ones(2, 3), torch.zeros(2), Norm.LINF, 0.0, 1.0)
    torch.testing.assert_close(none, torch.zeros(2, 3))


def wanted(n: int = 30, k: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Perturbations that mostly leave the box and the ball, of points inside the box."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, k, generator=generator, dtype=torch.float64), torch.rand(
        n, k, generator=generator, dtype=torch.float64
    )


@pytest.mark.parametrize("epsilon", [0.1, 0.6, 5.0])
def test_the_l2_projection_is_as_near_as_a_solver_finds(epsilon: float) -> None:
    delta, x = wanted()
    moved = onto_l2_ball(delta, x, epsilon, 0.0, 1.0).numpy()
    assert (np.linalg.norm(moved, axis=1) <= epsilon).all()
    assert ((x.numpy() + moved >= -1e-12) & (x.numpy() + moved <= 1 + 1e-12)).all()
    for one, near, found in zip(delta.numpy(), x.numpy(), moved, strict=True):
        ball = {"type": "ineq", "fun": lambda d: epsilon**2 - d @ d}
        box = list(zip(-near, 1 - near, strict=True))
        best = minimize(
            lambda d, one=one: (d - one) @ (d - one), np.zeros(len(one)), bounds=box, constraints=[ball],
            options={"ftol": 1e-12, "maxiter": 500},
        )  # fmt: skip
        assert ((found - one) @ (found - one)) <= best.fun + 1e-5


@pytest.mark.parametrize("count", [1, 3, 6])
def test_the_l0_projection_is_the_nearest_of_all_choices_of_coordinates(count: int) -> None:
    delta, x = wanted()
    moved = onto_l0_ball(delta, x, count + 0.5, 0.0, 1.0)
    assert int((moved != 0).sum(1).max()) <= count
    clipped = (x + delta).clamp(0, 1) - x
    for row in range(len(x)):
        every = (torch.zeros(6).index_fill(0, torch.tensor(kept), 1) for kept in combinations(range(6), count))
        best = min(float((clipped[row] * kept - delta[row]).square().sum()) for kept in every)
        assert float((moved[row] - delta[row]).square().sum()) == pytest.approx(best, abs=1e-12)


def sorted_simplex(v: np.ndarray) -> np.ndarray:
    """By sorting: Held, Wolfe and Crowder 1974."""
    u = np.sort(v)[::-1]
    above = np.cumsum(u) - 1
    last = np.flatnonzero(u - above / np.arange(1, len(v) + 1) > 0)[-1]
    return np.maximum(v - above[last] / (last + 1), 0)


def test_the_projection_onto_the_simplex_is_that_by_sorting_and_leaves_out_what_is_not_there() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(200, 7, generator=generator, dtype=torch.float64) * 3
    present = torch.rand(200, 7, generator=generator) < 0.6
    present[:, 0] |= ~present.any(1)
    found = onto_simplex(values, present)
    torch.testing.assert_close(found.sum(1), torch.ones(200, dtype=torch.float64))
    assert bool((found[~present] == 0).all())
    for row in range(200):
        expected = sorted_simplex(values[row][present[row]].numpy())
        np.testing.assert_allclose(found[row][present[row]].numpy(), expected, atol=1e-12)
