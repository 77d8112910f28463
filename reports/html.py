"""What every HTML page shares: templates that escape, and a policy that lets nothing in."""

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent


def read(name: str) -> str:
    """A file of this package."""
    return (HERE / name).read_text(encoding="utf-8")


def fill(template: str, **values: Any) -> str:
    """A template of this package with values; what they hold is escaped, an unknown name is an error."""
    return _templates().get_template(template).render(**values)


@cache
def _templates() -> Environment:
    """It keeps what it has compiled: a book has a page of one template for every row."""
    return Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def policy(style: str, scripts: Iterable[str] = (), pictures: bool = False) -> str:
    """A content security policy: this style and these scripts, by digest; pictures only from inside the page."""
    allowed = " ".join(f"'{_digest(script)}'" for script in scripts) or "'none'"
    images = "img-src data:; " if pictures else ""
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src {allowed}; {images}"
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
