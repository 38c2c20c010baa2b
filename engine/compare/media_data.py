"""Videos and pictures in memory, small enough to be part of a page."""

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from ..contract.errors import MediaError

_CRF = "16"  # as long as the limit of the size allows
_KEYFRAMES = 12  # frames from one to the next, so that stepping backwards is quick
_BT709 = 1  # of ITU-T H.273


class ClipEncoder:
    """Encodes frames of one size as a video of at most about `most_bytes`, if it has no more than `frames` frames."""

    def __init__(self, size: tuple[int, int], rate: Fraction, frames: int, most_bytes: int) -> None:
        codec, container, self.kind = _codec()
        self._file = io.BytesIO()
        self._container = av.open(self._file, "w", format=container)
        # The buffer, of one second, is full at first, and may be spent beside the rate.
        bits_per_s = max(1, int(8 * most_bytes / (frames / rate + 1)))
        options = {"crf": _CRF, "maxrate": str(bits_per_s), "bufsize": str(bits_per_s), "g": str(_KEYFRAMES)}
        if codec == "libx264":
            options |= {"preset": "fast", "bf": "0"}
        else:
            options |= {"deadline": "good", "cpu-used": "5", "b": str(bits_per_s)}
        stream = self._container.add_stream(codec, rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        self._stream = stream
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        self._count, self._time_base = 0, 1 / rate

    def write(self, rgb: np.ndarray) -> None:  # (H, W, 3) uint8
        """Encode a frame, an even number of pixels each way."""
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        # One thread: with more, FFmpeg's scaler now and then writes wrong samples where its slices meet.
        frame = frame.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
        )
        frame.pts, frame.time_base = self._count, self._time_base
        self._count += 1
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> bytes:
        """Return the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._file.getvalue()


def encode_picture(rgb: np.ndarray, quality: int | None) -> tuple[str, bytes]:  # (H, W, 3) uint8
    """Return the MIME type and the bytes of a picture: WebP of a quality, 1 to 100, or PNG without loss."""
    codec, pix_fmt = ("png", "rgb24") if quality is None else ("libwebp", "bgra")
    if codec not in av.codecs_available:
        codec, pix_fmt, quality = "png", "rgb24", None
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.height, encoder.width = rgb.shape[:2]
    encoder.pix_fmt, encoder.time_base = pix_fmt, Fraction(1, 25)
    if quality is not None:
        encoder.options = {"quality": str(quality)}
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt, threads=1)
    frame.pts = 0
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    return ("image/webp" if codec == "libwebp" else "image/png"), b"".join(map(bytes, packets))


def encode_below(rgb: np.ndarray, most_bytes: int, qualities: Sequence[int | None]) -> tuple[str, bytes]:
    """Return a picture as `encode_picture` does, of the first quality that makes it small enough, or of the last."""
    for quality in qualities:
        kind, content = encode_picture(rgb, quality)
        if len(content) <= most_bytes:
            break
    return kind, content


def _codec() -> tuple[str, str, str]:
    """Return an encoder whose videos browsers play, its container and the MIME type."""
    for codec, container in (("libx264", "mp4"), ("libvpx-vp9", "webm")):
        if codec in av.codecs_available:
            return codec, container, f"video/{container}"
    raise MediaError(
        "This build of FFmpeg has neither libx264 nor libvpx-vp9, for videos in a page: install PyAV again."
    )
