"""Clips and their damage: eight frames of a moving pattern by each of nine codecs, and seeded mutations of bytes."""

import math
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from stvsr.engine.media.thread_priority import keep_priority

from tests.support.toy import write_toy

FRAMES = 8  # of a base clip
Mutation = Callable[[bytes, random.Random], bytes]
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG, by its color type


class Base(NamedTuple):
    """A clip by one codec."""

    file: str
    codec: str
    pix_fmt: str
    options: dict[str, str]
    size: tuple[int, int] = (64, 48)
    read: int = FRAMES  # frames that are made of those in the file: of interlaced ones, one for each field
    unseen: tuple[str, ...] = ()  # damage that may hide frames without a trace in the file


BASES = {
    "h264": Base("h264.mp4", "libx264", "yuv420p", {"bf": "3", "g": "8"}),
    "hevc10": Base("hevc10.mkv", "libx265", "yuv420p10le", {"x265-params": "log-level=error"}),
    "vp9": Base("vp9.webm", "libvpx-vp9", "yuv420p", {"cpu-used": "8", "deadline": "realtime"}),
    "av1": Base("av1.mp4", "libsvtav1", "yuv420p", {"preset": "12"}, (64, 64)),
    "mpeg2i": Base("mpeg2i.ts", "mpeg2video", "yuv420p", {"flags": "+ildct+ilme", "b": "400k"}, read=2 * FRAMES),
    "mjpeg": Base("mjpeg.avi", "mjpeg", "yuvj420p", {}),
    "prores": Base("prores.mov", "prores_ks", "yuv422p10le", {}),
    "ffv1": Base("ffv1.mkv", "ffv1", "yuv444p", {"slicecrc": "1", "level": "3"}),
    "y4m": Base("raw.y4m", "rawvideo", "yuv420p", {}),
    # A GIF states no number of frames: a length that is changed may make one frame of the bytes of two.
    "gif": Base("anim.gif", "gif", "rgb8", {}, unseen=("flip-1", "flip-40")),
}


def write_shared(folder: Path) -> Path:
    """Write the clips and the bundle that many cases share, and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, base in BASES.items():
        write_clip(folder / base.file, base.codec, base.pix_fmt, base.options, base.size, audio=name == "h264")
    fast = {"preset": "ultrafast"}
    for name, count, size in (("tiny", 3, (32, 24)), ("long50", 50, (64, 48)), ("long", 2000, (64, 48))):
        write_clip(folder / f"{name}.mp4", "libx264", "yuv420p", fast, size, count)
    write_toy(folder / "toy")
    return folder


def write_clip(
    path: Path,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (64, 48),
    count: int = FRAMES,
    *,
    rate: Fraction = Fraction(25),
    pts: Sequence[int] | None = None,  # ticks of `time_base`
    time_base: Fraction | None = None,
    audio: bool = False,
    rotation: int = 0,
) -> Path:
    """Write a clip of a moving pattern, with a tone if `audio` is true."""
    time_base = time_base or 1 / rate
    step = round(1 / rate / time_base)
    packets: list[av.Packet] = []
    with keep_priority(), av.open(str(path), "w") as out:
        stream = cast(
            VideoStream, out.add_stream(codec, rate=rate, width=size[0], height=size[1], options=options or {})
        )
        stream.codec_context.pix_fmt = pix_fmt
        stream.codec_context.time_base = stream.time_base = time_base
        if rotation:
            stream.set_display_rotation(rotation)
        tone = out.add_stream("aac", rate=48000, layout="mono") if audio else None
        for number, stamp in enumerate(pts if pts is not None else [n * step for n in range(count)]):
            frame = _pattern(number, size, pix_fmt)
            frame.pts, frame.time_base = stamp, time_base
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if tone is not None:
            packets += _tone(tone)
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
            out.mux(packet)
    return path


def _pattern(number: int, size: tuple[int, int], pix_fmt: str) -> av.VideoFrame:
    w, h = size
    y, x = np.mgrid[0:h, 0:w]
    planes = (x * 3 + number * 9, y * 5 + number * 4, x + y + number * 16)
    rgb = np.stack([plane % 256 for plane in planes], -1).astype(np.uint8)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(w, h, pix_fmt)


def _tone(stream: AudioStream) -> list[av.Packet]:
    packets: list[av.Packet] = []
    for number in range(15):
        wave = (np.sin(np.arange(1024) / 20) * 0.3).astype(np.float32)[None]
        sound = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = 48000, number * 1024, Fraction(1, 48000)
        packets += stream.encode(sound)
    return packets + stream.encode(None)


def remux(source: Path, target: Path, kind: str, **metadata: str) -> None:
    """Copy the first stream of a kind, "video" or "audio", to another file, with metadata."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream: Any = getattr(read.streams, kind)[0]
        copied = written.add_stream_from_template(stream, opaque=True)
        written.metadata.update(metadata)
        for packet in read.demux(stream):
            if packet.dts is not None:
                packet.stream = copied
                written.mux(packet)


