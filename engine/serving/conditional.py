"""Answers with a validator: 304 for what a client has already, and parts of a file that has not changed (RFC 9110)."""

import hashlib
import os
import re
from pathlib import Path
from typing import IO, Any

from fastapi import Request, Response
from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from .problems import Problem

_TAG = re.compile(r'(?:W/)?("[^"]*")')
_CHUNK_BYTES = 1 << 20
# Of the content, which an answer of 304 does not have.
_OF_CONTENT = ("content-length", "content-type", "accept-ranges")


class ConditionalFile(FileResponse):
    """A file, or a range of it, with its `ETag`; 304 for a client that has it (`If-None-Match`).

    `If-Range` makes a range depend on the `ETag`. Without an `etag` it is made of the file's time and size. A `Range`
    that cannot be read counts as none, as RFC 9110 asks for units that are not known; one beyond the file is a problem
    of status 416.
    """

    def __init__(
        self, path: Path, *, etag: str | None = None, headers: dict[str, str] | None = None, **options: Any
    ) -> None:
        given = {} if etag is None else {"etag": etag}
        super().__init__(path, headers={**(headers or {}), **given}, stat_result=os.stat(path), **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        if _is_known(Headers(scope=scope).get("if-none-match"), self.headers["etag"]):
            await _not_modified(self)(scope, receive, send)
            return
        refused: list[int] = []

        async def send_unless_refused(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refused.append(message["status"])
            if not refused:
                await send(message)

        await super().__call__(scope, receive, send_unless_refused)
        if refused == [400]:
            others = [(name, value) for name, value in scope["headers"] if name != b"range"]
            await super().__call__({**scope, "headers": others}, receive, send)
        elif refused:
            await self._beyond(scope)(scope, receive, send)

    def _beyond(self, scope: Scope) -> Response:
        size, asked = self.headers["content-length"], Headers(scope=scope)["range"]
        detail = f"The file has {size} bytes, and '{asked}' begins beyond them."
        return Problem(416, "bad-range", detail, content_range=f"bytes */{size}").response()


class TemporaryFile(ConditionalFile):
    """A file that is deleted when it has been sent, or could not be."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self.path).unlink(missing_ok=True)


def conditional(request: Request, content: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """Return an answer with some content and its `ETag`; 304 for a client that has it."""
    etag = _tag(hashlib.sha256(content))
    answer = Response(content, media_type=media_type, headers={**headers, "etag": etag})
    return _not_modified(answer) if _is_known(request.headers.get("if-none-match"), etag) else answer


def etag_of(file: IO[bytes]) -> str:
    """Return the `ETag` of what is left to read of a file."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return _tag(digest)


def _tag(digest: Any) -> str:
    return f'"{digest.hexdigest()[:32]}"'


def _is_known(if_none_match: str | None, etag: str) -> bool:
    """Return whether a client has what an `ETag` stands for, by the value of its header."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in _TAG.findall(if_none_match)


def _not_modified(answer: Response) -> Response:
    headers = {name: value for name, value in answer.headers.items() if name not in _OF_CONTENT}
    return Response(status_code=304, headers=headers)
