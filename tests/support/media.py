"""Generate, write, damage and read back small clips and image folders, with PyAV alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from stvsr.engine.media.reader import open_reader
from stvsr.engine.media.writer import VideoWriter

from tests.support.paths import SAMPLE

NTSC = Fraction(30000, 1001)
TICK = Fraction(1, 30000)  # seconds, the time base of the sample and of `make_clip`
_RATE = Fraction(24)  # of `make_video`


@dataclass(frozen=True)
class Tags:
    """Color tags: code points of ITU-T H.273, and FFmpeg's range."""

    matrix: int = 1
    primaries: int = 1
    transfer: int = 1
    range: int = 1


BT2020 = Tags(9, 9, 16, 1)


# --- synthetic frames ---


def picture(seed: int, shape: tuple[int, int] = (136, 240)) -> np.ndarray:
    """Draw overlapping rectangles in random colors, (3, h, w) float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    image = np.full((3, *shape), rng.random(), np.float32)
    for _ in range(60):
        top, left = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        image[:, top : top + rng.integers(5, 60), left : left + rng.integers(5, 60)] = rng.random((3, 1, 1)) ** 2
    return image


def pan(count: int, shape: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Return frames, (3, h, w), of an image that moves by two pixels a frame."""
    wide = picture(5, (shape[0], shape[1] + 2 * count))
    return [wide[:, :, 2 * i : 2 * i + shape[1]] for i in range(count)]


def sample_frames(count: int, size: tuple[int, int], pix_fmt: str = "yuv420p") -> list[av.VideoFrame]:
    """Return decoded frames of the sample, resized to (width, height); they repeat after the sample's end."""
    with av.open(str(SAMPLE)) as sample:
        decoded = list(islice(sample.decode(video=0), count))
        return [frame.reformat(*size, format=pix_fmt, threads=1) for frame in islice(cycle(decoded), count)]


# --- clips and image folders ---


def make_video(path: Path, frames: Sequence[np.ndarray], ticks: Sequence[int] | None = None) -> Path:
    """Write frames (3, h, w) with no loss but the conversion to YUV; `ticks` are their timestamps in 1/24 s."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=_RATE, options={"qp": "0", "preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape[1:]
        stream.pix_fmt = "yuv444p"
        stream.codec_context.time_base = 1 / _RATE
        for i, rgb in enumerate(frames):
            image = np.ascontiguousarray(np.rint(rgb * 255).astype(np.uint8).transpose(1, 2, 0))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (ticks[i] if ticks else i), 1 / _RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def two_scenes(path: Path, ticks: Sequence[int] | None = None) -> Path:
    """Write a clip with a cut after the twelfth of 22 frames, as `make_video` does."""
    return make_video(path, [*pan(12), *(1 - frame for frame in pan(10))], ticks)


def make_clip(
    path: Path,
    *,
    count: int = 8,
    size: tuple[int, int] = (64, 48),
    pts: Sequence[int] | None = None,  # ticks; None: 1001 apart
    last_duration: int = 1001,  # ticks
    time_base: Fraction = TICK,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    tags: Tags | None = None,
    rotation: tuple[int, bool] | None = None,  # degrees counterclockwise, mirrored
    aspect: Fraction | None = None,
    languages: Sequence[str] = (),  # of one AAC track each
    pcm: bool = False,
    subtitles: Sequence[tuple[int, int, str]] = (),  # start in ms, duration in ms, text
    chapters: Sequence[tuple[int, int, str]] = (),  # start in ms, end in ms, title
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    encoder_options: dict[str, str] | None = None,
) -> Path:
    """Write frames of the sample as a clip with the given properties and streams."""
    pts = [1001 * n for n in range(count)] if pts is None else pts
    durations = [after - before for before, after in zip(pts, [*pts[1:], pts[-1] + last_duration], strict=True)]
    ticks = math.lcm(time_base.denominator, 48000)
    timescale = {"movie_timescale": str(ticks)} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", container_options=timescale) as output, av.open(str(SAMPLE)) as sample:
        stream = output.add_stream(codec, rate=NTSC, width=size[0], height=size[1], options=options)
        assert isinstance(stream, av.VideoStream)
        context = stream.codec_context
        context.pix_fmt, context.time_base, stream.time_base = pix_fmt, time_base, time_base
        if codec == "libx265":
            context.options = {"x265-params": "log-level=error"}
        if encoder_options is not None:
            context.options = encoder_options
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
                {"id": n, "start": start, "end": end, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                for n, (start, end, title) in enumerate(chapters)
            ]
        )
        packets = _aac_packets(sample, output, languages)
        if pcm:
            packets += _pcm_packets(output)
        packets += _subtitle_packets(output, subtitles)
        for frame, timestamp in zip(sample_frames(len(pts), size, pix_fmt), pts, strict=True):
            frame.pts, frame.time_base = timestamp, time_base
            packets += stream.encode(frame)
        packets += stream.encode()
        for packet in packets:
            if packet.stream.index == 0:
                packet.duration = durations[pts.index(packet.pts)]
        for packet in sorted(packets, key=decoding_time):
            output.mux(packet)
    return path


def decoding_time(packet: av.Packet) -> Fraction:  # seconds
    assert packet.dts is not None
    return packet.dts * packet.time_base


def _aac_packets(sample: InputContainer, output: OutputContainer, languages: Sequence[str]) -> list[av.Packet]:
    """Add an audio stream for each language, and return the sample's first third of a second for each."""
    packets = []
    for language in languages:
        target = output.add_stream_from_template(sample.streams.audio[0], opaque=True)
        target.metadata["language"] = language
        sample.seek(0)
        for packet in sample.demux(sample.streams.audio[0]):
            if packet.dts is not None and packet.pts is not None and packet.pts * packet.time_base < Fraction(1, 3):
                packet.stream = target
                packets.append(packet)
    return packets


