"""Judge whether a video is interlaced or telecined: by the flags of its stream and frames, and by its picture.

Flags are often wrong: film is stored as interlaced video, and interlaced video was encoded as progressive. So frames at
several times of the video are compared with their neighbours (`combing.py`), and the picture decides where it is clear.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from .combing import Combing, combing, luma
from .deinterlace import LEAST_PX, FirstField, Timed
from .opening import open_video
from .telecine import is_pulldown

_AT = (0.3, 0.55, 0.8)  # shares of the duration, besides the beginning
_FRAMES = 8  # that are compared at each time: a cycle of telecine, and the neighbours at its ends
_LONG_S = 4  # seconds; a shorter video is only read from its beginning
_STILL_IMAGES = {"gif", "apng", "png", "webp"}  # codecs without fields
_COMBED_SHARE = 0.25  # of the frames that show anything
_LEAST_COMBED = 2
_LEAST_CLEAN = 4  # progressive frames by which the flags are wrong
_LEAST_ORDER = 0.015  # slow motion, compressed strongly, leaves no more of the order of the fields
_WHOLE, _WHOLE_SHARE = 1.0, 0.4  # of telecined video three frames of five are whole
_OF_FILM = 2.5  # how much better fields of other frames fit if all frames are combed, by film that was cut a field late
_LEAST_STEPS, _PULLED_DOWN_SHARE = 5, 0.9  # frames that last 3 fields and 2 by turns
_WATCH_S = 2  # seconds between frames that are compared while a progressive video is read
_PROGRESSIVE = {0, 1}  # FFmpeg's field orders: unknown, and progressive


@dataclass(frozen=True)
class Interlacing:
    """The judgement of a video."""

    kind: Literal["progressive", "interlaced", "telecined"]
    flagged: bool = False  # the stream or a frame is flagged as interlaced
    first_field: FirstField | None = None  # by the picture; None: it is not clear
    film_rate: float | None = None  # frames per second, of frames that last 3 and 2 fields by turns, as those of a film
    only_flagged: bool = False  # some frames are flagged and others are not, and only flagged ones are combed


def judge(path: str | Path) -> Interlacing:
    """Judge a video file by some of its frames. Raises MediaError if it cannot be opened."""
    container, stream = open_video(path)
    with container:
        if (
            stream.codec_context.name in _STILL_IMAGES
            or min(stream.codec_context.width, stream.codec_context.height) < LEAST_PX
        ):
            return Interlacing("progressive")
        flags: Counter[bool] = Counter()
        combed_flags: Counter[bool] = Counter()
        seen: list[Combing] = []
        pulled_down: list[Fraction | None] = []
        for run in _runs(container, stream):
            pulled_down += _pulldown_steps(run)
            flags.update(frame.interlaced_frame for frame in run)
            pictures = [luma(frame) for frame in run]
            for number in range(1, len(run) - 1):
                measured = combing(*pictures[number - 1 : number + 2])
                seen.append(measured)
                combed_flags[run[number].interlaced_frame] += measured.verdict in ("interlaced", "telecined")
        stream_flag = stream.codec_context.field_order not in _PROGRESSIVE
    found = _judgement(seen, stream_flag, flags, combed_flags)
    steps = [step for step in pulled_down if step is not None]
    if len(steps) < max(_LEAST_STEPS, _PULLED_DOWN_SHARE * len(pulled_down)):
        return found
    return replace(found, film_rate=float(2 / median(steps)))


def _judgement(
    seen: list[Combing], stream_flag: bool, flags: Counter[bool], combed_flags: Counter[bool]
) -> Interlacing:
    moving = [one for one in seen if one.moving]
    combed = [one for one in moving if one.verdict in ("interlaced", "telecined")]
    clean = sum(one.verdict == "progressive" for one in moving)
    flagged = bool(flags[True]) or stream_flag
    is_combed = len(combed) >= max(_LEAST_COMBED, _COMBED_SHARE * (len(combed) + clean))
    is_clean = not combed and clean >= max(_LEAST_CLEAN, len(moving) / 2)
    is_clean = is_clean and abs(median(one.order for one in moving)) < _LEAST_ORDER
    if not is_combed and (is_clean or not flagged):
        return Interlacing("progressive", flagged)
    orders = [one.order > 0 for one in combed]
    first: Literal["top", "bottom"] | None = None
    if len(orders) >= _LEAST_COMBED and sum(orders) in (0, len(orders)):
        first = "top" if orders[0] else "bottom"
    if is_combed and _is_telecined(moving, combed):
        return Interlacing("telecined", flagged, first)
    trusted = bool(flags[True] and flags[False]) and not combed_flags[False]
    return Interlacing("interlaced", flagged, first, only_flagged=trusted)


def _pulldown_steps(run: list[av.VideoFrame]) -> Iterator[Fraction | None]:
    """Yield for each frame between two others the seconds between these, if one lasts 3 fields and the other 2."""
    times = [frame.pts * frame.time_base for frame in run if frame.pts is not None and frame.time_base]
    for before, pts, after in zip(times, times[1:], times[2:], strict=False):
        long, short = sorted((pts - before, after - pts), reverse=True)
        yield after - before if is_pulldown(long, short) else None


def _is_telecined(moving: list[Combing], combed: list[Combing]) -> bool:
    """Return whether the combed frames hold fields of two film frames each, and not of two moments of a video."""
    foreign = [one.foreign for one in combed if one.verdict == "telecined"]
    if 3 * len(foreign) < 2 * len(combed):
        return False
    whole = sum(one.foreign < _WHOLE for one in moving)  # frames whose fields belong together
    return whole >= _WHOLE_SHARE * len(moving) or median(foreign) > _OF_FILM


def _runs(container: InputContainer, stream: VideoStream) -> Iterator[list[av.VideoFrame]]:
    """Yield neighbouring frames at several times of the video, as far as they can be decoded."""
    stream.thread_type = "AUTO"
    duration = Fraction(container.duration or 0, av.time_base)
    start = Fraction(container.start_time or 0, av.time_base)
    with suppress(av.error.FFmpegError):
        yield list(islice(container.decode(stream), _FRAMES if duration >= _LONG_S else _FRAMES * (1 + len(_AT))))
    if duration < _LONG_S:
        return
    for share in _AT:
        with suppress(av.error.FFmpegError):
            container.seek(int((start + duration * Fraction(share)) * av.time_base))
            yield list(islice(container.decode(stream), _FRAMES))


class CombWatch:
    """Compares some frames of a video that was judged to be progressive, while it is read."""

    def __init__(self) -> None:
        self.combed: list[Fraction] = []  # times of frames that seem to be interlaced, in seconds

    @property
    def warnings(self) -> list[str]:
        """A sentence on the frames that seem to be interlaced."""
        if len(self.combed) < _LEAST_COMBED:
            return []
        return [
            f"Some frames seem to be interlaced, the first at {float(self.combed[0]):.3f} s, and their fields stay"
            " woven: --deinterlace bwdif makes progressive frames."
        ]

    def frames(self, timed: Iterable[Timed]) -> Iterator[Timed]:
        """Yield the frames as they are."""
        pictures: list[np.ndarray] = []  # of neighbouring frames
        due: Fraction | None = None  # time of the next comparison
        self.combed.clear()
        for frame, pts, duration in timed:
            due = pts if due is None else due
            if pts >= due:
                pictures.append(luma(frame))
                if len(pictures) == 3:
                    if combing(*pictures).verdict in ("interlaced", "telecined"):
                        self.combed.append(pts)
                    pictures, due = [], pts + _WATCH_S
            yield frame, pts, duration
