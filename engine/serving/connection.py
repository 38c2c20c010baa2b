"""The connection of a client to a server: requests that are tried again, and errors in the server's words."""

import email.utils
import importlib
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..contract.closing import Closing
from ..contract.errors import BackendError, RequestError, ServerError

if TYPE_CHECKING:
    import httpx2

_PASSING = (None, 429, 502, 503, 504)  # states of a server that pass
_FIRST_S, _LONGEST_S = 0.25, 8.0  # waits between attempts

Content = bytes | Callable[[], Iterable[bytes]]  # of a request; a function makes it anew for each attempt


def extra(name: str) -> ModuleType:
    """Import a package of the extra `client`. Raises BackendError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BackendError(
            f'The client needs {error.name}, which is not installed: pip install "stvsr[client]".'
        ) from error


class Patience:
    """Waits between attempts, longer each time, until some seconds have passed without success."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Forget earlier failures: something has succeeded."""
        self._until, self._wait_s = time.monotonic() + self._seconds, _FIRST_S

    def wait(self, error: ServerError) -> None:
        """Wait after an error for the next attempt; raise the error if it will not pass, or not in time."""
        wait_s = max(error.retry_after_s or 0.0, self._wait_s * random.uniform(0.5, 1))
        if error.status not in _PASSING or time.monotonic() + wait_s > self._until:
            raise error
        time.sleep(wait_s)
        self._wait_s = min(2 * self._wait_s, _LONGEST_S)


class Connection(Closing):
    """Sends requests to a server. Raises RequestError for an address that is not of HTTP."""

    def __init__(self, url: str, token: str | None, timeout_s: float, patience_s: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise RequestError(f"'{url}' is not the address of a server: write one such as http://127.0.0.1:8000.")
        self.url = url.rstrip("/")
        self.headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.timeout_s, self.patience_s = timeout_s, patience_s
        self._http: Any = extra("httpx2")
        self._client: httpx2.Client = self._http.Client(headers=self.headers, timeout=timeout_s)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def request(self, method: str, path: str, **options: Any) -> "httpx2.Response":
        """Send a request as `open` does, and return the whole answer, after more attempts if a failure passes."""
        patience = Patience(self.patience_s)
        while True:
            try:
                with self.open(method, path, **options) as response:
                    response.read()
                    return response
            except ServerError as error:
                patience.wait(error)

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        content: Content | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (),
    ) -> Iterator["httpx2.Response"]:
        """Send a request, and yield the answer, whose body is not read yet. Raises ServerError.

        Answers of an error's status are returned if the status is in `accept`.
        """
        body = content() if callable(content) else content
        with self.errors():
            options: dict[str, Any] = {"content": body, "params": params, "headers": headers}
            with self._client.stream(method, self.url + path, **options) as response:
                if response.is_error and response.status_code not in accept:
                    response.read()
                    raise as_error(response.status_code, response.headers, response.content)
                yield response

    def events(self, path: str) -> Iterator[Any]:
        """Yield the data of server-sent events until the server ends them. Raises ServerError."""
        with self.errors(), self._client.sse(self.url + path) as source:
            if source.response.is_error:
                source.response.read()
                raise as_error(source.response.status_code, source.response.headers, source.response.content)
            for event in source:
                yield event.json()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise failures of the connection as ServerError."""
        try:
            yield
        except self._http.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ServerError(f"{self.url} cannot be reached ({reason}): check the address and the server.") from error


def as_error(status: int, headers: Mapping[str, str], body: bytes) -> ServerError:
    """Return the error that an answer states, in the server's words if it is a problem of RFC 9457."""
    detail, code = f"The server answered with status {status}: check its address.", "failed"
    with suppress(ValueError, KeyError, TypeError):
        problem = json.loads(body)
        detail, code = str(problem["detail"]), str(problem["title"])
    return ServerError(detail, status, code, _seconds(headers.get("retry-after")))


def _seconds(text: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which has a number or a date."""
    if text is None:
        return None
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
