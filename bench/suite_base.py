"""What every mapping of a suite is."""

from pydantic import ConfigDict

from bench.contracts import Frozen

MAX_COLUMNS = 100
MAX_ENTRIES = 1000  # in any list of a suite: bounds the time that checks take


class Part(Frozen):
    """A mapping in a suite. The texts under its fields are their help in editors."""

    model_config = ConfigDict(use_attribute_docstrings=True)
