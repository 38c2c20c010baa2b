"""The runner of a worker's tasks, which keeps videos and upscalers open between them."""

import time
from collections import OrderedDict
from dataclasses import replace
from typing import Any

from ..backends.options import Backend
from ..contract.closing import Closing
from ..contract.errors import StvsrError
from .pool import UpscalerPool
from .report import Progress
from .resume import SegmentedVideo
from .run import upscale
from .tasks import PROGRESS, Failure, Send, Task

_OPEN_VIDEOS = 2  # that a worker keeps open, between the segments of videos that are computed in turn
_PROGRESS_S = 0.2  # between two messages of progress


class _OpenVideo:
    """The open video of a task, and how many of its input frames this worker has finished."""

    def __init__(self, task: Task, backend: Backend, pool: UpscalerPool) -> None:
        self._frames = 0
        self._sent = 0.0
        self._send: Send | None = None
        self._before = 0
        request = replace(task.request, backend=backend)
        self.video = SegmentedVideo(request, pool=pool, on_progress=self._advance, store=task.store)

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
    """Does one task after another, and keeps videos and upscalers open between them."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._pool = UpscalerPool()
        self._videos: OrderedDict[str, _OpenVideo] = OrderedDict()

    def run(self, task: Task, send: Send) -> None:
        """Do a task, and send messages (kind, value) about it.

        The last one is "survey" with the outline of the video and the numbers of the segments that are finished,
        "segment" with the number of the segment, "join" and "whole" with the Report, or "failed" with a Failure.
        Before it, PROGRESS has the number of input frames of a segment that are finished.
        """
        try:
            answer = self._do(task, send)
        except StvsrError as error:
            self._drop(task.video)
            send(("failed", Failure(error.code, str(error))))
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
                return video.outline(), video.store.recorded()
            case "segment":
                opened.compute(task.number, send)
                return task.number
            case "join":
                opened.video.join()
                return opened.video.report(max(1e-9, time.time() - task.began))

    def _open(self, task: Task) -> _OpenVideo:
        """Return the open video of a task."""
        if task.video not in self._videos:
            self._videos[task.video] = _OpenVideo(task, self._backend, self._pool)
            while len(self._videos) > _OPEN_VIDEOS:
                self._videos.popitem(last=False)[1].video.close()
        self._videos.move_to_end(task.video)
        return self._videos[task.video]

    def _drop(self, name: str) -> None:
        opened = self._videos.pop(name, None)
        if opened is not None:
            opened.video.close()
