"""The boxes of MP4 and QuickTime files (ISO/IEC 14496-12): those at the top level, and the edit lists of tracks."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

_HEADER_BYTES = 8  # a size of four bytes, and a type of four
_MOST_EDITS = 1000  # of a track; FFmpeg and cameras write one or two
_NOTHING = -1  # the media time of an edit that shows nothing


class _Box(NamedTuple):
    kind: str  # such as ftyp, moov and mdat
    start: int  # bytes of the file, of what it holds
    end: int


def top_level_boxes(path: Path) -> list[str]:
    """Return the types of a file's boxes in order, such as ftyp, moov and mdat; they end where the file is damaged."""
    with path.open("rb") as file:
        return [box.kind for box in _boxes(file, 0, path.stat().st_size)]


def has_cut_index(path: Path) -> bool:
    """Return whether a file ends within its index, moov: FFmpeg takes what is there of it."""
    length = path.stat().st_size
    with path.open("rb") as file:
        return any(box.kind == "moov" and box.end > length for box in _boxes(file, 0, length))


def edited_duration(path: Path, track: int) -> tuple[Fraction, Fraction] | None:
    """Return the duration that the edit list of a track shows, and the unit in which it is stored, in seconds.

    Return None if there is no such list, or if it is damaged. `track` is the track's number in the file.
    """
    with path.open("rb") as file:
        for movie in _boxes(file, 0, path.stat().st_size):
            if movie.kind != "moov":
                continue
            boxes = list(_boxes(file, movie.start, movie.end))
            timescale = next((_field(file, box, 12, 20) for box in boxes if box.kind == "mvhd"), 0)
            for box in boxes:
                if box.kind == "trak" and timescale and (edits := _edits(file, box, track)) is not None:
                    return Fraction(edits, timescale), Fraction(1, timescale)
    return None


def _edits(file: BinaryIO, box: _Box, track: int) -> int | None:
    """Return the duration that the edit list of a track shows, in units of the movie, or None."""
    parts = {part.kind: part for part in _boxes(file, box.start, box.end)}
    if "tkhd" not in parts or "edts" not in parts or _field(file, parts["tkhd"], 12, 20) != track:
        return None
    for part in _boxes(file, parts["edts"].start, parts["edts"].end):
        if part.kind != "elst":
            continue
        width = 8 if _read(file, part.start, 1) else 4
        count = _read(file, part.start + 4, 4)
        if count > _MOST_EDITS or part.start + 8 + count * (2 * width + 4) > part.end:
            return None
        entries = (part.start + 8 + number * (2 * width + 4) for number in range(count))
        nothing = _NOTHING % (1 << 8 * width)
        return sum(_read(file, entry, width) for entry in entries if _read(file, entry + width, width) != nothing)
    return None


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    """Yield the boxes of a part of a file; a damaged one is the last."""
    while start + _HEADER_BYTES <= end:
        file.seek(start)
        header = file.read(2 * _HEADER_BYTES)
        size, length = int.from_bytes(header[:4], "big"), _HEADER_BYTES
        if size == 1:  # the size follows in eight bytes
            size, length = int.from_bytes(header[8:], "big"), 2 * _HEADER_BYTES
        yield _Box(header[4:8].decode("latin-1"), start + length, start + size)
        if size < _HEADER_BYTES:  # 0: up to the end of the file; others are damaged
            break
        start += size


def _field(file: BinaryIO, box: _Box, short: int, long: int) -> int:
    """Return four bytes of a box whose times have four bytes, and lie at `short`, or eight, and lie at `long`."""
    return _read(file, box.start + (long if _read(file, box.start, 1) else short), 4)


def _read(file: BinaryIO, start: int, count: int) -> int:
    """Return a number of some bytes."""
    file.seek(start)
    return int.from_bytes(file.read(count), "big")
