"""The boxes at the top level of MP4 and QuickTime files (ISO/IEC 14496-12)."""

from collections.abc import Iterator
from pathlib import Path

_HEADER_BYTES = 8  # a size of four bytes, and a type of four


def top_level_boxes(path: Path) -> list[str]:
    """Return the types of a file's boxes in order, such as ftyp, moov and mdat; they end where the file is damaged."""
    return [kind for kind, _ in _boxes(path)]


def has_cut_index(path: Path) -> bool:
    """Return whether a file ends within its index, moov: FFmpeg takes what is there of it."""
    return any(kind == "moov" and end > path.stat().st_size for kind, end in _boxes(path))


def _boxes(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the type and the end of each box."""
    length = path.stat().st_size
    with path.open("rb") as file:
        start = 0
        while start + _HEADER_BYTES <= length:
            file.seek(start)
            header = file.read(2 * _HEADER_BYTES)
            size = int.from_bytes(header[:4], "big")
            if size == 1:  # the size follows in eight bytes
                size = int.from_bytes(header[8:], "big")
            yield header[4:8].decode("latin-1"), start + size
            if size < _HEADER_BYTES:  # 0: up to the end of the file; others are damaged
                break
            start += size
