"""The scheduler: a thread that gives the tasks of waiting jobs to worker processes.

Jobs are computed in the order of their priority and creation; a job whose last segments are being computed leaves the
other workers to the next one. A worker that dies is replaced, and its task is done again.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import Pipe
from typing import Any

from ..backends.options import Backend
from ..pipeline.request import UpscaleRequest
from ..pipeline.worker import ENDED, Worker, wait_for_messages
from .jobs import Job, JobStore
from .tasks import Task, work

MOST_DEATHS = 3  # of workers at one task, after which its job fails
_POLL_S = 0.5

OnSegment = Callable[[Job, int, float], None]  # called with a segment's job, input frames and seconds


@dataclass
class _Active:
    """A job that workers compute."""

    job: Job
    request: UpscaleRequest
    lengths: list[int] | None = None  # input frames of each segment; None: not surveyed
    pending: deque[int] = field(default_factory=deque)  # segments
    finished: set[int] = field(default_factory=set)
    running: int = 0  # tasks
    deaths: Counter[tuple[str, int]] = field(default_factory=Counter)  # by kind and number of the task


class Scheduler:
    """Computes the jobs of a store by a worker process for each backend; a context manager that ends them.

    `request_of` makes the request of a job. A task that takes longer than `task_s` counts as the death of its worker.
    """

    def __init__(
        self,
        jobs: JobStore,
        backends: Sequence[Backend],
        request_of: Callable[[Job], UpscaleRequest],
        *,
        task_s: float = 600.0,
        on_segment: OnSegment | None = None,
    ) -> None:
        self._jobs, self._backends, self._request_of = jobs, backends, request_of
        self._task_s, self._on_segment = task_s, on_segment
        self._active: dict[str, _Active] = {}
        self._wake_reader, self._wake_writer = Pipe(duplex=False)
        self._wake_lock = threading.Lock()
        self._ending = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stvsr-scheduler")

    def __enter__(self) -> "Scheduler":
        self._jobs.sweep()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.wake()
        self._thread.join()

    @property
    def ready(self) -> bool:
        """Return whether the workers run."""
        return self._ready.is_set() and self._thread.is_alive()

    def wake(self) -> None:
        """Let the scheduler look for new or cancelled jobs at once."""
        with self._wake_lock:
            self._wake_writer.send(None)

    def _run(self) -> None:
        with ExitStack() as stack:
            workers = [stack.enter_context(Worker(work, backend).running()) for backend in self._backends]
            self._ready.set()
            while not self._ending.is_set():
                self._take_jobs()
                self._assign(workers)
                for worker, kind, value in wait_for_messages(workers, _POLL_S, self._wake_reader):
                    self._take_message(worker, kind, value)
                self._end_late_tasks(workers)

    def _take_jobs(self) -> None:
        """Take the waiting jobs, and forget those that were cancelled."""
        waiting = {job.id: job for job in self._jobs.waiting()}
        for identifier in self._active.keys() - waiting.keys():
            if not self._active[identifier].running:
                del self._active[identifier]
        for identifier, job in waiting.items():
            if identifier not in self._active:
                self._active[identifier] = _Active(job, self._request_of(job))
        # In the order in which they are computed; those that end are last.
        order = {identifier: position for position, identifier in enumerate(waiting)}
        self._active = dict(sorted(self._active.items(), key=lambda item: order.get(item[0], len(order))))

    def _assign(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            if worker.task is None and (task := self._next_task()) is not None:
                active = self._active[task.job]
                active.running += 1
                if active.job.started is None:
                    self._jobs.update(task.job, state="running", started=time.time())
                    active.job = self._jobs.get(task.job) or active.job
                worker.start((task, time.monotonic()), task)

    def _next_task(self) -> Task | None:
        for active in self._active.values():
            job = self._jobs.get(active.job.id)
            if job is None or job.ended:
                continue
            began = active.job.started or time.time()
            if active.lengths is None:
                if not active.running:
                    return Task(job.id, "survey", active.request, 0, began)
            elif active.pending:
                return Task(job.id, "segment", active.request, active.pending.popleft(), began)
            elif len(active.finished) == len(active.lengths) and not active.running:
                return Task(job.id, "join", active.request, 0, began)
        return None

    def _take_message(self, worker: Worker, kind: str, value: Any) -> None:
        task, began = worker.task
        worker.task = None
        active = self._active[task.job]
        active.running -= 1
        job = self._jobs.get(task.job)
        if job is None or job.ended:  # it was cancelled, and perhaps deleted
            return
        if kind == ENDED:
            self._take_death(active, task)
        elif kind == "failed":
            self._jobs.end(task.job, "failed", error={"code": "failed", "message": value})
        elif kind == "survey":
            self._jobs.keep_outline(task.job, value)
            active.lengths = list(value.lengths)
            active.pending = deque(range(len(value.lengths)))
            self._jobs.update(task.job, frames_total=sum(value.lengths), segments_total=len(value.lengths))
        elif kind == "segment":
            active.finished.add(value)
            assert active.lengths is not None
            frames = sum(active.lengths[number] for number in active.finished)
            self._jobs.update(task.job, frames_done=frames, segments_done=len(active.finished))
            if self._on_segment:
                self._on_segment(job, active.lengths[value], time.monotonic() - began)
        else:
            self._jobs.end(task.job, "done", report=value)

    def _take_death(self, active: _Active, task: Task) -> None:
        active.deaths[task.kind, task.number] += 1
        if active.deaths[task.kind, task.number] < MOST_DEATHS:
            if task.kind == "segment":
                active.pending.appendleft(task.number)
            return
        part = f"Segment {task.number}" if task.kind == "segment" else f"The {task.kind} of the video"
        message = f"{part} ended its worker {MOST_DEATHS} times: look for the cause in the server's log."
        self._jobs.end(task.job, "failed", error={"code": "worker-died", "message": message})

    def _end_late_tasks(self, workers: Sequence[Worker]) -> None:
        """End workers whose task takes too long, or whose job was cancelled."""
        for worker in workers:
            if worker.task is None:
                continue
            task, began = worker.task
            job = self._jobs.get(task.job)
            if job is None or job.ended or time.monotonic() - began > self._task_s:
                worker.kill()
