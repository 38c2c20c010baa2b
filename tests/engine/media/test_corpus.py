"""Small clips in many containers, codecs, pixel formats and rates: every frame at its time, every stream complete."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from stvsr.engine.media.probe import probe

from tests.support.media import NTSC, rewrite, times
from tests.support.sources import make_source

pytestmark = pytest.mark.long

COUNT = 6  # frames
RATES = (Fraction(24), Fraction(25), NTSC, Fraction(50), NTSC * 2, Fraction(15))
MPEG_RATES = (Fraction(24), Fraction(25), NTSC, Fraction(30), Fraction(50), NTSC * 2)  # that MPEG-1 and MPEG-2 have
GIF_RATES = (Fraction(5), Fraction(10), Fraction(20), Fraction(25), Fraction(50), Fraction(100, 3))
# Of each container the audio codec and the video codecs, with their pixel formats.
CORPUS: dict[str, tuple[str | None, dict[str, tuple[str, ...]]]] = {
    ".mp4": (
        "aac",
        {
            "libx264": ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le"),
            "libx265": ("yuv420p", "yuv420p10le", "yuv422p10le"),
            "libvpx-vp9": ("yuv420p", "yuv444p"),
            "mpeg4": ("yuv420p",),
            "mjpeg": ("yuvj420p",),
        },
    ),
    ".mov": (
        "pcm_s16le",
        {
            "libx264": ("yuv420p", "yuv422p10le"),
            "prores_ks": ("yuv422p10le", "yuv444p10le"),
            "mjpeg": ("yuvj420p", "yuvj422p"),
            "png": ("rgb24", "rgb48be", "gray"),
            "qtrle": ("rgb24",),
            "rawvideo": ("yuyv422", "rgb24"),
        },
    ),
    ".mkv": (
        "libopus",
        {
            "libx264": ("yuv420p", "yuv444p", "gray"),
            "libx265": ("yuv420p", "yuv444p10le"),
            "ffv1": ("yuv420p", "yuv444p16le", "gray16le", "bgr0"),
            "mpeg2video": ("yuv420p", "yuv422p"),
            "mpeg4": ("yuv420p",),
        },
    ),
    ".avi": (
        "pcm_s16le",
        {
            "huffyuv": ("yuv422p", "rgb24"),
            "utvideo": ("yuv420p", "gbrp"),
            "mpeg4": ("yuv420p",),
            "mjpeg": ("yuvj420p",),
            "ffv1": ("yuv422p", "yuv420p10le"),
            "rawvideo": ("yuv420p", "bgr24"),
            "msmpeg4": ("yuv420p",),
        },
    ),
    ".ts": ("mp2", {"libx264": ("yuv420p", "yuv420p10le"), "libx265": ("yuv420p",), "mpeg2video": ("yuv420p",)}),
    ".mpg": ("mp2", {"mpeg1video": ("yuv420p",), "mpeg2video": ("yuv420p", "yuv422p")}),
    ".webm": ("libopus", {"libvpx": ("yuv420p",), "libvpx-vp9": ("yuv420p", "yuv422p", "yuv444p")}),
    ".flv": (None, {"flv": ("yuv420p",), "libx264": ("yuv420p",)}),
    ".ogv": ("libopus", {"libvpx": ("yuv420p",)}),
    ".wmv": ("wmav2", {"wmv1": ("yuv420p",), "wmv2": ("yuv420p",)}),
    ".nut": ("pcm_s16le", {"ffv1": ("yuv444p",), "mpeg4": ("yuv420p",)}),
    ".mxf": (None, {"mpeg2video": ("yuv420p",)}),
    ".gif": (None, {"gif": ("bgr8",)}),
    ".apng": (None, {"apng": ("rgb24", "gray")}),
}
CASES = [
    (container, codec, pix_fmt, rate)
    for container, (_, codecs) in CORPUS.items()
    for codec, pix_fmts in codecs.items()
    for pix_fmt in pix_fmts
    for rate in (GIF_RATES if container == ".gif" else MPEG_RATES if codec.startswith("mpeg") else RATES)
]
TARGETS = (".mp4", ".mkv", ".mov", ".webm")
DEFAULT_SHARE = 11  # every so many cases are in the default suite; a prime, so that all kinds are among them
# No frames out of order where a container does not store two times, and encoders that are fast.
OPTIONS = {
    "libx264": {"preset": "ultrafast", "bf": "0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=error"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}


def cases() -> list[Any]:
    return [
        pytest.param(
            *case,
            TARGETS[number % len(TARGETS)],
            marks=() if number % DEFAULT_SHARE == 0 else pytest.mark.slow,
            id=f"{case[0][1:]}-{case[1]}-{case[2]}-{float(case[3]):.3g}-{TARGETS[number % len(TARGETS)][1:]}",
        )
        for number, case in enumerate(CASES)
    ]


def test_the_corpus_is_large() -> None:
    assert len(CASES) >= 400


@pytest.mark.parametrize(("container", "codec", "pix_fmt", "rate", "target"), cases())
def test_every_frame_keeps_its_time(
    tmp_path: Path, container: str, codec: str, pix_fmt: str, rate: Fraction, target: str
) -> None:
    audio, _ = CORPUS[container]
    source = make_source(
        tmp_path / f"source{container}",
        video=codec,
        audio=audio,
        count=COUNT,
        rate=rate,
        pix_fmt=pix_fmt,
        options=OPTIONS.get(codec),
    )
    info = probe(source)
    read = times(source)
    assert len(read) == COUNT
    for number, (pts, _) in enumerate(read):
        # These formats add up rounded durations.
        ticks = COUNT if container in (".mpg", ".apng") else 1
        assert abs(pts - read[0][0] - number / rate) <= info.time_base * ticks

    out = tmp_path / f"out{target}"
    options: dict[str, Any] = {"codec": "libvpx"} if target == ".webm" else {}
    depth = 8 if options else min(info.bit_depth, 10)
    encoder = options.get("codec", "libx264" if depth == 8 else "libx265")
    writer = rewrite(source, out, encoder_options=OPTIONS[encoder], **options)
    written, result = times(out), probe(out)
    assert len(written) == COUNT
    # Matroska moves all streams alike if the sound has a lead-in before zero.
    lead_in = written[0][0] + result.origin - read[0][0] if target in (".mkv", ".webm") else Fraction(0)
    assert -result.time_base <= lead_in < Fraction(1, 30)
    for (before, _), (after, _) in zip(read, written, strict=True):
        assert abs(after + result.origin - lead_in - before) <= result.time_base
    kinds = [stream.kind for stream in result.streams if stream.kind != "data"]  # the timecode of an MXF file
    assert kinds == (["audio"] if audio else [])
    assert len(writer.warnings) == sum("was converted to" in warning for warning in writer.warnings)
    with av.open(str(out)) as decoded:
        assert sum(1 for _ in decoded.decode(video=0)) == COUNT
