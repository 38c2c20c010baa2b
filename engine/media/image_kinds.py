"""The kind of an image file by its content, and what FFmpeg would pass over in it without a word."""

import struct
from pathlib import Path

# By FFmpeg's name of the decoder, the first bytes of a file.
_BEGINNINGS = {
    "png": (b"\x89PNG\r\n\x1a\n",),
    "mjpeg": (b"\xff\xd8\xff",),
    "tiff": (b"II*\0", b"MM\0*"),
    "bmp": (b"BM",),
}
HEAD_BYTES = 1 << 16  # of a file, that show its kind
_WEBP_ANIMATION = 0x02  # a flag in the header of a WebP file of several parts
_COMPRESSION, _JPEG = 259, (6, 7)  # a field of TIFF, and values of it


def image_codec(data: bytes) -> str | None:
    """Return FFmpeg's decoder of an image by its first bytes, whatever its name is; None if it is not known."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((codec for codec, heads in _BEGINNINGS.items() if data.startswith(heads)), None)


def is_animated_png(path: Path) -> bool:
    """Return whether a file is an animation in PNG: its frames are counted before the first one."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return False
    if not head.startswith(_BEGINNINGS["png"]):
        return False
    position = 8
    while position + 8 <= len(head):
        length, kind = struct.unpack_from(">I4s", head, position)
        if kind in (b"acTL", b"IDAT"):
            return bool(kind == b"acTL")
        position += 12 + length
    return False


def is_animated_webp(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of an animation in WebP."""
    return (
        image_codec(head) == "webp" and head[12:16] == b"VP8X" and len(head) > 20 and bool(head[20] & _WEBP_ANIMATION)
    )


def tiff_fault(data: bytes) -> str | None:
    """Return why FFmpeg cannot decode a TIFF that it takes, or None."""
    return "its pixels are compressed as JPEG" if _tiff_page(data).get(_COMPRESSION) in _JPEG else None


def has_more_pages(data: bytes) -> bool:
    """Return whether an image is a TIFF of several pages."""
    return bool(_tiff_page(data).get(0))


def _tiff_page(data: bytes) -> dict[int, int]:
    """Return the short fields of a TIFF's first page, and as field 0 the position of the next page."""
    if image_codec(data) != "tiff":
        return {}
    order = "<" if data[:1] == b"I" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        entries = [struct.unpack_from(order + "HHIH", data, start + 2 + 12 * index) for index in range(count)]
        (following,) = struct.unpack_from(order + "I", data, start + 2 + 12 * count)
    except struct.error:
        return {}
    return {**{tag: value for tag, _, _, value in entries}, 0: following}
