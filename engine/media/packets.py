"""The packets of a video file on one timeline, which begins at zero and goes on where the clock of the file changes.

A recording of a broadcast, a camera or a DVD has the clock of its source: it may begin far from zero, and it falls back
where two recordings were joined or where an encoder was started again. Both readings of a file, that of its picture and
that of its other streams, take their packets from here, so that all streams keep their distances.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

_AHEAD = 16  # packets of a stream that show whether its clock has changed, or only one timestamp is wrong
_INTERLEAVING_S = 5  # seconds by which one stream may be stored before another
_MOST_AHEAD = 4000  # packets of all streams that are read ahead
_MOST_FAILURES = 64  # to read on at one damage
_MAX_DURATION = 2**31  # ticks of a packet
_LEAP_S = 10  # seconds; in a recording of a broadcast or a disc, a longer gap in all streams is another clock
_OVERLAP_S = Fraction(1, 4)  # seconds by which packets of one stream may overlap
_PROGRAM_S = 60  # seconds between the beginnings of streams that belong to one program of a broadcast
_CHANGING_FORMATS = ("mpegts", "mpeg")  # of broadcasts and discs
_FORMATS_WITHOUT_DTS = ("matroska,webm", "asf")


@dataclass(frozen=True)
class Joint:
    """A change of the clock of a file, in seconds."""

    time: Fraction  # on the timeline, where the new clock begins
    before: Fraction  # the end of what came before, on the file's clock
    after: Fraction  # the beginning of what follows, on the file's clock


def clock_origin(container: InputContainer, video: VideoStream) -> Fraction:
    """Return the time of a file's clock, in seconds, at which its earliest audio or video begins.

    It is rounded down to a multiple of the video's time base, so that the times of the frames stay exact.
    """
    tick = video.time_base
    starts = [
        stream.start_time * stream.time_base
        for stream in container.streams
        if _is_timed(stream, video) and stream.start_time is not None and stream.time_base
    ]
    if not starts or tick is None:
        return Fraction(0)
    return math.floor(min(starts) / tick) * tick


def shares_clock(stream: Any, video: VideoStream) -> bool:
    """Return whether a stream counts its times as the main video does; other programs of a broadcast do not."""
    if stream.container.format.name not in _CHANGING_FORMATS or None in (stream.start_time, video.start_time):
        return True
    assert video.start_time is not None
    assert video.time_base is not None
    return bool(abs(stream.start_time * stream.time_base - video.start_time * video.time_base) < _PROGRAM_S)


def _is_timed(stream: Any, video: VideoStream) -> bool:
    """Return whether a stream shows how the clock goes: the main video and its audio do, text and covers do not."""
    return bool(stream.index == video.index or (stream.type == "audio" and shares_clock(stream, video)))


class SourcePackets:
    """Yields the packets of a file, moved to the timeline; iterate once.

    `joints` has the changes of the clock so far. A packet at the end of each stream is empty, as FFmpeg's decoders need
    it. Raises av.error.FFmpegError if the file cannot be read, unless `goes_on` returns true for the error: then what
    can be read after the damage follows.
    """

    def __init__(
        self,
        container: InputContainer,
        video: VideoStream,
        goes_on: Callable[[av.error.FFmpegError], bool] = lambda error: False,
    ) -> None:
        self.joints: list[Joint] = []
        self._container, self._goes_on = container, goes_on
        self._shift = -clock_origin(container, video)  # seconds from the file's clock to the timeline
        self._may_leap = container.format.name in _CHANGING_FORMATS
        self._tracks = {
            stream.index: _Track(stream, self._shift, _is_timed(stream, video)) for stream in container.streams
        }
        self._video = self._tracks[video.index]
        self._ahead: deque[Packet] = deque()  # packets that have been read to learn how the clock goes on
        self._error: av.error.FFmpegError | None = None  # raised after the packets that have been read ahead

    def __iter__(self) -> Iterator[Packet]:
        self._packets = self._demuxed()
        while (packet := self._next()) is not None:
            track = self._tracks[packet.stream.index]
            if track.is_timed:
                if self._may_leap:
                    track.mend(packet)
                self._follow_clock(packet, track)
            elif track.shift != self._shift:
                track.set_shift(self._shift)
            track.move(packet)
            yield packet

    @property
    def video_shift(self) -> Fraction:
        """The seconds from the file's clock to the timeline, of the main video at its latest packet."""
        return self._video.shift

    def _demuxed(self) -> Iterator[Packet]:
        failures = 0  # since the last packet
        while True:
            try:
                for packet in self._container.demux():
                    failures = 0
                    if packet.duration and packet.duration > _MAX_DURATION:  # negative, at the end of an Ogg stream
                        packet.duration = 0
                    yield packet
                return
            except av.error.FFmpegError as error:
                failures += 1
                if failures > _MOST_FAILURES or not self._goes_on(error):
                    raise

    def _next(self) -> Packet | None:
        if self._ahead:
            return self._ahead.popleft()
        if self._error is not None:
            raise self._error
        return next(self._packets, None)

    def _follow_clock(self, packet: Packet, track: "_Track") -> None:
        """Change the track's shift if its clock falls back or leaps ahead at this packet."""
        if track.last is None:
            track.set_shift(self._shift)
            return
        falls, leaps = track.falls(packet), self._may_leap and track.leaps(packet)
        if not falls and not leaps:
            return
        if track.shift != self._shift and track.goes_on(packet, self._shift):
            track.set_shift(self._shift)  # another stream has come to this joint before
            return
        self._read_ahead(lambda: len(self._ahead_of(track)) >= _AHEAD)
        following = self._ahead_of(track)
        if leaps:
            if any(not track.leaps(later) for later in following):
                track.replace_times(packet)
            elif not self._others_go_on(track):
                self._join(track, packet)
        elif not track.comes_back(packet, following) and not self._overlaps(track, packet):
            self._join(track, packet)

    def _overlaps(self, track: "_Track", packet: Packet) -> bool:
        """Return whether a clock falls back a little in this stream alone, as where the sound of two films overlaps.

        Such a stream keeps its distance from the others.
        """
        if track.next - track.shown(packet) > track.ticks(_OVERLAP_S):
            return False
        self._read_ahead(lambda: self._is_ahead(track, packet, 1))
        return self._others_go_on(track)

    def _read_ahead(self, enough: Callable[[], bool]) -> None:
        """Read packets into the queue, some at a time, until there are enough of them."""
        while not enough() and len(self._ahead) < _MOST_AHEAD and self._error is None:
            for _ in range(_AHEAD):
                try:
                    packet = next(self._packets, None)
                except av.error.FFmpegError as error:
                    self._error = error
                    return
                if packet is None:
                    return
                self._ahead.append(packet)

    def _ahead_of(self, track: "_Track") -> list[Packet]:
        """Return the packets of a stream in the queue that have a timestamp."""
        return [
            packet
            for packet in self._ahead
            if self._tracks[packet.stream.index] is track and packet.size and (packet.pts, packet.dts) != (None, None)
        ]

    def _is_ahead(self, track: "_Track", packet: Packet, seconds: int) -> bool:
        """Return whether the queue has packets of a stream up to so long after one."""
        latest = self._ahead_of(track)[-1:]
        return bool(latest) and track.shown(latest[0]) - track.shown(packet) > track.ticks(seconds)

    def _others_go_on(self, track: "_Track") -> bool:
        """Return whether the clock of another stream does not change in the packets ahead."""
        return any(
            other.change(packets)[0] is None for other in self._others(track) if (packets := self._ahead_of(other))
        )

    def _others(self, track: "_Track") -> list["_Track"]:
        """Return the other streams that show how the same clock goes."""
        return [
            other
            for other in self._tracks.values()
            if other.is_timed and other is not track and other.last is not None and other.shift == track.shift
        ]

    def _join(self, track: "_Track", packet: Packet) -> None:
        """Let the timeline go on: every stream begins again at its end or later, and all by the same shift."""
        others = self._others(track)
        self._read_ahead(
            lambda: (
                self._is_ahead(track, packet, _INTERLEAVING_S)
                or all(other.change(self._ahead_of(other))[0] is not None for other in others)
            )
        )
        begins, end = track.change([packet, *self._ahead_of(track)])
        assert begins is not None
        gap = (end - begins) * track.tick  # seconds by which the packets from here on must move
        for other in others:
            first, end_of_other = other.change(self._ahead_of(other))
            if first is not None:
                gap = max(gap, (end_of_other - first) * other.tick)
        before, after = track.end * track.tick - track.shift, begins * track.tick - track.shift
        self._shift = track.shift + gap
        track.set_shift(self._shift)
        self.joints.append(Joint(after + self._shift, before, after))


