"""The tasks of a worker: to survey a video, to compute a segment, and to join a video; or all of it at once.

Tasks and the messages about them are plain data, so that a worker can be another process or another machine;
`task_runner.py` does them.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from .request import UpscaleRequest

PROGRESS = "progress"  # the kind of the messages that do not end a task; the value is a number of input frames


class Task(NamedTuple):
    """A task of one video."""

    video: str  # its name among the videos that the same workers compute
    kind: Literal["survey", "segment", "join", "whole"]
    request: UpscaleRequest
    number: int = 0  # of the segment
    began: float = 0.0  # when the first task of the video did, in seconds since the epoch
    store: str | None = None  # folder of the unfinished parts; None: beside the output


class Failure(NamedTuple):
    """The error by which a task has failed."""

    code: str  # of its class
    sentence: str


Send = Callable[[tuple[str, Any]], None]
