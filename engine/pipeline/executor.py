"""Executors: the workers that do the tasks of videos, and their messages.

`LocalExecutor` has processes of this machine. An executor whose workers are elsewhere follows the same protocol.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Lock
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from ..backends.options import Backend
from .adaptation import OpenLearner
from .memory_limit import OUT_OF_MEMORY
from .tasks import PROGRESS, Task
from .worker import ENDED, Worker, wait_for_messages

LOST = "lost"  # the kind of the message that a worker is gone for a reason that is not its task


class TaskWorker(Protocol):
    """A worker, which does one task at a time."""

    task: Task | None  # None: it is idle
    began: float  # when the task was given, by time.monotonic

    @property
    def ready(self) -> bool:
        """Return whether an idle worker can take a task."""

    def start(self, task: Task) -> None:
        """Give an idle worker a task."""

    def kill(self) -> None:
        """End the worker at once; a message tells that it has ended, and it runs again."""


class Message(NamedTuple):
    """A message about the task of a worker; `TaskRunner.run` in task_runner.py has the kinds and their values.

    ENDED and LOST are the kinds of a task that was not finished. The value of ENDED states how the worker ended.
    """

    worker: TaskWorker
    task: Task
    kind: str
    value: Any


class Executor(Protocol):
    """Workers and their messages; a context manager that starts and ends them."""

    @property
    def workers(self) -> Sequence[TaskWorker]:
        """The workers; one that ends runs again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def messages(self, timeout_s: float | None = None) -> Iterator[Message]:
        """Wait for messages, and yield them; a worker is idle after the last one of its task.

        The wait ends after `timeout_s`, or by `wake`. Raises BackendError if no worker can run.
        """

    def wake(self) -> None:
        """End the wait of `messages`; any thread may call it."""


class LocalExecutor:
    """A worker process for each backend; `most_bytes` limits the memory of each.

    `open_learner` is that of `TaskRunner`, a function of a module.
    """

    def __init__(
        self, backends: Sequence[Backend], open_learner: OpenLearner | None = None, most_bytes: int | None = None
    ) -> None:
        self._workers = [Worker(partial(_do_tasks, open_learner), backend, most_bytes) for backend in backends]
        self._wake_reader, self._wake_writer = Pipe(duplex=False)
        self._wake_lock = Lock()
        self._running = ExitStack()

    @property
    def workers(self) -> Sequence[TaskWorker]:
        """The workers."""
        return self._workers

    def __enter__(self) -> Self:
        with ExitStack() as started:  # if one cannot be started, the others end
            for worker in self._workers:
                started.enter_context(worker.running())
            self._running = started.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._running.__exit__(*error)

    def messages(self, timeout_s: float | None = None) -> Iterator[Message]:
        """Wait for messages, and yield them; see `Executor.messages`."""
        for worker, kind, value in wait_for_messages(self._workers, timeout_s, self._wake_reader):
            task = worker.task
            if task is None:  # it has ended without one
                continue
            if kind != PROGRESS:
                worker.task = None
            if kind == "failed" and value.code == OUT_OF_MEMORY:
                worker.restart()  # libraries that fail for a lack of memory do not free all of it
            yield Message(worker, task, kind, value)

    def wake(self) -> None:
        """End the wait of `messages`."""
        with self._wake_lock:
            self._wake_writer.send(None)


def _do_tasks(open_learner: OpenLearner | None, connection: Connection, backend: Backend) -> None:
    """Do the tasks that come over a connection, until it closes: the main function of a worker process."""
    from .task_runner import TaskRunner  # in this process alone: it needs the networks' libraries

    with TaskRunner(backend, open_learner) as runner, suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            runner.run(connection.recv(), connection.send)


__all__ = ["ENDED", "LOST", "PROGRESS", "Executor", "LocalExecutor", "Message", "TaskWorker"]
