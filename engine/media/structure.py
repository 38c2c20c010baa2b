"""Find damage that FFmpeg passes over, or names wrong, in simple formats: GIF, IVF and YUV4MPEG2."""

import os
import re
from pathlib import Path
from typing import BinaryIO

from ..contract.errors import MediaError

_ANOTHER = "holds another file"
_LONGEST_LINE = 1024  # bytes, of a header of YUV4MPEG2
# Chroma sampling and depth of YUV4MPEG2, without what follows ("420jpeg", "422p10"), and planes for each pixel.
_SAMPLING = re.compile(rb"(420|422|444alpha|444|411|mono)[a-z0-9]*?(?:p(9|10|12|14|16)|(9|10|12|16))?")
_HALVES = {b"420": (2, 2), b"422": (2, 1), b"444": (1, 1), b"411": (4, 1)}  # of the columns and rows of chroma


def check_structure(path: Path, container: str) -> None:
    """Raise MediaError if a file in one of these formats has a hole or ends within a frame.

    `container` is FFmpeg's name of the format; files in other formats are not read.
    """
    check = {"gif": _gif_fault, "ivf": _ivf_fault, "yuv4mpegpipe": _y4m_fault}.get(container)
    if check is None or not path.is_file():
        return
    with path.open("rb") as file:
        fault = check(file)
    if fault.startswith(_ANOTHER):
        raise MediaError(
            f"{path} {fault}, which cannot be read: join the original files by 'ffmpeg -f concat' instead."
        )
    if fault:
        raise MediaError(f"{path} is damaged ({fault}): copy or record it again.")


def _gif_fault(file: BinaryIO) -> str:
    """Return what is wrong with the blocks of a GIF, or nothing."""
    header = file.read(13)
    _skip_colors(file, header[10:11])
    while kind := file.read(1):
        match kind:
            case b"\x3b":  # the end
                return ""
            case b"\0":  # some programs write a terminator too many
                continue
            case b"\x21":  # an extension
                file.read(1)
            case b"\x2c":  # an image
                _skip_colors(file, file.read(9)[8:])
                file.read(1)
            case _:
                return f"it has a hole before byte {file.tell()}"
        while (length := file.read(1)) not in (b"\0", b""):
            if len(file.read(length[0])) < length[0]:
                return "it ends within a frame"
        if not length:
            return "it ends within a frame"
    return ""


def _skip_colors(file: BinaryIO, flags: bytes) -> None:
    """Skip the color table that a descriptor's flags announce."""
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), os.SEEK_CUR)


def _y4m_fault(file: BinaryIO) -> str:
    """Return what is wrong with the frames of YUV4MPEG2, or nothing."""
    header = file.readline(_LONGEST_LINE)
    frame_bytes = _y4m_frame_bytes(header)
    size = os.fstat(file.fileno()).st_size
    number = 0
    while frame_bytes and (line := file.readline(_LONGEST_LINE)):
        if line.startswith(b"YUV4MPEG2 "):
            return f"{_ANOTHER} after frame {number}{_at(number, header)}"
        if not line.startswith(b"FRAME"):
            return f"frame {number + 1} does not begin where frame {number} ends"
        if file.tell() + frame_bytes > size:
            return f"it ends within frame {number + 1}"
        file.seek(frame_bytes, os.SEEK_CUR)
        number += 1
    return ""


def _at(number: int, header: bytes) -> str:
    """Return the time of a frame of YUV4MPEG2 in words, if the header has a rate."""
    rate = re.search(rb" F([1-9]\d*):([1-9]\d*)", header)
    return f", at {number * int(rate[2]) / int(rate[1]):.3f} s" if rate else ""


def _ivf_fault(file: BinaryIO) -> str:
    """Return what is wrong with the frames of IVF, or nothing; an end within a frame is found when it is read."""
    file.seek(int.from_bytes(file.read(8)[6:], "little"))
    number = 0
    while len(head := file.read(12)) == 12:
        if head.startswith(b"DKIF"):
            return f"{_ANOTHER} after frame {number}"
        file.seek(int.from_bytes(head[:4], "little"), os.SEEK_CUR)
        number += 1
    return ""


def _y4m_frame_bytes(header: bytes) -> int:
    """Return the bytes of a frame that a header describes; 0: it is not understood."""
    fields = {field[:1]: field[1:] for field in header.split()[1:]}
    sampling = _SAMPLING.fullmatch(fields.get(b"C", b"420"))
    width, height = fields.get(b"W", b""), fields.get(b"H", b"")
    if sampling is None or not width.isdigit() or not height.isdigit():
        return 0
    w, h = int(width), int(height)
    sample_bytes = 2 if sampling[2] or sampling[3] else 1
    if sampling[1] == b"mono":
        return w * h * sample_bytes
    x, y = _HALVES[sampling[1][:3]]
    planes = 2 if sampling[1] == b"444alpha" else 1
    return (planes * w * h + 2 * -(-w // x) * -(-h // y)) * sample_bytes
