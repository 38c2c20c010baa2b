"""The boxes at the top level of MP4 and QuickTime files (ISO/IEC 14496-12)."""

from pathlib import Path

_HEADER_BYTES = 8  # a size of four bytes, and a type of four


def top_level_boxes(path: Path) -> list[str]:
    """Return the types of a file's boxes in order, such as ftyp, moov and mdat; they end where the file is damaged."""
    types = []
    length = path.stat().st_size
    with path.open("rb") as file:
        start = 0
        while start + _HEADER_BYTES <= length:
            file.seek(start)
            header = file.read(2 * _HEADER_BYTES)
            size = int.from_bytes(header[:4], "big")
            if size == 1:  # the size follows in eight bytes
                size = int.from_bytes(header[8:], "big")
            types.append(header[4:8].decode("latin-1"))
            if size < _HEADER_BYTES:  # 0: up to the end of the file; others are damaged
                break
            start += size
    return types
