"""Uploads of a client: in one request, or in parts that go on after an interruption (tus 1.0)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from ..contract.errors import MediaError, RequestError, ServerError
from .connection import Connection, Patience

if TYPE_CHECKING:
    import httpx2

LARGE_BYTES = 16 << 20  # videos beyond are uploaded in parts, if the server can
PART_BYTES = 8 << 20
_CHUNK_BYTES = 1 << 20
_TUS = {"Tus-Resumable": "1.0.0"}


def takes_parts(connection: Connection) -> bool:
    """Return whether a server takes uploads in parts."""
    answer = connection.request("OPTIONS", "/v1/uploads", accept=(404, 405, 501))
    return answer.status_code in (200, 204) and "tus-resumable" in answer.headers


def upload(connection: Connection, video: Path) -> str:
    """Upload a file in parts, and return the identifier of the upload.

    After an interruption it goes on where the server has it. Raises ServerError, MediaError.
    """
    size = size_of(video)
    created = connection.request("POST", "/v1/uploads", headers={**_TUS, "Upload-Length": str(size)})
    path = urlsplit(urljoin(f"{connection.url}/v1/uploads", created.headers["location"])).path
    path = path.removeprefix(urlsplit(connection.url).path.rstrip("/"))
    patience, offset = Patience(connection.patience_s), 0
    while offset < size:
        headers = {
            **_TUS,
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(min(PART_BYTES, size - offset)),
        }
        part = partial(read_chunks, video, offset, PART_BYTES)
        try:
            with connection.open("PATCH", path, content=part, headers=headers) as answer:
                reached = _offset(answer)
        except ServerError as error:
            if error.status != 409:  # another offset: the server has more, or less
                patience.wait(error)
            reached = _offset(connection.request("HEAD", path, headers=_TUS))
        if reached > offset:
            patience.restart()
        else:
            patience.wait(ServerError(f"The server takes no more of {video.name}: try again."))
        offset = reached
    return path.rpartition("/")[2]


def _offset(answer: "httpx2.Response") -> int:
    """Return the offset of an upload in an answer. Raises ServerError if there is none."""
    text = answer.headers.get("upload-offset", "")
    if not text.isdigit():
        raise ServerError("The server does not tell how much of the upload it has.", answer.status_code, "failed")
    return int(text)


def read_chunks(video: Path, start: int = 0, size: int | None = None) -> Iterator[bytes]:
    """Yield the bytes of a file, from a position on, at most `size` of them. Raises MediaError."""
    try:
        with video.open("rb") as file:
            file.seek(start)
            while chunk := file.read(_CHUNK_BYTES if size is None else min(_CHUNK_BYTES, size)):
                yield chunk
                size = None if size is None else size - len(chunk)
    except OSError as error:
        raise MediaError(f"{video} cannot be read ({error.strerror}): name a video.") from error


def size_of(video: Path) -> int:
    """Return the size of a file in bytes. Raises MediaError, and RequestError for a folder."""
    if video.is_dir():
        raise RequestError(f"{video} is a folder: a server takes files, so upscale it here, or make a video of it.")
    try:
        return video.stat().st_size
    except OSError as error:
        raise MediaError(f"{video} cannot be read ({error.strerror}): name a video.") from error
