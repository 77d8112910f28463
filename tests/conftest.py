"""Fixtures that every folder of tests shares, and what keeps chance out of all of them."""

import os
import random
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

torch.set_num_threads(1)

# The same examples on every machine and every day, and no limit that a slow machine or a busy one reaches.
hypothesis.settings.register_profile(
    "steady", derandomize=True, database=None, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")


def seed() -> None:
    """Whatever draws from a global generator draws the same, however many tests ran before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pytest_collectstart() -> None:
    seed()  # some modules draw as they are imported


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    seed()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets and third-party weights; a test that needs it is skipped, visibly, without it."""
    root = Path(os.environ.get("GAUNTLET_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / "INDEX.md").exists():
        pytest.skip(f"real data are not at {root} (set GAUNTLET_TEST_DATA)")
    return root
