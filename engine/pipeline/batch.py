"""A batch: many videos, upscaled by workers that keep their sessions open.

Every video is a resumable run, so a batch that was stopped goes on with the same call. A worker that dies is replaced,
and its task is done again; a video that fails does not stop the others.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..backends.options import Backend
from ..contract.cpus import cpu_threads
from .deaths import ChanceDeaths
from .executor import ENDED, LOST, PROGRESS, Executor, LocalExecutor, Message, TaskWorker
from .report import Report
from .request import UpscaleRequest
from .tasks import Failure
from .video_tasks import VideoTasks


@dataclass(frozen=True)
class Outcome:
    """The result of one video of a batch: a report, or the sentence and the code of an error."""

    request: UpscaleRequest
    report: Report | None = None
    error: str | None = None
    code: str | None = None


# Called with the number of a video in the batch, and its input frames: those that are finished, and all.
OnProgress = Callable[[int, int, int | None], None]
OnOutcome = Callable[[int, Outcome], None]


def upscale_batch(
    requests: Sequence[UpscaleRequest],
    executor: Executor | None = None,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome | None = None,
    store: str | None = None,
) -> list[Outcome]:
    """Upscale many videos by the workers of an executor, and return their outcomes in order.

    Each worker takes a video that no other one has; when there is none, it takes segments of the others' videos.
    Without an executor there is one process, for the backend of the first video. `on_outcome` is called with each
    outcome when it is known, and `store` is that of `SegmentedVideo`. An interrupt ends the workers, and the finished
    parts of their videos are kept.
    """
    if not requests:
        return []
    with executor or LocalExecutor([requests[0].backend]) as opened:
        return _Batch(requests, opened, on_progress, on_outcome, store).run()


def split_cpu(backend: Backend, workers: int) -> list[Backend]:
    """Return a backend for each of some workers, between which the CPU's threads are shared."""
    if workers == 1:
        return [backend]
    return [backend.with_threads(backend.threads or max(1, cpu_threads() // workers))] * workers


class _Batch:
    """The videos of a batch, and the workers that compute them."""

    def __init__(
        self,
        requests: Sequence[UpscaleRequest],
        executor: Executor,
        on_progress: OnProgress | None,
        on_outcome: OnOutcome | None,
        store: str | None,
    ) -> None:
        self._executor, self._on_progress, self._on_outcome = executor, on_progress, on_outcome
        self._requests = requests
        chance = ChanceDeaths()
        self._videos = {
            str(number): VideoTasks(str(number), request, store, chance=chance)
            for number, request in enumerate(requests)
        }
        self._last: dict[int, str] = {}  # the video that a worker, by its number, has open
        self._under_way: Counter[tuple[str, int]] = Counter()  # finished frames of segments that are not
        self._outcomes: dict[str, Outcome] = {}

    def run(self) -> list[Outcome]:
        """Compute all videos, and return their outcomes."""
        while len(self._outcomes) < len(self._videos):
            for number, worker in enumerate(self._executor.workers):
                if worker.task is None and worker.ready:
                    self._assign(number, worker)
            for message in self._executor.messages():
                if message.task.video not in self._outcomes:  # else it has failed, by another task
                    self._receive(message)
        return [self._outcomes[name] for name in self._videos]

    def _assign(self, number: int, worker: TaskWorker) -> None:
        """Give a worker a task: of the video that it has open, else of a new one, else of any."""
        last = self._last.get(number)
        waiting = [video for name, video in self._videos.items() if name not in self._outcomes]
        for video in sorted(waiting, key=lambda video: (video.name != last, video.began is not None)):
            if (task := video.take()) is not None:
                self._last[number] = task.video
                worker.start(task)
                return

    def _receive(self, message: Message) -> None:
        worker, task, kind, value = message
        video, seconds = self._videos[task.video], time.monotonic() - worker.began
        if kind == PROGRESS:
            self._under_way[task.video, task.number] = value
        else:
            self._under_way.pop((task.video, task.number), None)
            if kind in (ENDED, LOST):
                error = video.give_back(task, value if kind == ENDED else None, seconds)
                if error is not None:
                    self._end(task.video, failure=Failure("worker-died", error))
            elif kind == "failed":
                self._end(task.video, failure=value)
            elif kind in ("join", "whole"):
                self._end(task.video, report=value)
            else:
                video.finish(task, value, seconds)
        if self._on_progress and video.frames_total is not None and task.video not in self._outcomes:
            started = sum(frames for (name, _), frames in self._under_way.items() if name == task.video)
            self._on_progress(int(task.video), video.frames_done + started, video.frames_total)

    def _end(self, name: str, *, report: Report | None = None, failure: Failure | None = None) -> None:
        code, error = failure or (None, None)
        outcome = Outcome(self._requests[int(name)], report, error, code)
        self._outcomes[name] = outcome
        if self._on_outcome:
            self._on_outcome(int(name), outcome)
