"""Fixtures of the attacks' tests."""

import pytest

from tests.attacks import digits


@pytest.fixture(scope="session")
def model() -> digits.DigitsNet:
    return digits.model()
