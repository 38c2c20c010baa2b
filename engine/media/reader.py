"""Reading: a video's frames one after another, at their own timestamps."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from ..contract.errors import MediaError
from .color import to_rgb
from .frame import Frame, FrameReader, checked_rate
from .images import ImageFolderReader
from .probe import VideoInfo, open_video, own_duration, probe
from .tags import ColorTags, coding_of

# Codecs of which every packet makes one frame, so that a missing one means damage.
_ONE_FRAME_PER_PACKET = {"h264", "hevc", "vp9", "av1", "mjpeg", "png", "prores", "dnxhd", "ffv1"}
_MAX_JUMP_BACK_S = 1  # timestamps that fall further mean another clock
_ROUNDING_S = Fraction(1, 100)  # of a stream's declared duration, beside half a frame
_CONTAINER_SLACK_S = Fraction(1, 2)  # of a container's, beside two frames


class VideoReader(FrameReader):
    """Reads a video file; every iteration starts at its first frame.

    Timestamps are the stream's own, unless `input_fps` gives a rate to streams that have none worth keeping.
    Damage is an error that says where, not a shorter video.
    """

    def __init__(self, path: str | Path, *, input_fps: Fraction | None = None) -> None:
        self.path = Path(path)
        self.input_fps = None if input_fps is None else checked_rate(input_fps)
        self.info = probe(path)
        if self.input_fps is not None:
            self.info = _at_rate(self.info, self.input_fps)
        self._container: Any = None

    def close(self) -> None:
        """Close the file; an iteration under way ends."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames with growing timestamps and the durations between them."""
        self.close()
        self._container, stream = open_video(self.path)
        stream.thread_type = "AUTO"
        held: tuple[Any, Fraction] | None = None
        own_duration_s = Fraction(0)
        for picture, pts, duration in self._timed(stream):
            if held is not None:
                yield self._frame(*held, pts - held[1])
            held, own_duration_s = (picture, pts), duration
        if held is None:
            raise MediaError(f"No picture of {self.path} can be decoded: copy or record the file again.")
        end = self._indexed_end(stream)
        yield self._frame(*held, own_duration_s if end is None or end <= held[1] else end - held[1])
        self.close()

    def _frame(self, picture: Any, pts: Fraction, duration: Fraction) -> Frame:
        tags = ColorTags(picture.colorspace, picture.color_primaries, picture.color_trc, picture.color_range)
        return Frame(to_rgb(picture, coding_of(tags, picture.height, picture.format.name)), pts, duration)

    def _timed(self, stream: Any) -> Iterator[tuple[Any, Fraction, Fraction]]:
        """Yield (picture, pts, its own duration), in seconds on the stream's clock."""
        time_base = self.info.time_base
        period = max(1, round(1 / (self.info.rate * time_base)))  # ticks
        previous: int | None = None
        duration = period
        for number, picture in enumerate(self._pictures(stream)):
            if (picture.width, picture.height) != (self.info.width, self.info.height):
                raise MediaError(
                    f"{self.path} changes its size from {self.info.width}x{self.info.height} to {picture.width}x"
                    f"{picture.height} at frame {number}: cut it there and upscale the parts one by one."
                )
            if self.input_fps is not None:
                yield picture, number / self.input_fps, 1 / self.input_fps
                continue
            ticks = picture.pts
            if ticks is None:
                ticks = round(self.info.start / time_base) if previous is None else previous + duration
            if previous is not None and ticks <= previous:
                if (previous - ticks) * time_base > _MAX_JUMP_BACK_S:
                    raise MediaError(
                        f"The timestamps of {self.path} fall from {float(previous * time_base):.3f} s to"
                        f" {float(ticks * time_base):.3f} s: cut it there, or remux it."
                    )
                ticks = previous + 1  # a repeated timestamp: the frame is kept, as briefly as can be
            previous, duration = ticks, picture.duration or period
            yield picture, ticks * time_base, duration * time_base

    def _pictures(self, stream: Any) -> Iterator[Any]:
        """Decode in presentation order and flush; raise where something is missing."""
        container, time_base = self._container, stream.time_base
        exact = stream.codec_context.codec.canonical_name in _ONE_FRAME_PER_PACKET
        waiting: set[int] = set()  # timestamps of packets whose frames have not come out
        first = last_end = None  # ticks
        count = 0  # packets of pictures
        seen_end = Fraction(0)  # seconds, of any stream
        packets = container.demux()
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                raise self._damaged(last_end, time_base, error) from error
            if packet is None:
                break
            if packet.pts is not None:
                seen_end = max(seen_end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream.index != stream.index:
                continue
            count += bool(packet.size)
            if exact and packet.size and packet.pts is not None and not packet.is_discard:
                waiting.add(packet.pts)
            try:
                pictures = packet.decode()
            except av.error.FFmpegError as error:
                if first is None:  # a recording may start amid pictures that need earlier ones
                    continue
                raise self._damaged(last_end, time_base, error) from error
            for picture in pictures:
                if first is None:
                    first = picture.pts
                if picture.pts is not None:
                    waiting.discard(picture.pts)
                    lost = [pts for pts in waiting if first is not None and first < pts < picture.pts]
                    if lost:
                        raise self._damaged(min(lost), time_base)
                    last_end = picture.pts + (picture.duration or 0)
                if picture.is_corrupt and picture.pts != first:
                    raise self._damaged(picture.pts, time_base)
                yield picture
        lost = [pts for pts in waiting if first is not None and pts > first]
        if lost:
            raise self._damaged(min(lost), time_base)
        if self.info.container.startswith("mov") and count < len(stream.index_entries):
            raise self._damaged(last_end, time_base)
        self._check_end(container, stream, last_end, seen_end)

    def _check_end(self, container: Any, stream: Any, last_end: int | None, seen_end: Fraction) -> None:
        """Compare where the video ended to where it says that it does."""
        if self._indexed_end(stream) is not None:
            return  # a sample of the index that is not there is an error of its own
        declared = own_duration(stream)
        end, slack = (last_end or 0) * stream.time_base, 1 / self.info.rate / 2 + _ROUNDING_S
        if declared is None and container.duration is not None:
            declared = Fraction((container.start_time or 0) + container.duration, av.time_base)
            end, slack = max(end, seen_end), 2 / self.info.rate + _CONTAINER_SLACK_S
        if declared is not None and last_end is not None and end < declared - slack:
            raise MediaError(
                f"{self.path} is cut short: it ends at {float(end):.3f} s and says {float(declared):.3f} s;"
                " copy it again, or remux it to go without the rest."
            )

    def _indexed_end(self, stream: Any) -> Fraction | None:
        """Return where the pictures end, in seconds, by an index of all samples, as MP4 has."""
        if self.input_fps is not None or not self.info.container.startswith("mov") or not stream.frames:
            return None
        if stream.duration is None:
            return None
        return ((stream.start_time or 0) + stream.duration) * stream.time_base

    def _damaged(self, ticks: int | None, time_base: Fraction, error: Exception | None = None) -> MediaError:
        reason = f" ({getattr(error, 'strerror', None) or error})" if error is not None else ""
        return MediaError(
            f"{self.path} is damaged at {float((ticks or 0) * time_base):.3f} s{reason}:"
            " copy it again, or cut it before that."
        )


def open_reader(path: str | Path, *, fps: Fraction | None = None) -> VideoReader | ImageFolderReader:
    """Open a video file, or a folder of images at a rate."""
    if not Path(path).is_dir():
        return VideoReader(path, input_fps=fps)
    if fps is None:
        raise MediaError(f"{path} is a folder of images, which has no frame rate: give one, such as 24.")
    return ImageFolderReader(path, fps)


def _at_rate(info: VideoInfo, rate: Fraction) -> VideoInfo:
    duration = None if info.frames is None else info.frames / rate
    return replace(info, rate=rate, time_base=1 / rate, start=Fraction(0), duration=duration, variable_rate=False)
