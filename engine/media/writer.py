"""Write a video file: encoded frames, and the source's other streams and metadata."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet

from ..contract.errors import MediaError
from ..contract.picture import Picture, PictureFormat
from .damage import OnDamage, Repair
from .destination import ANIMATIONS, CONTAINERS, GIF_RATE, PICTURES_ALONE, Destination, read_destination
from .encoder import choose_encoding
from .frame import FrameReader
from .hdr import hdr_warnings
from .image_files import is_images
from .metadata import timecode_at_rate
from .orientation import turn_upright, upright_info, upright_size
from .output_file import OutputFile
from .partfile import PartFile
from .pipes import PipeOutput
from .probe import VideoInfo, has_streams, probe
from .reader import open_reader
from .remux import CopiedStreams
from .video_stream import MILLISECONDS, EncodedStream, output_time_base, stores_milliseconds

Source = FrameReader | VideoInfo | str | Path

_GIF_TICK = Fraction(1, 100)  # seconds
_WITHOUT_ROTATION = (*PICTURES_ALONE, ".ts")  # the frames themselves are turned
_MAX_TIMESCALE = 2**31 - 1  # a signed 32-bit integer in FFmpeg
_BUFFER_BYTES = 1 << 18  # of one write; raw video through a pipe takes many


class VideoFile(OutputFile):
    """A video file with the other streams of its source.

    The base class of the two ways to write one: `VideoWriter` encodes frames, `JoinedVideo` takes encoded segments.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        source: VideoInfo | None,
        codec: str,  # FFmpeg's name of the encoder
        rate: Fraction,  # nominal frames per second
        time_base: Fraction,  # seconds
        overwrite: bool,
        on_damage: OnDamage = "stop",
        part_folder: Path | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        if destination.kind in ("image", "images"):
            raise MediaError(
                f"{destination.path} must end in one of {', '.join((*CONTAINERS, *ANIMATIONS))}: choose one of these."
            )
        path = Path(f"pipe{destination.suffix}") if destination.kind == "pipe" else destination.path
        if stores_milliseconds(path) and rate > MILLISECONDS:
            raise MediaError(
                f"{path} cannot store {float(rate):g} frames per second, as Matroska counts milliseconds: choose .mp4."
            )
        self._destination = destination
        self.path, self.codec = path, codec
        self.warnings: list[str] = list(warnings)
        self._source, self._rate = source, rate
        self._time_base = output_time_base(path, time_base)
        self._on_damage = on_damage
        self._copied: CopiedStreams | None = None
        original = None if source is None else Path(source.path)
        file: PartFile | PipeOutput
        if destination.kind == "pipe":
            file = PipeOutput(destination.path)
        else:
            file = PartFile(path, source=original, overwrite=overwrite, folder=part_folder)
        self._target = file.target
        super().__init__(file)

    @property
    def repairs(self) -> list[Repair]:
        """Damage of the other streams that was repaired."""
        return [] if self._copied is None else self._copied.log.repairs

    def _add_video(self, output: OutputContainer, source: VideoInfo | None) -> None:
        """Add the video stream to the output."""
        raise NotImplementedError

    def _last_packets(self) -> Iterator[Packet]:
        """Yield the video packets that remain at the end."""
        raise NotImplementedError

    def _video_end(self) -> Fraction:
        """Return the end of the video in seconds, after its last packet."""
        raise NotImplementedError

    def _open(self) -> None:
        """Set up every stream, and write the header."""
        source = self._source
        self._output = av.open(
            self._target,
            "w",
            format=self._destination.muxer,
            container_options=self._muxer_options(),
            buffer_size=_BUFFER_BYTES,
        )
        self._add_video(self._output, source)
        if source is not None:
            self.warnings += hdr_warnings(self.codec, source.color, source.hdr)
        if source is not None and has_streams(source):
            self._copy_streams(source, self._output)
        self._set_timecodes(self._output)
        self._output.start_encoding()  # a muxer that refuses the video does so now, and not after the last frame

    def _copy_streams(self, source: VideoInfo, output: OutputContainer) -> None:
        """Set up the other streams of the source, or report them if the format holds pictures alone."""
        suffix = self._destination.suffix
        if suffix in PICTURES_ALONE:
            for stream in source.streams:
                self.warnings.append(
                    f"The {stream.kind} stream {stream.index} ({stream.codec}) was left out: {suffix[1:]} holds"
                    " pictures alone."
                )
            return
        copied = CopiedStreams(source, output, self.warnings, self._on_damage)
        if copied.is_empty:
            copied.close()  # or a pipe would keep its bytes for it
        else:
            self._copied = copied

    def _muxer_options(self) -> dict[str, str]:
        match self._destination.suffix:
            case ".mp4" | ".m4v" | ".mov":
                return {"movie_timescale": str(_movie_timescale(self._source, self._time_base))}
            case ".y4m":
                return {"strict": "-1"}  # formats of more than 8 bits are extensions
            case ".apng":
                return {"plays": "0"}  # without end
        return {}

    def _set_timecodes(self, output: OutputContainer) -> None:
        """Write the timecode of the source, if it has one, in frames of the output."""
        for tags in (output.metadata, *(stream.metadata for stream in output.streams)):
            if self._source is not None and "timecode" in tags:
                stored_rate = self._source.stored_rate or self._source.rate
                tags["timecode"] = timecode_at_rate(tags["timecode"], stored_rate, self._rate)

    def _write_packet(self, packet: Packet) -> None:
        """Write a video packet, after the packets of the other streams up to its time."""
        assert self._output is not None
        assert packet.dts is not None
        if self._copied is not None:
            self._copied.copy_until(packet.dts * self._time_base)
        self._output.mux_one(packet)

    def _finish(self) -> None:
        assert self._output is not None
        for packet in self._last_packets():
            self._write_packet(packet)
        if self._copied is not None:
            self._copied.finish(self._video_end())
            self._copied.close()
        self._output.close()

    def _abandon(self) -> None:
        with suppress(Exception):
            if self._copied is not None:
                self._copied.close()
        super()._abandon()


