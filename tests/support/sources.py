"""Make small sources with picture and sound in any container, codec, layout, pixel format and rate, with PyAV alone."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer

from tests.support.media import decoding_time, sample_frames

SOUND_RATE = 48000  # Hz
CLICK_S = Fraction(1, 5)  # seconds from the beginning of the sound to the tone in it
_ROUNDING_S = Fraction(1, 400)  # seconds by which containers round the times of frames
EXPERIMENTAL = {"strict": "-2"}  # of FFmpeg's encoders for DTS, TrueHD and Vorbis


def make_source(
    path: Path,
    *,
    video: str = "mpeg4",
    audio: str | None = None,
    layout: str = "stereo",
    sound_rate: int = SOUND_RATE,
    count: int = 10,  # frames
    rate: Fraction = Fraction(25),
    start: Fraction = Fraction(0),  # seconds, of picture and sound
    sound_start: Fraction = Fraction(0),  # seconds after `start`
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    options: Mapping[str, str] | None = None,
    format: str | None = None,
    muxer: Mapping[str, str] | None = None,
    sound_s: Fraction | None = None,  # seconds; None: as long as the picture
) -> Path:
    """Write frames of the sample, and a sound that is silent but for a tone from `CLICK_S` on."""
    with av.open(str(path), "w", format=format, container_options=dict(muxer or {})) as output:
        stream = output.add_stream(video, rate=rate, width=size[0], height=size[1])
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = 1 / rate
        stream.codec_context.options = dict(options or {})
        sound = None if audio is None else add_sound(output, audio, layout, sound_rate)
        packets = []
        first = round(start * rate)
        for number, frame in enumerate(sample_frames(count, size, pix_fmt)):
            frame.pts, frame.time_base = first + number, 1 / rate
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for packet in packets:
            packet.duration = 1
        if sound is not None:
            seconds = count / rate if sound_s is None else sound_s
            for piece in tone(sound, seconds, start + sound_start):
                packets += sound.encode(piece)
            packets += sound.encode(None)
        for packet in sorted(packets, key=decoding_time):
            output.mux(packet)
    return path


def add_sound(output: OutputContainer, codec: str, layout: str, rate: int = SOUND_RATE) -> av.AudioStream:
    """Add an audio stream, and open its encoder."""
    sound = output.add_stream(codec, rate=rate, layout=layout)
    assert isinstance(sound, av.AudioStream)
    if not codec.startswith(("pcm", "flac", "alac", "truehd", "wavpack", "adpcm", "tta")):
        sound.bit_rate = 64_000 * sound.codec_context.layout.nb_channels
    sound.codec_context.options = dict(EXPERIMENTAL)
    sound.codec_context.open()
    return sound


def tone(sound: av.AudioStream, seconds: Fraction, start: Fraction = Fraction(0)) -> Iterator[av.AudioFrame]:
    """Yield frames of silence and then a tone, for an encoder."""
    context = sound.codec_context
    rate, channels = context.sample_rate, context.layout.nb_channels
    times = np.arange(round(seconds * rate)) / rate
    wave = np.where(times >= float(CLICK_S), 0.5 * np.sin(2 * np.pi * 440 * times), 0).astype(np.float32)
    for offset in range(0, len(wave), 1000):
        piece = np.repeat(wave[offset : offset + 1000], channels)[None]
        frame = av.AudioFrame.from_ndarray(piece, "flt", context.layout.name)
        frame.sample_rate, frame.pts = rate, round(start * rate) + offset
        frame.time_base = Fraction(1, rate)
        yield frame


def sound_of(path: Path, index: int = 0) -> tuple[Fraction, np.ndarray, int]:
    """Return the time of the first sample in seconds, the samples of all channels (C, N), and their rate.

    A frame ends where the next one begins, as in a player: the last one before a joint may be shorter than its samples.
    """
    pieces: list[np.ndarray] = []
    start = end = Fraction(0)
    rate = 0
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt")
        for frame in container.decode(audio=index):
            time = end if frame.pts is None or not frame.time_base else Fraction(frame.pts * frame.time_base)
            if not pieces:
                start, rate = time, frame.sample_rate
            elif end - time > _ROUNDING_S:
                pieces[-1] = pieces[-1][:, : -round((end - time) * rate)]
            end = time + Fraction(frame.samples, rate)
            for piece in resampler.resample(frame):
                pieces.append(piece.to_ndarray().reshape(-1, piece.layout.nb_channels).T)
    assert pieces, f"{path} has no sound"
    return start, np.concatenate(pieces, axis=1), rate


def click_of(path: Path, index: int = 0) -> Fraction:
    """Return the time in seconds at which the tone begins."""
    start, samples, rate = sound_of(path, index)
    loud = np.abs(samples).max(axis=0) > 0.1
    return start + Fraction(int(np.argmax(loud)), rate)


def joined(path: Path, *parts: Path) -> Path:
    """Write the bytes of files one after the other, as `cat` does."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def joined_recording(folder: Path) -> Path:
    """Write a transport stream whose clock starts anew in the middle: six frames with sound, twice."""
    part = make_source(folder / "part.ts", video="mpeg2video", audio="mp2", count=6)
    return joined(folder / "clip.ts", part, part)


def packet_times(path: Path) -> dict[int, list[tuple[int, int]]]:
    """Return the (dts, pts) in ticks of the packets of every stream, in the order of the file."""
    found: dict[int, list[tuple[int, int]]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size and packet.dts is not None and packet.pts is not None:
                found.setdefault(packet.stream.index, []).append((packet.dts, packet.pts))
    return found
