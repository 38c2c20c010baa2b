"""Parts of a video as fragments of MP4, which players take one after another while the rest is being made.

A part begins with a keyframe, and no frame of it needs another part: it is a finished segment, or the same frames in
the video that was joined of segments. Packets are copied. All times are ticks in the time base of the video.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ..contract.errors import MediaError
from .segment_file import SegmentFile
from .video_stream import codec_tag

_MOST_FRAGMENT_S = 4.0  # so that a long part is not held in memory


@dataclass(frozen=True)
class Part:
    """An open part: its stream, and its packets with the times at which they are shown, in the order of decoding."""

    stream: VideoStream
    ticks: Sequence[int]
    packets: Iterator[Packet]


@dataclass(frozen=True)
class SegmentPart:
    """A part that is a finished segment."""

    segment: SegmentFile

    @contextmanager
    def open(self) -> Iterator[Part]:
        """Open the part. Raises OSError or ValueError if it is not there, and MediaError if it is damaged."""
        with self.segment.open() as (stream, packets):
            yield Part(stream, self.segment.ticks, packets)


@dataclass(frozen=True)
class JoinedPart:
    """The part of a joined video whose frames are shown from tick `low` up to and without `high`."""

    path: Path
    start: int  # tick of the video's first frame: its file may count from another time
    low: int
    high: int
    time_base: Fraction

    @contextmanager
    def open(self) -> Iterator[Part]:
        """Open the part. Raises OSError, ValueError or MediaError if it is not there."""
        with av.open(f"file:{self.path}") as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            scale = stream.time_base / self.time_base
            first = next((packet.pts for packet in container.demux(stream) if packet.pts is not None), 0)
            shift = self.start - round(first * scale)

            def packets() -> Iterator[tuple[Packet, int]]:
                for packet in _from_keyframe(container, stream, round((self.low - shift) / scale), first):
                    tick = round(packet.pts * scale) + shift  # type: ignore[operator]
                    if tick >= self.high:
                        return
                    if tick >= self.low:
                        yield packet, tick

            ticks = [tick for _, tick in packets()]
            if not ticks or ticks[0] > self.low:
                raise MediaError(f"{self.path} has no frame at {float(self.low * self.time_base):.3f} s.")
            yield Part(stream, ticks, (packet for packet, _ in packets()))


def write_fragments(part: Part, file: IO[bytes], *, time_base: Fraction, end: int, delay: int, number: int) -> None:
    """Write a part as a file of MP4 with fragments: first what every part of the video has in common, then the part.

    The part ends at tick `end`. All decoding is `delay` ticks early, so that every frame is decoded before it is shown;
    the value is the same for all parts, and does not move the frames. `number` is that of the part.
    """
    shown = sorted(part.ticks)
    end = max(end, shown[-1] + 1)  # frames that are closer than a tick have been moved
    options = {
        "movflags": "delay_moov+default_base_moof+frag_discont+skip_trailer",
        "video_track_timescale": str(time_base.denominator),
        "frag_duration": str(round(_MOST_FRAGMENT_S * 1e6)),
        "fragment_index": str(number + 1),
    }
    with av.open(file, "w", format="mp4", options=options) as output:
        stream = output.add_stream_from_template(part.stream, opaque=True)
        assert isinstance(stream, VideoStream)
        stream.time_base = time_base
        if (tag := codec_tag(part.stream.codec_context.name, Path("fragment.mp4"))) is not None:
            stream.codec_tag = tag
        for packet, tick, decoded, after in zip(part.packets, part.ticks, shown, [*shown[1:], end], strict=True):
            packet.stream, packet.time_base = stream, time_base
            packet.pts, packet.dts, packet.duration = tick, decoded - delay, after - decoded
            output.mux_one(packet)


def start_of_part(file: IO[bytes]) -> int:
    """Return the position in a file by `write_fragments` at which the part begins."""
    position = 0
    while True:
        file.seek(position)
        size, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"moof":
            return position
        position += size


def codec_string(beginning: bytes) -> str:
    """Return the name by RFC 6381 of the codec in what every part of a video has in common."""
    if (record := _record(beginning, b"avcC")) is not None:
        return f"avc1.{record[1:4].hex()}"
    if (record := _record(beginning, b"hvcC")) is not None:
        space, tier, profile = ("", "A", "B", "C")[record[1] >> 6], "LH"[record[1] >> 5 & 1], record[1] & 31
        flags = int(f"{int.from_bytes(record[2:6]):032b}"[::-1], 2)
        constraints = [f".{byte:X}" for byte in record[6:12].rstrip(b"\0")]
        return f"hvc1.{space}{profile}.{flags:X}.{tier}{record[12]}{''.join(constraints)}"
    if (record := _record(beginning, b"av1C")) is not None:
        depth = (8, 10, 12)[(record[2] >> 6 & 1) + (record[2] >> 5 & 1)]
        return f"av01.{record[1] >> 5}.{record[1] & 31:02}{'MH'[record[2] >> 7]}.{depth:02}"
    if (record := _record(beginning, b"vpcC")) is not None:
        return f"vp09.{record[4]:02}.{record[5]:02}.{record[6] >> 4:02}"
    raise MediaError("The video has no codec that is played in fragments of MP4: choose another.")


def _record(beginning: bytes, kind: bytes) -> bytes | None:
    """Return the content of the box that describes a codec, or None if it is not there."""
    position = beginning.find(kind)
    return None if position < 0 else beginning[position + 4 : position + 4 + 24]


def decode_frame(part: Part, tick: int) -> av.VideoFrame:
    """Return the frame of a part that is shown at a tick. Raises MediaError if there is none."""
    wanted = max((one for one in part.ticks if one <= tick), default=None)
    for frame in _decoded(part):
        if frame.pts == wanted:
            return frame
    raise MediaError("The video has no frame at this time: choose another.")


def _decoded(part: Part) -> Iterator[av.VideoFrame]:
    """Yield the frames of a part, whose timestamps are ticks."""
    context = part.stream.codec_context
    for packet, tick in zip(part.packets, part.ticks, strict=True):
        packet.pts = tick
        yield from context.decode(packet)
    yield from context.decode(None)


def _from_keyframe(container: InputContainer, stream: VideoStream, pts: int, start: int) -> Iterator[Packet]:
    """Yield the packets from a keyframe on that is shown at `pts` or before; the first one is shown at `start`."""
    # An index by times of decoding may lead too far in very short parts; then they are read from the start.
    for position in (pts, start):
        container.seek(position, stream=stream)
        packets = (packet for packet in container.demux(stream) if packet.pts is not None)
        first = next(packets, None)
        if first is not None and (first.pts or 0) <= pts:
            yield first
            yield from packets
            return
