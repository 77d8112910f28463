"""docs/certificates.md describes every certificate and its fields."""

from pathlib import Path

import bench.certificates.linear_bounds
import bench.certificates.milp
import bench.certificates.smoothing  # noqa: F401 - registers the certificate
from bench.contracts import certificates

DOCS = Path(__file__).parents[2] / "docs"


def test_every_certificate_and_every_argument_of_it_is_described() -> None:
    text = (DOCS / "certificates.md").read_text()
    for name in certificates:
        assert f"## `{name}`" in text
        for field in certificates.get(name).model_fields:
            assert f"| `{field}` |" in text
