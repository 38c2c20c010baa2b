"""The preview of a job over HTTP."""

from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response

from .conditional import TemporaryFile, conditional, etag_of
from .preview import Preview
from .problems import Problem
from .server import Server

_KEEP = {"Cache-Control": "private, max-age=3600"}  # what does not change


def preview_routes(server: Server) -> APIRouter:
    """Return the routes of the preview below `/v1/jobs/{identifier}`."""
    routes = APIRouter(prefix="/v1/jobs/{identifier}", dependencies=[Depends(server.authorize)])

    def preview(identifier: str) -> Preview:
        return Preview(server.jobs, server.job(identifier), server.checker)

    @routes.get("/preview.m3u8")
    def read_playlist(identifier: str, access: str | None = None) -> Response:
        """Return the playlist of the finished segments, for HTTP Live Streaming."""
        query = "" if access is None else f"?{urlencode({'access': access})}"
        content = preview(identifier).playlist(query)
        return Response(content, media_type="application/vnd.apple.mpegurl", headers={"Cache-Control": "no-cache"})

    @routes.get("/preview/init.mp4")
    def read_initialization(identifier: str, request: Request) -> Response:
        """Return what a player reads before any segment."""
        content, codec = preview(identifier).initialization()
        return conditional(request, content, f'video/mp4; codecs="{codec}"', _KEEP)

    @routes.get("/preview/{name}.m4s")
    def read_segment(identifier: str, name: str) -> TemporaryFile:
        """Return a segment, or a range of its bytes."""
        path = preview(identifier).segment(_number(name))
        with path.open("rb") as file:
            etag = etag_of(file)
        return TemporaryFile(path, etag=etag, media_type="video/mp4", headers=_KEEP)

    @routes.get("/frames/{name}/before.png")
    def read_before(identifier: str, name: str, request: Request) -> Response:
        """Return a frame of the input, by its number from 0 on."""
        return conditional(request, preview(identifier).before(_number(name)), "image/png", _KEEP)

    @routes.get("/frames/{name}/after.png")
    def read_after(identifier: str, name: str, request: Request) -> Response:
        """Return the frame of the output that is shown when a frame of the input is."""
        return conditional(request, preview(identifier).after(_number(name)), "image/png", _KEEP)

    return routes


def _number(name: str) -> int:
    """Return a number from 0 on. Raises Problem for any other name."""
    if not (name.isascii() and name.isdigit() and len(name) < 10):
        raise Problem(404, "not-found", "There is no such part of the video.")
    return int(name)