def _pcm_packets(output: OutputContainer) -> list[av.Packet]:
    stream = output.add_stream("pcm_s16le", rate=48000, layout="mono")
    tone = (np.sin(np.arange(9600) / 20) * 9000).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    return [*stream.encode(frame), *stream.encode()]


def _subtitle_packets(output: OutputContainer, lines: Sequence[tuple[int, int, str]]) -> list[av.Packet]:
    if not lines:
        return []
    stream = output.add_mux_stream("subrip", time_base=Fraction(1, 1000))
    stream.metadata["language"] = "fra"
    packets = []
    for start_ms, duration_ms, text in lines:
        packet = av.Packet(text.encode())
        packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 1000), True
        packet.pts = packet.dts = start_ms
        packet.duration = duration_ms
        packets.append(packet)
    return packets


def make_folder(folder: Path, count: int = 3, *, pix_fmt: str = "rgb24", size: tuple[int, int] = (32, 24)) -> Path:
    """Write a folder of PNG images, frame9.png and on, whose natural order differs from the alphabetical one."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(sample_frames(count, size, pix_fmt), start=9):
        write_png(folder / f"frame{number}.png", frame)
    return folder


def write_images(folder: Path, frames: Sequence[np.ndarray]) -> Path:
    """Write frames (h, w, 3), 0 to 255, as frame0.png and on."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        write_png(folder / f"frame{number}.png", av.VideoFrame.from_ndarray(frame, format="rgb24"))
    return folder


def write_png(path: Path, frame: av.VideoFrame) -> None:
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, frame.format.name
    encoder.time_base = Fraction(1, 25)
    frame.pts = 0
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))


# --- copies ---


def truncate(source: Path, target: Path, share: float) -> Path:
    """Copy the first part of a file's bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def remux(source: Path, target: Path, **options: str) -> Path:
    """Copy all streams into another container; `options` are the muxer's."""
    with av.open(str(source)) as reader, av.open(str(target), "w", container_options=options) as output:
        streams = {s.index: output.add_stream_from_template(s, opaque=True) for s in reader.streams}
        for packet in reader.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    return target


def rewrite(source: Path, target: Path, *, factor: int = 1, scale: int = 1, **options: Any) -> VideoWriter:
    """Read and write a video with each frame repeated `factor` times and enlarged by `scale`; return the writer."""
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


# --- writers ---


def new_writer(path: Path, **options: Any) -> VideoWriter:
    """Return a writer of 64x48 px at 25 frames per second without a source; `options` change its arguments."""
    defaults: dict[str, Any] = {"source": None, "size": (64, 48), "rate": Fraction(25), "time_base": Fraction(1, 25)}
    return VideoWriter(path, **{**defaults, **options})


def write_frames(writer: VideoWriter, count: int = 3, size: tuple[int, int] = (64, 48)) -> None:
    """Write flat frames of (width, height) at 25 frames per second, from 0 s on."""
    for n in range(count):
        rgb = np.full((3, size[1], size[0]), 1000 * n, np.uint16)
        writer.write(rgb, Fraction(n, 25), Fraction(1, 25))


# --- contents of a file ---


def packets_of(path: Path, kind: str) -> list[list[tuple[Fraction, bytes]]]:
    """Return the packets, (pts in seconds, payload), of every stream of a kind."""
    with av.open(str(path)) as container:
        packets: dict[int, list[tuple[Fraction, bytes]]] = {s.index: [] for s in container.streams if s.type == kind}
        for packet in container.demux():
            if packet.pts is not None and packet.stream.index in packets:
                packets[packet.stream.index].append((packet.pts * packet.time_base, bytes(packet)))
    return list(packets.values())


def times(path: Path) -> list[tuple[Fraction, Fraction]]:
    """Return the (pts, duration) of every frame in seconds."""
    with open_reader(path) as reader:
        return [(frame.pts, frame.duration) for frame in reader]


def short_clip(path: Path, count: int = 4) -> Path:
    """Write the first frames of the sample at 48x32 and 25 frames a second."""
    with av.open(str(SAMPLE)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number, frame in zip(range(count), source.decode(video=0), strict=False):
            small = frame.reformat(48, 32, "yuv420p", threads=1)
            small.pts, small.time_base = number, Fraction(1, 25)
            target.mux(stream.encode(small))
        target.mux(stream.encode(None))
    return path
