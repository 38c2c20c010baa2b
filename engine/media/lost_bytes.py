"""Find the positions of a file at which bytes are missing or overwritten: Matroska, FLV, AVI and MPEG-TS.

FFmpeg searches for the next intact packet there, without a word. Frames that lack at such a place are lost; frames that
lack elsewhere were never there, as in a video of variable rate.
"""

import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from av.packet import Packet

_Positions = Iterator[tuple[int, bool]]  # how far the file has been read, in bytes, and whether it is damaged there

_CLUSTER = 0x1F43B675
_SEGMENT = 0x18538067
_TRACKS, _TRACK, _TRACK_NUMBER, _BLOCK = 0x1654AE6B, 0xAE, 0xD7, 0xA3
# Elements of Matroska: the header, those of a segment, and those of a cluster, in which frames are.
_OUTER = {0x1A45DFA3, _SEGMENT, 0x114D9B74, 0x1549A966, _TRACKS, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367}
_INNER = {0xEC, 0xBF, 0xE7, 0xAB, 0xA7, 0x5854, _BLOCK, 0xA0, 0xAF}
_SEARCH = 1 << 16  # bytes
_AVI_CHUNKS = re.compile(rb"\d\d[a-z0-9]{2}|ix\d\d|idx1|JUNK|JUNQ|LIST")
_FLV_TAGS = {8, 9, 18}  # audio, video and data
_TS_LENGTHS = (188, 192, 204)  # bytes of a packet: plain, of Blu-ray, with parity
_TS_SYNC = 0x47
_TS_PACKETS = 4096  # of one reading
_TS_SURE = 5  # packets in a row by which their length and beginning are known

_KEPT = 128  # packets whose positions are known: more than decoders keep
_OVERHEAD = 1024  # bytes of headers, and of other packets, within and after a packet
_REORDERED = 16  # packets that may be stored before others and shown after them


class LostBytes:
    """The damaged positions of a file, which is read only as far as is asked for.

    `container` is FFmpeg's name of the format, and `stream_id` the number of the video in it. Other formats, and what
    is not a file, have no known positions.
    """

    def __init__(self, path: str | Path, container: str, stream_id: int = 0) -> None:
        read: Callable[[BinaryIO], _Positions] | None = {
            "matroska,webm": _matroska,
            "flv": _flv,
            "avi": _avi,
            "mpegts": lambda file: _mpegts(file, stream_id),
        }.get(container)
        self._path, self._read = Path(path), read
        self._positions: _Positions | None = None
        self._position = 0
        self._damaged: list[int] = []

    def are_between(self, low: int, high: float) -> bool:
        """Return whether the file is damaged between two positions in bytes; infinity is its end."""
        if self._read is None or not self._path.is_file():
            return False
        if self._positions is None:
            self._positions = self._all()
        while self._position <= high and (found := next(self._positions, None)) is not None:
            self._position = found[0]
            if found[1]:
                self._damaged.append(found[0])
        return any(low <= position <= high for position in self._damaged)

    def _all(self) -> _Positions:
        assert self._read is not None
        with self._path.open("rb") as file:
            yield from self._read(file)


class PacketPositions:
    """The positions of the latest packets of a stream, by which a gap between its frames shows itself as damage."""

    def __init__(self, lost: LostBytes) -> None:
        self._lost = lost
        # Timestamps, positions and ends of packets.
        self._latest: deque[tuple[int | None, int, int]] = deque(maxlen=_KEPT)

    def add(self, packet: Packet) -> None:
        """Add a packet, in the order of decoding."""
        if packet.pos is not None and packet.pos >= 0:
            self._latest.append((packet.pts, packet.pos, packet.pos + packet.size + _OVERHEAD))

    def are_damaged(self, before: int | None, after: int) -> bool:
        """Return whether the file is damaged between the packets of two frames that are shown one after the other.

        They are named by their timestamps; a packet between them may be stored some packets before or after theirs.
        """
        if not self._latest:
            return False
        times = [pts for pts, *_ in self._latest]
        found = sorted(times.index(pts) for pts in (before, after) if pts in times) or [0]
        near = list(self._latest)[max(0, found[0] - _REORDERED) : found[-1] + _REORDERED + 1]
        return self._lost.are_between(near[0][1], near[-1][2])

    def are_damaged_after(self) -> bool:
        """Return whether the file is damaged after the latest packets, up to its end."""
        return bool(self._latest) and self._lost.are_between(
            self._latest[-min(len(self._latest), _REORDERED)][1], math.inf
        )


