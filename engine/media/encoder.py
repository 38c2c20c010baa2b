"""Choose the encoder, the pixel format and the options of an output video."""

from collections.abc import Mapping
from dataclasses import dataclass

import av

from ..contract.cpus import codec_threads
from ..contract.errors import MediaError
from .output_pixels import Sampling, choose_pixels, coded_size, sampling_of_source
from .probe import VideoInfo

# Codecs of outputs that take a single one; the first that this build of FFmpeg has is used.
_CODECS = {
    ".gif": ["gif"],
    ".apng": ["apng"],
    ".avif": ["libaom-av1", "libsvtav1", "librav1e"],
    ".png": ["png"],
    ".jpg": ["mjpeg"],
    ".jpeg": ["mjpeg"],
    ".tif": ["tiff"],
    ".tiff": ["tiff"],
    ".webp": ["libwebp"],
    ".y4m": ["rawvideo"],
    ".raw": ["rawvideo"],
}
_ALPHA_CODECS = {".mov": "prores_ks", ".mkv": "ffv1", ".webm": "libvpx-vp9"}
# Visually near lossless.
_CRF = {"libx264": 16, "libx265": 18, "libvpx-vp9": 20, "libsvtav1": 20, "libaom-av1": 20}
_OPTIONS = {
    "libx264": {"preset": "medium"},
    "libx265": {"preset": "medium", "x265-params": "log-level=error"},
    "libvpx-vp9": {"deadline": "good", "cpu-used": "4", "row-mt": "1"},
    "mjpeg": {"qmin": "2", "qmax": "2"},  # of 1 to 31, lower is better
    "libwebp": {"quality": "95"},
    "png": {"compression_level": "3"},  # two percent larger than the default, in half of its time
    "tiff": {"compression_algo": "deflate"},
}

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
# Parameters of encoders that do not take the number of threads from FFmpeg.
_THREADS = {"libx265": ("x265-params", "pools"), "libsvtav1": ("svtav1-params", "lp")}


@dataclass(frozen=True)
class Encoding:
    """An encoder with its pixel format and options, by FFmpeg's names, and the size of its frames."""

    codec: str
    pix_fmt: str
    options: Mapping[str, str]
    size: tuple[int, int]  # (width, height) in px: those of the video, or even ones above them
    notes: tuple[str, ...] = ()  # sentences about what differs from the source


def choose_encoding(
    suffix: str,
    size: tuple[int, int],
    source: VideoInfo | None,
    *,
    codec: str | None = None,
    crf: int | None = None,
    pix_fmt: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Encoding:
    """Return the encoding of an output, with a default for everything that is None.

    `suffix` is that of the output, such as ".mp4", and `size` is (width, height) in px. The default codec of a video is
    H.264 up to 8 bits and H.265 above, in WebM VP9 up to 8 bits and AV1 above; for a source with alpha it is ProRes in
    .mov, FFV1 in .mkv and VP9 in .webm. The pixel format has at least the source's chroma, depth and alpha where the
    encoder takes them, and subsampled chroma for RGB sources, because common players take nothing else. A size that the
    encoder does not take becomes even. Frames above 4096x2304 get options that save memory. `options` override the
    defaults; those of a "-params" option are appended to them. Raises MediaError if the codec or pixel format does not
    exist, or if the codec does not take the pixel format.
    """
    wanted = Sampling() if source is None else sampling_of_source(source)
    if codec is None:
        codec = _default_codec(suffix, wanted)
    chosen, notes = choose_pixels(codec, suffix, wanted, pix_fmt)
    coded = coded_size(codec, chosen, size)
    if coded != size:
        notes.append(
            f"The size {size[0]}x{size[1]} was made even, {coded[0]}x{coded[1]}, by repeating the last"
            f" {_edges(size)}: {codec} takes no odd sizes in {chosen}."
        )
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
    return Encoding(codec, chosen, {**defaults, **custom}, coded, tuple(notes))


def within_quota(codec: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return the options of an encoder, with as many threads as a quota of processor time allows unless they say more.

    They are no part of an `Encoding`, so that a run can be resumed under another quota.
    """
    if (threads := codec_threads()) == 0:
        return dict(options)
    if codec not in _THREADS:
        return {"threads": str(threads), **options}
    name, parameter = _THREADS[codec]
    return {**options, name: ":".join([f"{parameter}={threads}", *([options[name]] if name in options else [])])}


def _default_codec(suffix: str, wanted: Sampling) -> str:
    fixed = _CODECS.get(suffix)
    if fixed is not None:
        candidates = fixed
    elif wanted.alpha and suffix in _ALPHA_CODECS:
        candidates = [_ALPHA_CODECS[suffix]]
    elif suffix == ".webm":
        candidates = ["libvpx-vp9", "libsvtav1"] if wanted.bits <= 8 else ["libsvtav1", "libvpx-vp9"]
    else:
        candidates = ["libx264"] if wanted.bits <= 8 else ["libx265", "libx264"]
    for codec in candidates:
        if codec in av.codecs_available:
            return codec
    raise MediaError(f"This build of FFmpeg has no encoder {' or '.join(candidates)}: choose another codec.")


def _edges(size: tuple[int, int]) -> str:
    names = [name for name, length in zip(("column", "row"), size, strict=True) if length % 2]
    return " and ".join(names)
