"""The page: one document with its script and style, for people who bring a video."""

from functools import partial
from pathlib import Path

from fastapi import APIRouter, Request

from .conditional import ConditionalFile

_FOLDER = Path(__file__).parent / "page"
_FILES = {
    "/": _FOLDER / "index.html",
    "/app.js": _FOLDER / "app.js",
    "/style.css": _FOLDER / "style.css",
    "/palette.css": _FOLDER.parents[1] / "palette.css",
}
# The page loads nothing from elsewhere, and no other page frames it; media that it has itself are blobs.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; object-src 'none'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes() -> APIRouter:
    """Return the routes of the page, which anybody may read: it asks for the token itself."""
    routes = APIRouter()
    for address, path in _FILES.items():
        routes.add_route(address, partial(_send, path))
    return routes


def _send(path: Path, _: Request) -> ConditionalFile:
    return ConditionalFile(path, headers=_HEADERS)
