"""The web page: three files that know nothing but the requests that everybody can make."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

FOLDER = Path(__file__).with_name("pages")
FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
POLICY = (  # it loads nothing from elsewhere, runs no inline script, and is shown in nobody's frame
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def add_page(app: FastAPI) -> None:
    """The page at `/`. It needs no token to be seen: whoever has none sees nothing in it."""
    for path, name in FILES.items():
        _add(app, path, name)


def _add(app: FastAPI, path: str, name: str) -> None:
    def page() -> FileResponse:
        return FileResponse(FOLDER / name, headers={"Content-Security-Policy": POLICY})

    app.get(path, include_in_schema=False)(page)
