"""Executors whose workers are elsewhere: a thread for each passes tasks on, and collects the messages about them.

A worker there has a `StreamedRunner`.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, Self

from ..backends.options import Backend
from .adaptation import OpenLearner
from .executor import ENDED, LOST, PROGRESS, Message, TaskWorker
from .tasks import Task, TaskRunner

STARTED = "started"  # the kind of the message that a task which waited elsewhere has started
_PAUSE_S = 1.0  # before a worker that was lost is started again
_END_S = 10.0  # time that the workers get to end


class TaskEndedWorkerError(Exception):
    """A worker has ended while it did a task; the message states how."""


class WorkerLostError(Exception):
    """A worker is gone, or cannot be reached, for a reason that is not its task."""


class RemoteRunner(ABC):
    """A `TaskRunner` elsewhere, which one thread uses; `kill` and `close` are called by others."""

    @abstractmethod
    def open(self, on_death: Callable[[], None]) -> None:
        """Start it, and wait until it can do tasks; `on_death` is called when it ends after that.

        Raises WorkerLostError to try again, and a StvsrError if it cannot run.
        """

    @abstractmethod
    def run(self, task: Task) -> Iterator[tuple[str, Any]]:
        """Do a task, and yield the messages about it, and before them (STARTED, None) if it had to wait.

        Raises TaskEndedWorkerError or WorkerLostError; then it is opened again.
        """

    @abstractmethod
    def kill(self) -> None:
        """End it at once, so that `run` raises an error."""

    def close(self) -> None:
        """End it, whether or not it is open."""
        self.kill()


class StreamedRunner:
    """A `TaskRunner` in a thread of its own, whose messages are yielded."""

    def __init__(self, backend: Backend, open_learner: OpenLearner | None = None) -> None:
        self._thread = ThreadPoolExecutor(1, "stvsr-tasks")  # sessions stay in one thread
        self._runner = TaskRunner(backend, open_learner)
        self._closed = False

    def run(self, task: Task) -> Iterator[tuple[str, Any]]:
        """Do a task, and yield the messages about it."""
        messages: SimpleQueue[tuple[str, Any] | None] = SimpleQueue()
        done = self._thread.submit(self._runner.run, task, messages.put)
        done.add_done_callback(lambda _: messages.put(None))
        while (message := messages.get()) is not None:
            yield message
        done.result()  # raises the error of a bug

    def close(self) -> None:
        """Close the sessions; calling it again has no effect."""
        if not self._closed:
            self._closed = True
            self._thread.submit(self._runner.close)
            self._thread.shutdown()


class RemoteExecutor:
    """A worker for each runner; it follows the protocol `Executor`."""

    def __init__(self, runners: Sequence[RemoteRunner]) -> None:
        self._messages: SimpleQueue[Message | Exception | None] = SimpleQueue()
        self._workers = [_RemoteWorker(runner, self._messages) for runner in runners]

    @property
    def workers(self) -> Sequence[TaskWorker]:
        """The workers."""
        return self._workers

    def __enter__(self) -> Self:
        for worker in self._workers:
            worker.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()
        until = time.monotonic() + _END_S
        for worker in self._workers:
            worker.thread.join(max(0.0, until - time.monotonic()))

    def messages(self, timeout_s: float | None = None) -> Iterator[Message]:
        """Wait for messages, and yield them; see `Executor.messages`."""
        try:
            message = self._messages.get(timeout=timeout_s)
            while True:
                if isinstance(message, Exception):
                    raise message
                if message is not None:
                    if message.kind != PROGRESS:
                        message.worker.task = None
                    yield message
                message = self._messages.get_nowait()
        except Empty:
            return

    def wake(self) -> None:
        """End the wait of `messages`."""
        self._messages.put(None)


class _RemoteWorker:
    """A worker that a thread runs."""

    def __init__(self, runner: RemoteRunner, messages: "SimpleQueue[Message | Exception | None]") -> None:
        self.task: Task | None = None
        self.began = 0.0
        self.thread = Thread(target=self._run, name="stvsr-worker", daemon=True)
        self._runner, self._messages = runner, messages
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()  # None: look whether it is to open again or to end
        self._ready = False
        self._lock = Lock()  # between a task that is given and the end of the worker
        self._closing = Event()

    @property
    def ready(self) -> bool:
        """Return whether an idle worker can take a task."""
        return self._ready

    def start(self, task: Task) -> None:
        """Give an idle worker a task."""
        self.task, self.began = task, time.monotonic()
        with self._lock:
            if self._ready:
                self._tasks.put(task)
            else:  # it has ended meanwhile
                self._messages.put(Message(self, task, LOST, None))

    def kill(self) -> None:
        """End the worker at once; a message tells that it has ended, and it runs again."""
        self._runner.kill()

    def close(self) -> None:
        """End the worker for good."""
        self._closing.set()
        self._tasks.put(None)
        self._runner.close()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._run_once()
        except Exception as error:
            self._messages.put(error)  # for the thread that waits for messages

    def _run_once(self) -> None:
        """Open the runner, and do tasks until it ends."""
        died = Event()

        def on_death() -> None:
            died.set()
            self._tasks.put(None)

        try:
            self._runner.open(on_death)
        except WorkerLostError:
            self._closing.wait(_PAUSE_S)
            return
        self._ready = True
        self._messages.put(None)  # it can be given a task
        try:
            self._do_tasks(died)
        finally:
            with self._lock:
                self._ready = False
                while not self._tasks.empty():
                    if (task := self._tasks.get()) is not None:
                        self._messages.put(Message(self, task, LOST, None))

    def _do_tasks(self, died: Event) -> None:
        while not died.is_set() and not self._closing.is_set():
            if (task := self._tasks.get()) is None:
                continue
            done = False  # then its end is not that of the task
            try:
                for kind, value in self._runner.run(task):
                    if kind == STARTED:
                        self.began = time.monotonic()
                    else:
                        done = kind != PROGRESS
                        self._messages.put(Message(self, task, kind, value))
            except TaskEndedWorkerError as error:
                if not done:
                    self._messages.put(Message(self, task, ENDED, str(error)))
                return
            except WorkerLostError:
                if not done:
                    self._messages.put(Message(self, task, LOST, None))
                self._closing.wait(_PAUSE_S)
                return
