"""A learner in a process of its own: it learns a scene while the scene before is upscaled.

Another process keeps the threads of PyTorch and of ONNX Runtime apart, each with its share of the CPUs, and its memory
is free again when it ends.
"""

import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event
from typing import Any

from ..backends.cuda_driver import device_count
from ..backends.options import Backend, parse_device
from ..contract.closing import Closing
from ..contract.cpus import cpu_threads
from ..contract.errors import BackendError, CancelledError, StvsrError
from .adaptation import AdaptSettings, Announce, Learned, OnStep, OpenLearner
from .request import UpscaleRequest
from .worker import ENDED, Worker

_POLL_S = 0.2  # between looks whether the wait was cancelled
_STEP_S = 0.5  # between messages about steps, which stay in the pipe while nobody waits for the learner
_LEARNED, _STEP, _SENTENCE, _FAILED = "learned", "step", "sentence", "failed"  # kinds of messages


def share_threads(backend: Backend, settings: AdaptSettings) -> tuple[Backend, Backend]:
    """Return the backend of a run that learns meanwhile, and that of its learner: each has half of the CPUs.

    A run that learns before it begins has all CPUs for both, and one on a GPU keeps its backend.
    """
    threads = backend.threads or cpu_threads()
    kind, _ = parse_device(backend.by_device()[0].device)
    learner = Backend(device="cpu" if kind == "cpu" else "auto", threads=threads)
    if settings.per == "video":
        return backend, learner
    learner = replace(learner, threads=max(1, threads // 2))
    if kind == "auto" and device_count():
        return backend, learner
    return backend.with_threads(max(1, threads - threads // 2)), learner


class BackgroundLearner(Closing):
    """Runs a learner in a process, which learns one unit at a time, and none without being asked.

    `request.backend` has the device and the CPU threads to learn by. While `learn` waits it passes on the calls of
    `on_step` and `announce`.
    """

    def __init__(
        self,
        open_learner: OpenLearner,
        request: UpscaleRequest,
        settings: AdaptSettings,
        folder: Path,
        on_step: OnStep | None = None,
        announce: Announce | None = None,
    ) -> None:
        self._on_step, self._announce = on_step, announce
        self._worker = Worker(partial(_learn, open_learner, request, settings, folder), request.backend)
        self._learned: dict[int, Learned | None] = {}
        with ExitStack() as opened:
            opened.enter_context(self._worker.running())
            self._running = opened.pop_all()

    def begin(self, unit: int) -> None:
        """Begin to learn a unit, unless another one is being learned."""
        if self._worker.task is None and unit not in self._learned:
            self._worker.start(unit)

    def learn(self, unit: int, cancel: Event | None = None) -> Learned | None:
        """Return what was learned of a unit; see `Learner.learn`."""
        while unit not in self._learned:
            self.begin(unit)
            if cancel is not None and cancel.is_set():
                raise CancelledError("The run was cancelled while it learned: start it again.")
            if self._worker.connection.poll(_POLL_S):
                for kind, value in self._worker.messages():
                    self._receive(kind, value)
        return self._learned.pop(unit)

    def close(self) -> None:
        """End the process."""
        self._running.close()

    def _receive(self, kind: str, value: Any) -> None:
        if kind == _LEARNED:
            unit, learned = value
            self._learned[unit] = learned
            self._worker.task = None
        elif kind == _STEP and self._on_step is not None:
            self._on_step(*value)
        elif kind == _SENTENCE and self._announce is not None:
            self._announce(value)
        elif kind == _FAILED:
            raise value
        elif kind == ENDED:
            raise BackendError(
                f"The process that adapts the network has ended ({value}), perhaps for lack of memory: free some, or"
                " leave out --adapt."
            )


def _learn(
    open_learner: OpenLearner,
    request: UpscaleRequest,
    settings: AdaptSettings,
    folder: Path,
    connection: Connection,
    backend: Backend,
) -> None:
    """Learn the units whose numbers come over a connection, until it closes: the main function of the process."""
    sent = 0.0

    def on_step(unit: int, share: float, steps: int) -> None:
        nonlocal sent
        if time.monotonic() - sent >= _STEP_S:
            sent = time.monotonic()
            connection.send((_STEP, (unit, share, steps)))

    def announce(sentence: str) -> None:
        connection.send((_SENTENCE, sentence))

    with suppress(EOFError, ConnectionError, KeyboardInterrupt):
        try:
            with open_learner(request, settings, folder, on_step, announce) as learner:
                while True:
                    unit = connection.recv()
                    connection.send((_LEARNED, (unit, learner.learn(unit))))
        except StvsrError as error:
            connection.send((_FAILED, type(error)(str(error))))
            connection.recv()  # which raises when the connection closes
