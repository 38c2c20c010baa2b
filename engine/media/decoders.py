"""Choose the decoder of a video stream: FFmpeg's own, one that returns alpha too, or a GPU's decoding unit."""

from contextlib import suppress

import av
from av.codec.hwaccel import HWAccel
from av.video.stream import VideoStream

from .options import ReadOptions

# Decoders of codecs whose alpha FFmpeg's own decoders leave out.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
# FFmpeg's decoders that pass a stream on to a unit, or decode it themselves where the unit does not serve it. Their
# standards define every sample, so that a unit decodes the same ones.
_WITH_UNITS = ("h264", "hevc", "vp8", "vp9")


def decoder_of(stream: VideoStream, options: ReadOptions) -> tuple[av.VideoCodecContext, str | None]:
    """Return a decoder of a stream, which returns alpha too if the stream has any, and a warning about it.

    The warning states why no decoding unit is used although `options` demand one.
    """
    takes_unit = options.hwaccel != "none" and options.on_damage == "stop"  # a unit conceals damage in its own way
    decoder, reason = _choose(stream, takes_unit)
    if reason is None or options.hwaccel != "cuda":
        return decoder, None
    return decoder, f"The GPU's decoder is not used ({reason}): the CPU decodes."


def _choose(stream: VideoStream, takes_unit: bool) -> tuple[av.VideoCodecContext, str | None]:
    """Return a decoder, and why it is none with a unit."""
    own = stream.codec_context
    codec = own.codec.canonical_name
    if has_coded_alpha(stream) and codec in _WITH_ALPHA:
        with suppress(ValueError):  # this build of FFmpeg lacks it
            return _copied(own, _WITH_ALPHA[codec]), "it does not decode alpha"
    if not takes_unit or own.codec.name not in _WITH_UNITS:
        return own, f"it does not decode {codec}"
    try:
        decoder = _copied(own, own.codec.name, HWAccel("cuda", allow_software_fallback=True))
    except (av.error.FFmpegError, OSError) as error:
        return own, f"there is none here: {getattr(error, 'strerror', None) or error}"
    if not decoder.is_hwaccel:
        return own, f"this build of FFmpeg does not use it for {codec}"
    decoder.thread_type, decoder.thread_count = "NONE", 1
    return decoder, None


def _copied(own: av.VideoCodecContext, name: str, unit: HWAccel | None = None) -> av.VideoCodecContext:
    """Return another decoder with the parameters of a stream's own."""
    decoder = av.CodecContext.create(name, "r", unit)
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.extradata, decoder.thread_type, decoder.thread_count = own.extradata, own.thread_type, own.thread_count
    decoder.width, decoder.height, decoder.reorder_depth = own.width, own.height, own.reorder_depth
    return decoder


def has_coded_alpha(stream: VideoStream) -> bool:
    """Return whether Matroska or WebM states that a stream has alpha beside its packets."""
    return any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())
