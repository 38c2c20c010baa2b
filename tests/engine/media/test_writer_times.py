"""Timestamps and durations of written files."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.probe import probe
from stvsr.engine.media.writer import VideoWriter

from tests.support.media import NTSC, TICK, make_clip, new_writer, rewrite, times, write_frames
from tests.support.paths import SAMPLE

IRREGULAR = [0, 2002, 2500, 9009, 9100, 9200, 30000, 31001, 40000, 40200, 40201, 45000]  # ticks


def split_times(timestamps: list[int], last: int, factor: int) -> list[tuple[Fraction, Fraction]]:
    """Return the (pts, duration) in seconds of `factor` frames for each frame of a clip whose last one takes `last`."""
    split = []
    for start, end in zip(timestamps, [*timestamps[1:], timestamps[-1] + last], strict=True):
        step = Fraction(end - start, factor)
        split += [((start + n * step) * TICK, step * TICK) for n in range(factor)]
    return split


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v"])
def test_doubling_the_rate_keeps_exact_times(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    rewrite(SAMPLE, out, factor=2)
    assert times(out) == [(n * 1001 * TICK / 2, 1001 * TICK / 2) for n in range(120)]
    info = probe(out)
    assert (info.rate, info.duration, info.frames) == (NTSC * 2, 60 / NTSC, 120)


@pytest.mark.parametrize("start", [0, 7007])
@pytest.mark.parametrize("last", [1001, 9, 90000])
@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9"])
@pytest.mark.parametrize("reverse", [False, True])
def test_variable_rate_keeps_exact_times(tmp_path: Path, start: int, last: int, codec: str, reverse: bool) -> None:
    timestamps = [IRREGULAR[-1] - n for n in reversed(IRREGULAR)] if reverse else IRREGULAR
    timestamps = [start + n for n in timestamps]
    writer = VideoWriter(tmp_path / "out.mp4", source=None, size=(64, 48), rate=NTSC, time_base=TICK / 2, codec=codec)
    expected = split_times(timestamps, last, factor=2)
    with writer:
        for n, (pts, duration) in enumerate(expected):
            writer.write(np.full((3, 48, 64), 2000 * n, np.uint16), pts, duration)
    origin = probe(tmp_path / "out.mp4").origin
    assert [(origin + pts, duration) for pts, duration in times(tmp_path / "out.mp4")] == expected


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_matroska_rounds_to_milliseconds(tmp_path: Path, suffix: str) -> None:
    clip = make_clip(tmp_path / "v.mp4", pts=IRREGULAR[:8], options={"bf": "0"})
    out = tmp_path / f"out{suffix}"
    rewrite(clip, out)
    timestamps = [pts for pts, _ in times(out)]
    assert [round(n * TICK * 1000) for n in IRREGULAR[:8]] == [1000 * pts for pts in timestamps]
    pts, duration = times(out)[-1]
    assert abs(pts + duration - (IRREGULAR[7] + 1001) * TICK) <= Fraction(1, 1000)


def test_single_frame_keeps_its_duration(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "one.mp4", pts=[500], last_duration=20000)
    rewrite(clip, tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == [(0, 20000 * TICK)]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "ffv1"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_videos_of_one_or_two_frames_are_written(tmp_path: Path, count: int, codec: str, suffix: str) -> None:
    """libx265 gives no decoding times to so few frames."""
    out = tmp_path / f"out{suffix}"
    for _ in range(4):  # what is undefined is right at times
        with new_writer(out, codec=codec, overwrite=True) as writer:
            write_frames(writer, count)
        assert times(out) == [(Fraction(n, 25), Fraction(1, 25)) for n in range(count)]


def test_time_base_beyond_32_bits_is_replaced(tmp_path: Path) -> None:
    with new_writer(tmp_path / "out.mp4", time_base=Fraction(1, 30000 * 1_000_003)) as writer:
        write_frames(writer)
    assert [pts for pts, _ in times(tmp_path / "out.mp4")] == [Fraction(n, 25) for n in range(3)]


def test_timestamps_that_do_not_increase_are_refused(tmp_path: Path) -> None:
    def write_twice() -> None:
        with new_writer(tmp_path / "out.mp4") as writer:
            write_frames(writer)
            write_frames(writer)

    with pytest.raises(MediaError, match="does not follow"):
        write_twice()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("codec", "message"), [("mpeg4", "at most 65535 units of time"), ("mpeg2video", "no times")])
def test_encoders_without_fine_times_are_named(tmp_path: Path, codec: str, message: str) -> None:
    with pytest.raises(MediaError, match=rf"{codec} .*{message}.*choose another codec"):
        new_writer(tmp_path / "out.mp4", codec=codec, time_base=Fraction(1, 90000))
