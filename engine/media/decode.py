"""Decode a video stream in presentation order, and detect damage and missing frames."""

import math
from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ..contract.errors import MediaError
from .damage import Action, OnDamage, RepairLog
from .decoding_order import DecodingOrder, is_reordered
from .ends import EndCheck
from .lost_bytes import LostBytes, PacketPositions
from .packets import SourcePackets
from .probe import VideoInfo

# Codecs in which every packet decodes to one frame, so that a missing frame means damage.
_ONE_FRAME_PER_PACKET = {"h264", "hevc", "vp9", "av1", "mjpeg", "png", "prores", "dnxhd", "ffv1"}
_UNBOUNDED = {"mpegts", "mpeg", "h264", "hevc"}  # formats whose packets FFmpeg finds by what they contain
_JOINT_S = 2  # seconds around a joint in which it may be the reason for a damage
_CORRECTION_S = Fraction(1, 4)  # seconds; by less a clock may also change within one recording
_MOST_SUSPECTS = 64  # packets after an error by which a frame that is missing must have shown itself
_CORRUPT_S = 1  # seconds after an incomplete packet in which others may be missing


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
        decoder: av.VideoCodecContext | None = None,  # None: the stream's own
    ) -> None:
        self._is_part = is_part
        self._stream, self._info = stream, info
        self._on_damage, self._log = on_damage, RepairLog() if log is None else log
        self._ends = EndCheck(info, container, stream, on_damage, self._log, self._damaged_at_end)
        self.source = SourcePackets(container, stream, self._goes_on)
        self.lost_at_joints = 0  # frames that need others from before the recording began
        self._shift = self.source.video_shift
        self._time_base = Fraction(stream.time_base or info.time_base)
        self._pending: set[int] = set()  # timestamps of packets whose frames have not been decoded yet
        self._first: int | None = None  # ticks, of the first frame
        self._last_end: int | None = None  # ticks, the end of the latest frame
        self._latest: int | None = None  # timestamp of the latest frame, or of what was repeated for it
        self._positions = PacketPositions(LostBytes(info.path, info.container, stream.id))
        self._key_frames: set[int] = set()  # timestamps of packets before the first frame that refer to no others
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
        self._decoder = decoder or stream.codec_context
        self._order = DecodingOrder() if is_reordered(stream) else None
        self._is_exact = stream.codec_context.codec.canonical_name in _ONE_FRAME_PER_PACKET

    def __iter__(self) -> Iterator[av.VideoFrame]:
        """Yield the frames in presentation order, the decoder's delayed frames included."""
        for packet in self._packets():
            if self._begins_again(packet):
                yield from self._drained()
            if packet.is_corrupt and packet.pts is not None:
                self._corrupt_until = packet.pts + math.ceil(_CORRUPT_S / self._time_base)
            # After a change of the clock FFmpeg takes frames for ones before the beginning, which are not shown.
            is_shown = not packet.is_discard or bool(self.source.joints)
            if self._is_exact and packet.size and packet.pts is not None and is_shown:
                self._pending.add(packet.pts)
                if self._first is None and packet.is_keyframe and not packet.is_corrupt:
                    self._key_frames.add(packet.pts)
            for frame in self._decode(packet):
                yield from self._checked(frame)
        if self._first is None and self.source.joints:
            raise self._damaged(self._last_end)  # nothing after the joint can be decoded
        yield from self._missing()
        if self._is_part:
            return
        if self._ends.holds_another_file():
            raise self._joined()
        self._ends.check_index(self._end)

    def _begins_again(self, packet: Packet) -> bool:
        """Return whether another recording begins at a packet, which does not refer to frames before it."""
        change = abs(self.source.video_shift - self._shift)
        self._shift = self.source.video_shift
        return bool(change) and (packet.is_keyframe or change >= _CORRECTION_S)

    def _drained(self) -> Iterator[av.VideoFrame]:
        """Yield the frames that are left in the decoder, and make it ready for another recording."""
        context = self._decoder
        pending, depth = set(self._pending), context.reorder_depth
        for frame in self._decode(None):
            yield from self._checked(frame)
        yield from self._missing()
        context.flush_buffers()
        context.reorder_depth = depth
        self._pending -= pending
        self._first = None

    def check_part_end(self) -> None:
        """Raise MediaError if a part that goes on to the end of the file ends before it; call it after iterating."""
        if not self._ends.check_part(self._end):
            self.check_declared_end()

    def check_declared_end(self) -> None:
        """Raise MediaError if the decoded frames end before the end that the file declares.

        Call it after the iteration, for files without an index of all frames.
        """
        if not self.source.joints and self._last_end is not None:  # else the declared end is on another clock
            self._ends.check_declared(self._end, self._positions.are_damaged_after)

    @property
    def is_broken_off(self) -> bool:
        """Return whether the file ends with damage, and declares no end."""
        return self._ends.is_broken_off

    @property
    def _end(self) -> Fraction:
        """The end of the latest frame, in seconds."""
        return (self._last_end or 0) * self._time_base

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
            self._ends.add(packet)
            # A packet without data repeats a frame, which then lasts longer; without a time it ends the stream.
            if packet.stream.index == self._stream.index and (packet.size or packet.pts is None):
                self._positions.add(packet)
                if self._order is not None:
                    self._order.add(packet)
                yield packet

    def _decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        """Return the frames that a packet finishes, or for None those that are left in the decoder."""
        try:
            frames = self._decoder.decode(packet if packet is not None and packet.size else None)
        except av.error.FFmpegError as error:
            if self._order is not None and packet is not None:
                self._order.drop(packet)
            if self._first is None:
                return []
            self._note(error)
            self._has_gap = not self._is_exact
            frames = []
        if self._order is not None:
            for frame in frames:
                self._order.set_time(frame)
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
            self._check_beginning(frame.pts)
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

    def _check_beginning(self, first: int | None) -> None:
        """Raise MediaError, or log it, if keyframes before the first frame cannot be decoded."""
        if first is None or self._is_part or self.source.joints or self._info.container in _UNBOUNDED:
            return
        lost = sorted(pts for pts in self._key_frames & self._pending if pts < first)
        if lost and self._on_damage == "stop":
            raise self._damaged(lost[0], self._error) from self._error
        for ticks in lost:
            time = ticks * self._time_base
            self._log.add("video", time, time + self._period * self._time_base, "left out", "it cannot be decoded")

    def _missing(self, before: float = math.inf) -> Iterator[av.VideoFrame]:
        """Yield what is shown for frames after the first one and before this timestamp that are missing."""
        if self._first is None:
            return
        missing = sorted(pts for pts in self._pending if self._first < pts < before)
        self._pending.difference_update(missing)
        may_swallow = self._on_damage != "stop" and self._may_swallow(before)
        if self._has_gap or may_swallow or self._lacks_bytes(before):
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

    def _lacks_bytes(self, before: float) -> bool:
        """Return whether the file is damaged where frames are missing before a timestamp."""
        if self._latest is None or not self._gap(before):
            return False
        low, high = self._latest * self._time_base - _CORRECTION_S, before * self._time_base + _CORRECTION_S
        if any(low <= joint.time <= high for joint in self.source.joints):
            return False  # at a joint the picture begins when the sound does
        return self._positions.are_damaged(self._latest, int(before))

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

    def _joined(self) -> MediaError:
        return MediaError(
            f"{self._info.path} holds another file after {float(self._end):.3f} s, which cannot be read: join the"
            " original files by 'ffmpeg -f concat' instead."
        )

    def _damaged_at_end(self) -> MediaError:
        return self._damaged(self._last_end)

    def _damaged(self, ticks: int | None, error: Exception | None = None) -> MediaError:
        if self._ends.holds_another_file():
            return self._joined()
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
