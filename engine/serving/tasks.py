"""The tasks of the server's workers: to survey a video, to compute a segment, and to join a video."""

import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, Literal, NamedTuple

from ..backends.options import Backend
from ..contract.errors import StvsrError
from ..pipeline.pool import UpscalerPool
from ..pipeline.request import UpscaleRequest
from ..pipeline.resume import SegmentedVideo

_OPEN_VIDEOS = 2  # that a worker keeps open, between the segments of jobs that are computed in turn


class Task(NamedTuple):
    """A task of one job."""

    job: str
    kind: Literal["survey", "segment", "join"]
    request: UpscaleRequest
    number: int = 0  # of the segment
    began: float = 0.0  # of the job, in seconds since the epoch


def work(connection: Connection, backend: Backend) -> None:
    """Do tasks that come over a connection until it closes: the main function of a worker.

    It answers each with one message: "survey" with the outline, "segment", "join" with the report as a dictionary, or
    "failed" with a sentence.
    """
    with UpscalerPool() as pool, suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        videos: OrderedDict[str, SegmentedVideo] = OrderedDict()
        while True:
            task: Task = connection.recv()
            try:
                answer = _do(task, _video(task, backend, pool, videos))
            except StvsrError as error:
                _drop(task.job, videos)
                connection.send(("failed", str(error).replace(str(task.request.input), "the video")))
            else:
                if task.kind == "join":
                    _drop(task.job, videos)
                connection.send((task.kind, answer))


def _do(task: Task, video: SegmentedVideo) -> Any:
    match task.kind:
        case "survey":
            return video.outline()
        case "segment":
            video.compute(task.number)
            return task.number
        case "join":
            video.join()
            return video.report(max(1e-9, time.time() - task.began)).as_dict()


def _video(
    task: Task, backend: Backend, pool: UpscalerPool, videos: OrderedDict[str, SegmentedVideo]
) -> SegmentedVideo:
    """Return the open video of a task's job."""
    if task.job not in videos:
        videos[task.job] = SegmentedVideo(replace(task.request, backend=backend), pool=pool)
        while len(videos) > _OPEN_VIDEOS:
            videos.popitem(last=False)[1].close()
    videos.move_to_end(task.job)
    return videos[task.job]


def _drop(job: str, videos: OrderedDict[str, SegmentedVideo]) -> None:
    video = videos.pop(job, None)
    if video is not None:
        video.close()
