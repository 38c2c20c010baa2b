"""The end that a file declares for its video, whether its frames reach it, and what follows the last packet."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from mmap import ACCESS_READ, mmap
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ..contract.errors import MediaError
from .damage import OnDamage, RepairLog
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


class EndCheck:
    """Compares the end of a decoded video with the end that its file declares.

    A video that ends early raises MediaError; if `on_damage` is not "stop", what is missing is added to `log` instead.
    `damaged` makes the error of a video that ends before the end of its index.
    """

    def __init__(
        self,
        info: VideoInfo,
        container: InputContainer,
        stream: VideoStream,
        on_damage: OnDamage,
        log: RepairLog,
        damaged: Callable[[], MediaError],
    ) -> None:
        self._info, self._container, self._stream = info, container, stream
        self._on_damage, self._log, self._damaged = on_damage, log, damaged
        self._packet_count = 0  # of the video's packets that contain data
        self._packets_end = Fraction(0)  # seconds, the latest end of a packet of any stream
        self._packets_stop = 0  # bytes of the file up to the end of the last packet
        self.is_broken_off = False  # the file ends with damage, and declares no end

    def add(self, packet: Packet) -> None:
        """Count a packet of any stream."""
        if packet.pos is not None:
            self._packets_stop = max(self._packets_stop, packet.pos + packet.size)
        if packet.pts is not None:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            self._packets_end = max(self._packets_end, end)
        if packet.stream.index == self._stream.index:
            self._packet_count += bool(packet.size)

    def holds_another_file(self) -> bool:
        """Return whether another file begins after the packets."""
        return holds_another_file(self._info, self._packets_stop)

    def check_part(self, end: Fraction) -> bool:
        """Check a part that goes on to the end of the file by its index, and return whether it has one.

        `end` is that of the frames in seconds, here and in the other checks.
        """
        if (declared := indexed_end(self._info, self._stream)) is None:
            return False
        if end < declared.time - declared.tolerance:
            self._end_early(self._damaged(), end, declared.time)
        return True

    def check_index(self, end: Fraction) -> None:
        """Check an MP4 file, which may have fewer frames than its index lists or declares."""
        if not self._info.container.startswith("mov"):
            return
        declared, listed = indexed_end(self._info, self._stream), len(self._stream.index_entries)
        is_early = declared is not None and end < declared.time - declared.tolerance
        is_cut = is_early and not self._info.fragmented and listed < self._stream.frames
        if self._packet_count < listed or is_cut:
            self._end_early(self._damaged(), end, declared.time if declared else end)

    def check_declared(self, end: Fraction, is_damaged_after: Callable[[], bool]) -> None:
        """Check a file without an index of all frames; `is_damaged_after`: whether damage follows the last packet."""
        if lost := unread_frames(self._info, self._stream, self._packet_count):
            reason = f"{lost} of its {self._stream.frames} frames are missing"
            advice = "copy it again, or go on without them by --on-damage skip"
            error = MediaError(f"{self._info.path} is damaged ({reason}): {advice}.")
            self._end_early(error, end, end + lost / self._info.rate, reason)
            return
        declared = declared_end(self._info, self._container, self._stream)
        if declared is not None and declared.is_of_all:
            end = max(end, self._packets_end)
        is_early = declared is None or end < declared.time - 1 / self._info.rate / 2
        is_damaged = is_early and is_damaged_after()
        if declared is None:
            self.is_broken_off = is_damaged
        elif is_early and (is_damaged or end < declared.time - declared.tolerance):
            error = MediaError(
                f"{self._info.path} is cut short: it ends at {float(end):.3f} s, but declares"
                f" {float(declared.time):.3f} s; copy it again, or go on without the rest by --on-damage skip."
            )
            self._end_early(error, end, declared.time)

    def _end_early(
        self, error: MediaError, end: Fraction, declared: Fraction, reason: str = "the file is cut short"
    ) -> None:
        """Raise an error because the video ends before its declared end, in seconds, or log what is missing."""
        if self._on_damage == "stop":
            raise error
        lost = round((declared - end) * self._info.rate)
        if lost > 0:
            self._log.add("video", end, declared, "missing", reason, lost)
