"""The end that a file declares for its video, and what follows the last packet."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from mmap import ACCESS_READ, mmap
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from .lost_bytes import LostBytes
from .pipes import is_pipe
from .probe import VideoInfo, tagged_duration

_STREAM_TOLERANCE_S = Fraction(1, 100)  # rounding of a stream's declared duration, beside half a frame
_CONTAINER_TOLERANCE_S = Fraction(1, 2)  # of a container's declared duration, beside two frames

# The first bytes of formats in which FFmpeg ends, or fails, at the header of a second file.
_HEADERS = {
    "flv": rb"FLV\x01.\0\0\0\x09",
    "asf": rb"0\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
    "nut": rb"nut/multimedia container\0",
    "ogg": rb"OggS\0\x02",
}
_OGG_PAGE = rb"OggS\0[\0\x01\x04\x05]"  # one that is not the first of a stream


@dataclass(frozen=True)
class DeclaredEnd:
    """A declared end of a video, in seconds on the timeline."""

    time: Fraction
    tolerance: Fraction  # seconds by which frames may end before it in a file that is whole
    is_of_all: bool = False  # it is that of the longest stream


def indexed_end(info: VideoInfo, stream: VideoStream) -> DeclaredEnd | None:
    """Return the end that the index of an MP4 file declares, or None."""
    if not info.container.startswith("mov") or not stream.frames or stream.duration is None or info.duration is None:
        return None
    time = (stream.start_time or 0) * Fraction(stream.time_base or 0) + info.duration - info.origin
    return DeclaredEnd(time, 1 / info.rate + _STREAM_TOLERANCE_S)


def declared_end(info: VideoInfo, container: InputContainer, stream: VideoStream) -> DeclaredEnd | None:
    """Return the end that a file without an index of all frames declares, or None."""
    tolerance = 1 / info.rate / 2 + _STREAM_TOLERANCE_S
    if (tagged := tagged_duration(stream)) is not None:
        return DeclaredEnd(tagged - info.origin, tolerance)
    if container.duration is None:
        return None
    # In a fragmented file FFmpeg's duration may be the end on the file's clock.
    start = 0 if info.fragmented else container.start_time or 0
    time = Fraction(start + container.duration, av.time_base) - info.origin
    return DeclaredEnd(time, 2 / info.rate + _CONTAINER_TOLERANCE_S, is_of_all=True)


def unread_frames(info: VideoInfo, stream: VideoStream, packets: int) -> int:
    """Return how many frames a damaged AVI file declares beyond its packets; 0 for others.

    In a file that is whole some chunks may be empty, and repeat a frame.
    """
    lost = stream.frames - packets
    if info.container != "avi" or lost <= 0:
        return 0
    return lost if LostBytes(info.path, info.container).are_between(0, math.inf) else 0


def holds_another_file(info: VideoInfo, position: int) -> bool:
    """Return whether another file begins in a file, after the packets up to a position in bytes.

    NUT and Ogg, whose second file FFmpeg begins to read, are searched from their own header on.
    """
    header = _HEADERS.get(info.container)
    if header is None or is_pipe(info.path):
        return False
    with Path(info.path).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        if info.container == "ogg":
            page = re.search(_OGG_PAGE, data, re.DOTALL)
            position = len(data) if page is None else page.start()
        elif info.container == "nut":
            position = 1
        return re.compile(header, re.DOTALL).search(data, position) is not None
