"""Which encoder, pixel format and options a video is written with."""

from collections.abc import Mapping
from dataclasses import dataclass

import av

from ..contract.errors import MediaError
from .color import planar_format

CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv", ".webm")  # those that keep timestamps, rotation and colour tags

# Visually near lossless.
_CRF = {"libx264": 16, "libx265": 18, "libvpx-vp9": 20, "libsvtav1": 20, "libaom-av1": 20}
_OPTIONS = {
    "libx264": {"preset": "medium"},
    "libx265": {"preset": "medium", "x265-params": "log-level=error"},
    "libvpx-vp9": {"deadline": "good", "cpu-used": "4", "row-mt": "1"},
}
_TAKES_ODD_SIZES = {"libvpx-vp9", "libvpx", "libaom-av1", "ffv1"}  # with subsampled chroma too

# Above this, the frames that encoders hold for looking ahead and in threads would fill gigabytes. So H.264 takes
# 1.1 GB at 7680x4320 and not 4; at 10 bits, H.265 takes 2.6 GB, as does VP9, which cannot be had for less.
_LARGE_PX = 4096 * 2304
_LARGE_OPTIONS = {
    "libx264": {
        "threads": "8",
        "refs": "1",
        "bf": "1",
        "x264-params": "rc-lookahead=4:sync-lookahead=0:sliced-threads=1",
    },
    "libx265": {
        "x265-params": "log-level=error:rc-lookahead=1:frame-threads=1:ref=1:bframes=0:b-adapt=0:cutree=0:scenecut=0"
    },
    "libvpx-vp9": {"lag-in-frames": "0", "threads": "4"},
    "libsvtav1": {"svtav1-params": "lookahead=0:lp=2"},
}


@dataclass(frozen=True)
class Encoding:
    """An encoder and how it is set."""

    codec: str
    pix_fmt: str
    options: Mapping[str, str]


def choose(
    extension: str,
    size: tuple[int, int],
    bit_depth: int,
    *,
    codec: str | None = None,
    crf: int | None = None,
    pix_fmt: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Encoding:
    """Choose what is not given: H.264 for 8 bits, H.265 for more, VP9 in WebM, and chroma as the size allows."""
    if codec is None:
        codec = _default_codec(extension, bit_depth)
    formats = _formats(codec)
    pix_fmt = _pix_fmt(codec, formats, size, bit_depth, pix_fmt)
    given = dict(options or {})
    chosen = dict(_OPTIONS.get(codec, {}))
    if size[0] * size[1] > _LARGE_PX:
        chosen.update(_LARGE_OPTIONS.get(codec, {}))
    if crf is None and not {"crf", "qp", "b", "cq"} & given.keys():
        crf = _CRF.get(codec)
    if crf is not None:
        chosen["cq" if codec.endswith("_nvenc") else "crf"] = str(crf)
    for name in given.keys() & chosen.keys():
        if name.endswith("-params"):
            given[name] = f"{chosen[name]}:{given[name]}"  # the later one wins
    return Encoding(codec, pix_fmt, {**chosen, **given})


def _default_codec(extension: str, bit_depth: int) -> str:
    if extension == ".webm":
        choices = ["libvpx-vp9", "libsvtav1"] if bit_depth <= 8 else ["libsvtav1", "libvpx-vp9"]
    else:
        choices = ["libx264"] if bit_depth <= 8 else ["libx265", "libx264"]
    for codec in choices:
        if codec in av.codecs_available:
            return codec
    raise MediaError(f"This build of FFmpeg has none of the encoders {', '.join(choices)}: name another codec.")


def _formats(codec: str) -> list[str]:
    """Return the names of the pixel formats that a video encoder takes; empty if it does not say."""
    try:
        found = av.Codec(codec, "w")
    except ValueError:
        raise MediaError(f"There is no encoder '{codec}': choose one such as libx264, libx265 or libvpx-vp9.") from None
    if found.type != "video":
        raise MediaError(f"'{codec}' is no video encoder: choose one such as libx264, libx265 or libvpx-vp9.")
    return [format.name for format in found.video_formats or ()]


def _pix_fmt(codec: str, formats: list[str], size: tuple[int, int], bit_depth: int, given: str | None) -> str:
    """Choose a pixel format; most encoders refuse odd sizes with subsampled chroma, which then is not subsampled."""
    if given is not None:
        planar_format(given)  # refuses what is no pixel format
        if formats and given not in formats:
            raise MediaError(f"{codec} does not take the pixel format '{given}': choose one of {', '.join(formats)}.")
        if not _fits(codec, given, size):
            raise MediaError(
                f"{codec} does not take the odd size {size[0]}x{size[1]} with {given}:"
                " choose an even size, or a format without subsampling such as yuv444p."
            )
        return given
    depth = "10le" if bit_depth > 8 else ""
    wanted = [f"yuv420p{depth}", f"yuv444p{depth}"]
    if codec.endswith("_nvenc") and depth:
        wanted.insert(0, "p010le")
    if depth:
        wanted.append("yuv422p10le")  # ProRes and the like
    wanted += ["yuv420p", "yuv444p", *formats]
    for name in wanted:
        if (not formats or name in formats) and _fits(codec, name, size):
            return name
    raise MediaError(f"{codec} does not take the odd size {size[0]}x{size[1]}: choose an even one or another codec.")


def _fits(codec: str, pix_fmt: str, size: tuple[int, int]) -> bool:
    format = av.VideoFormat(pix_fmt, 16, 16)
    if codec in _TAKES_ODD_SIZES or format.is_rgb:
        return True
    sub_x, sub_y = 16 // (format.chroma_width(16) or 16), 16 // (format.chroma_height(16) or 16)
    return size[0] % sub_x == 0 and size[1] % sub_y == 0