class VideoWriter(VideoFile):
    """Writes one video file of frames.

    Color tags, pixel aspect, rotation, metadata, chapters, audio and subtitles come from the source; `warnings` reports
    those that the container cannot store unchanged, and what differs from the source. Matroska and WebM round
    timestamps to milliseconds, and start at or after zero; GIF rounds them to hundredths, and y4m and raw video have a
    constant rate. Frames of odd sizes become even, unless the encoder takes them as they are.

    `path` may be a pipe, - for the standard output, in the `pipe_format` matroska, mpegts, y4m or rawvideo.

    Raises MediaError if the file cannot be written, if `path` exists and `overwrite` is false, if it is the source, or
    if the container or the encoder does not support a choice.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        source: Source | None,
        size: tuple[int, int],  # (width, height)
        rate: Fraction,  # nominal frames per second
        time_base: Fraction,  # seconds; timestamps are rounded to its multiples
        codec: str | None = None,
        crf: int | None = None,
        encoder_options: dict[str, str] | None = None,
        pix_fmt: str | None = None,
        overwrite: bool = False,
        on_damage: OnDamage = "stop",  # of the source's other streams
        pipe_format: str | None = None,
    ) -> None:
        info = _source_info(source, rate)
        destination = read_destination(path, pipe_format)
        self._matrix: tuple[int, ...] | None = None  # by which frames are turned
        if info is not None and destination.suffix in _WITHOUT_ROTATION:
            self._matrix, size, info = info.display_matrix, upright_size(info, size), upright_info(info)
        self._encoding = choose_encoding(
            destination.suffix, size, info, codec=codec, crf=crf, pix_fmt=pix_fmt, options=encoder_options
        )
        self.pix_fmt = self._encoding.pix_fmt
        self._size = size
        self._step = _constant_step(destination.suffix, rate)
        self._origin: Fraction | None = None  # of a constant rate: the time of the first frame
        self._count = 0
        super().__init__(
            destination,
            source=info,
            codec=self._encoding.codec,
            rate=rate,
            time_base=self._step or (_GIF_TICK if destination.suffix == ".gif" else time_base),
            overwrite=overwrite,
            on_damage=on_damage,
            warnings=self._encoding.notes,
        )

    @property
    def picture_format(self) -> PictureFormat | None:
        """The YUV format that `write` takes besides RGB; None if it takes only RGB."""
        return self._video.picture_format if self._matrix is None else None

    @property
    def has_alpha(self) -> bool:
        """Return whether `write` takes frames with alpha."""
        return self._video.has_alpha

    @property
    def coded_size(self) -> tuple[int, int]:
        """The size, (width, height) in px, of the frames in the file."""
        return self._encoding.size

    def write(self, frame: Picture, pts: Fraction, duration: Fraction) -> None:
        """Encode a frame that is displayed from `pts` for `duration`, in seconds; its arrays may be reused afterwards.

        The frame is RGB, (3, H, W) uint16, of which 65535 is white, RGB and straight alpha, (4, H, W), or the planes of
        `picture_format`. Raises MediaError if the file cannot be written, or unless `pts` is after that of the previous
        frame.
        """
        if self._matrix is not None:
            assert isinstance(frame, np.ndarray)
            frame = turn_upright(frame, self._matrix)
        if self._step is not None:
            pts, duration = self._constant_time(pts), self._step
        with self._file.media_errors():
            for packet in self._video.encode(frame, pts, duration):
                self._write_packet(packet)

    def _add_video(self, output: OutputContainer, source: VideoInfo | None) -> None:
        self._video = EncodedStream(
            output,
            self._encoding,
            path=self.path,
            source=source,
            size=self._size,
            rate=self._rate,
            time_base=self._time_base,
            warnings=self.warnings,
        )

    def _last_packets(self) -> Iterator[Packet]:
        return self._video.finish()

    def _video_end(self) -> Fraction:
        return self._video.end

    def _constant_time(self, pts: Fraction) -> Fraction:
        """Return the time of the next frame in a format without timestamps."""
        assert self._step is not None
        if self._origin is None:
            self._origin = pts
        time = self._count * self._step
        self._count += 1
        warning = f"{self.path.suffix[1:]} has a constant frame rate, and the video has not: --fps gives it one."
        if abs(pts - self._origin - time) > self._step and warning not in self.warnings:
            self.warnings.append(warning)
        return time


def _constant_step(suffix: str, rate: Fraction) -> Fraction | None:
    """Return the time between two frames of a format without timestamps, in seconds; None for any other.

    Raises MediaError for a rate that GIF cannot show.
    """
    if suffix == ".gif" and rate > GIF_RATE:
        raise MediaError(
            f"GIF shows at most {GIF_RATE} frames per second, and the video has {float(rate):g}: choose a lower rate,"
            " or another format."
        )
    return 1 / rate if suffix in (".y4m", ".raw") else None


def _source_info(source: Source | None, rate: Fraction) -> VideoInfo | None:
    if source is None or isinstance(source, VideoInfo):
        return source
    if isinstance(source, str | Path):
        return open_reader(source, fps=rate).info if is_images(source) else probe(source)
    return source.info


def _movie_timescale(info: VideoInfo | None, time_base: Fraction) -> int:
    """Return ticks per second in which the times of the video and of the audio are whole numbers.

    MP4 edit lists use this scale: with its default, milliseconds, the first frame would move.
    """
    rates = [] if info is None else [stream.sample_rate for stream in info.streams if stream.sample_rate]
    ticks = time_base.denominator
    common = math.lcm(ticks, *rates)
    return common if common <= _MAX_TIMESCALE else ticks
