"""Every usual codec and layout of audio, from every usual container into every output."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from stvsr.engine.media.probe import probe

from tests.support.media import rewrite
from tests.support.sources import click_of, make_source, packet_times, sound_of

pytestmark = pytest.mark.long

MONO, STEREO, SURROUND = "mono", "stereo", "5.1"
# The video codec of each container, and its audio codecs with their layouts.
TABLE: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    ".wmv": (
        "wmv2",
        {
            "wmav1": (STEREO,),
            "wmav2": (MONO, STEREO),
            "libmp3lame": (STEREO,),
            "pcm_s16le": (MONO, STEREO, SURROUND),
            "ac3": (SURROUND,),
        },
    ),
    ".avi": (
        "mpeg4",
        {
            "libmp3lame": (MONO, STEREO),
            "mp2": (STEREO,),
            "ac3": (STEREO, SURROUND),
            "aac": (STEREO, SURROUND),
            "pcm_s16le": (MONO, STEREO, SURROUND),
            "pcm_u8": (STEREO,),
            "pcm_mulaw": (MONO,),
            "pcm_alaw": (STEREO,),
            "adpcm_ima_wav": (MONO, STEREO),
            "adpcm_ms": (STEREO,),
            "wmav2": (STEREO,),
        },
    ),
    ".mkv": (
        "mpeg4",
        {
            "aac": (MONO, STEREO, SURROUND),
            "libmp3lame": (STEREO,),
            "ac3": (STEREO, SURROUND),
            "eac3": (SURROUND,),
            "flac": (MONO, STEREO, SURROUND),
            "libopus": (MONO, STEREO, SURROUND),
            "vorbis": (STEREO,),
            "pcm_s16le": (MONO, STEREO, SURROUND),
            "pcm_s24le": (STEREO,),
            "pcm_f32le": (STEREO,),
            "alac": (STEREO, SURROUND),
            "wavpack": (STEREO,),
            "tta": (STEREO,),
        },
    ),
    ".mp4": (
        "mpeg4",
        {
            "aac": (MONO, STEREO, SURROUND),
            "libmp3lame": (STEREO,),
            "ac3": (SURROUND,),
            "eac3": (STEREO, SURROUND),
            "alac": (MONO, STEREO, SURROUND),
            "flac": (STEREO, SURROUND),
            "libopus": (MONO, STEREO, SURROUND),
            "pcm_s16le": (STEREO, SURROUND),
            "vorbis": (STEREO,),
        },
    ),
    ".mov": (
        "mpeg4",
        {
            "aac": (MONO, STEREO, SURROUND),
            "libmp3lame": (STEREO,),
            "ac3": (SURROUND,),
            "alac": (STEREO, SURROUND),
            "pcm_s16le": (MONO, STEREO, SURROUND),
            "pcm_s24le": (STEREO,),
            "pcm_s16be": (STEREO,),
            "pcm_u8": (STEREO,),
            "pcm_mulaw": (MONO,),
            "adpcm_ima_qt": (STEREO,),
            "nellymoser": (MONO,),
        },
    ),
    ".ts": (
        "mpeg2video",
        {
            "aac": (MONO, STEREO, SURROUND),
            "mp2": (MONO, STEREO),
            "libmp3lame": (STEREO,),
            "ac3": (STEREO, SURROUND),
            "eac3": (STEREO, SURROUND),
            "libopus": (STEREO, SURROUND),
        },
    ),
    ".mpg": (
        "mpeg2video",
        {"mp2": (MONO, STEREO), "libmp3lame": (STEREO,), "ac3": (STEREO, SURROUND), "pcm_dvd": (STEREO, "5.1(side)")},
    ),
    ".webm": ("libvpx", {"libopus": (MONO, STEREO, SURROUND), "vorbis": (STEREO,)}),
    ".flv": (
        "flv",
        {
            "aac": (MONO, STEREO),
            "libmp3lame": (MONO, STEREO),
            "pcm_s16le": (STEREO,),
            "adpcm_swf": (MONO, STEREO),
            "nellymoser": (MONO,),
        },
    ),
    ".ogv": ("libvpx", {"libopus": (MONO, STEREO, SURROUND), "vorbis": (STEREO,), "flac": (MONO, STEREO, SURROUND)}),
}
TARGETS = (".mp4", ".mkv", ".mov", ".webm")
CASES = [
    (container, video, audio, layout)
    for container, (video, codecs) in TABLE.items()
    for audio, layouts in codecs.items()
    for layout in layouts
]
DEFAULT_SHARE = 11  # every so many cases are in the default suite; a prime, so that all containers are among them
FAST: dict[str, dict[str, Any]] = {
    ".webm": {"codec": "libvpx", "encoder_options": {"deadline": "realtime", "cpu-used": "8"}}
}
FASTEST_H264 = {"encoder_options": {"preset": "ultrafast"}}


@dataclass(frozen=True)
class Sound:
    """The facts of a file's first audio stream that an output has in common with its source."""

    codec: str
    channels: int
    seconds: float
    click_s: float  # the beginning of the tone, after that of the picture

    @classmethod
    def of(cls, path: Path) -> "Sound":
        info = probe(path)
        (stream,) = (stream for stream in info.streams if stream.kind == "audio")
        codec = "mp3" if stream.codec == "mp2" else stream.codec  # MP4 has one name for all layers of MPEG audio
        _, samples, rate = sound_of(path)
        click = click_of(path) - info.origin - info.start
        return cls(codec, samples.shape[0], samples.shape[1] / rate, float(click))


def cases() -> list[Any]:
    return [
        pytest.param(*case, marks=() if number % DEFAULT_SHARE == 0 else pytest.mark.slow, id="-".join(case)[1:])
        for number, case in enumerate(CASES)
    ]


@pytest.mark.parametrize(("container", "video", "audio", "layout"), cases())
def test_audio_is_copied_or_converted(tmp_path: Path, container: str, video: str, audio: str, layout: str) -> None:
    rate = 44100 if container == ".flv" or audio == "nellymoser" else 48000
    source = make_source(tmp_path / f"source{container}", video=video, audio=audio, layout=layout, sound_rate=rate)
    before = Sound.of(source)
    for suffix in TARGETS:
        out = tmp_path / f"out{suffix}"
        writer = rewrite(source, out, **FAST.get(suffix, FASTEST_H264))
        after = Sound.of(out)
        assert after.channels == before.channels, suffix
        assert after.seconds == pytest.approx(before.seconds, abs=0.05), suffix
        assert after.click_s == pytest.approx(before.click_s, abs=0.02), suffix
        if after.codec == before.codec:
            assert writer.warnings == [], suffix
        else:
            (warning,) = writer.warnings
            assert warning.startswith("The audio stream ")
            assert f") was converted to {after.codec}: " in warning
        for packets in packet_times(out).values():
            times = [dts for dts, _ in packets]
            assert all(first < second for first, second in pairwise(times)), suffix
