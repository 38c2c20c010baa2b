"""A batch: many videos, upscaled by worker processes that keep their sessions open.

Every video is a resumable run, so a batch that was stopped goes on with the same call. A worker that dies is replaced,
and its video is tried once more; a video that fails does not stop the others.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from ..backends.options import Backend, cpu_threads, parse_device
from ..contract.errors import StvsrError
from .pool import UpscalerPool
from .report import Progress, Report
from .request import UpscaleRequest
from .resume import upscale_resumable
from .worker import Worker, wait_for_messages

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
        workers = [stack.enter_context(Worker(_work, backend).running()) for backend in backends[: len(requests)]]
        while len(outcomes) < len(requests):
            for worker in workers:
                if worker.task is None and waiting:
                    number, attempt = waiting.popleft()
                    worker.start((number, attempt), requests[number])
            for worker, kind, value in wait_for_messages(workers):
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
                    error = f"Its worker ended {attempt} times (exit code {value})."
                    settle(number, Outcome(requests[number], error=error))
    return [outcomes[number] for number in range(len(requests))]


def split_cpu(backend: Backend, workers: int) -> list[Backend]:
    """Return a backend for each of some workers, between which the CPU's threads are shared."""
    if workers == 1 or backend.kind == "remote":
        return [backend] * workers
    kind, _ = parse_device(backend.device)
    threads = backend.threads or max(1, cpu_threads() // workers)
    return [replace(backend, threads=None if kind == "cuda" else threads)] * workers


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
