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
from .damage import Action, OnDamage, RepairLog
from .packets import SourcePackets
from .probe import VideoInfo, tagged_duration

# Codecs in which every packet decodes to one frame, so that a missing frame means damage.
_ONE_FRAME_PER_PACKET = {"h264", "hevc", "vp9", "av1", "mjpeg", "png", "prores", "dnxhd", "ffv1"}
_UNBOUNDED = {"mpegts", "mpeg", "h264", "hevc"}  # formats whose packets FFmpeg finds by what they contain
# The first bytes of formats in which FFmpeg ends at the header of a second file.
_HEADERS = {"flv": rb"FLV\x01.\0\0\0\x09", "asf": rb"0\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"}
_MAX_TAIL_BYTES = 1 << 20  # in which that header is looked for
_JOINT_S = 2  # seconds around a joint in which it may be the reason for a damage
_CORRECTION_S = Fraction(1, 4)  # seconds; by less a clock may also change within one recording
_MOST_SUSPECTS = 64  # packets after an error by which a frame that is missing must have shown itself
_CORRUPT_S = 1  # seconds after an incomplete packet in which others may be missing
_STREAM_TOLERANCE_S = Fraction(1, 100)  # rounding of a stream's declared duration, beside half a frame
_CONTAINER_TOLERANCE_S = Fraction(1, 2)  # of a container's declared duration, beside two frames


