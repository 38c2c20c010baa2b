"""Makes small clips of every awkward kind out of the shipped sample, with PyAV alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from stvsr.engine.media.reader import open_reader
from stvsr.engine.media.writer import VideoWriter

from tests.support.paths import SAMPLE

NTSC = Fraction(30000, 1001)


@dataclass(frozen=True)
class Tags:
    """Code points of ITU-T H.273, and FFmpeg's range."""

    matrix: int = 1
    primaries: int = 1
    transfer: int = 1
    range: int = 1


BT2020 = Tags(9, 9, 16, 1)


def make_clip(
    path: Path,
    *,
    count: int = 8,
    size: tuple[int, int] = (64, 48),
    pts: Sequence[int] | None = None,  # ticks; 1001 apart
    last_duration: int = 1001,  # ticks
    time_base: Fraction = Fraction(1, 30000),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    tags: Tags | None = None,
    rotation: tuple[int, bool] | None = None,  # degrees counterclockwise, mirrored
    aspect: Fraction | None = None,
    languages: Sequence[str] = (),  # one AAC track each
    pcm: bool = False,
    subtitles: Sequence[tuple[int, int, str]] = (),  # milliseconds, milliseconds, text
    chapters: Sequence[tuple[int, int, str]] = (),  # milliseconds, milliseconds, title
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    pts = [1001 * n for n in range(count)] if pts is None else pts
    durations = [after - before for before, after in zip(pts, [*pts[1:], pts[-1] + last_duration], strict=True)]
    ticks = math.lcm(time_base.denominator, 48000)
    timed = {"movie_timescale": str(ticks)} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", container_options=timed) as output, av.open(str(SAMPLE)) as sample:
        stream = output.add_stream(codec, rate=NTSC, width=size[0], height=size[1], options=options)
        context = stream.codec_context
        context.pix_fmt, context.time_base, stream.time_base = pix_fmt, time_base, time_base
        if codec == "libx265":
            context.options = {"x265-params": "log-level=error"}
        if tags is not None:
            context.colorspace, context.color_primaries = tags.matrix, tags.primaries
            context.color_trc, context.color_range = tags.transfer, tags.range
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        stream.metadata.update(metadata or {})
        output.metadata.update({"title": "Bees"} if metadata else {})
        output.set_chapters(
            [
                {"id": n, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                for n, (a, b, title) in enumerate(chapters)
            ]
        )
        packets = list(_audio(sample, output, languages))
        if pcm:
            packets += _pcm(output)
        packets += _subtitles(output, subtitles)
        for picture, stamp in zip(pictures(len(pts), size, pix_fmt), pts, strict=True):
            picture.pts, picture.time_base = stamp, time_base
            packets += stream.encode(picture)
        packets += stream.encode()
        for packet in packets:
            if packet.stream.index == 0:
                packet.duration = durations[pts.index(packet.pts)]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return path


def pictures(count: int, size: tuple[int, int], pix_fmt: str = "yuv420p") -> list[Any]:
    with av.open(str(SAMPLE)) as sample:
        decoded = list(islice(sample.decode(video=0), count))
        return [picture.reformat(*size, format=pix_fmt, threads=1) for picture in islice(cycle(decoded), count)]


def _audio(sample: Any, output: Any, languages: Sequence[str]) -> list[Any]:
    packets = []
    for language in languages:
        target = output.add_stream_from_template(sample.streams.audio[0], opaque=True)
        target.metadata["language"] = language
        sample.seek(0)
        for packet in sample.demux(sample.streams.audio[0]):
            if packet.dts is not None and packet.pts * packet.time_base < Fraction(1, 3):
                packet.stream = target
                packets.append(packet)
    return packets


def _pcm(output: Any) -> list[Any]:
    stream = output.add_stream("pcm_s16le", rate=48000, layout="mono")
    tone = (np.sin(np.arange(9600) / 20) * 9000).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    return [*stream.encode(frame), *stream.encode()]


def _subtitles(output: Any, lines: Sequence[tuple[int, int, str]]) -> list[Any]:
    if not lines:
        return []
    stream = output.add_mux_stream("subrip", time_base=Fraction(1, 1000))
    stream.metadata["language"] = "fra"
    packets = []
    for start_ms, duration_ms, text in lines:
        packet = av.Packet(text.encode())
        packet.pts = packet.dts = start_ms
        packet.duration, packet.time_base, packet.stream, packet.is_keyframe = (
            duration_ms,
            Fraction(1, 1000),
            stream,
            True,
        )
        packets.append(packet)
    return packets


def make_folder(folder: Path, count: int = 3, *, pix_fmt: str = "rgb24", size: tuple[int, int] = (32, 24)) -> Path:
    """Make a folder of PNG images whose natural order differs from the alphabet's."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures(count, size, pix_fmt), start=9):
        write_png(folder / f"frame{number}.png", picture)
    return folder


def write_png(path: Path, picture: Any) -> None:
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, picture.format.name
    encoder.time_base = Fraction(1, 25)
    picture.pts = 0
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)]))


def cut(source: Path, target: Path, share: float) -> Path:
    """Copy the first part of a file's bytes."""
    whole = source.read_bytes()
    target.write_bytes(whole[: int(len(whole) * share)])
    return target


def remux(source: Path, target: Path, **options: str) -> Path:
    with av.open(str(source)) as reader, av.open(str(target), "w", container_options=options) as output:
        ways = {s.index: output.add_stream_from_template(s, opaque=True) for s in reader.streams}
        for packet in reader.demux():
            if packet.dts is not None:
                packet.stream = ways[packet.stream.index]
                output.mux(packet)
    return target


def packets_of(path: Path, kind: str) -> list[list[tuple[Fraction, bytes]]]:
    """Return every stream of a kind as its packets' (pts in seconds, payload)."""
    with av.open(str(path)) as container:
        found: dict[int, list[tuple[Fraction, bytes]]] = {s.index: [] for s in container.streams if s.type == kind}
        for packet in container.demux():
            if packet.pts is not None and packet.stream.index in found:
                found[packet.stream.index].append((packet.pts * packet.time_base, bytes(packet)))
    return list(found.values())


def times(path: Path) -> list[tuple[Fraction, Fraction]]:
    """Return every frame's (pts, duration) in seconds."""
    with open_reader(path) as reader:
        return [(frame.pts, frame.duration) for frame in reader]


def rewrite(source: Path, target: Path, *, factor: int = 1, scale: int = 1, **options: Any) -> VideoWriter:
    """Read and write a video, each frame `factor` times and `scale` times as large, and return the writer."""
    with open_reader(source) as reader:
        info = reader.info
        writer = VideoWriter(
            target,
            source=reader,
            size=(info.width * scale, info.height * scale),
            rate=info.rate * factor,
            time_base=info.time_base / factor,
            **options,
        )
        with writer:
            for frame in reader:
                rgb = np.rint(frame.rgb * 65535).astype(np.uint16).repeat(scale, 1).repeat(scale, 2)
                for n in range(factor):
                    writer.write(rgb, frame.pts + frame.duration * n / factor, frame.duration / factor)
    return writer