class _Track:
    """The clock of one stream: all times are ticks of its time base, on the timeline.

    The decoding times show how the clock goes. Matroska and ASF do not store them, and FFmpeg's guesses are not in
    order after a change; there the key frames show it, which are displayed after all that come before them.
    """

    def __init__(self, stream: Any, shift: Fraction, is_timed: bool) -> None:
        self.tick = Fraction(stream.time_base or Fraction(1, av.time_base))  # seconds
        self.is_timed = is_timed
        self._by_key_frames = stream.type == "video" and stream.container.format.name in _FORMATS_WITHOUT_DTS
        self._is_audio = stream.type == "audio"
        self.set_shift(shift)
        self.last: int | None = None  # the latest time of a packet
        self.next = 0  # the end of the packet that has it
        self.end = 0  # the latest end of a packet in presentation
        self.period = 1  # the usual duration of a packet
        self._delay = 0  # from decoding to presentation, of the latest packet
        self._shown: deque[int] = deque(maxlen=2 * _AHEAD)  # latest presentation times

    def set_shift(self, shift: Fraction) -> None:
        """Set the seconds from the file's clock to the timeline."""
        self.shift = shift
        self._offset = round(shift / self.tick)

    def ticks(self, seconds: Fraction | int) -> int:
        """Return a duration in ticks."""
        return round(seconds / self.tick)

    def shown(self, packet: Packet) -> int:
        """Return the presentation time of a packet that has a timestamp, by the present shift."""
        time = packet.dts if packet.pts is None else packet.pts
        assert time is not None
        return time + self._offset

    def falls(self, packet: Packet) -> bool:
        """Return whether the clock falls back at a packet."""
        time = self._time(packet)
        assert self.last is not None
        if self._by_key_frames:
            return time is not None and time < self.next - self.period // 2
        return time is not None and time < self.last

    def leaps(self, packet: Packet) -> bool:
        """Return whether the clock leaps ahead at a packet."""
        time = self._time(packet)
        return time is not None and time > self.next + self.ticks(_LEAP_S)

    def goes_on(self, packet: Packet, shift: Fraction | None = None) -> bool:
        """Return whether a packet, by the present or another shift, follows as if the clock had not changed."""
        before = self.shift
        self.set_shift(before if shift is None else shift)
        changes = self.falls(packet) or self.leaps(packet)
        self.set_shift(before)
        return not changes

    def comes_back(self, packet: Packet, following: list[Packet]) -> bool:
        """Return whether the clock, which falls back at a packet, goes on as before in those that follow."""
        assert self.last is not None
        if self._by_key_frames:
            return bool(following) and all(self.shown(later) >= self.next for later in following[:2])
        expected = self.next
        length = packet.duration or self.period
        for later in following:
            expected += length
            time = self._time(later)
            if time is not None and time >= expected - max(1, length // 2):
                return True
            length = later.duration or self.period
        if len(following) >= _AHEAD:
            return False
        # Near the end of a file, where less is to be seen: timestamps that were not there before are only out of order.
        time = self._time(packet)
        is_near = time is not None and self.last - time < _AHEAD * self.period
        return is_near and packet.pts is not None and packet.pts + self._offset not in self._shown

    def change(self, packets: list[Packet]) -> tuple[int | None, int]:
        """Return the first presentation time after the clock changes in the next packets, and the end before it.

        Both are ticks by the present shift; the first one is None if the clock does not change.
        """
        first, last, next_, end = None, self.last, self.next, self.end
        limit = self.ticks(_LEAP_S)
        lowest = (lambda: next_ - self.period // 2) if self._by_key_frames else (lambda: last or 0)
        for packet in packets:
            time, shown, length = self._time(packet), self.shown(packet), packet.duration or self.period
            if first is None and (time is None or lowest() <= time <= next_ + limit):
                end = max(end, shown + length)
                if self._by_key_frames:
                    last, next_ = max(last or 0, shown), end
                elif time is not None:
                    last, next_ = time, time + length
            elif first is None or shown < first <= shown + _AHEAD * length:
                first = shown  # pictures that are decoded after the first one may be shown before it
        return first, end

    def mend(self, packet: Packet) -> None:
        """Replace a presentation time that is another clock's, as of the last frame before a joint."""
        if packet.pts is None or packet.dts is None:
            return
        if abs(packet.pts - packet.dts) > self.ticks(_LEAP_S):
            packet.pts = packet.dts + self._delay
        self._delay = packet.pts - packet.dts

    def replace_times(self, packet: Packet) -> None:
        """Set the timestamps of a packet to the end of the one before."""
        packet.pts = packet.dts = self.next - self._offset

    def move(self, packet: Packet) -> None:
        """Move a packet to the timeline."""
        if packet.dts is not None:
            packet.dts += self._offset
        if packet.pts is not None:
            packet.pts += self._offset
        if not self.is_timed or not packet.size or (packet.pts, packet.dts) == (None, None):
            return
        time = packet.dts if packet.dts is not None or not self._is_audio else packet.pts
        shown = packet.dts if packet.pts is None else packet.pts
        assert shown is not None
        if packet.duration:
            self.period = packet.duration
        elif time is not None and self.last is not None and time > self.last:
            self.period = time - self.last
        if self._is_audio and not packet.duration and self._shown:
            packet.duration = self.period  # the last packet would have no end
        self.end = max(self.end, shown + self.period) if self._shown else shown + self.period
        self._shown.append(shown)
        if self._by_key_frames:
            self.last, self.next = max(self._shown), self.end
        elif time is not None and (self.last is None or time >= self.last):
            self.last, self.next = time, time + self.period

    def _time(self, packet: Packet) -> int | None:
        """Return the time of a packet, by the present shift, that shows how the clock goes; None for one without."""
        if not packet.size:
            return None
        if self._by_key_frames:
            time = packet.pts if packet.is_keyframe else None
        else:
            time = packet.pts if packet.dts is None and self._is_audio else packet.dts
        return None if time is None else time + self._offset
