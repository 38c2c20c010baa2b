"""A WebSocket of a client, for threads."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any

from ..contract.closing import Closing
from ..contract.errors import ServerError
from .connection import Connection, Patience, as_error, extra


class SocketClosed(Exception):  # noqa: N818 - also the usual end
    """The WebSocket is closed."""


class Socket(Closing):
    """A WebSocket whose two directions do not wait for each other: it is in an event loop, in a thread.

    The synchronous one of the library holds a lock while it waits to send: then it does not receive, and a server that
    waits until its frames are received takes no more. The constructor raises what `connect` of the library does.
    """

    def __init__(self, address: str, headers: dict[str, str], timeout_s: float) -> None:
        self._closed = extra("websockets.exceptions").ConnectionClosed
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="stvsr-socket", daemon=True)
        self._thread.start()
        try:
            self._socket = self._run(_connect(address, headers, timeout_s))
        except BaseException:
            self._end_loop()
            raise

    def send(self, message: str | bytes) -> None:
        """Send a message, as soon as there is room. Raises SocketClosed."""
        self._run(self._socket.send(message))

    def receive(self) -> str | bytes:
        """Wait for a message. Raises SocketClosed."""
        message: str | bytes = self._run(self._socket.recv())
        return message

    def abort(self) -> None:
        """Cut the connection off, and let every wait raise SocketClosed."""
        with self._lock:
            if not self._ended:
                self._loop.call_soon_threadsafe(self._socket.transport.abort)

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        if not self._ended:
            self._run(self._socket.close())
            self._end_loop()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of a coroutine in the event loop."""
        with self._lock:
            if self._ended:
                work.close()
                raise SocketClosed("it was closed here")
            result = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return result.result()
        except (self._closed, CancelledError) as error:
            raise SocketClosed(str(error)) from error

    def _end_loop(self) -> None:
        with self._lock:  # what comes before is cancelled, and nothing comes after
            self._ended = True
            ended = asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop)
        ended.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _connect(address: str, headers: dict[str, str], timeout_s: float) -> Any:
    return await extra("websockets.asyncio.client").connect(
        address,
        additional_headers=headers,
        compression=None,  # it would take longer than the way
        max_size=None,
        max_queue=2,
        open_timeout=timeout_s,
    )


async def _cancel_others() -> None:
    """Cancel every other task of the event loop, so that no thread waits for one."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def open_socket(connection: Connection, path: str) -> Socket:
    """Open a WebSocket of a server, after more attempts if a failure passes. Raises ServerError."""
    exceptions = extra("websockets.exceptions")
    patience = Patience(connection.patience_s)
    address = "ws" + connection.url.removeprefix("http") + path
    while True:
        try:
            return Socket(address, connection.headers, connection.timeout_s)
        except exceptions.InvalidStatus as error:
            answer = error.response
            patience.wait(as_error(answer.status_code, answer.headers, answer.body or b""))
        except (OSError, EOFError, exceptions.WebSocketException) as error:  # a TimeoutError is an OSError
            patience.wait(
                ServerError(f"{connection.url} cannot be reached ({error}): check the address and the server.")
            )
