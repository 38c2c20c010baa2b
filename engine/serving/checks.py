"""Checks of uploaded videos, in a process of their own: a file that breaks a decoder does not end the server."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from ..backends.options import Backend
from ..contract.bundle import find_bundles
from ..contract.closing import Closing
from ..contract.errors import MediaError, RequestError, StvsrError
from ..media.encoder import choose_encoding
from ..pipeline.request import UpscaleRequest
from ..pipeline.run import open_input
from ..pipeline.worker import ENDED, Worker

_MOST_S = 30.0  # of a call
_ATTEMPTS = 2  # at a video that ends the process, which something else may have ended
_RETURNED, _REFUSED = "returned", "refused"  # kinds of answers


class VideoLimits(NamedTuple):
    """The largest videos that a server takes."""

    pixels: int  # of a frame
    frames: int


def check_request(request: UpscaleRequest, limits: VideoLimits) -> None:
    """Raise MediaError for an input that cannot be read, and RequestError for what this server does not compute."""
    request.check()
    with open_input(request) as reader:
        info = reader.info
    if info.width * info.height > limits.pixels:
        raise RequestError(
            f"The video has frames of {info.width}x{info.height} pixels, and this server takes"
            f" {limits.pixels} pixels: make it smaller."
        )
    frames = info.frames or (None if info.duration is None else round(info.duration * info.rate))
    if frames is not None and frames > limits.frames:
        raise RequestError(f"The video has {frames} frames, and this server takes {limits.frames}: cut it into parts.")
    plan = request.plan(find_bundles(request.model), info)
    choose_encoding(
        plan.destination.suffix, plan.size, info, codec=request.codec, crf=request.crf, pix_fmt=request.pix_fmt
    )


class VideoChecker(Closing):
    """A process that reads videos of clients, one after another; it starts with the first. Any thread may use it."""

    def __init__(self, limits: VideoLimits, most_s: float = _MOST_S) -> None:
        self._limits, self._most_s = limits, most_s
        self._worker = Worker(_call_functions, Backend(device="cpu"))
        self._running = ExitStack()
        self._runs = False
        self._lock = Lock()

    def check(self, request: UpscaleRequest) -> None:
        """Check a request as `check_request` does, and raise its errors.

        Raises MediaError, too, for an input that ends the process, or whose check takes too long.
        """
        self.call(request.input, check_request, request, self._limits)

    def call(self, video: str | Path, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function returns, which is called in the process and reads a video.

        The function is that of a module. Raises its StvsrError, and MediaError for a video that ends the process twice,
        or if the function takes too long.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                kind, value, took_too_long = self._answer((function, arguments))
                if kind != ENDED or took_too_long:
                    break
        if kind == ENDED:
            raise MediaError(f"{video} cannot be read: it stops the reading of videos. Convert it first.")
        if kind == _REFUSED:
            raise value
        return value

    def close(self) -> None:
        """End the process."""
        self._running.close()

    def _answer(self, task: Any) -> tuple[str, Any, bool]:
        """Return the kind and the value of the answer to a task, and whether the process was killed for its time."""
        if not self._runs:
            self._running.enter_context(self._worker.running())
            self._runs = True
        self._worker.start(task)
        took_too_long = not self._worker.connection.poll(self._most_s)
        if took_too_long:
            self._worker.kill()
            self._worker.connection.poll(None)  # until it has ended
        ((kind, value), *_) = self._worker.messages()
        self._worker.task = None
        return kind, value, took_too_long


def _call_functions(connection: Connection, backend: Backend) -> None:
    """Call the functions that come over a connection, until it closes: the main function of the process."""
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            function, arguments = connection.recv()
            try:
                answer = _RETURNED, function(*arguments)
            except StvsrError as refusal:
                answer = _REFUSED, type(refusal)(str(refusal))
            connection.send(answer)
