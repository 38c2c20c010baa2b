"""Decode a video stream in presentation order, and detect damage and missing frames."""

import math
from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ..contract.errors import MediaError
from .decoders import decoder_of
from .probe import VideoInfo, tagged_duration

# Codecs in which every packet decodes to one frame, so that a missing frame means damage.
_ONE_FRAME_PER_PACKET = {"h264", "hevc", "vp9", "av1", "mjpeg", "png", "prores", "dnxhd", "ffv1"}
_STREAM_TOLERANCE_S = Fraction(1, 100)  # rounding of a stream's declared duration, beside half a frame
_CONTAINER_TOLERANCE_S = Fraction(1, 2)  # of a container's declared duration, beside two frames


class StreamDecoder:
    """Decodes a video stream from its first frame on; iterate once.

    Raises MediaError with the time of the damage if a packet cannot be read or decoded, or if a frame is corrupt or
    missing. Frames before the first one that can be decoded are no error: a recording may start with frames that refer
    to earlier ones. `whole` is false after a seek: then packets are not counted.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, info: VideoInfo, whole: bool = True) -> None:
        self._container, self._stream, self._info, self._whole = container, stream, info, whole
        self._decoder = decoder_of(stream)
        self._decoder.thread_type = "AUTO"
        self._time_base = stream.time_base or info.time_base
        self._pending: set[int] = set()  # timestamps of packets whose frames have not been decoded yet
        self._first: int | None = None  # ticks, of the first frame
        self._last_end: int | None = None  # ticks, the end of the latest frame
        self._packet_count = 0  # packets of this stream that contain data
        self._packets_end = Fraction(0)  # seconds, the latest end of a packet of any stream

    def __iter__(self) -> Iterator[av.VideoFrame]:
        """Yield the frames in presentation order, the decoder's delayed frames included."""
        one_frame_per_packet = self._stream.codec_context.codec.canonical_name in _ONE_FRAME_PER_PACKET
        for packet in self._packets():
            self._packet_count += bool(packet.size)
            if one_frame_per_packet and packet.size and packet.pts is not None and not packet.is_discard:
                self._pending.add(packet.pts)
            for frame in self._decode(packet):
                self._check_frame(frame)
                yield frame
        self._check_missing()
        indexed = self._whole and self._info.container.startswith("mov")
        if indexed and self._packet_count < len(self._stream.index_entries):
            raise self._damaged(self._last_end)

    def check_declared_end(self) -> None:
        """Raise MediaError if the decoded frames end before the end that the file declares.

        Call it after the iteration, for files without an index of all frames.
        """
        declared = tagged_duration(self._stream)
        end = (self._last_end or 0) * self._time_base
        tolerance = 1 / self._info.rate / 2 + _STREAM_TOLERANCE_S
        if declared is None and self._container.duration is not None:
            declared = Fraction((self._container.start_time or 0) + self._container.duration, av.time_base)
            end = max(end, self._packets_end)
            tolerance = 2 / self._info.rate + _CONTAINER_TOLERANCE_S
        if declared is not None and self._last_end is not None and end < declared - tolerance:
            raise MediaError(
                f"{self._info.path} is cut short: it ends at {float(end):.3f} s, but declares {float(declared):.3f} s;"
                " copy it again, or remux it to continue without the rest."
            )

    def _packets(self) -> Iterator[Packet]:
        """Yield the packets of the stream, and track the end of those of all streams."""
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                raise self._damaged(self._last_end, error) from error
            if packet is None:
                return
            if packet.pts is not None:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                self._packets_end = max(self._packets_end, end)
            if packet.stream.index == self._stream.index:
                yield packet

    def _decode(self, packet: Packet) -> list[av.VideoFrame]:
        try:
            return self._decoder.decode(packet if packet.size else None)
        except av.error.FFmpegError as error:
            if self._first is None:
                return []
            raise self._damaged(self._last_end, error) from error

    def _check_frame(self, frame: av.VideoFrame) -> None:
        if self._first is None:
            self._first = frame.pts
        if frame.pts is not None:
            self._pending.discard(frame.pts)
            self._check_missing(before=frame.pts)
            self._last_end = frame.pts + (frame.duration or 0)
        if frame.is_corrupt and frame.pts != self._first:
            raise self._damaged(frame.pts)

    def _check_missing(self, before: float = math.inf) -> None:
        """Raise MediaError if a packet after the first frame and before this timestamp has no frame."""
        if self._first is not None:
            missing = [pts for pts in self._pending if self._first < pts < before]
            if missing:
                raise self._damaged(min(missing))

    def _damaged(self, ticks: int | None, error: Exception | None = None) -> MediaError:
        reason = f" ({getattr(error, 'strerror', None) or error})" if error is not None else ""
        return MediaError(
            f"{self._info.path} is damaged at {float((ticks or 0) * self._time_base):.3f} s{reason}:"
            " copy it again, or cut it before that time."
        )
