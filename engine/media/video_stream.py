"""Encode the frames of an output's video stream into packets with exact times."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ..contract.errors import MediaError
from ..contract.picture import Picture, PictureFormat
from .color import fill, fill_planes
from .encoder import Encoding, within_quota
from .hdr import hdr_options
from .metadata import lasting_metadata
from .opening import open_video
from .palette import Palette
from .pixel_format import has_alpha, is_rgb, planar_format, repack
from .probe import VideoInfo, has_streams
from .tags import FULL_RANGE, LIMITED_RANGE, LUMA_WEIGHTS, RGB, UNSPECIFIED, Coding, ColorTags, coding_of
from .thread_priority import keep_priority

MILLISECONDS = 1000  # ticks per second of Matroska and WebM
_MAX_INT = 2**31 - 1  # FFmpeg's fractions have numerators and denominators up to this
_FLICK = Fraction(1, 705_600_000)  # seconds; so short that rounding timestamps to it does not matter
_LARGEST_TIMESCALES = {"mpeg4": 65535, "h263p": 65535}  # by FFmpeg's name of the codec
_FIXED_RATES = ("mpeg1video", "mpeg2video")
_USUAL_DELAY = 64  # frames from the decoding of one to its presentation, at most
_MAX_ASPECT_TERM = 1000  # of the numerator and denominator of a pixel aspect


class EncodedStream:
    """The video stream of an output file: its colors, its encoder, and the times of its packets.

    Color tags, pixel aspect, rotation and metadata come from `source`. Properties that the container does
    not support are reported in `warnings`. Raises MediaError if the container does not support the codec, or if the
    codec refuses the size, the pixel format or an option.
    """

    def __init__(
        self,
        output: OutputContainer,
        encoding: Encoding,
        *,
        path: Path,
        source: VideoInfo | None,
        size: tuple[int, int],  # (width, height)
        rate: Fraction,
        time_base: Fraction,
        warnings: list[str],
    ) -> None:
        options = hdr_options(encoding.codec, None if source is None else source.hdr, encoding.options)
        self._options = within_quota(encoding.codec, options)
        self._path, self._encoding, self._time_base = path, encoding, time_base
        self._codec, self._pix_fmt = encoding.codec, encoding.pix_fmt
        self._coding, self._tags = _output_colors(source, size[1], encoding.pix_fmt)
        self._durations: dict[int, int] = {}  # ticks by timestamp, of the frames in the encoder
        self._first: int | None = None  # ticks, of the first frame
        self._first_dts: int | None = None  # ticks, of the first packet
        self._previous_dts: int | None = None  # ticks, of the packet before `_last`
        self._previous = self._end = 0  # ticks, start and end of the latest frame
        self._previous_pts = Fraction(0)  # seconds
        self._last: Packet | None = None  # kept until the next packet, because `finish` may change the last one
        self._usual_delay = round(_USUAL_DELAY / rate / time_base)  # ticks
        self._stream = self._add_stream(output, rate)
        self.has_alpha = has_alpha(self._pix_fmt)  # true if `encode` takes alpha
        self._palette: Palette | None = None
        if encoding.codec == "gif":
            self.has_alpha = source is not None and source.alpha
            self._palette = Palette(encoding.size, time_base, self.has_alpha)
        if source is not None:
            self._stream.codec_context.sample_aspect_ratio = pixel_aspect(source, size)
            copy_properties(self._stream, output, source, path, size, warnings)
        self._open_encoder()

    @property
    def picture_format(self) -> PictureFormat | None:
        """The YUV format that `encode` takes besides RGB; None if it takes only RGB."""
        if is_rgb(self._pix_fmt) or self.has_alpha:
            return None
        return PictureFormat(planar_format(self._pix_fmt), LUMA_WEIGHTS[self._coding.matrix], self._coding.full_range)

    @property
    def end(self) -> Fraction:
        """The end of the latest frame in seconds."""
        return self._end * self._time_base

    @property
    def has_frames(self) -> bool:
        """True once a frame was encoded."""
        return self._first is not None

    def encode(self, frame: Picture, pts: Fraction, duration: Fraction) -> Iterator[Packet]:
        """Encode a frame that is displayed from `pts` for `duration`, in seconds; yield the packets to write.

        The frame is RGB, (3, H, W) uint16, of which 65535 is white, RGB and straight alpha, (4, H, W), or the planes of
        `picture_format`. Raises MediaError unless `pts` is after that of the previous frame.
        """
        start, end = self._ticks(pts), self._ticks(pts + duration)
        if self._first is None:
            self._first = start
        elif pts <= self._previous_pts:
            raise MediaError(
                f"The frame of {self._path} at {float(pts):.6f} s does not follow the previous frame in time:"
                " write frames with increasing timestamps."
            )
        else:
            start = max(start, self._previous + 1)  # frames may be closer than a tick
        end = max(end, start + 1)
        converted = encoder_frame(frame, self._encoding, self._coding, self._tags)
        converted.pts, converted.time_base = start, self._time_base
        self._durations[start] = end - start
        self._previous, self._previous_pts, self._end = start, pts, end
        for ready in [converted] if self._palette is None else self._palette.apply(converted):
            for packet in self._stream.encode(ready):
                yield from self._delay(packet)

    def finish(self) -> Iterator[Packet]:
        """Flush the encoder; yield the remaining packets. Raises MediaError if no frame was encoded."""
        for ready in [] if self._palette is None else self._palette.finish():
            for packet in self._stream.encode(ready):
                yield from self._delay(packet)
        for packet in self._stream.encode(None):
            yield from self._delay(packet)
        if self._last is None:
            raise MediaError(f"No frame was written to {self._path}: choose an input that has frames.")
        if not stores_milliseconds(self._path):
            assert self._first is not None
            assert self._first_dts is not None
            align_end(self._last, self._first, self._first_dts, self._previous_dts, self._end)
        yield self._last

    def _delay(self, packet: Packet) -> Iterator[Packet]:
        """Set the duration of a packet and keep it; yield the packet before it."""
        assert packet.pts is not None
        packet.duration = self._durations.pop(packet.pts)
        assert self._first is not None
        earliest = self._first - max(self._previous - self._first, self._usual_delay)
        if packet.dts is None or not earliest <= packet.dts <= packet.pts:
            packet.dts = packet.pts  # libx265 leaves it undefined in videos of one or two frames
        if self._first_dts is None:
            self._first_dts = packet.dts
        previous, self._last = self._last, packet
        if previous is not None:
            self._previous_dts = previous.dts
            yield previous

    def _ticks(self, time: Fraction) -> int:
        return round(time / self._time_base)

    def _add_stream(self, output: OutputContainer, rate: Fraction) -> VideoStream:
        try:
            width, height = self._encoding.size
            stream = output.add_stream(self._codec, rate=rate, width=width, height=height)
        except ValueError as error:
            raise MediaError(
                f"{self._path.suffix} files do not support {self._codec}: choose another codec, or .mkv."
            ) from error
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.pix_fmt = self._pix_fmt
        context.time_base = stream.time_base = self._time_base
        context.colorspace, context.color_range = self._tags.matrix, self._tags.range
        context.color_primaries, context.color_trc = self._tags.primaries, self._tags.transfer
        if (tag := codec_tag(context.codec.canonical_name, self._path)) is not None:
            context.codec_tag = tag
        return stream

    def _open_encoder(self) -> None:
        context = self._stream.codec_context
        if "threads" in self._options:
            context.thread_count = int(self._options.pop("threads"))
        context.options = dict(self._options)
        codec = context.codec.canonical_name  # PyAV 19 forgets it when the encoder does not open
        try:
            with keep_priority():
                context.open()
        except av.error.FFmpegError as error:
            if (limit := _LARGEST_TIMESCALES.get(codec, _MAX_INT)) < self._time_base.denominator:
                raise MediaError(
                    f"{self._codec} counts at most {limit} units of time a second, and the video has"
                    f" {self._time_base.denominator}: choose another codec, such as libx264, or .mkv."
                ) from error
            if codec in _FIXED_RATES:
                raise MediaError(
                    f"{self._codec} stores no times, and only some frame rates: choose another codec, such as libx264."
                ) from error
            raise MediaError(
                f"{self._codec} refuses {self._encoding.size[0]}x{self._encoding.size[1]} {self._pix_fmt} with the"
                f" options {self._options} ({error.strerror}): change them."
            ) from error
        if context.options:  # options that the encoder has not used
            raise MediaError(f"{self._codec} has no option '{next(iter(context.options))}': leave it out.")


def encoder_frame(picture: Picture, encoding: Encoding, coding: Coding, tags: ColorTags) -> av.VideoFrame:
    """Return a frame in an encoder's pixel format and size, with color tags; for a palette the colors before it.

    The picture is RGB, (3, H, W) uint16, RGB and straight alpha, (4, H, W), or the planes of the pixel format.
    """
    planar = planar_format(encoding.pix_fmt)
    frame = av.VideoFrame(*encoding.size, planar)
    if isinstance(picture, tuple):
        fill_planes(frame, picture)
    else:
        assert picture.dtype == np.uint16, picture.dtype
        assert picture.ndim == 3, picture.shape
        assert len(picture) in (3, 4), picture.shape
        assert all(0 <= c - n < 4 for c, n in zip(encoding.size, picture.shape[:0:-1], strict=True)), picture.shape
        fill(frame, picture, coding)
    if planar != encoding.pix_fmt and encoding.codec != "gif":
        frame = repack(frame, encoding.pix_fmt)
    frame.colorspace, frame.color_range = tags.matrix, tags.range
    frame.color_primaries, frame.color_trc = tags.primaries, tags.transfer
    return frame


def codec_tag(codec: str, path: Path) -> str | None:
    """Return the tag of a codec, by FFmpeg's name of it, in a file; None: the muxer's own choice."""
    # Apple's players take H.265 only with this tag.
    return "hvc1" if codec == "hevc" and path.suffix.lower() in (".mp4", ".m4v", ".mov") else None


def copy_properties(
    stream: VideoStream,
    output: OutputContainer,
    source: VideoInfo,
    path: Path,
    size: tuple[int, int],
    warnings: list[str],
) -> None:
    """Copy the rotation, metadata and disposition of the source's video stream to that of an output."""
    aspect = pixel_aspect(source, size)
    if aspect != 1 and path.suffix.lower() == ".webm":
        warnings.append(f"The pixel aspect {aspect} was left out: webm does not support it.")
    if source.display_matrix is not None:
        stream.set_display_matrix(source.display_matrix)
    if has_streams(source):
        container, original = open_video(source.path)
        with container:
            stream.metadata.update(lasting_metadata(original.metadata, output.format.name))
            stream.disposition = original.disposition


