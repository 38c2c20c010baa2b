"""The preview of a job over HTTP."""

from collections.abc import Iterator
from typing import IO
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Response
from fastapi.responses import StreamingResponse

from .preview import Preview
from .problems import Problem
from .server import Server

_CHUNK_BYTES = 1 << 16
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
    def read_initialization(identifier: str) -> Response:
        """Return what a player reads before any segment."""
        content, codec = preview(identifier).initialization()
        return Response(content, media_type=f'video/mp4; codecs="{codec}"', headers=_KEEP)

    @routes.get("/preview/{name}.m4s")
    def read_segment(identifier: str, name: str) -> StreamingResponse:
        """Return a segment."""
        file = preview(identifier).segment(_number(name))
        return StreamingResponse(_rest(file), media_type="video/mp4", headers=_KEEP)

    @routes.get("/frames/{name}/before.png")
    def read_before(identifier: str, name: str) -> Response:
        """Return a frame of the input, by its number from 0 on."""
        return Response(preview(identifier).before(_number(name)), media_type="image/png", headers=_KEEP)

    @routes.get("/frames/{name}/after.png")
    def read_after(identifier: str, name: str) -> Response:
        """Return the frame of the output that is shown when a frame of the input is."""
        return Response(preview(identifier).after(_number(name)), media_type="image/png", headers=_KEEP)

    return routes


def _rest(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what is left to read of a file, and close it."""
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _number(name: str) -> int:
    """Return a number from 0 on. Raises Problem for any other name."""
    if not (name.isascii() and name.isdigit() and len(name) < 10):
        raise Problem(404, "not-found", "There is no such part of the video.")
    return int(name)