def ends_within_packet(path: str | Path) -> bool:
    """Return whether an MPEG-TS file ends within a packet, as a recording or a copy that was broken off."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        found = _ts_packets(file.read(_SEARCH))
        size = os.fstat(file.fileno()).st_size
    # Packets of Blu-ray begin four bytes before the byte by which they are found.
    return found is not None and (size - found[0] + (4 if found[1] == 192 else 0)) % found[1] != 0


def _matroska(file: BinaryIO) -> _Positions:
    size = os.fstat(file.fileno()).st_size
    position, end = 0, None  # end of the cluster, if its size is stated
    tracks: set[int] = set()
    while position < size:
        file.seek(position)
        head = file.read(16)
        kind, length, header = _element(head)
        is_outer = kind in _OUTER or kind == _CLUSTER
        is_sound = is_outer or kind in _INNER
        if end is not None and (position > end or (is_outer and position != end)):
            is_sound = False  # the cluster before is longer or shorter than it says
        if kind == _TRACKS and length is not None and length <= _SEARCH:
            file.seek(position + header)
            tracks = set(_track_numbers(file.read(length)))
        if kind == _BLOCK and tracks and len(head) > header and head[header] & 0x80:
            is_sound = is_sound and head[header] & 0x7F in tracks
        if kind == _CLUSTER:
            end = None if length is None else position + header + length
        elif is_outer:
            end = None
        next_position = position + header
        if kind not in (_CLUSTER, _SEGMENT):
            is_sound = is_sound and length is not None
            next_position += length or 0
        if is_sound and next_position <= size:
            yield position, False
            position = next_position
            continue
        yield position, True
        position, end = _find(file, _CLUSTER.to_bytes(4), position + 1), None
    yield size, False


def _element(head: bytes) -> tuple[int, int | None, int]:
    """Return the kind of an element of EBML, the length of its content if it is stated, and that of its header."""
    kind_bytes = 9 - head[0].bit_length() if head[0] else 9
    if kind_bytes > 4 or len(head) <= kind_bytes or not head[kind_bytes]:
        return 0, None, 1
    length_bytes = 9 - head[kind_bytes].bit_length()
    most = (1 << 7 * length_bytes) - 1
    length = int.from_bytes(head[kind_bytes : kind_bytes + length_bytes]) & most
    return int.from_bytes(head[:kind_bytes]), None if length == most else length, kind_bytes + length_bytes


def _track_numbers(content: bytes) -> Iterator[int]:
    """Yield the numbers of the tracks that an element lists."""
    position = 0
    while position < len(content):
        kind, length, header = _element(content[position : position + 16])
        position += header
        if kind == _TRACK_NUMBER:
            yield int.from_bytes(content[position : position + (length or 0)])
        position += 0 if kind == _TRACK else length or 0


def _find(file: BinaryIO, pattern: bytes, position: int) -> int:
    """Return the position of the next occurrence of some bytes, or of the end of the file."""
    file.seek(position)
    before = b""
    while chunk := file.read(_SEARCH):
        if (found := (before + chunk).find(pattern)) >= 0:
            return position - len(before) + found
        position += len(chunk)
        before = (before + chunk)[1 - len(pattern) :]
    return position


def _flv(file: BinaryIO) -> _Positions:
    size = os.fstat(file.fileno()).st_size
    position = int.from_bytes(file.read(9)[5:]) + 4
    states_lengths = False  # each tag is followed by its length, which some programs write wrong
    while position + 11 <= size:
        file.seek(position)
        head = file.read(11)
        length = 11 + int.from_bytes(head[1:4])
        file.seek(position + length)
        stated = file.read(4)
        is_right = len(stated) == 4 and int.from_bytes(stated) == length
        if head[0] & 0x1F not in _FLV_TAGS or position + length > size or (states_lengths and not is_right):
            yield position, True
            return  # nothing marks the next tag
        yield position, False
        states_lengths = is_right
        position += length + 4
    yield size, position < size


def _avi(file: BinaryIO) -> _Positions:
    size = os.fstat(file.fileno()).st_size
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(12)
        length = int.from_bytes(head[4:8], "little")
        is_list = head[:4] == b"RIFF" or (head[:4] == b"LIST" and head[8:] in (b"movi", b"rec "))
        if not is_list and (not _AVI_CHUNKS.fullmatch(head[:4]) or position + 8 + length > size):
            yield position, True
            return  # nothing marks the next chunk
        yield position, False
        position += 12 if is_list else 8 + length + length % 2
    yield size, False


def _mpegts(file: BinaryIO, stream_id: int) -> _Positions:
    position = 0
    before = np.zeros((0, 2), np.int32)  # the counter of the latest packet of the stream
    while True:
        file.seek(position)
        data = file.read(_TS_PACKETS * max(_TS_LENGTHS))
        if (found := _ts_packets(data)) is None:
            return
        first, length = found
        if position and first:
            yield position + first, True
        count = (len(data) - first) // length
        packets = np.frombuffer(data, np.uint8, count * length, first).reshape(count, length)
        broken = np.flatnonzero(packets[:, 0] != _TS_SYNC)
        packets = packets[: broken[0]] if broken.size else packets
        numbers, counters = _counters(packets, stream_id)
        following = np.concatenate([before, counters])
        steps = np.diff(following[:, 0]) % 16
        is_lost = (steps > 1) & (following[1:, 1] == 0)
        for number in numbers[len(numbers) - len(steps) :][is_lost]:
            yield position + first + int(number) * length, True
        before = following[-1:]
        position += first + len(packets) * length
        yield position, bool(broken.size)
        if len(data) < _TS_SURE * length:
            return
        position += bool(broken.size)


def _counters(packets: np.ndarray, stream_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the packets of a stream, and for each its counter and whether that may begin again."""
    heads = packets[:, 1:6].astype(np.int32)
    pid = (heads[:, 0] & 0x1F) << 8 | heads[:, 1]
    has_payload, has_fields = heads[:, 2] & 0x10 != 0, heads[:, 2] & 0x20 != 0
    begins_again = has_fields & (heads[:, 3] > 0) & (heads[:, 4] & 0x80 != 0)
    numbers = np.flatnonzero((pid == stream_id) & has_payload)
    return numbers, np.stack([heads[numbers, 2] & 0x0F, begins_again[numbers]], -1)


def _ts_packets(data: bytes) -> tuple[int, int] | None:
    """Return where packets of MPEG-TS begin in some bytes, and their length; None if nowhere."""
    position = 0
    while (position := data.find(_TS_SYNC, position)) >= 0:
        for length in _TS_LENGTHS:
            marks = data[position : position + _TS_SURE * length : length]
            if len(marks) >= 2 and set(marks) == {_TS_SYNC}:
                return position, length
        position += 1
    return None
