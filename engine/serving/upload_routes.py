"""Resumable uploads over HTTP: the protocol tus 1.0 with creation, expiration and termination.

A client creates an upload, sends its bytes in one request or in several, and creates a job of it. After an interruption
it asks for the offset, and goes on there.
"""

import re
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from typing import Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute

from .problems import Problem
from .server import Server
from .uploads import Upload, receive

_VERSION = "1.0.0"
_CONTENT_TYPE = "application/offset+octet-stream"
_MOST_DIGITS = 15
_METADATA = re.compile(r"([!-+\--~]+( [A-Za-z0-9+/]*={0,2})?(, ?|$))*")  # keys, and values in Base64
_MOST_METADATA = 4096  # characters


def upload_routes(server: Server) -> APIRouter:
    """Return the routes below `/v1/uploads`."""
    private = [Depends(server.authorize), Depends(_check_version)]
    routes = APIRouter(prefix="/v1/uploads", dependencies=private, route_class=_TusRoute)

    @routes.options("", status_code=204)
    def describe() -> Response:
        """Tell what of the protocol the server supports."""
        most = str(server.settings.most_upload_bytes)
        extensions = "creation,expiration,termination"
        return Response(
            status_code=204,
            headers={"Tus-Version": _VERSION, "Tus-Extension": extensions, "Tus-Max-Size": most},
        )

    @routes.post("", status_code=201)
    def create_upload(upload_length: str | None = Header(None), upload_metadata: str = Header("")) -> Response:
        """Begin an upload of as many bytes as `Upload-Length` states."""
        length = _number(upload_length, "Upload-Length")
        if length > server.settings.most_upload_bytes:
            raise Problem(413, "too-large", f"The video is larger than {server.settings.most_upload_bytes} bytes.")
        if len(upload_metadata) > _MOST_METADATA or not _METADATA.fullmatch(upload_metadata):
            raise Problem(400, "bad-request", "Upload-Metadata is wrong or long: send keys with values in Base64.")
        upload = server.uploads.create(length, upload_metadata, server.settings.most_queued)
        return Response(status_code=201, headers={"Location": f"/v1/uploads/{upload.id}"} | _state(upload))

    @routes.head("/{identifier}")
    def read_upload(identifier: str) -> Response:
        """Tell how much of an upload is there."""
        upload = server.uploads.get(identifier)
        headers = _state(upload) | {"Upload-Length": str(upload.length), "Cache-Control": "no-store"}
        return Response(headers=headers | ({"Upload-Metadata": upload.metadata} if upload.metadata else {}))

    @routes.patch("/{identifier}", status_code=204)
    async def write_upload(identifier: str, request: Request) -> Response:
        """Add the body to an upload, at `Upload-Offset`, which is how much of it is there."""
        if request.headers.get("content-type") != _CONTENT_TYPE:
            raise Problem(415, "bad-request", f"Send the bytes as {_CONTENT_TYPE}.")
        offset = _number(request.headers.get("upload-offset"), "Upload-Offset")
        with server.uploads.writing(identifier):
            upload = await run_in_threadpool(server.uploads.get, identifier)
            if offset != upload.offset:
                there = str(upload.offset)
                raise Problem(409, "wrong-offset", f"The upload goes on at byte {there}.", upload_offset=there)
            too_large = f"The upload ends at byte {upload.length}: send no more than the rest."
            if offset + int(request.headers.get("content-length") or 0) > upload.length:
                raise Problem(413, "too-large", too_large)
            await receive(request.stream(), upload.path, offset, upload.length, too_large)
            return Response(status_code=204, headers=_state(await run_in_threadpool(server.uploads.get, identifier)))

    @routes.delete("/{identifier}", status_code=204)
    def delete_upload(identifier: str) -> Response:
        """Delete an upload."""
        server.uploads.delete(identifier)
        return Response(status_code=204)

    @routes.post("/{identifier}", status_code=204, include_in_schema=False)
    async def override(identifier: str, request: Request) -> Response:
        """Do what `X-HTTP-Method-Override` names, for clients that cannot send other methods than POST."""
        match request.headers.get("x-http-method-override"):
            case "PATCH":
                return await write_upload(identifier, request)
            case "DELETE":
                return await run_in_threadpool(delete_upload, identifier)
            case _:
                raise Problem(405, "bad-request", "Send HEAD, PATCH or DELETE.", allow="HEAD, PATCH, DELETE")

    return routes


class _TusRoute(APIRoute):
    """A route whose every answer states the version of the protocol."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request."""
        answer = super().get_route_handler()

        async def versioned(request: Request) -> Response:
            try:
                response = await answer(request)
            except Problem as problem:
                response = problem.response()
            response.headers["Tus-Resumable"] = _VERSION
            return response

        return versioned


async def _check_version(request: Request) -> None:
    """Raise Problem for a request of another version of the protocol."""
    if request.method != "OPTIONS" and request.headers.get("tus-resumable") != _VERSION:
        raise Problem(412, "bad-request", f"Send 'Tus-Resumable: {_VERSION}'.", tus_version=_VERSION)


def _state(upload: Upload) -> dict[str, str]:
    return {"Upload-Offset": str(upload.offset), "Upload-Expires": formatdate(upload.expires, usegmt=True)}


def _number(text: str | None, name: str) -> int:
    """Return the value of a header that is a number. Raises Problem for any other."""
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > _MOST_DIGITS:
        raise Problem(400, "bad-request", f"{name} is not a number of bytes: send one.")
    return int(text)
