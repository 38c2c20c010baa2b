"""The work of a process that fetches a video from an address. It imports neither decoders nor the web framework."""

import errno
import time
from http.client import HTTPException, HTTPResponse
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from ..backends.options import Backend
from ..contract.atomic import sync_file
from .addresses import connect, is_allowed

FETCHED, REFUSED = "fetched", "refused"  # kinds of messages
_IDLE_S = 30.0  # without a byte
_MOST_REDIRECTIONS = 5
_REDIRECTIONS = (301, 302, 303, 307, 308)
_CHUNK_BYTES = 1 << 16


class FetchOrder(NamedTuple):
    """A video to fetch."""

    url: str
    path: Path  # of the new file
    prefixes: tuple[str, ...]  # that the operator allows, for redirections too
    most_bytes: int
    room_bytes: int  # of the disk, for a video and its job
    most_s: float


class Refusal(NamedTuple):
    """The problem of a video that is not fetched."""

    status: int
    code: str
    sentence: str


class _Refused(Exception):  # noqa: N818 - it becomes an answer
    """The video is not fetched; its argument is the refusal."""


def serve_fetch(order: FetchOrder, connection: Connection, _: Backend) -> None:
    """Fetch a video, and send (FETCHED, None) or (REFUSED, a Refusal): the main function of a process."""
    try:
        _fetch(order, time.monotonic() + order.most_s)
    except _Refused as refused:
        connection.send((REFUSED, refused.args[0]))
    except TimeoutError:
        connection.send((REFUSED, not_in_time(order)))
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            connection.send((REFUSED, _disk_full()))
        else:
            connection.send((REFUSED, _not_fetched(order, reason)))
    else:
        connection.send((FETCHED, None))


def not_in_time(order: FetchOrder) -> Refusal:
    """Return the problem of a video that takes too long."""
    return _not_fetched(order, f"it is not there within {order.most_s:g} seconds")


def _fetch(order: FetchOrder, until: float) -> None:
    """Fetch a video into its file, which is on the disk then. Raises _Refused, OSError, HTTPException."""
    answer = _open(order)
    declared = answer.length or 0
    _check_size(order, declared)
    size = 0
    with answer, order.path.open("wb") as file:
        while chunk := answer.read1(_CHUNK_BYTES):
            size += len(chunk)
            _check_size(order, size)
            file.write(chunk)
            if time.monotonic() > until:
                raise TimeoutError
    if not size or size < declared:
        raise _Refused(_not_fetched(order, f"it sent {size} of {declared} bytes"))
    sync_file(order.path)


def _open(order: FetchOrder) -> HTTPResponse:
    """Return the answer with the video, after redirections. Raises _Refused, OSError, HTTPException."""
    url = order.url
    for _ in range(1 + _MOST_REDIRECTIONS):
        if not is_allowed(url, order.prefixes):
            raise _Refused(_not_fetched(order, "it leads to an address from which this server fetches nothing"))
        parts = urlsplit(url)
        connection = connect(parts, min(_IDLE_S, order.most_s))
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"User-Agent": "stvsr", "Connection": "close"})
        answer = connection.getresponse()
        if answer.status == 200:
            return answer
        answer.close()
        if answer.status not in _REDIRECTIONS or "location" not in answer.headers:
            raise _Refused(_not_fetched(order, f"it is answered with the status {answer.status}"))
        url = urljoin(url, answer.headers["location"])
    raise _Refused(_not_fetched(order, f"it is redirected more than {_MOST_REDIRECTIONS} times"))


def _check_size(order: FetchOrder, size: int) -> None:
    if size > order.most_bytes:
        raise _Refused(Refusal(413, "too-large", f"The video is larger than {order.most_bytes} bytes."))
    if size > order.room_bytes:
        raise _Refused(_disk_full())


def _disk_full() -> Refusal:
    return Refusal(507, "disk-full", "The server's disk has no space for this video: try again later.")


def _not_fetched(order: FetchOrder, reason: str) -> Refusal:
    return Refusal(422, "not-fetched", f"{order.url} cannot be fetched ({reason}): check it, or send the video.")
