"""Worker processes: each takes one task at a time over a pipe, and is started again if it ends."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from ..backends.options import Backend
from .memory_limit import limit_memory, show_bytes

ENDED = "ended"  # the kind of the message that a worker has died; its value states how
_END_S = 10.0  # time that a worker gets to end

# The main function of a worker: it reads tasks from the connection until that closes, and sends (kind, value) messages.
Work = Callable[[Connection, Backend], None]


class Worker:
    """A worker process and the task that it has; `most_bytes` limits the memory of the process."""

    def __init__(self, work: Work, backend: Backend, most_bytes: int | None = None) -> None:
        self._work = work if most_bytes is None else partial(_work_within, most_bytes, work)
        self._backend, self._most_bytes = backend, most_bytes
        self._context = multiprocessing.get_context("spawn")
        self._process: SpawnProcess
        self.connection: Connection
        self.task: Any = None  # None: it is idle
        self.began = 0.0  # when the task was given, by time.monotonic

    @contextmanager
    def running(self) -> Iterator["Worker"]:
        """Run the process for the time of a block."""
        self._start_process()
        try:
            yield self
        finally:
            self.connection.close()  # an idle worker ends when its connection does
            if self.task is not None:
                self._process.terminate()
            self._process.join(_END_S)
            if self._process.is_alive():
                self._process.kill()

    @property
    def ready(self) -> bool:
        """Return whether an idle worker can take a task: a process always can."""
        return True

    def start(self, task: Any) -> None:
        """Give an idle worker a task, which its main function receives."""
        self.task, self.began = task, time.monotonic()
        with suppress(BrokenPipeError):  # it has ended, which the next message tells
            self.connection.send(task)

    def kill(self) -> None:
        """End the process at once; a message tells that it has ended, and it runs again."""
        self._process.kill()

    def restart(self) -> None:
        """Replace the process of an idle worker."""
        self._process.kill()
        self._process.join(_END_S)
        self.connection.close()
        self._start_process()

    def messages(self) -> Iterator[tuple[str, Any]]:
        """Yield the messages that have arrived; ENDED if the process has ended, which then runs again."""
        try:
            while self.connection.poll():
                yield self.connection.recv()
        except (EOFError, OSError):
            self._process.join(_END_S)
            if self._process.is_alive():
                self._process.kill()
                self._process.join(_END_S)
            code = self._process.exitcode
            self.connection.close()
            self._start_process()
            limited = "" if self._most_bytes is None else f", with at most {show_bytes(self._most_bytes)} of memory"
            yield ENDED, f"exit code {code}{limited}"

    def _start_process(self) -> None:
        self.connection, theirs = self._context.Pipe()
        self._process = self._context.Process(target=self._work, args=(theirs, self._backend), daemon=True)
        self._process.start()
        theirs.close()


def _work_within(most_bytes: int, work: Work, connection: Connection, backend: Backend) -> None:
    """Work with limited memory: the main function of a process."""
    limit_memory(most_bytes)
    work(connection, backend)


def wait_for_messages(
    workers: Sequence[Worker], timeout_s: float | None = None, wake: Connection | None = None
) -> Iterator[tuple[Worker, str, Any]]:
    """Wait for messages of workers, and yield them with their workers; one that has ended runs again.

    The wait ends after `timeout_s`, or when the connection `wake` has something to read, which is read.
    """
    connections = {worker.connection: worker for worker in workers}
    for connection in wait([*connections, *([wake] if wake else [])], timeout_s):
        if connection is wake:
            assert wake is not None
            while wake.poll():
                wake.recv()
            continue
        worker = connections[connection]  # type: ignore[index]
        for kind, value in worker.messages():
            yield worker, kind, value