class StreamDecoder:
    """Decodes a video stream from its first frame on; iterate once.

    Raises MediaError with the time of the damage if a packet cannot be read or decoded, or if a frame is corrupt or
    missing. If `on_damage` is not "stop", it repeats the frame before instead, which comes again as the same object, or
    leaves the frame out, and adds this to `log`. Frames before the first one that can be decoded are no error: a
    recording may start with frames that refer to earlier ones.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        info: VideoInfo,
        on_damage: OnDamage = "stop",
        log: RepairLog | None = None,
        *,
        is_part: bool = False,  # reading began at a keyframe: the end of the file is not checked
    ) -> None:
        self._is_part = is_part
        self._container, self._stream, self._info = container, stream, info
        self._on_damage, self._log = on_damage, RepairLog() if log is None else log
        self.source = SourcePackets(container, stream, self._goes_on)
        self.lost_at_joints = 0  # frames that need others from before the recording began
        self._shift = self.source.video_shift
        self._time_base = stream.time_base or info.time_base
        self._pending: set[int] = set()  # timestamps of packets whose frames have not been decoded yet
        self._first: int | None = None  # ticks, of the first frame
        self._last_end: int | None = None  # ticks, the end of the latest frame
        self._latest: int | None = None  # timestamp of the latest frame, or of what was repeated for it
        self._packet_count = 0  # packets of this stream that contain data
        self._packets_end = Fraction(0)  # seconds, the latest end of a packet of any stream
        self._packets_stop = 0  # bytes of the file up to the end of the last packet
        self._good: av.VideoFrame | None = None  # the latest frame that is not damaged
        self._good_ticks: int | None = None  # its timestamp
        self._error: Exception | None = None  # whose damage has not been located yet
        self._error_end: int | None = None  # ticks, the end of the latest frame when it came
        self._suspects: set[int] = set()  # timestamps of packets of which one has failed
        self._packets_since_error = 0
        self._has_gap = False  # packets may be missing after an error
        self._corrupt_until = -math.inf  # ticks, shortly after a packet that FFmpeg knows to be incomplete
        self._least_gap: int | None = None  # ticks between two frames
        self._is_traced = False  # frames refer to a damaged one
        self._is_exact = stream.codec_context.codec.canonical_name in _ONE_FRAME_PER_PACKET

    def __iter__(self) -> Iterator[av.VideoFrame]:
        """Yield the frames in presentation order, the decoder's delayed frames included."""
        for packet in self._packets():
            if self._begins_again(packet):
                yield from self._drained()
            self._packet_count += bool(packet.size)
            if packet.is_corrupt and packet.pts is not None:
                self._corrupt_until = packet.pts + math.ceil(_CORRUPT_S / self._time_base)
            # After a change of the clock FFmpeg takes frames for ones before the beginning, which are not shown.
            is_shown = not packet.is_discard or bool(self.source.joints)
            if self._is_exact and packet.size and packet.pts is not None and is_shown:
                self._pending.add(packet.pts)
            for frame in self._decode(packet):
                yield from self._checked(frame)
        if self._first is None and self.source.joints:
            raise self._damaged(self._last_end)  # nothing after the joint can be decoded
        yield from self._missing()
        if self._is_part:
            return
        self._check_rest()
        if self._info.container.startswith("mov") and self._packet_count < len(self._stream.index_entries):
            start, duration = self._stream.start_time or 0, self._stream.duration or 0
            declared = (start + duration) * self._time_base - self._info.origin
            self._end_early(self._damaged(self._last_end), (self._last_end or 0) * self._time_base, declared)

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
            yield from self._checked(frame)
        yield from self._missing()
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
            error = MediaError(
                f"{self._info.path} is cut short: it ends at {float(end):.3f} s, but declares {float(declared):.3f} s;"
                " copy it again, or go on without the rest by --on-damage skip."
            )
            self._end_early(error, end, declared)

    def _end_early(self, error: MediaError, end: Fraction, declared: Fraction) -> None:
        """Raise an error because the video ends before its declared end, in seconds, or log what is missing."""
        if self._on_damage == "stop":
            raise error
        lost = round((declared - end) * self._info.rate)
        if lost > 0:
            self._log.add("video", end, declared, "missing", "the file is cut short", lost)

    def _goes_on(self, error: av.error.FFmpegError) -> bool:
        """Take an error of reading the file, and return whether reading goes on after it."""
        if self._on_damage == "stop":
            return False
        self._note(error)
        self._has_gap = True
        return True

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
            frames = self._stream.decode(packet)
        except av.error.FFmpegError as error:
            if self._first is None:
                return []
            self._note(error)
            self._has_gap = not self._is_exact
            frames = []
        if self._error is not None and self._on_damage == "stop":
            self._packets_since_error += 1
            if not self._is_exact or self._packets_since_error > _MOST_SUSPECTS:
                raise self._damaged(min(self._suspects, default=self._error_end), self._error) from self._error
        return frames

    def _note(self, error: Exception) -> None:
        """Keep an error until the frame that it concerns is known: with several threads it comes after its packet."""
        if self._error is None:
            self._error, self._error_end = error, self._last_end
            self._suspects, self._packets_since_error = set(self._pending), 0

    def _checked(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Yield what is shown for the frames that are missing before a frame, and the frame unless it is damaged."""
        if self._first is None:
            self._first = frame.pts
            if self.source.joints and frame.pts is not None:
                self.lost_at_joints += len([pts for pts in self._pending if pts < frame.pts])
        if frame.pts is not None:
            self._pending.discard(frame.pts)
            if self._is_traced and self._latest is not None and frame.pts <= self._latest:
                return  # damage has changed the order of the timestamps: this one was taken for a missing frame
            yield from self._missing(before=frame.pts)
            self._latest = frame.pts
            self._last_end = frame.pts + (frame.duration or self._period)
        if self._error is not None and not self._suspects & self._pending:
            if self._on_damage == "stop":
                raise self._damaged(self._error_end, self._error) from self._error
            self._error = None
        if frame.is_corrupt and frame.pts != self._first:
            self._has_gap = not self._is_exact
            yield from self._lost(frame.pts)
            return
        if self._is_traced:
            self._is_traced = not frame.key_frame
            if self._is_traced and self._last_end is not None:
                self._log.trace(self._last_end * self._time_base)
        self._good, self._good_ticks = frame, frame.pts
        yield frame

    def _missing(self, before: float = math.inf) -> Iterator[av.VideoFrame]:
        """Yield what is shown for frames after the first one and before this timestamp that are missing."""
        if self._first is None:
            return
        missing = sorted(pts for pts in self._pending if self._first < pts < before)
        self._pending.difference_update(missing)
        if self._has_gap or (self._on_damage != "stop" and self._may_swallow(before)):
            missing = sorted({*missing, *(t for t in self._gap(before) if not self._is_near(t, missing))})
        self._has_gap = False
        if self._are_second_fields(missing, before):
            return
        for ticks in missing:
            yield from self._lost(ticks)

    def _may_swallow(self, before: float) -> bool:
        """Return whether damage may have swallowed packets before a timestamp, without a word from FFmpeg."""
        is_near = self._is_traced or before <= self._corrupt_until
        return self._info.variable_rate is False or (is_near and self._info.container in _UNBOUNDED)

    def _gap(self, before: float) -> list[int]:
        """Return the timestamps of the frames that fit between the latest one and a timestamp."""
        if self._latest is None or before == math.inf:
            return []
        count = round((before - self._latest) / self._period)
        return [self._latest + number * self._period for number in range(1, count)]

    def _is_near(self, ticks: int, others: list[int]) -> bool:
        return any(abs(ticks - other) < self._period / 2 for other in others)

    def _are_second_fields(self, missing: list[int], before: float) -> bool:
        """Return whether a packet without a frame is the second field of the frame before, as in broadcasts."""
        if self._good is None or self._good_ticks is None:
            return False
        if before != math.inf:
            gap = int(before) - self._good_ticks
            self._least_gap = gap if self._least_gap is None else min(gap, self._least_gap)
        if len(missing) != 1 or self._error is not None or self._least_gap is None:
            return False
        return self._good.interlaced_frame and missing[0] - self._good_ticks < 0.75 * self._least_gap

    def _lost(self, ticks: int | None) -> Iterator[av.VideoFrame]:
        """Yield what is shown for a frame that is missing or damaged; raise MediaError if reading stops there."""
        if self._on_damage == "stop":
            raise self._damaged(ticks, self._error) from self._error
        if ticks is None or self._good is None:
            return
        reason = _reason(self._error) if self._error is not None else "it cannot be decoded"
        time = ticks * self._time_base
        action: Action = "repeated" if self._on_damage == "repeat" else "left out"
        self._log.add("video", time, time + self._period * self._time_base, action, reason)
        self._is_traced, self._latest = True, ticks
        if self._on_damage == "repeat":
            self._good.pts = ticks
            yield self._good

    @property
    def _period(self) -> int:
        """The usual duration of a frame in ticks."""
        return max(1, round(1 / (self._info.rate * self._time_base)))

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
        reason = f" ({_reason(error)})" if error is not None else ""
        time = (ticks or 0) * self._time_base
        advice = "copy it again, cut it before that time, or go on by --on-damage repeat"
        for joint in self.source.joints:
            if abs(joint.time - time) <= _JOINT_S:
                reason += (
                    f", near {float(joint.time):.3f} s, where its clock changes from {float(joint.before):.3f} s to"
                    f" {float(joint.after):.3f} s as between joined recordings"
                )
                advice = "cut it there, and upscale the parts one by one"
                break
        return MediaError(f"{self._info.path} is damaged at {float(time):.3f} s{reason}: {advice}.")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
