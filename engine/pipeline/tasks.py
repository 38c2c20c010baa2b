"""The tasks of a worker: to survey a video, to adapt to a scene, to compute a segment, and to join; or all at once.

Tasks and the messages about them are plain data, so that a worker can be another process or another machine;
`task_runner.py` does them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from .adaptation import AdaptSettings
from .outline import Outline
from .request import UpscaleRequest

PROGRESS = "progress"  # the kind of the messages that do not end a task; the value is a number of input frames

TaskKind = Literal["survey", "adapt", "segment", "join", "whole"]


class Task(NamedTuple):
    """A task of one video."""

    video: str  # its name among the videos that the same workers compute
    kind: TaskKind
    request: UpscaleRequest
    number: int = 0  # of the segment, or of the scene that is learned
    began: float = 0.0  # when the first task of the video did, in seconds since the epoch
    store: str | None = None  # folder of the unfinished parts; None: beside the output
    adapt: AdaptSettings | None = None  # None: the bundles are used as they are


class Surveyed(NamedTuple):
    """The answer to a survey."""

    outline: Outline
    finished: Sequence[int]  # segments
    units: tuple[int, ...] = ()  # what each segment has its weights from (`AdaptSettings.unit_of`); empty: not adapted
    learned: Sequence[int] = ()  # those of them that are learned


class Failure(NamedTuple):
    """The error by which a task has failed."""

    code: str  # of its class
    sentence: str


Send = Callable[[tuple[str, Any]], None]
