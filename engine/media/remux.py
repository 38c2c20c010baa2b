"""Copy the audio, subtitles, attachments, chapters and metadata of a video file into an output."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Discard, Disposition

from ..contract.errors import MediaError
from .audio import layouts_to_try
from .damage import OnDamage, RepairLog
from .metadata import lasting_metadata
from .muxer_trial import refusal
from .opening import is_picture, open_video
from .packets import SourcePackets, clock_origin, shares_clock
from .pipes import is_pipe
from .probe import VideoInfo, codec_name, moved_chapters
from .transfers import AudioConversion, Copy, CoverAttachment, TextConversion, Transfer

# By FFmpeg's name of the output format.
_AUDIO_CODECS = {"webm": "libopus"}  # all others: aac
_TEXT_CODECS = {"webm": "webvtt", "matroska": "subrip"}  # all others: mov_text
_TEXT_SUBTITLES = {"subrip", "srt", "ass", "ssa", "webvtt", "mov_text", "text"}
_TIMECODE_FORMATS = {"mov", "mp4", "ipod"}  # make a timecode stream from the metadata
_SAMPLE_PACKETS = 3  # of each stream, by which it is tried
_SAMPLE_S = 5  # seconds of the video within which these packets are looked for
_SAMPLE_BYTES = 64 << 20
_EARLY_TEXT_S = 30  # subtitles may begin so long before the part in which they are shown
_ROUNDING_S = Fraction(1, 1000)  # of the time at which a part ends

# By which a muxer refuses a packet; others, as of a full disk, end the run.
_REFUSALS = (av.error.InvalidDataError, av.error.ArgumentError, av.error.PatchWelcomeError, av.error.PermissionError)

_Maker = Callable[[OutputContainer], Transfer]


class CopiedStreams:
    """The streams of a source file other than its main video, copied packet by packet into an output.

    The source is opened a second time and read only as far as the output video has come. What the output format
    refuses is found by a trial: audio and text subtitles are converted then, and all else is left out, each with a line
    in `warnings` that names the stream and the reason. `log` has the packets that were damaged; an error of reading the
    source ends the copy, unless `on_damage` lets it go on.
    """

    def __init__(
        self, source: VideoInfo, output: OutputContainer, warnings: list[str], on_damage: OnDamage = "stop"
    ) -> None:
        self.log = RepairLog()
        self._source, self._video = open_video(source.path)
        video, self._path = self._video, source.path
        self._output, self._warnings = output, warnings
        self._times = source.times  # of the part that is written
        self._is_piped = is_pipe(source.path)
        self._allows_equal_times = output.format.name in ("matroska", "webm")
        if source.container.startswith("mov") and not source.fragmented and not self._is_piped:
            video.discard = Discard.all  # its clock cannot change, so its packets need not be read
        self._begin = self._seek()
        self._packets = iter(SourcePackets(self._source, video, lambda error: on_damage != "stop"))
        self._read: deque[Packet] = deque()  # packets that have been read but not written
        self._error: av.error.FFmpegError | None = None
        self._transfers: dict[int, Transfer] = {}  # by the stream's index in the source
        self._labels: dict[int, str] = {}
        self._clocks: dict[int, _OutputClock] = {}  # by the stream's index in the output
        self._refused: dict[int, list[str]] = {}  # times of packets that the muxer refused, by the source's index
        try:
            self._add_streams(moved_chapters(self._source, source.origin))
        except BaseException:
            self.close()
            raise

    def _add_streams(self, chapters: list[dict[str, Any]]) -> None:
        """Add what is copied to the output: streams, chapters and metadata."""
        output, first = self._output, self._first_packets()
        for stream in self._source.streams:
            if stream.index == self._video.index:
                continue
            make = self._choose(stream, first.get(stream.index, []), has_chapters=bool(chapters))
            if make is not None:
                self._transfers[stream.index] = make(output)
                self._labels[stream.index] = _label(stream)
            elif stream.type not in ("attachment", "audio"):  # the audio shows how the clock goes
                stream.discard = Discard.all
        if self._times is not None:
            chapters = self._times.chapters(chapters)
        output.set_chapters(chapters)  # type: ignore[arg-type]
        output.metadata.update(lasting_metadata(self._source.metadata, output.format.name))

    def copy_until(self, time: Fraction | None) -> None:
        """Write every packet up to a time in seconds, or all remaining packets for None.

        Raises MediaError if the source cannot be read.
        """
        if not self._transfers:
            return
        while (packet := self._next()) is not None:
            if time is not None and packet.dts is not None and self._shown(packet.dts * packet.time_base) > time:
                self._read.appendleft(packet)
                return
            index = packet.stream.index
            if index not in self._transfers or (self._times is not None and not self._times.move(packet)):
                continue
            for output_packet in self._transfers[index].packets(packet):
                self._write(output_packet, index)

    @property
    def is_empty(self) -> bool:
        """Return whether no stream is copied."""
        return not self._transfers

    def finish(self, end: Fraction) -> None:
        """Write all remaining packets, and report those that were lost. Raises MediaError as `copy_until`.

        Of a part of the source only the packets before its `end` are written, in seconds.
        """
        if self._times is None or self._times.until is None:
            self.copy_until(None)
        else:
            self.copy_until(end - _ROUNDING_S)
            for index, transfer in self._transfers.items() if self._read else ():
                for output_packet in transfer.packets(Packet()):  # as at the end of a stream
                    self._write(output_packet, index)
        for index, transfer in self._transfers.items():
            faults = [transfer.fault] if transfer.fault else []
            if times := self._refused.get(index):
                faults.append(f"the output format refuses {len(times)} of its packets, the first at {times[0]}")
            self._warnings += [f"The {self._labels[index]} is incomplete: {fault}." for fault in faults]
            for start, end in transfer.undecoded:
                self.log.add(self._labels[index], start, end, "left out", "it cannot be decoded")

    def close(self) -> None:
        """Close the source file."""
        self._packets = iter(())
        self._read.clear()
        self._source.close()

    def _seek(self) -> Fraction:
        """Go to the part that is written, or some time before it; return the time there, in seconds."""
        if self._times is None or not self._times.seekable:
            return Fraction(0)
        begin = max(Fraction(0), self._times.origin - _EARLY_TEXT_S)
        with suppress(av.error.FFmpegError):  # without an index all packets are read
            self._source.seek(int((begin + clock_origin(self._source, self._video)) * av.time_base))
        return begin

    def _shown(self, time: Fraction) -> Fraction:
        """Return the time in the output of a time of the source, both in seconds."""
        return time if self._times is None else self._times.shown(time)

    def _first_packets(self) -> dict[int, list[Packet]]:
        """Read on until every stream that has to be tried has shown some packets; return them by its index."""
        found: dict[int, list[Packet]] = {}
        missing = {
            stream.index
            for stream in self._source.streams
            if stream.type in ("audio", "data") or (stream.type == "video" and is_picture(stream))
        } - {self._video.index}
        size = 0
        while missing and size < _SAMPLE_BYTES:
            try:
                packet = next(self._packets, None)
            except av.error.FFmpegError as error:
                self._error = error
                break
            if packet is None:
                break
            size += packet.size
            index = packet.stream.index
            if index != self._video.index:
                self._read.append(packet)
                packets = found.setdefault(index, [])
                if packet.size and len(packets) < _SAMPLE_PACKETS:
                    packets.append(packet)
                is_single = packet.stream.type == "video"
                if len(packets) == _SAMPLE_PACKETS or is_single:
                    missing.discard(index)
            if packet.dts is not None and packet.dts * packet.time_base > self._begin + _SAMPLE_S:
                break
        return found

    def _next(self) -> Packet | None:
        """Return the next packet of a stream that is copied. Raises MediaError if the source cannot be read."""
        while True:
            try:
                if self._read:
                    packet: Packet | None = self._read.popleft()
                elif self._error is not None:
                    raise self._error
                else:
                    packet = next(self._packets, None)
            except av.error.FFmpegError as error:
                raise MediaError(
                    f"The audio or subtitles of {self._path} are damaged ({error.strerror}): copy the file again, or"
                    " remux it without them."
                ) from error
            # How far the video has come limits how far a pipe is read.
            is_clock = self._is_piped and packet is not None and packet.stream.index == self._video.index
            if packet is None or is_clock or packet.stream.index in self._transfers:
                return packet

    def _write(self, packet: Packet, index: int) -> None:
        """Write a packet of a transfer at a time that grows in the output's own time base."""
        target = packet.stream
        tick = target.time_base
        if packet.dts is None:
            packet.dts = packet.pts
        if packet.dts is None:
            packet.pts = packet.dts = 0  # a cover
        assert tick is not None
        dts, pts = (None if t is None else round(t * packet.time_base / tick) for t in (packet.dts, packet.pts))
        assert dts is not None
        length = round((packet.duration or 0) * packet.time_base / tick)
        clock = self._clocks.setdefault(target.index, _OutputClock(dts))
        dts = clock.following(dts, allows_equal=self._allows_equal_times)
        pts = dts if pts is None else max(pts, dts)
        packet.time_base, packet.dts, packet.pts, packet.duration = tick, dts, pts, length
        try:
            self._output.mux_one(packet)
        except _REFUSALS:
            self._refused.setdefault(index, []).append(f"{float(dts * tick):.3f} s")

    def _choose(self, stream: Any, first: list[Packet], *, has_chapters: bool) -> _Maker | None:
        """Return how to transfer a stream, or None, with a warning, if it is left out.

        A copy is tried first, and then a conversion.
        """
        format, name, label = self._output.format.name, codec_name(stream), _label(stream)
        if stream.type == "audio" and self._times is not None and self._times.slowness != 1:
            self._warnings.append(f"The {label} was left out: it does not follow slow motion.")
            return None
        if stream.type == "data" and (timecode := stream.metadata.get("timecode")):
            if not any("timecode" in tags for tags in (self._video.metadata, self._source.metadata)):
                self._output.metadata["timecode"] = timecode
            if format not in _TIMECODE_FORMATS:
                self._warnings.append(f"The {label} became the tag 'timecode', {timecode}.")
            return None  # the muxer makes one from that tag
        if stream.type == "data" and stream.discard == Discard.all and has_chapters:
            return None  # the text track of QuickTime's chapters, which FFmpeg reads as such; the muxer makes one
        if stream.type == "video" and stream.disposition & Disposition.timed_thumbnails:
            self._warnings.append(f"The {label} was left out: pictures of chapters are not kept.")
            return None
        if stream.type == "video" and not is_picture(stream):
            self._warnings.append(f"The {label} was left out: only one video stream is upscaled.")
            return None
        if not shares_clock(stream, self._video):
            self._warnings.append(f"The {label} was left out: it has another clock, as another program has.")
            return None
        reason = f"{format} does not support it"
        if stream.type != "unknown":
            kind = CoverAttachment if stream.type == "video" and format == "matroska" else Copy
            copy: _Maker = partial(kind, stream, first=first)
            if not (stream.type == "video" and format == "webm") and refusal(format, copy, stream) is None:
                return copy
        for codec, make in self._conversions(stream, name):
            refused = refusal(format, make, stream)
            if refused is None:
                self._warnings.append(f"The {label} was converted to {codec}: {format} does not support {name}.")
                return make
            reason = f"it cannot be converted ({refused})"
        self._warnings.append(f"The {label} was left out: {reason}.")
        return None

    def _conversions(self, stream: Any, name: str) -> Iterator[tuple[str, _Maker]]:
        """Yield the conversions of a stream that make sense, the best first: the codec, and how to make it."""
        format = self._output.format.name
        if stream.type == "audio" and stream.codec_context is not None:
            codec = _AUDIO_CODECS.get(format, "aac")
            for layout in layouts_to_try(codec, stream.codec_context.layout.nb_channels):
                yield codec.removeprefix("lib"), partial(AudioConversion, stream, codec=codec, layout=layout)
        if stream.type == "subtitle" and name in _TEXT_SUBTITLES:
            codec = _TEXT_CODECS.get(format, "mov_text")
            yield codec, partial(TextConversion, stream, codec=codec)


class _OutputClock:
    """The decoding times of the packets of an output stream, in ticks; they grow."""

    def __init__(self, first: int) -> None:
        self._first, self._count = first, 0
        self._last: int | None = None

    def following(self, time: int, *, allows_equal: bool) -> int:
        """Return the time of the next packet: its own, or one after that of the packet before.

        Packets that are shorter than a tick on average, as those of TrueHD in milliseconds, keep equal times if the
        format allows it: they would lag behind if each took a whole tick.
        """
        if self._last is not None and time <= self._last:
            are_short = time - self._first < self._count
            time = self._last if allows_equal and are_short else self._last + 1
        self._count += 1
        self._last = time
        return time


def _label(stream: Any) -> str:
    if stream.type == "data" and "timecode" in stream.metadata:
        return f"timecode stream {stream.index}"
    kind = "cover" if stream.type == "video" and is_picture(stream) else f"{stream.type} stream"
    return f"{kind} {stream.index} ({codec_name(stream)})"
