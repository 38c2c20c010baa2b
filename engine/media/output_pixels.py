"""Choose the pixel format and the size of an output's frames: no less than those of the source, where that is possible.

Common players take H.264 and H.265 with 4:2:0 chroma alone. A source of RGB, such as images and GIF, therefore gets
4:2:0 chroma there; a source of YUV with more chroma keeps it, and a note says that such a file plays in fewer players.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import av

from ..contract.errors import MediaError
from .pixel_format import chroma_subsampling, has_alpha, is_rgb, video_format
from .probe import VideoInfo

# Encoders of files that everybody plays; the others make masters and pictures, which keep everything.
_H26X = ("libx264", "libx265", "h264_", "hevc_")
_FOR_PLAYERS = (*_H26X, "libvpx", "libsvtav1", "libaom", "librav1e", "av1_", "mpeg")
_WITH_ALPHA_BESIDE = (".webm", ".mkv")  # containers that store the alpha of VP8 and VP9, beside their packets
# With subsampled chroma too.
_TAKE_ODD_SIZES = {"libvpx-vp9", "libvpx", "libaom-av1", "ffv1", "rawvideo", "mjpeg", "libwebp"}
_BITS_OF_PLAYERS = 10
_CHROMA = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1", (4, 4): "4:1:0"}
# For encoders that list no formats: those that the y4m format stores, and others.
_Y4M = [f"yuv{chroma}p{depth}" for chroma in ("420", "422", "444") for depth in ("", "10le", "12le", "14le", "16le")]
_RAW = [*_Y4M, "rgb24", "rgb48le", "rgba", "rgba64le"]
_NEW_IN_FFV1 = ("yuva444p12le", "yuva422p12le", "gbrap14le", "gray14le")  # which FFmpeg 5 and 6 do not decode
_UNUSABLE = ("yuvj", "mono", "pal", "nv20", "ya", "gray", "bayer", "x2", "xv")  # beginnings of names


@dataclass(frozen=True)
class Sampling:
    """The precision that frames are stored with."""

    bits: int = 8
    chroma: tuple[int, int] = (2, 2)  # luma samples per chroma sample, (x, y)
    rgb: bool = False
    alpha: bool = False
    images: bool = False  # each frame is a file of its own


def sampling_of(pix_fmt: str) -> Sampling:
    """Return the sampling of a pixel format; of gray that of the video with the least chroma."""
    format = video_format(pix_fmt)
    bits = max((component.bits for component in format.components), default=8)
    rgb = is_rgb(pix_fmt)
    is_gray = len([component for component in format.components if not component.is_alpha]) == 1
    chroma = (2, 2) if is_gray and not rgb else chroma_subsampling(format)
    return Sampling(bits, chroma, rgb, has_alpha(pix_fmt))


def sampling_of_source(source: VideoInfo) -> Sampling:
    """Return the sampling of a source's frames."""
    found = replace(sampling_of(source.pix_fmt), alpha=source.alpha, bits=source.bit_depth)
    return replace(found, images=source.container == "images")


def choose_pixels(codec: str, suffix: str, source: Sampling, requested: str | None) -> tuple[str, list[str]]:
    """Return the pixel format of an output, and sentences about what it does not keep of the source.

    Raises MediaError if the codec does not exist, or does not take the requested format.
    """
    supported = _supported_formats(codec) or (_Y4M if suffix == ".y4m" else _RAW)
    if requested is not None:
        video_format(requested)  # raises if there is no such format
        if requested not in supported and _supported_formats(codec):
            raise MediaError(
                f"{codec} does not take the pixel format '{requested}': choose one of {', '.join(supported)}."
            )
        if has_alpha(requested) and codec.startswith("libvpx") and suffix not in _WITH_ALPHA_BESIDE:
            raise MediaError(f"{suffix[1:]} does not hold the alpha of {codec}: write .webm or .mkv.")
        return requested, []
    if codec == "gif":
        return "pal8", []
    wanted = _for_players(source) if codec.startswith(_FOR_PLAYERS) else source
    takes_alpha = suffix in _WITH_ALPHA_BESIDE if codec.startswith("libvpx") else not codec.startswith(_H26X)
    wanted = replace(wanted, alpha=source.alpha and takes_alpha)
    usable = [name for name in supported if _is_usable(name, codec)] or supported
    chosen = min(usable, key=lambda name: _cost(sampling_of(name), wanted))
    return chosen, _notes(codec, chosen, source)


