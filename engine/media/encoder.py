"""Choose the encoder, the pixel format and the options of an output video."""

from collections.abc import Mapping
from dataclasses import dataclass

import av

from ..contract.errors import MediaError
from .pixel_format import chroma_subsampling, planar_format

# Containers that store timestamps, rotation and color tags.
CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv", ".webm")

# Visually near lossless.
_CRF = {"libx264": 16, "libx265": 18, "libvpx-vp9": 20, "libsvtav1": 20, "libaom-av1": 20}
_OPTIONS = {
    "libx264": {"preset": "medium"},
    "libx265": {"preset": "medium", "x265-params": "log-level=error"},
    "libvpx-vp9": {"deadline": "good", "cpu-used": "4", "row-mt": "1"},
}
_ODD_SIZE_CODECS = {"libvpx-vp9", "libvpx", "libaom-av1", "ffv1"}  # take odd sizes with subsampled chroma too

# Above this size the frames that an encoder buffers for lookahead and threads take gigabytes. With these options H.264
# takes 1.1 GB instead of 4 GB at 7680x4320. At 10 bits H.265 takes 2.6 GB, and so does VP9, which cannot take less.
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
    """An encoder with its pixel format and options, by FFmpeg's names."""

    codec: str
    pix_fmt: str
    options: Mapping[str, str]


def choose_encoding(
    extension: str,
    size: tuple[int, int],
    bit_depth: int,
    *,
    codec: str | None = None,
    crf: int | None = None,
    pix_fmt: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Encoding:
    """Return the encoding of a video, with a default for everything that is None.

    `extension` is that of the file, such as ".mp4", and `size` is (width, height) in px. The default codec is H.264 up
    to 8 bits and H.265 above, in WebM VP9 up to 8 bits and AV1 above; chroma is subsampled if the codec takes the size
    that way. Frames above 4096x2304 get options that save memory. `options` override the defaults; those of a
    "-params" option are appended to them. Raises MediaError if the codec or pixel format does not exist, or if the
    codec does not take the pixel format or the size.
    """
    if codec is None:
        codec = _default_codec(extension, bit_depth)
    pix_fmt = _choose_pix_fmt(codec, size, bit_depth, pix_fmt)
    custom = dict(options or {})
    defaults = dict(_OPTIONS.get(codec, {}))
    if size[0] * size[1] > _LARGE_PX:
        defaults.update(_LARGE_OPTIONS.get(codec, {}))
    if crf is None and not {"crf", "qp", "b", "cq"} & custom.keys():
        crf = _CRF.get(codec)
    if crf is not None:
        defaults["cq" if codec.endswith("_nvenc") else "crf"] = str(crf)
    for name in custom.keys() & defaults.keys():
        if name.endswith("-params"):
            custom[name] = f"{defaults[name]}:{custom[name]}"  # encoders use the last value of a parameter
    return Encoding(codec, pix_fmt, {**defaults, **custom})


def _default_codec(extension: str, bit_depth: int) -> str:
    if extension == ".webm":
        candidates = ["libvpx-vp9", "libsvtav1"] if bit_depth <= 8 else ["libsvtav1", "libvpx-vp9"]
    else:
        candidates = ["libx264"] if bit_depth <= 8 else ["libx265", "libx264"]
    for codec in candidates:
        if codec in av.codecs_available:
            return codec
    raise MediaError(f"This build of FFmpeg has no encoder {' or '.join(candidates)}: choose another codec.")


def _choose_pix_fmt(codec: str, size: tuple[int, int], bit_depth: int, requested: str | None) -> str:
    """Return the requested pixel format if the codec takes it, or else one of the bit depth that fits the size.

    Most encoders refuse odd sizes with subsampled chroma; such frames get a format without subsampling.
    """
    supported = _supported_formats(codec)
    if requested is not None:
        planar_format(requested)  # raises if the format does not exist
        if supported and requested not in supported:
            raise MediaError(
                f"{codec} does not take the pixel format '{requested}': choose one of {', '.join(supported)}."
            )
        if not _takes_size(codec, requested, size):
            raise MediaError(
                f"{codec} does not take the odd size {size[0]}x{size[1]} with {requested}:"
                " choose an even size, or a format without subsampling such as yuv444p."
            )
        return requested
    depth = "10le" if bit_depth > 8 else ""
    candidates = [f"yuv420p{depth}", f"yuv444p{depth}"]
    if codec.endswith("_nvenc") and depth:
        candidates.insert(0, "p010le")
    if depth:
        candidates.append("yuv422p10le")  # for ProRes and similar codecs
    candidates += ["yuv420p", "yuv444p", *supported]
    for name in candidates:
        if (not supported or name in supported) and _takes_size(codec, name, size):
            return name
    raise MediaError(f"{codec} does not take the odd size {size[0]}x{size[1]}: choose an even size, or another codec.")


def _supported_formats(codec: str) -> list[str]:
    """Return the pixel formats that a video encoder takes; empty if FFmpeg does not list them."""
    try:
        encoder = av.Codec(codec, "w")
    except ValueError:
        raise MediaError(
            f"FFmpeg has no encoder '{codec}': choose one such as libx264, libx265 or libvpx-vp9."
        ) from None
    if encoder.type != "video":
        raise MediaError(f"'{codec}' is not a video encoder: choose one such as libx264, libx265 or libvpx-vp9.")
    return [format.name for format in encoder.video_formats or ()]


def _takes_size(codec: str, pix_fmt: str, size: tuple[int, int]) -> bool:
    format = av.VideoFormat(pix_fmt, 16, 16)
    if codec in _ODD_SIZE_CODECS or format.is_rgb:
        return True
    sub_x, sub_y = chroma_subsampling(format)
    return size[0] % sub_x == 0 and size[1] % sub_y == 0
