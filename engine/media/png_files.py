"""The structure of PNG files, which needs no decoder: their sizes, and where one ends and the next begins."""

import struct
from collections.abc import Iterator

from ..contract.errors import MediaError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">8sI4sII")  # signature, length and type of the first chunk, width and height
_CHUNK = struct.Struct(">I4s")  # length and type; the data and a checksum of four bytes follow


def png_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in an image's header. Raises MediaError for what is no PNG image."""
    if len(data) >= _HEADER.size:
        signature, _, kind, width, height = _HEADER.unpack_from(data)
        if signature == _SIGNATURE and kind == b"IHDR":
            return width, height
    raise MediaError("A frame is no PNG image: send PNG files, or name the format of raw frames.")


def split_pngs(data: bytes) -> Iterator[bytes]:
    """Yield the images of PNG files that follow each other. Raises MediaError for anything else."""
    start = 0
    while start < len(data):
        png_size(data[start : start + _HEADER.size])
        end, kind = start + len(_SIGNATURE), b""
        while kind != b"IEND":
            if end + _CHUNK.size > len(data):
                raise MediaError("The last PNG image is not complete: send all of it.")
            length, kind = _CHUNK.unpack_from(data, end)
            end += _CHUNK.size + length + 4
        if end > len(data):
            raise MediaError("The last PNG image is not complete: send all of it.")
        yield data[start:end]
        start = end
