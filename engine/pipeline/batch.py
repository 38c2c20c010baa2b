"""A batch: many videos, upscaled by worker processes that keep their sessions open.

Every video is a resumable run, so a batch that was stopped goes on with the same call. A worker that dies is replaced,
and its video is tried once more; a video that fails does not stop the others.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Literal

from ..backends.options import Backend, cpu_threads, parse_device
from ..contract.errors import StvsrError
from .pool import UpscalerPool
from .report import Progress, Report
from .request import UpscaleRequest
from .resume import upscale_resumable

_ATTEMPTS = 2  # of a video whose worker dies


@dataclass(frozen=True)
class Outcome:
    """The result of one video of a batch: a report, or the sentence of an error."""

    request: UpscaleRequest
    report: Report | None = None
    error: str | None = None


OnProgress = Callable[[int, Progress], None]  # called with the number of a video in the batch and its progress


def upscale_batch(
    requests: Sequence[UpscaleRequest],
    backends: Sequence[Backend] | None = None,
    on_progress: OnProgress | None = None,
    on_outcome: Callable[[int, Outcome], None] | None = None,
) -> list[Outcome]:
    """Upscale many videos, one at a time on each of `backends`, and return their outcomes in order.

    Each backend has a worker process of its own; without them, there is one, for the backend of the first video.
    `on_outcome` is called with each outcome when it is known. An interrupt ends the workers, and the finished parts of
    their videos are kept.
    """
    backends = backends or [requests[0].backend] if requests else []
    outcomes: dict[int, Outcome] = {}
    waiting = deque((number, 1) for number in range(len(requests)))

    def settle(number: int, outcome: Outcome) -> None:
        outcomes[number] = outcome
        if on_outcome:
            on_outcome(number, outcome)

    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(backend).running()) for backend in backends[: len(requests)]]
        while len(outcomes) < len(requests):
            for worker in workers:
                if worker.task is None and waiting:
                    number, attempt = waiting.popleft()
                    worker.start(number, attempt, requests[number])
            for worker, kind, value in _messages(workers):
                assert worker.task is not None
                number, attempt = worker.task
                if kind == "progress":
                    if on_progress:
                        on_progress(number, value)
                    continue
                worker.task = None
                if kind == "report":
                    settle(number, Outcome(requests[number], report=value))
                elif kind == "error":
                    settle(number, Outcome(requests[number], error=value))
                elif attempt < _ATTEMPTS:
                    waiting.appendleft((number, attempt + 1))
                else:
                    settle(number, Outcome(requests[number], error=f"Its worker ended {attempt} times ({value})."))
    return [outcomes[number] for number in range(len(requests))]


def split_cpu(backend: Backend, workers: int) -> list[Backend]:
    """Return a backend for each of some workers, between which the CPU's threads are shared."""
    if workers == 1:
        return [backend]
    kind, _ = parse_device(backend.device)
    threads = backend.threads or max(1, cpu_threads() // workers)
    return [replace(backend, threads=None if kind == "cuda" else threads)] * workers


_Kind = Literal["progress", "report", "error", "ended"]


class _Worker:
    """A worker process, which is started again if it ends, and the video that it computes."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._context = multiprocessing.get_context("spawn")
        self.process: SpawnProcess
        self.connection: Connection
        self.task: tuple[int, int] | None = None  # number of the video, and of the attempt

    @contextmanager
    def running(self) -> Iterator["_Worker"]:
        """Run the process for the time of a block."""
        self.restart()
        try:
            yield self
        finally:
            self.connection.close()  # an idle worker ends when its connection does
            if self.task is not None:
                self.process.terminate()
            self.process.join(10)
            if self.process.is_alive():
                self.process.kill()

    def restart(self) -> None:
        """Start the process."""
        self.connection, theirs = self._context.Pipe()
        self.process = self._context.Process(target=_work, args=(theirs, self._backend), daemon=True)
        self.process.start()
        theirs.close()

    def start(self, number: int, attempt: int, request: UpscaleRequest) -> None:
        """Give the process a video."""
        self.task = number, attempt
        with suppress(BrokenPipeError):  # it has ended, which the next message tells
            self.connection.send(request)

    def messages(self) -> Iterator[tuple[_Kind, Any]]:
        """Yield the messages that have arrived; "ended" if the process has ended, which then runs again."""
        try:
            while self.connection.poll():
                yield self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            self.connection.close()
            self.restart()
            yield "ended", f"exit code {code}"


def _messages(workers: Sequence[_Worker]) -> Iterator[tuple[_Worker, _Kind, Any]]:
    """Wait for messages of workers that compute a video, and yield them."""
    busy = {worker.connection: worker for worker in workers if worker.task is not None}
    for connection in wait(list(busy)):
        worker = busy[connection]  # type: ignore[index]
        for kind, value in worker.messages():
            yield worker, kind, value


def _work(connection: Connection, backend: Backend) -> None:
    """Upscale the videos that come over a connection, until it closes: the main function of a worker."""
    with UpscalerPool() as pool, suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            request: UpscaleRequest = replace(connection.recv(), backend=backend)
            try:
                report = upscale_resumable(request, lambda progress: connection.send(("progress", progress)), pool=pool)
            except StvsrError as error:
                connection.send(("error", str(error)))
            else:
                connection.send(("report", report))
