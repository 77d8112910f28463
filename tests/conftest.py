"""Fixtures that every folder of tests shares."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets and third-party weights; a test that needs it is skipped, visibly, without it."""
    root = Path(os.environ.get("GAUNTLET_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / "INDEX.md").exists():
        pytest.skip(f"real data are not at {root} (set GAUNTLET_TEST_DATA)")
    return root