def write_png(path: Path, size: tuple[int, int], bits: int = 8, color: int = 2) -> Path:
    """Write a PNG by hand, of any color type; `size` is (h, w)."""
    h, w = size
    row = math.ceil(w * _CHANNELS[color] * bits / 8)
    data = b"".join(b"\0" + bytes((x * 7 + y * 3) % 256 for x in range(row)) for y in range(h))
    return write_raw_png(path, w, h, zlib.compress(data), bits, color)


def write_raw_png(path: Path, w: int, h: int, packed: bytes, bits: int = 8, color: int = 2) -> Path:
    """Write a PNG that claims a size and holds `packed`."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    palette = chunk(b"PLTE", bytes(range(256)) * 3) if color == 3 else b""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, color, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + palette + chunk(b"IDAT", packed) + chunk(b"IEND", b""))
    return path


def write_png_bomb(path: Path, side: int) -> Path:
    """Write a small file of side * side black pixels."""
    row = bytes((side + 7) // 8 + 1)
    engine = zlib.compressobj(9)
    packed = b"".join(engine.compress(row) for _ in range(side)) + engine.flush()
    return write_raw_png(path, side, side, packed, 1, 0)


def write_images(folder: Path, count: int = 4, size: tuple[int, int] = (24, 32), bits: int = 8, color: int = 2) -> Path:
    """Write a folder of PNG images; `size` is (h, w)."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        write_png(folder / f"f{number}.png", size, bits, color)
    return folder


def _flip(bits: int, low: float, high: float) -> Mutation:
    def change(data: bytes, rng: random.Random) -> bytes:
        changed = bytearray(data)
        for _ in range(bits):
            where = rng.randrange(int(low * len(data)), max(1, int(high * len(data))))
            changed[where] ^= 1 << rng.randrange(8)
        return bytes(changed)

    return change


def _zeros(data: bytes, rng: random.Random, length: int = 256) -> bytes:
    low = int(0.3 * len(data))
    start = rng.randrange(low, max(low + 1, len(data) - length))
    count = min(length, len(data) - start)
    return data[:start] + bytes(count) + data[start + count :]


def _hole(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) // 3, 2 * len(data) // 3)
    return data[:start] + data[start + len(data) // 10 :]


_MUTATIONS: dict[str, Mutation] = {
    "flip-head": _flip(4, 0, 0.04),
    "flip-1": _flip(1, 0.1, 0.9),
    "flip-40": _flip(40, 0.05, 1),
    "zeros": _zeros,
    "cut-40": lambda data, rng: data[: int(len(data) * 0.4)],
    "cut-95": lambda data, rng: data[: int(len(data) * 0.95)],
    "hole": _hole,
}


def mutations(seed: int) -> Iterator[tuple[str, Callable[[bytes, str], bytes]]]:
    """Yield the name of each mutation, and a function of the bytes and the name of a clip that the seed determines."""
    for name, mutate in _MUTATIONS.items():

        def change(data: bytes, key: str, name: str = name, mutate: Mutation = mutate) -> bytes:
            return mutate(data, random.Random(f"{seed}:{key}:{name}"))

        yield name, change
