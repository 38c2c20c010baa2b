"""Videos that are interlaced, telecined, repeated or damaged, made of frames with PyAV alone."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.filter import Graph

from tests.support.media import picture

Damage = str  # "middle": bytes are overwritten; "all": every byte; "cut": the end is missing


def smooth_pan(count: int, shape: tuple[int, int] = (96, 128), step: float = 3) -> list[np.ndarray]:
    """Return frames, (h, w) float32 in levels of 256, of a smooth picture that moves sideways by `step` pixels."""
    wide = picture(7, (shape[0], shape[1] + int(step * count) + 8)).mean(0) * 255
    kernel = np.array([1, 4, 6, 4, 1], np.float32) / 16
    for axis in (0, 1):
        wide = np.apply_along_axis(np.convolve, axis, np.pad(wide, 2, mode="edge"), kernel, "valid")[
            (slice(2, -2), slice(None)) if axis else (slice(None), slice(2, -2))
        ]
    columns = np.arange(shape[1])
    return [
        np.stack([np.interp(columns + step * number, np.arange(len(row)), row) for row in wide]).astype(np.float32)
        for number in range(count)
    ]


def weave(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Return a frame with the even rows of one picture and the odd rows of another."""
    frame = top.copy()
    frame[1::2] = bottom[1::2]
    return frame


def interlaced(frames: Sequence[np.ndarray], top_first: bool = True) -> list[np.ndarray]:
    """Return interlaced frames, each woven of two frames."""
    pairs = zip(frames[::2], frames[1::2], strict=False)
    return [weave(one, two) if top_first else weave(two, one) for one, two in pairs]


def telecined(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return five video frames for every four film frames."""
    made = []
    for a, b, c, d in zip(frames[::4], frames[1::4], frames[2::4], frames[3::4], strict=False):
        made += [a, b, weave(b, c), weave(c, d), d]
    return made


def write_gray(
    path: Path,
    frames: Sequence[np.ndarray],  # (h, w) in levels of 256
    *,
    flags: Sequence[str | None] | str | None = None,  # of all frames, or of each: "tff", "bff", or None: progressive
    ticks: Sequence[int] | None = None,  # timestamps in `time_base`
    time_base: Fraction = Fraction(1, 25),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Write frames with their field flags."""
    every = [flags] * len(frames) if flags is None or isinstance(flags, str) else flags
    quality = {"libx264": {"qp": "4", "preset": "ultrafast"}, "mpeg2video": {"q": "2", "qmin": "2", "qmax": "3"}}
    coding = {"flags": "+ilme+ildct"} if any(every) else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec, rate=1 / time_base, options={**quality.get(codec, {}), **coding, **(options or {})}
        )
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape
        stream.pix_fmt, stream.codec_context.time_base = pix_fmt, time_base
        for number, (levels, flag) in enumerate(zip(frames, every, strict=True)):
            gray = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(gray, format="gray").reformat(format=pix_fmt, threads=1)
            frame = flagged(frame, flag) if any(every) else frame
            frame.pts, frame.time_base = (ticks[number] if ticks else number), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def flagged(frame: av.VideoFrame, flag: str | None) -> av.VideoFrame:
    """Return a frame with the flag of its fields: "tff", "bff", or None: progressive."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    set_field, sink = graph.add("setfield", f"mode={flag or 'prog'}"), graph.add("buffersink")
    source.link_to(set_field)
    set_field.link_to(sink)
    graph.configure()
    frame.pts, frame.time_base = 0, Fraction(1)
    graph.vpush(frame)
    return graph.vpull()


def gray_of(rgb: np.ndarray) -> np.ndarray:  # (3, h, w) in [0, 1] -> (h, w) in levels of 256
    """Return the mean of the channels: gray pictures have three equal ones."""
    return rgb.mean(0) * 255


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Return the PSNR of two pictures in levels of 256, in dB, without their borders."""
    error = np.mean((first[4:-4, 4:-4].astype(float) - second[4:-4, 4:-4]) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def damage_packet(source: Path, target: Path, number: int, damage: Damage, seed: int = 0) -> Fraction:
    """Copy a file with one damaged video packet, by its number in decoding order; return its time in seconds."""
    rng = np.random.default_rng(seed)
    time = Fraction(-1)
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        streams = {s.index: writer.add_stream_from_template(s, opaque=True) for s in reader.streams}
        count = 0
        for packet in reader.demux():
            if not packet.size:
                continue
            stream = packet.stream
            if stream.type == "video":
                count += 1
                if count == number + 1:
                    assert packet.pts is not None
                    time = Fraction(packet.pts * packet.time_base)
                    packet = _damaged(packet, damage, rng)
            packet.stream = streams[stream.index]
            writer.mux(packet)
    assert time >= 0
    return time


def _damaged(packet: av.Packet, damage: Damage, rng: np.random.Generator) -> av.Packet:
    data = np.frombuffer(bytes(packet), np.uint8).copy()
    begin, end = {"middle": (len(data) // 3, 2 * len(data) // 3), "all": (0, len(data)), "cut": (0, 0)}[damage]
    data[begin:end] = rng.integers(0, 256, end - begin, np.uint8)
    made = av.Packet(data[: max(8, len(data) // 3)].tobytes() if damage == "cut" else data.tobytes())
    made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
    made.time_base, made.is_keyframe = packet.time_base, packet.is_keyframe
    return made


def decoded_gray(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video as (h, w) in levels of 256."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="gray", threads=1).astype(np.float32)


def soft_telecine(path: Path, frames: Sequence[np.ndarray]) -> Path:
    """Write film frames as an MPEG-2 stream, in which every second one is flagged to last three fields."""
    rate = Fraction(24000, 1001)
    write_gray(path, frames, time_base=1 / rate, codec="mpeg2video", options={"g": "8", "bf": "0"})
    data = bytearray(path.read_bytes())
    position = number = 0
    while (position := data.find(b"\0\0\1", position)) >= 0:
        code, extension = data[position + 3], data[position + 4] >> 4
        if code == 0xB3:
            data[position + 7] = data[position + 7] & 0xF0 | 4  # 30000/1001 frames a second
        elif code == 0xB5 and extension == 1:
            data[position + 5] &= 0xF7  # not a progressive sequence
        elif code == 0xB5 and extension == 8:
            top_first, three_fields = ((1, 1), (0, 0), (0, 1), (1, 0))[number % 4]
            number += 1
            data[position + 7] = data[position + 7] & 0x7D | top_first << 7 | three_fields << 1
            data[position + 8] |= 0x80  # a progressive frame
        position += 4
    path.write_bytes(data)
    return path
