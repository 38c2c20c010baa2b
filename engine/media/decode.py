"""Decode a video stream in presentation order, and detect damage and missing frames."""

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ..contract.errors import MediaError
from .packets import SourcePackets
from .probe import VideoInfo, tagged_duration

# Codecs in which every packet decodes to one frame, so that a missing frame means damage.
_ONE_FRAME_PER_PACKET = {"h264", "hevc", "vp9", "av1", "mjpeg", "png", "prores", "dnxhd", "ffv1"}
# The first bytes of formats in which FFmpeg ends at the header of a second file.
_HEADERS = {"flv": rb"FLV\x01.\0\0\0\x09", "asf": rb"0\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"}
_MAX_TAIL_BYTES = 1 << 20  # in which that header is looked for
_JOINT_S = 2  # seconds around a joint in which it may be the reason for a damage
_CORRECTION_S = Fraction(1, 4)  # seconds; by less a clock may also change within one recording
_STREAM_TOLERANCE_S = Fraction(1, 100)  # rounding of a stream's declared duration, beside half a frame
_CONTAINER_TOLERANCE_S = Fraction(1, 2)  # of a container's declared duration, beside two frames


class StreamDecoder:
    """Decodes a video stream from its first frame on; iterate once.

    Raises MediaError with the time of the damage if a packet cannot be read or decoded, or if a frame is corrupt or
    missing. Frames before the first one that can be decoded are no error: a recording may start with frames that refer
    to earlier ones.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, info: VideoInfo) -> None:
        self._container, self._stream, self._info = container, stream, info
        self.source = SourcePackets(container, stream)
        self.lost_at_joints = 0  # frames that need others from before the recording began
        self._shift = self.source.video_shift
        self._time_base = stream.time_base or info.time_base
        self._pending: set[int] = set()  # timestamps of packets whose frames have not been decoded yet
        self._first: int | None = None  # ticks, of the first frame
        self._last_end: int | None = None  # ticks, the end of the latest frame
        self._packet_count = 0  # packets of this stream that contain data
        self._packets_end = Fraction(0)  # seconds, the latest end of a packet of any stream
        self._packets_stop = 0  # bytes of the file up to the end of the last packet

    def __iter__(self) -> Iterator[av.VideoFrame]:
        """Yield the frames in presentation order, the decoder's delayed frames included."""
        one_frame_per_packet = self._stream.codec_context.codec.canonical_name in _ONE_FRAME_PER_PACKET
        for packet in self._packets():
            if self._begins_again(packet):
                yield from self._drained()
            self._packet_count += bool(packet.size)
            # After a change of the clock FFmpeg takes frames for ones before the beginning, which are not shown.
            is_shown = not packet.is_discard or bool(self.source.joints)
            if one_frame_per_packet and packet.size and packet.pts is not None and is_shown:
                self._pending.add(packet.pts)
            for frame in self._decode(packet):
                self._check_frame(frame)
                yield frame
        if self._first is None and self.source.joints:
            raise self._damaged(self._last_end)  # nothing after the joint can be decoded
        self._check_missing()
        self._check_rest()
        if self._info.container.startswith("mov") and self._packet_count < len(self._stream.index_entries):
            raise self._damaged(self._last_end)

    def _begins_again(self, packet: Packet) -> bool:
        """Return whether another recording begins at a packet, which does not refer to frames before it."""
        change = abs(self.source.video_shift - self._shift)
        self._shift = self.source.video_shift
        return bool(change) and (packet.is_keyframe or change >= _CORRECTION_S)

    def _drained(self) -> Iterator[av.VideoFrame]:
        """Yield the frames that are left in the decoder, and make it ready for another recording."""
        context = self._stream.codec_context
        pending, depth = set(self._pending), context.reorder_depth
        for frame in self._decode(None):
            self._check_frame(frame)
            yield frame
        self._check_missing()
        context.flush_buffers()
        context.reorder_depth = depth
        self._pending -= pending
        self._first = None

    def check_declared_end(self) -> None:
        """Raise MediaError if the decoded frames end before the end that the file declares.

        Call it after the iteration, for files without an index of all frames.
        """
        if self.source.joints:
            return  # the declared end is on another clock
        declared = tagged_duration(self._stream)
        end = (self._last_end or 0) * self._time_base
        tolerance = 1 / self._info.rate / 2 + _STREAM_TOLERANCE_S
        if declared is None and self._container.duration is not None:
            # In a fragmented file FFmpeg's duration may be the end on the file's clock.
            start = 0 if self._info.fragmented else self._container.start_time or 0
            declared = Fraction(start + self._container.duration, av.time_base)
            end = max(end, self._packets_end)
            tolerance = 2 / self._info.rate + _CONTAINER_TOLERANCE_S
        if declared is not None:
            declared -= self._info.origin
        if declared is not None and self._last_end is not None and end < declared - tolerance:
            raise MediaError(
                f"{self._info.path} is cut short: it ends at {float(end):.3f} s, but declares {float(declared):.3f} s;"
                " copy it again, or remux it to continue without the rest."
            )

    def _packets(self) -> Iterator[Packet]:
        """Yield the packets of the stream, and track the end of those of all streams."""
        packets = iter(self.source)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                raise self._damaged(self._last_end, error) from error
            if packet is None:
                return
            if packet.pos is not None:
                self._packets_stop = max(self._packets_stop, packet.pos + packet.size)
            if packet.pts is not None:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                self._packets_end = max(self._packets_end, end)
            # A packet without data repeats a frame, which then lasts longer; without a time it ends the stream.
            if packet.stream.index == self._stream.index and (packet.size or packet.pts is None):
                yield packet

    def _decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        """Return the frames that a packet finishes, or for None those that are left in the decoder."""
        try:
            return self._stream.decode(packet)
        except av.error.FFmpegError as error:
            if self._first is None:
                return []
            raise self._damaged(self._last_end, error) from error

    def _check_frame(self, frame: av.VideoFrame) -> None:
        if self._first is None:
            self._first = frame.pts
            if self.source.joints and frame.pts is not None:
                self.lost_at_joints += len([pts for pts in self._pending if pts < frame.pts])
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

    def _check_rest(self) -> None:
        """Raise MediaError if another file begins after the last packet, at which FFmpeg has stopped."""
        header = _HEADERS.get(self._info.container)
        if header is None:
            return
        with Path(self._info.path).open("rb") as file:
            file.seek(self._packets_stop)
            if re.search(header, file.read(_MAX_TAIL_BYTES), re.DOTALL):
                end = float((self._last_end or 0) * self._time_base)
                raise MediaError(
                    f"{self._info.path} holds another file after {end:.3f} s, which cannot be read: join the original"
                    " files by 'ffmpeg -f concat' instead."
                )

    def _damaged(self, ticks: int | None, error: Exception | None = None) -> MediaError:
        reason = f" ({getattr(error, 'strerror', None) or error})" if error is not None else ""
        time = (ticks or 0) * self._time_base
        advice = "copy it again, or cut it before that time"
        for joint in self.source.joints:
            if abs(joint.time - time) <= _JOINT_S:
                reason += (
                    f", near {float(joint.time):.3f} s, where its clock changes from {float(joint.before):.3f} s to"
                    f" {float(joint.after):.3f} s as between joined recordings"
                )
                advice = "cut it there, and upscale the parts one by one"
                break
        return MediaError(f"{self._info.path} is damaged at {float(time):.3f} s{reason}: {advice}.")
