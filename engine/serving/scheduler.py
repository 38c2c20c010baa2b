"""The scheduler: a thread that gives the tasks of waiting jobs to the workers of an executor.

Jobs are computed in the order of their priority and creation; a job whose last segments are being computed leaves the
other workers to the next one. A worker that dies is replaced, and its task is done again.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..pipeline.adaptation import AdaptSettings
from ..pipeline.deaths import ChanceDeaths
from ..pipeline.executor import ENDED, LOST, PROGRESS, Executor, Message
from ..pipeline.memory_limit import OUT_OF_MEMORY
from ..pipeline.request import UpscaleRequest
from ..pipeline.tasks import Failure, Task
from ..pipeline.video_tasks import VideoTasks
from .jobs import Job, JobStore
from .logs import log
from .requests import without_paths

DRAIN_S = 30.0  # time that running tasks get when the server ends
_POLL_S = 0.5
# Errors of the video, of the options, and of what they ask for; others name paths and addresses of the server.
_OF_CLIENTS = ("media", "request", "device-memory", OUT_OF_MEMORY, "non-finite")

OnStart = Callable[[Job], None]  # called with a job whose first task begins
OnSegment = Callable[[Job, int, float], None]  # called with a segment's job, input frames and seconds


@dataclass
class _Active:
    """A job that workers compute."""

    job: Job
    tasks: VideoTasks


class Scheduler:
    """Computes the jobs of a store by the workers of an executor; a context manager that runs and ends them.

    `request_of` makes the request of a job, and `adapt_of` states how its network is adapted. A task that takes longer
    than `task_s` ends its worker.
    At the end no task is begun, and those that run get `drain_s`.
    """

    def __init__(
        self,
        jobs: JobStore,
        executor: Executor,
        request_of: Callable[[Job], UpscaleRequest],
        *,
        adapt_of: Callable[[Job], AdaptSettings | None] = lambda job: None,
        task_s: float = 600.0,
        drain_s: float = DRAIN_S,
        on_start: OnStart | None = None,
        on_segment: OnSegment | None = None,
    ) -> None:
        self._jobs, self._executor, self._request_of, self._adapt_of = jobs, executor, request_of, adapt_of
        self._task_s, self._drain_s = task_s, drain_s
        self._on_start, self._on_segment = on_start, on_segment
        self._active: dict[str, _Active] = {}
        self._chance = ChanceDeaths()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stvsr-scheduler")

    def __enter__(self) -> "Scheduler":
        self._jobs.sweep()
        self._executor.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.drain()
        self._thread.join()
        self._executor.__exit__(*error)

    def drain(self) -> None:
        """Begin no task any more."""
        self._ending.set()
        self.wake()

    @property
    def ready(self) -> bool:
        """Return whether any worker runs."""
        return self._thread.is_alive() and any(worker.ready for worker in self._executor.workers)

    def wake(self) -> None:
        """Let the scheduler look for new or cancelled jobs at once."""
        self._executor.wake()

    def _run(self) -> None:
        try:
            self._compute()
        except Exception:
            log.exception("scheduler ended")  # the server is not ready any more

    def _compute(self) -> None:
        while not self._ending.is_set():
            self._take_jobs()
            self._assign()
            for message in self._executor.messages(_POLL_S):
                self._receive(message)
            self._end_late_tasks()
        until = time.monotonic() + self._drain_s
        while any(worker.task for worker in self._executor.workers) and time.monotonic() < until:
            for message in self._executor.messages(_POLL_S):
                self._receive(message)

    def _take_jobs(self) -> None:
        """Take the waiting jobs, and forget those that were cancelled."""
        waiting = {job.id: job for job in self._jobs.waiting()}
        for identifier in self._active.keys() - waiting.keys():
            if not self._active[identifier].tasks.running:
                del self._active[identifier]
                if self._jobs.get(identifier) is None:
                    self._jobs.remove_files(identifier)  # that its last task wrote after it was deleted
        for identifier, job in waiting.items():
            if identifier not in self._active:
                request, adapt = self._request_of(job), self._adapt_of(job)
                tasks = VideoTasks(identifier, request, began=job.started, adapt=adapt, chance=self._chance)
                self._active[identifier] = _Active(job, tasks)
        # In the order in which they are computed; those that end are last.
        order = {identifier: position for position, identifier in enumerate(waiting)}
        self._active = dict(sorted(self._active.items(), key=lambda item: order.get(item[0], len(order))))

    def _assign(self) -> None:
        for worker in self._executor.workers:
            if worker.task is None and worker.ready and (task := self._next_task()) is not None:
                active = self._active[task.video]
                if active.job.state == "queued":
                    self._jobs.update(task.video, state="running", started=task.began)
                    log.info("job started", extra={"job": task.video})
                    if self._on_start and active.job.started is None:  # it did not run before a restart
                        self._on_start(active.job)
                    active.job = self._jobs.get(task.video) or active.job
                worker.start(task)

    def _next_task(self) -> Task | None:
        for active in self._active.values():
            job = self._jobs.get(active.job.id)
            if job is not None and not job.ended and (task := active.tasks.take()) is not None:
                return task
        return None

    def _receive(self, message: Message) -> None:
        worker, task, kind, value = message
        if kind == PROGRESS:
            return
        active = self._active[task.video]
        job, seconds = self._jobs.get(task.video), time.monotonic() - worker.began
        if job is None or job.ended:  # it was cancelled, and perhaps deleted
            active.tasks.abandon()
        elif kind in (ENDED, LOST):
            reason = value if kind == ENDED else None
            segment = {"segment": task.number} if task.kind == "segment" else {}
            log.warning("worker ended", extra={"job": job.id, "reason": reason or "it was lost", **segment})
            # A task that was ended for its time is no chance.
            error = active.tasks.give_back(task, reason, 0.0 if seconds > self._task_s else seconds)
            if error is not None:
                self._fail(job, "worker-died", error)
        elif kind == "failed":
            active.tasks.abandon()
            self._fail(job, "failed", _for_client(value, task), value.sentence)
        else:
            if kind == "survey":
                self._jobs.keep_outline(job.id, value[0])
            active.tasks.finish(task, value, seconds)
            self._store_progress(job, active.tasks, task, seconds)
            if kind == "join" and self._jobs.end(job.id, "done", report=value.as_dict()):
                log.info("job done", extra={"job": job.id, "frames": value.frames_out, "seconds": value.seconds})

    def _fail(self, job: Job, code: str, sentence: str, reason: str | None = None) -> None:
        if self._jobs.end(job.id, "failed", error={"code": code, "message": sentence}):
            log.error("job failed", extra={"job": job.id, "reason": reason or sentence})

    def _store_progress(self, job: Job, tasks: VideoTasks, task: Task, seconds: float) -> None:
        done: dict[str, Any] = {
            "frames_done": tasks.frames_done,
            "segments_done": tasks.segments_done,
            "scenes_done": tasks.scenes_done,
        }
        if task.kind == "survey":
            totals = {
                "frames_total": tasks.frames_total,
                "segments_total": tasks.segments_total,
                "scenes_total": tasks.scenes_total,
            }
            self._jobs.update(job.id, **totals, **done)
        elif task.kind == "adapt":
            self._jobs.update(job.id, **done)
            log.debug("scene learned", extra={"job": job.id, "scene": task.number, "seconds": round(seconds, 3)})
        elif task.kind == "segment":
            self._jobs.update(job.id, **done)
            frames = tasks.frames_of(task.number)
            facts = {"job": job.id, "segment": task.number, "frames": frames, "seconds": round(seconds, 3)}
            log.debug("segment done", extra=facts)
            if self._on_segment:
                self._on_segment(job, frames, seconds)

    def _end_late_tasks(self) -> None:
        """End workers whose task takes too long, or whose job was cancelled."""
        for worker in self._executor.workers:
            if worker.task is None:
                continue
            job = self._jobs.get(worker.task.video)
            if job is None or job.ended or time.monotonic() - worker.began > self._task_s:
                worker.kill()


def _for_client(failure: Failure, task: Task) -> str:
    """Return the sentence of a failed task without anything that concerns the server alone."""
    if failure.code not in _OF_CLIENTS:
        return "The server failed at this video: its log has the reason."
    return without_paths(failure.sentence, {str(task.request.input): "the video", str(task.request.output): "it"})
