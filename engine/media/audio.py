"""Encode the decoded audio of a source with another codec, at its own times."""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

_BIT_RATE = 96_000  # bits per second of a channel
_MAX_BITS_PER_SAMPLE = 6  # that AAC takes
_LEAST_RATE = 32_000  # Hz; at a lower one the delay of AAC, 1024 samples, is long
_TOLERANCE_S = Fraction(20, 1000)  # within which timestamps are rounded, and no samples are missing
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_OPUS_LAYOUTS = {**_LAYOUTS, 4: "quad"}


def complete_layout(layout: AudioLayout) -> AudioLayout:
    """Return a channel layout, or the usual one for as many channels if it says only how many there are."""
    if not re.fullmatch(r"\d+ channels", layout.name) or layout.nb_channels not in _LAYOUTS:
        return layout
    return AudioLayout(_LAYOUTS[layout.nb_channels])


def layouts_to_try(codec: str, channels: int) -> list[str]:
    """Return channel layouts that an encoder may take for so many channels, the best first."""
    layouts = (_OPUS_LAYOUTS if codec == "libopus" else _LAYOUTS).get(channels, "7.1")
    return list(dict.fromkeys([layouts, *(["5.1"] if channels > 6 else []), *(["stereo"] if channels > 2 else [])]))


class SoundEncoder:
    """Encodes audio frames of any format into a new stream of an output.

    Samples that are missing between frames stay missing: the packets keep the times of the frames. Raises ValueError or
    av.error.FFmpegError if the output or the encoder does not take the codec, the rate or the layout.
    """

    def __init__(self, output: OutputContainer, codec: str, *, rate: int, layout: str) -> None:
        rate = _nearest_rate(codec, rate)
        stream = output.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, AudioStream)
        self.stream = stream
        self._context = stream.codec_context
        channels = self._context.layout.nb_channels
        stream.bit_rate = channels * min(_BIT_RATE, _MAX_BITS_PER_SAMPLE * rate)
        self._context.open()
        self._resampler: AudioResampler | None = None
        self._input: tuple[Any, ...] = ()  # the properties of the frames that the resampler takes
        self._next: Fraction | None = None  # seconds, the end of the latest frame

    def encode(self, frame: AudioFrame) -> Iterator[Packet]:
        """Yield the packets that are finished by another frame."""
        if not self._set_time(frame):
            return
        properties = frame.layout.name, frame.sample_rate, frame.format.name
        if properties != self._input:
            yield from self._encode(self._drained())
            self._input = properties
            self._resampler = AudioResampler(self._context.format, self._context.layout, self._context.sample_rate)
        assert self._resampler is not None
        yield from self._encode(self._resampler.resample(frame))

    def finish(self) -> Iterator[Packet]:
        """Yield the packets that remain."""
        yield from self._encode(self._drained())
        yield from self.stream.encode(None)

    def silence(self) -> Iterator[Packet]:
        """Yield the packets of a moment of silence, after which nothing else can be encoded."""
        # Packed, because PyAV reads beyond the planes of eight channels.
        frame = AudioFrame("flt", self._context.layout, samples=self._context.frame_size or 1024)
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        frame.sample_rate, frame.pts = self._context.sample_rate, 0
        frame.time_base = Fraction(1, frame.sample_rate)
        yield from self.encode(frame)
        yield from self.finish()

    def _set_time(self, frame: AudioFrame) -> bool:
        """Set the timestamp of a frame in samples, and return whether it follows the one before.

        Timestamps are often rounded, to milliseconds in Matroska, and the sum of the samples is not.
        """
        time = self._next or Fraction(0)
        if frame.pts is not None and frame.time_base:
            stamp = frame.pts * frame.time_base
            if self._next is not None and stamp < self._next - _TOLERANCE_S:
                return False
            if self._next is None or stamp > self._next + _TOLERANCE_S:
                time = stamp
        frame.time_base = Fraction(1, frame.sample_rate)
        frame.pts = round(time * frame.sample_rate)
        self._next = time + Fraction(frame.samples, frame.sample_rate)
        return True

    def _drained(self) -> list[AudioFrame]:
        """Return the samples that the resampler has kept."""
        return [] if self._resampler is None else [f for f in self._resampler.resample(None) if f is not None]

    def _encode(self, frames: list[AudioFrame]) -> Iterator[Packet]:
        for frame in frames:
            yield from self.stream.encode(frame)


def _nearest_rate(codec: str, rate: int) -> int:
    """Return the sample rate, or the next higher one that suits an encoder; Opus always works at 48 kHz."""
    if codec == "libopus":
        return 48000
    rates = sorted(av.Codec(codec, "w").audio_rates or [rate])
    return next((offered for offered in rates if offered >= max(rate, _LEAST_RATE)), rates[-1])
