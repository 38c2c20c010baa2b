"""Workers for tests: they do their tasks in the calling thread, or send what the test says."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import accumulate
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event
from typing import Any

from stvsr import Backend
from stvsr.engine.pipeline.executor import ENDED, LOST, PROGRESS, Message
from stvsr.engine.pipeline.outline import Outline
from stvsr.engine.pipeline.remote_executor import RemoteRunner, TaskEndedWorkerError
from stvsr.engine.pipeline.task_runner import TaskRunner
from stvsr.engine.pipeline.tasks import Task


def outline_of(*lengths: int) -> Outline:
    """Return the outline of a video of segments with these numbers of frames."""
    count = sum(lengths)
    starts = tuple(accumulate(lengths, initial=0))
    return Outline(Fraction(1, 24), Fraction(1, 24), "h264", lengths, starts, 0, range(count), True)


Key = tuple[str, str, int]  # video, kind and number of a task


class InlineWorker:
    def __init__(self) -> None:
        self.task: Task | None = None
        self.began = 0.0
        self.ready = True

    def start(self, task: Task) -> None:
        assert self.task is None
        self.task, self.began = task, time.monotonic()

    def kill(self) -> None:
        raise NotImplementedError


class InlineExecutor:
    """`deaths` and `losses` have how often a task ends its worker, or is lost with it, before or after it is done."""

    def __init__(
        self, workers: int, deaths: dict[Key, int] | None = None, losses: dict[Key, int] | None = None
    ) -> None:
        self.workers = [InlineWorker() for _ in range(workers)]
        self.done: list[tuple[int, Key]] = []  # number of the worker, and the task
        self._deaths, self._losses = Counter(deaths or {}), Counter(losses or {})
        self._woken = Event()
        self._runner = TaskRunner(Backend(device="cpu", threads=1))

    def __enter__(self) -> "InlineExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    def wake(self) -> None:
        self._woken.set()

    def messages(self, timeout_s: float | None = None) -> Iterator[Message]:
        if not any(worker.task for worker in self.workers):
            assert timeout_s is not None, "nobody has a task"
            self._woken.wait(timeout_s)
            self._woken.clear()
        for number, worker in enumerate(self.workers):
            if worker.task is not None:
                task, worker.task = worker.task, None
                yield from self._messages(number, worker, task)

    def _messages(self, number: int, worker: InlineWorker, task: Task) -> Iterator[Message]:
        key = (task.video, task.kind, task.number)
        if self._deaths[key]:
            self._deaths[key] -= 1
            yield Message(worker, task, ENDED, "exit code -9")
            return
        sent: list[tuple[str, Any]] = []
        self._runner.run(task, sent.append)
        if self._losses[key]:
            self._losses[key] -= 1
            yield Message(worker, task, LOST, None)
            return
        self.done.append((number, key))
        assert [kind for kind, _ in sent[:-1]] == [PROGRESS] * (len(sent) - 1)
        yield from (Message(worker, task, kind, value) for kind, value in sent)


class ScriptedRunner(RemoteRunner):
    """Yields what the test puts into `script`: messages, or errors to raise."""

    def __init__(self, *openings: Exception | None) -> None:
        self.script: SimpleQueue[Any] = SimpleQueue()
        self.openings = list(openings)  # of each opening: an error to raise, or None
        self.opened = 0
        self.after: Exception | None = None  # raised behind the last message of a task
        self.die: Callable[[], None] = lambda: None

    def open(self, on_death: Callable[[], None]) -> None:
        error = self.openings.pop(0) if self.openings else None
        if error is not None:
            raise error
        self.die = on_death
        self.opened += 1

    def run(self, task: Task) -> Iterator[tuple[str, Any]]:
        while True:
            step = self.script.get()
            if isinstance(step, Exception):
                raise step
            yield step
            if step[0] != PROGRESS:
                if self.after is not None:
                    raise self.after
                return

    def kill(self) -> None:
        self.script.put(TaskEndedWorkerError("it was killed"))


def end_after_a_task(open_learner: None, connection: Connection, backend: Backend) -> None:
    """Do a task, and end the process behind its last message: the main function of a worker process."""
    task = connection.recv()
    connection.send((task.kind, task.number))
    os._exit(1)
