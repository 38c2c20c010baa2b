"""The runner of a worker's tasks, which keeps videos and upscalers open between them."""

import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..backends.options import Backend
from ..contract.closing import Closing
from ..contract.errors import BackendError, StvsrError
from .adaptation import Adapting, AdaptSettings, Learner, OpenLearner
from .memory_limit import OUT_OF_MEMORY, describe_limit
from .pool import UpscalerPool
from .report import Progress
from .request import UpscaleRequest
from .resume import SegmentedVideo
from .run import upscale
from .tasks import PROGRESS, Failure, Send, Surveyed, Task

_OPEN_VIDEOS = 2  # that a worker keeps open, between the segments of videos that are computed in turn
_PROGRESS_S = 0.2  # between two messages of progress


class _OpenVideo:
    """The open video of a task, and how many of its input frames this worker has finished."""

    def __init__(
        self, task: Task, backend: Backend, pool: UpscalerPool, open_learner: OpenLearner | None = None
    ) -> None:
        self._frames = 0
        self._sent = 0.0
        self._send: Send | None = None
        self._before = 0
        request = replace(task.request, backend=backend)
        adapting = None if task.adapt is None else _adapting(task.adapt, open_learner)
        self.video = SegmentedVideo(request, pool=pool, on_progress=self._advance, store=task.store, adapting=adapting)

    def compute(self, number: int, send: Send) -> None:
        """Compute a segment, and send its progress."""
        self._send, self._sent, self._before = send, time.monotonic(), self._frames
        self.video.compute(number)
        self._send = None

    def _advance(self, progress: Progress) -> None:
        self._frames = progress.frames_in
        if self._send is not None and (now := time.monotonic()) - self._sent >= _PROGRESS_S:
            self._sent = now
            self._send((PROGRESS, self._frames - self._before))


class TaskRunner(Closing):
    """Does one task after another, and keeps videos and upscalers open between them.

    Without `open_learner` it does not adapt.
    """

    def __init__(self, backend: Backend, open_learner: OpenLearner | None = None) -> None:
        self._backend, self._open_learner = backend, open_learner
        self._pool = UpscalerPool()
        self._videos: OrderedDict[str, _OpenVideo] = OrderedDict()

    def run(self, task: Task, send: Send) -> None:
        """Do a task, and send messages (kind, value) about it.

        The last one is "survey" with a Surveyed, "adapt" with the number of the unit that is learned, "segment" with
        the number of the segment, "join" and "whole" with the Report, or "failed" with a Failure.
        Before it, PROGRESS has the number of input frames of a segment that are finished.
        """
        try:
            answer = self._do(task, send)
        except Exception as error:
            sentence = describe_limit(error, "The video needs")
            self._drop(task.video)
            if sentence is not None:
                failure = Failure(OUT_OF_MEMORY, sentence)
            elif isinstance(error, StvsrError):
                failure = Failure(error.code, str(error))
            else:
                raise
            send(("failed", failure))
        else:
            if task.kind == "join":
                self._drop(task.video)
            send((task.kind, answer))

    def close(self) -> None:
        """Close every video and upscaler."""
        for name in list(self._videos):
            self._drop(name)
        self._pool.close()

    def _do(self, task: Task, send: Send) -> Any:
        if task.kind == "whole":
            return upscale(replace(task.request, backend=self._backend), pool=self._pool)
        opened = self._open(task)
        match task.kind:
            case "survey":
                video = opened.video
                found = video.outline(), video.store.recorded()
                if video.adaptation is None:
                    return Surveyed(*found)
                units = tuple(video.adaptation.unit_of(video.scene_of(n)) for n in range(len(video.segments)))
                return Surveyed(*found, units, video.adaptation.learned())
            case "adapt":
                opened.video.learn(task.number)
                return task.number
            case "segment":
                opened.compute(task.number, send)
                return task.number
            case "join":
                opened.video.join()
                return opened.video.report(max(1e-9, time.time() - task.began))

    def _open(self, task: Task) -> _OpenVideo:
        """Return the open video of a task."""
        if task.video not in self._videos:
            self._videos[task.video] = _OpenVideo(task, self._backend, self._pool, self._open_learner)
            while len(self._videos) > _OPEN_VIDEOS:
                self._videos.popitem(last=False)[1].video.close()
        self._videos.move_to_end(task.video)
        return self._videos[task.video]

    def _drop(self, name: str) -> None:
        opened = self._videos.pop(name, None)
        if opened is not None:
            opened.video.close()


def _adapting(settings: AdaptSettings, open_learner: OpenLearner | None) -> Adapting:
    """Return how a worker adapts: in its own process, whose CPUs it has to itself. Raises BackendError."""
    if open_learner is None:
        raise BackendError("These workers adapt no networks: start them with what learns, or leave out the adaptation.")

    def open_here(request: UpscaleRequest, folder: Path) -> Learner:
        return open_learner(request, settings, folder, lambda unit, share, steps: None, lambda sentence: None)

    return Adapting(settings, open_here)
