"""A process that reads videos of clients, and plans what becomes of them, by the functions of `reading.py`.

A file that breaks a decoder does not end the server, which needs neither the decoders nor NumPy.
"""

import importlib
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Self

from ..backends.options import Backend
from ..contract.closing import Closing
from ..contract.errors import MediaError, StvsrError
from ..pipeline.memory_limit import describe_limit
from ..pipeline.request import UpscaleRequest
from ..pipeline.worker import ENDED, Worker

_FUNCTIONS = f"{__package__}.reading"  # the module whose functions are called
_MOST_S = 30.0  # of a call
_START_S = 120.0  # of the process, which imports libraries
_ATTEMPTS = 3  # at a video that ends the process, which something else may have ended
_DEATHS = 5  # of the process before it is ready, in a row
_READY, _RETURNED, _REFUSED = "ready", "returned", "refused"  # kinds of messages: the first one, and answers


class VideoLimits(NamedTuple):
    """The largest videos that a server takes."""

    pixels: int  # of a frame
    frames: int


class VideoChecker(Closing):
    """A process that reads videos of clients, one after another. Any thread may use it.

    A context manager, which starts and ends the process. One that dies, or whose call takes longer than `most_s`
    seconds, is replaced. `most_bytes` limits its memory.
    """

    def __init__(
        self,
        limits: VideoLimits,
        most_s: float = _MOST_S,
        functions: str = _FUNCTIONS,
        most_bytes: int | None = None,
    ) -> None:
        self._limits, self._most_s = limits, most_s
        self._worker = Worker(partial(_call_functions, functions), Backend(device="cpu"), most_bytes)
        self._running = ExitStack()
        self._lock = Lock()
        self._is_ready = False

    def __enter__(self) -> Self:
        self._running.enter_context(self._worker.running())
        return self

    def check(self, request: UpscaleRequest) -> None:
        """Check a request as `check_request` in reading.py does, and raise its errors.

        Raises MediaError, too, for an input that ends the process, or whose check takes too long.
        """
        self.call(request.input, "check_request", request, self._limits)

    def call(self, video: str | Path, function: str, *arguments: Any) -> Any:
        """Return what a function returns, which is called in the process by its name, and reads a video.

        Raises its StvsrError, MediaError for a video that ends the process three times, or if the function takes too
        long, and a Problem that passes if the process does not start.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                self._wait_until_ready()
                self._worker.start((function, arguments))
                kind, value, took_too_long = self._next_message(self._most_s)
                self._worker.task = None
                if kind != ENDED or took_too_long:
                    break
        if took_too_long:
            raise MediaError(f"{video} is not read within {self._most_s:.0f} seconds: convert it, or send it later.")
        if kind == ENDED:
            raise MediaError(f"{video} cannot be read: the process that reads it crashes. Convert the video first.")
        if kind == _REFUSED:
            raise value
        return value

    def close(self) -> None:
        """End the process."""
        self._running.close()

    def _wait_until_ready(self) -> None:
        """Wait for a process that can be called: one that has ended while it was idle, or as it started, is replaced.

        Raises a Problem that passes if the process does not start.
        """
        deaths = 0
        while not self._is_ready or self._worker.connection.poll():
            kind, _, took_too_long = self._next_message(_START_S)
            deaths += kind == ENDED
            if took_too_long or deaths == _DEATHS:
                from .problems import Problem  # the process itself needs no web framework

                raise Problem(503, "not-ready", "Videos cannot be read now.", retry_after="30")

    def _next_message(self, most_s: float) -> tuple[str, Any, bool]:
        """Return the kind and the value of the next message, and whether none came within `most_s` seconds.

        Then the process is killed.
        """
        took_too_long = not self._worker.connection.poll(most_s)
        if took_too_long:
            self._worker.kill()
            self._worker.connection.poll(None)  # until it has ended
        messages = list(self._worker.messages())
        self._is_ready = all(kind != ENDED for kind, _ in messages)
        return *messages[0], took_too_long


def _call_functions(functions: str, connection: Connection, backend: Backend) -> None:
    """Call functions of a module as they come over a connection, until it closes: the main function of the process."""
    module = importlib.import_module(functions)
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        connection.send((_READY, None))
        while True:
            function, arguments = connection.recv()
            try:
                answer = _RETURNED, getattr(module, function)(*arguments)
            except Exception as error:
                if (sentence := describe_limit(error, "The video needs")) is not None:
                    connection.send((_REFUSED, MediaError(sentence)))
                    return  # libraries that fail for a lack of memory do not free all of it; another process goes on
                if isinstance(error, StvsrError):
                    answer = _REFUSED, type(error)(str(error))
                else:
                    raise
            connection.send(answer)
