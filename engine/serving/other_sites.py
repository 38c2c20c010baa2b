"""Protection of a server without a token from the web pages that its user's browser opens.

Such a page can send requests to this machine. If the name of its site resolves to a loopback address (DNS rebinding),
it can read the answers too. So the `Host` of a request has to be this machine, and requests that change something, or
open a stream, must not come from a page of another server.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from .problems import Problem
from .settings import is_loopback

_READING = ("GET", "HEAD", "OPTIONS")


class RefuseOtherSites:
    """An application that answers requests which other sites may have caused with a problem.

    421: the `Host` is not a name or an address of this machine; 403: the request comes from a page of another server.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        problem = None
        if scope["type"] in ("http", "websocket"):
            problem = _problem(Headers(scope=scope), scope.get("method"))
        if problem is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await problem.response()(scope, receive, send)
        else:
            await WebSocket(scope, receive, send).send_denial_response(problem.response())


def _problem(headers: Headers, method: str | None) -> Problem | None:
    """Return the problem of a request, without a method for a WebSocket."""
    host = headers.get("host", "")
    if not is_loopback(_host_name(host) or ""):
        return Problem(
            421,
            "unknown-host",
            "This server has no token, and answers to names of its own machine alone, such as 127.0.0.1 and localhost:"
            " use one of these, or start it with a token.",
        )
    if method in _READING:
        return None
    origin = headers.get("origin")
    is_other = origin is not None and urlsplit(origin).netloc != host
    if is_other or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return Problem(403, "forbidden", "Pages of other servers cannot change anything here, or open streams.")
    return None


def _host_name(host: str) -> str | None:
    """Return the name or the address in a Host header; None for one that is malformed."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