def coded_size(codec: str, pix_fmt: str, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size, (width, height) in px, of the frames that an encoder takes: a larger one if needed."""
    format = video_format(pix_fmt)
    if codec in _TAKE_ODD_SIZES or format.is_rgb or format.has_palette:
        return size
    sub_x, sub_y = chroma_subsampling(format)
    return -(-size[0] // sub_x) * sub_x, -(-size[1] // sub_y) * sub_y


def _for_players(source: Sampling) -> Sampling:
    """Return the sampling with which common players show a source: 4:2:0 for one that is not YUV video."""
    if not (source.rgb or source.images):
        return source
    return replace(source, rgb=False, chroma=(2, 2), bits=min(source.bits, _BITS_OF_PLAYERS))


def _cost(format: Sampling, wanted: Sampling) -> tuple[int, ...]:
    """Return the order of preference of a format: first by what it loses, then by what it adds without need."""
    lost_chroma = sum(max(0, f - w) for f, w in zip(format.chroma, _needed_chroma(wanted), strict=True))
    added_chroma = sum(max(0, w - f) for f, w in zip(format.chroma, _needed_chroma(wanted), strict=True))
    return (
        wanted.alpha and not format.alpha,
        max(0, wanted.bits - format.bits),
        lost_chroma,
        wanted.rgb != format.rgb,
        format.alpha and not wanted.alpha,
        max(0, format.bits - wanted.bits),
        added_chroma,
    )


def _needed_chroma(wanted: Sampling) -> tuple[int, int]:
    """Return the subsampling that keeps a source's chroma; 4:2:0 has no fewer samples than 4:1:1 and 4:1:0."""
    return (2, 2) if wanted.chroma[0] == 4 else wanted.chroma


def _notes(codec: str, pix_fmt: str, source: Sampling) -> list[str]:
    output, notes = sampling_of(pix_fmt), []
    if any(f > w for f, w in zip(output.chroma, _needed_chroma(source), strict=True)):
        better = _better(codec, replace(output, chroma=source.chroma))
        why = f"which common players need: --pix-fmt {better} keeps it" if better else f"as {codec} takes no more"
        notes.append(f"The chroma of the source ({_chroma(source)}) was reduced to {_chroma(output)}, {why}.")
    if output.bits < source.bits:
        better = _better(codec, replace(output, bits=source.bits))
        why = f"which common players need: --pix-fmt {better} keeps them" if better else f"as {codec} takes no more"
        notes.append(f"The {source.bits} bits of the source were reduced to {output.bits}, {why}.")
    most_bits = 8 if "264" in codec else _BITS_OF_PLAYERS
    if codec.startswith(_H26X) and (output.chroma != (2, 2) or output.bits > most_bits):
        simple = "yuv420p" if output.bits <= 8 or most_bits == 8 else "yuv420p10le"
        notes.append(
            f"The output has {_chroma(output)} chroma and {output.bits} bits for the sake of its source, which most"
            f" phones, televisions and browsers do not play: --pix-fmt {simple} makes a file that they do."
        )
    return notes


def _better(codec: str, wanted: Sampling) -> str | None:
    """Return the format of an encoder that stores everything that is wanted, or None."""
    usable = (name for name in _supported_formats(codec) if _is_usable(name, codec))
    return next((name for name in usable if not any(_cost(sampling_of(name), wanted)[:4])), None)


def _chroma(sampling: Sampling) -> str:
    return "RGB" if sampling.rgb else _CHROMA.get(sampling.chroma, "other")


@lru_cache
def _supported_formats(codec: str) -> tuple[str, ...]:
    """Return the pixel formats that a video encoder takes; empty if FFmpeg does not list them."""
    try:
        encoder = av.Codec(codec, "w")
    except ValueError:
        raise MediaError(
            f"FFmpeg has no encoder '{codec}': choose one such as libx264, libx265 or libvpx-vp9."
        ) from None
    if encoder.type != "video":
        raise MediaError(f"'{codec}' is not a video encoder: choose one such as libx264, libx265 or libvpx-vp9.")
    return tuple(format.name for format in encoder.video_formats or ())


def _is_usable(pix_fmt: str, codec: str) -> bool:
    """Return whether a format is a candidate for a default: of at least 8 bits, with integers, and in software."""
    bits = [component.bits for component in video_format(pix_fmt).components]
    if not bits or min(bits) < 8 or any(part in pix_fmt for part in ("f16", "f32", "msb")):
        return False
    if codec == "mjpeg":
        return pix_fmt.startswith("yuvj")
    if codec == "ffv1" and pix_fmt in _NEW_IN_FFV1:
        return False
    if codec == "tiff" and not is_rgb(pix_fmt):  # which few programs show
        return False
    if codec.startswith("libvpx") and has_alpha(pix_fmt):
        return pix_fmt == "yuva420p"  # it lists more than it takes
    return not pix_fmt.startswith(_UNUSABLE)