def align_end(last: Packet, first: int, first_dts: int, previous_dts: int | None, end: int) -> None:
    """Make the durations in decoding order, which MP4 stores, add up to the duration of the video, all in ticks.

    The last packet in decoding order may be displayed before others; its end must not lie after theirs.
    """
    assert last.pts is not None
    assert last.dts is not None
    decoding_end = first_dts + end - first
    last.duration = max(1, min(decoding_end - last.dts, end - last.pts))
    if previous_dts is None or decoding_end - last.duration > previous_dts:
        last.dts = decoding_end - last.duration


def _output_colors(source: VideoInfo | None, height: int, pix_fmt: str) -> tuple[Coding, ColorTags]:
    """Return the coding and the color tags of an output with a height in px and a pixel format.

    The source's matrix is tagged even where the source has no tag: players choose the matrix of an untagged video by
    its height, and upscaling changes the height. RGB and image sources get the conventional matrix of the output.
    """
    tags = ColorTags() if source is None else source.color
    if source is None or source.container == "images" or is_rgb(source.pix_fmt):
        coding = Coding(coding_of(ColorTags(), height, "yuv420p").matrix, full_range=False)
    else:
        coding = coding_of(tags, source.height, source.pix_fmt)
    full_range = coding.full_range or is_rgb(pix_fmt) or pix_fmt.startswith("yuvj")
    matrix = coding.matrix if tags.matrix in (RGB, UNSPECIFIED) else tags.matrix
    return Coding(coding.matrix, full_range), ColorTags(
        RGB if is_rgb(pix_fmt) else matrix,
        tags.primaries,
        tags.transfer,
        FULL_RANGE if full_range else LIMITED_RANGE,
    )


def stores_milliseconds(path: Path) -> bool:
    """Return whether the container rounds times to milliseconds, as Matroska and WebM do."""
    return path.suffix.lower() in (".mkv", ".webm")


def output_time_base(path: Path, time_base: Fraction) -> Fraction:
    """Return the time base in which a file stores the frames of a video with this one, both in seconds.

    It is milliseconds in Matroska and WebM, and a fine one if FFmpeg's fractions cannot store that of the video.
    """
    if stores_milliseconds(path):
        return Fraction(1, MILLISECONDS)
    return time_base if max(time_base.numerator, time_base.denominator) <= _MAX_INT else _FLICK


def pixel_aspect(source: VideoInfo, size: tuple[int, int]) -> Fraction:
    """Return the pixel aspect with which an output of this size keeps the proportions of the source."""
    change = Fraction(source.width * size[1], source.height * size[0])
    if abs(change - 1) < Fraction(1, 100):  # from rounding the size to whole pixels
        return source.sample_aspect_ratio
    return (source.sample_aspect_ratio * change).limit_denominator(_MAX_ASPECT_TERM)
