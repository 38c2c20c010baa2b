"""Judge whether a video is interlaced or telecined: by the flags of its stream and frames, and by its picture.

Flags are often wrong: film is stored as interlaced video, and interlaced video was encoded as progressive. So frames at
several times of the video are compared with their neighbours (`combing.py`), and the picture decides where it is clear.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from .combing import Combing, combing, luma
from .deinterlace import LEAST_PX, FirstField, Timed
from .probe import open_video

_AT = (0.3, 0.55, 0.8)  # shares of the duration, besides the beginning
_FRAMES = 8  # that are compared at each time: a cycle of telecine, and the neighbours at its ends
_LONG_S = 4  # seconds; a shorter video is only read from its beginning
_STILL_IMAGES = {"gif", "apng", "png", "webp"}  # codecs without fields
_COMBED_SHARE = 0.25  # of the frames that show anything
_LEAST_COMBED = 2
_WATCH_S = 2  # seconds between frames that are compared while a progressive video is read
_PROGRESSIVE = {0, 1}  # FFmpeg's field orders: unknown, and progressive


@dataclass(frozen=True)
class Interlacing:
    """The judgement of a video."""

    kind: Literal["progressive", "interlaced", "telecined"]
    flagged: bool = False  # the stream or a frame is flagged as interlaced
    first_field: FirstField | None = None  # by the picture; None: it is not clear
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
        for run in _runs(container, stream):
            flags.update(frame.interlaced_frame for frame in run)
            pictures = [luma(frame) for frame in run]
            for number in range(1, len(run) - 1):
                measured = combing(*pictures[number - 1 : number + 2])
                seen.append(measured)
                combed_flags[run[number].interlaced_frame] += measured.verdict in ("interlaced", "telecined")
        stream_flag = stream.codec_context.field_order not in _PROGRESSIVE
    return _judgement(seen, stream_flag, flags, combed_flags)


def _judgement(
    seen: list[Combing], stream_flag: bool, flags: Counter[bool], combed_flags: Counter[bool]
) -> Interlacing:
    verdicts = Counter(one.verdict for one in seen)
    combed, clean = verdicts["interlaced"] + verdicts["telecined"], verdicts["progressive"]
    flagged = bool(flags[True]) or stream_flag
    is_combed = combed >= max(_LEAST_COMBED, _COMBED_SHARE * (combed + clean))
    if not is_combed and not (flagged and (combed or not clean)):
        return Interlacing("progressive", flagged)
    orders = [one.order > 0 for one in seen if one.verdict in ("interlaced", "telecined")]
    first = None if len(orders) < _LEAST_COMBED or 0 < sum(orders) < len(orders) else "top" if orders[0] else "bottom"
    if verdicts["telecined"] >= 2 * verdicts["interlaced"] and combed >= _LEAST_COMBED:
        return Interlacing("telecined", flagged, first)
    trusted = bool(flags[True] and flags[False]) and not combed_flags[False]
    return Interlacing("interlaced", flagged, first, only_flagged=trusted)


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
