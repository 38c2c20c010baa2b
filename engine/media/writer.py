"""Writing: frames are encoded, and all that the source held beside its pictures comes along."""

import math
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np

from ..contract.errors import MediaError
from ..contract.picture import Picture, PictureFormat
from .color import LUMA_WEIGHTS, fill, fill_planes, is_rgb, planar_format, repacked
from .encoder import CONTAINERS, choose
from .frame import FrameReader
from .partfile import PartFile
from .probe import VideoInfo, open_video, probe
from .reader import open_reader
from .remux import CopiedStreams, kept_tags
from .tags import FULL_RANGE, LIMITED_RANGE, RGB, UNSPECIFIED, Coding, ColorTags, coding_of

Source = FrameReader | str | Path

_MAX_INT = 2**31 - 1  # FFmpeg's fractions are of such integers
_FLICK = Fraction(1, 705_600_000)  # seconds; a multiple of it is near every timestamp
_MAX_SAR = 1000  # of a numerator or denominator


class VideoWriter:
    """Writes one video; a context manager, which leaves the whole file or none.

    Colour tags, aspect, rotation, metadata, chapters, audio and subtitles are the source's; `warnings` says what of
    them the container cannot hold as it is. Matroska and WebM round timestamps to milliseconds, and start at or after
    zero. Odd sizes are written without chroma subsampling, unless the encoder takes them.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        source: Source | None,
        size: tuple[int, int],  # (width, height)
        rate: Fraction,
        time_base: Fraction,
        codec: str | None = None,
        crf: int | None = None,
        encoder_options: dict[str, str] | None = None,
        pix_fmt: str | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.warnings: list[str] = []
        self._size, self._rate = size, rate
        self._time_base = _usable(time_base)
        info = _info(source, rate)
        if self.path.suffix.lower() not in CONTAINERS:
            raise MediaError(f"{self.path} must end in one of {', '.join(CONTAINERS)}: no other container is written.")
        encoding = choose(
            self.path.suffix.lower(),
            size,
            info.bit_depth if info is not None else 8,
            codec=codec,
            crf=crf,
            pix_fmt=pix_fmt,
            options=encoder_options,
        )
        self.codec, self.pix_fmt, self.options = encoding.codec, encoding.pix_fmt, dict(encoding.options)
        self._output: Any = None
        self._copied: CopiedStreams | None = None
        self._durations: dict[int, int] = {}  # ticks by pts, of frames that are in the encoder
        self._first: int | None = None  # ticks
        self._first_dts: int | None = None
        self._previous = self._end = 0  # ticks
        self._last: Any = None  # the packet whose turn comes when another follows
        self._file = PartFile(self.path, source=None if info is None else Path(info.path), overwrite=overwrite)
        try:
            with self._file.explained():
                self._open(info)
        except BaseException:
            self._abandon()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._abandon()
            return
        try:
            with self._file.explained():
                self._finish()
            self._file.publish()
        except BaseException:
            self._abandon()
            raise

    @property
    def picture_format(self) -> PictureFormat | None:
        """How a frame may be given instead of in RGB; None: in no other way."""
        if is_rgb(self.pix_fmt):
            return None
        return PictureFormat(self._planar, LUMA_WEIGHTS[self._coding.matrix], self._coding.full_range)

    def write(self, frame: Picture, pts: Fraction, duration: Fraction) -> None:
        """Encode a frame, shown from `pts` for `duration` seconds; its arrays may be reused afterwards.

        It is RGB, (3, H, W) uint16, of which 65535 is white, or planes of `picture_format`.
        """
        start, stop = self._ticks(pts), self._ticks(pts + duration)
        if self._first is None:
            self._first = start
        elif start <= self._previous:
            raise MediaError(f"A frame of {self.path} at {float(pts):.6f} s does not follow the one before it in time.")
        picture = av.VideoFrame(*self._size, self._planar)
        if isinstance(frame, tuple):
            fill_planes(picture, frame)
        else:
            assert frame.dtype == np.uint16, frame.dtype
            assert frame.shape == (3, self._size[1], self._size[0]), frame.shape
            fill(picture, frame, self._coding)
        if self._planar != self.pix_fmt:
            picture = repacked(picture, self.pix_fmt)
        self._tag(picture)
        picture.pts, picture.time_base = start, self._time_base
        self._durations[start] = stop - start
        self._previous, self._end = start, stop
        with self._file.explained():
            for packet in self._stream.encode(picture):
                self._mux(packet)

    def _open(self, info: VideoInfo | None) -> None:
        """Set up every stream; the header is written with the first packet."""
        self._planar = planar_format(self.pix_fmt)
        tags = info.color if info is not None else ColorTags()
        # The matrix that the source's tags mean is written out: what is untagged would mean another one at this size.
        height = info.height if info is not None else self._size[1]
        coding = coding_of(tags, height, info.pix_fmt if info is not None else "yuv420p")
        if info is None or info.container == "images" or is_rgb(info.pix_fmt):
            coding = Coding(coding_of(ColorTags(), self._size[1], "yuv420p").matrix, full_range=False)
        full_range = coding.full_range or is_rgb(self.pix_fmt) or self.pix_fmt.startswith("yuvj")
        self._coding = Coding(coding.matrix, full_range)
        self._tags = ColorTags(
            RGB if is_rgb(self.pix_fmt) else tags.matrix if tags.matrix not in (RGB, UNSPECIFIED) else coding.matrix,
            tags.primaries,
            tags.transfer,
            FULL_RANGE if full_range else LIMITED_RANGE,
        )
        self._output = av.open(str(self._file.part), "w", container_options=self._container_options(info))
        self._stream = self._add_video(info)
        if info is not None and Path(info.path).is_file():
            self._copied = CopiedStreams(Path(info.path), self._output, self.warnings)

    def _container_options(self, info: VideoInfo | None) -> dict[str, str]:
        if self.path.suffix.lower() in (".mkv", ".webm"):
            return {}
        # Edit lists count in this: with milliseconds, the default, the first frame would move.
        ticks = self._time_base.denominator
        rates = (
            [] if info is None else [int(s.detail.split()[0]) for s in info.streams if s.kind == "audio" and s.detail]
        )
        common = math.lcm(ticks, *rates)
        return {"movie_timescale": str(common if common <= _MAX_INT else ticks)}

    def _add_video(self, info: VideoInfo | None) -> Any:
        try:
            stream = self._output.add_stream(self.codec, rate=self._rate, width=self._size[0], height=self._size[1])
        except ValueError as error:
            raise MediaError(
                f"{self.path.suffix} files do not hold {self.codec}: choose another codec or .mkv."
            ) from error
        context = stream.codec_context
        context.pix_fmt = self.pix_fmt
        context.time_base = stream.time_base = self._time_base
        context.colorspace, context.color_range = self._tags.matrix, self._tags.range
        context.color_primaries, context.color_trc = self._tags.primaries, self._tags.transfer
        if self.codec == "libx265" and self.path.suffix.lower() in (".mp4", ".m4v", ".mov"):
            context.codec_tag = "hvc1"  # the one that Apple's players take
        if info is not None:
            context.sample_aspect_ratio = aspect = _aspect(info, self._size)
            if aspect != 1 and self.path.suffix.lower() == ".webm":
                self.warnings.append(f"The pixel aspect {aspect} was left out: it cannot be written to webm.")
            if info.display_matrix is not None:
                stream.set_display_matrix(info.display_matrix)
            self._copy_tags(stream, info)
        if "threads" in self.options:
            context.thread_count = int(self.options.pop("threads"))
        context.options = dict(self.options)
        try:
            context.open()
        except av.error.FFmpegError as error:
            raise MediaError(
                f"{self.codec} refuses {self._size[0]}x{self._size[1]} {self.pix_fmt} with the options"
                f" {self.options} ({error.strerror}): change them."
            ) from error
        if context.options:
            raise MediaError(f"{self.codec} has no option '{next(iter(context.options))}': leave it out.")
        return stream

    def _copy_tags(self, stream: Any, info: VideoInfo) -> None:
        if Path(info.path).is_file():
            container, original = open_video(info.path)
            with container:
                stream.metadata.update(kept_tags(original.metadata, self._output.format.name))
                stream.disposition = original.disposition.value

    def _tag(self, picture: Any) -> None:
        picture.colorspace, picture.color_range = self._tags.matrix, self._tags.range
        picture.color_primaries, picture.color_trc = self._tags.primaries, self._tags.transfer

    def _ticks(self, time: Fraction) -> int:
        return round(time / self._time_base)

    def _mux(self, packet: Any) -> None:
        """Write the packet before this one, and the other streams up to it."""
        packet.duration = self._durations.pop(packet.pts)
        if self._first_dts is None:
            self._first_dts = packet.dts
        previous, self._last = self._last, packet
        if previous is not None:
            self._write_packet(previous)

    def _write_packet(self, packet: Any) -> None:
        if self._copied is not None:
            self._copied.pump(packet.dts * self._time_base)
        self._output.mux_one(packet)

    def _finish(self) -> None:
        for packet in self._stream.encode(None):
            self._mux(packet)
        if self._last is None:
            raise MediaError(f"No frame was written to {self.path}: the input has none.")
        if self.path.suffix.lower() not in (".mkv", ".webm"):
            self._settle_end(self._last)
        self._write_packet(self._last)
        if self._copied is not None:
            self._copied.pump(None)
            self._copied.close()
        self._output.close()

    def _settle_end(self, last: Any) -> None:
        """Let durations in decoding order, which are what MP4 stores, sum to the video's.

        The last packet to be decoded may be shown earlier than others, and it must not seem to end after them.
        """
        assert self._first is not None
        assert self._first_dts is not None
        length = self._end - self._first
        duration = length - (last.dts - self._first_dts)
        if last.pts + duration > self._end:
            last.dts = last.pts
            duration = length - (last.dts - self._first_dts)
        last.duration = max(1, duration)

    def _abandon(self) -> None:
        """Close what is open and delete the unfinished file."""
        with suppress(Exception):
            if self._copied is not None:
                self._copied.close()
        with suppress(Exception):
            if self._output is not None:
                self._output.close()
        self._file.discard()


def _info(source: Source | None, rate: Fraction) -> VideoInfo | None:
    if source is None:
        return None
    if isinstance(source, str | Path):
        return open_reader(source, fps=rate).info if Path(source).is_dir() else probe(source)
    return source.info


def _usable(time_base: Fraction) -> Fraction:
    """Return the time base, or a fine one where FFmpeg's fractions cannot hold it."""
    return time_base if max(time_base.numerator, time_base.denominator) <= _MAX_INT else _FLICK


def _aspect(info: VideoInfo, size: tuple[int, int]) -> Fraction:
    """Return the pixel aspect that shows the output in the input's proportions."""
    change = Fraction(info.width * size[1], info.height * size[0])
    if abs(change - 1) < Fraction(1, 100):  # the rounding of sizes
        return info.sample_aspect_ratio
    return (info.sample_aspect_ratio * change).limit_denominator(_MAX_SAR)
