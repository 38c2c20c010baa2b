"""Segments, joined, are the file of one run: for every window, rate, encoder, container and source."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stvsr import Bundle, upscale, upscale_resumable
from stvsr.engine.pipeline import resume, run
from stvsr.engine.pipeline.segmented_run import SLOW_PARTS

from tests.support.equal_files import assert_equal_files, facts_of, frames_of, lossless_request
from tests.support.media import make_clip, make_folder, two_scenes
from tests.support.network_bundles import DOUBLED_X1, RUN_X1, RUN_X2_ANY_TIME, RUN_X4, SLIDING_X4
from tests.support.sources import joined_recording, make_source

OPTIONS: list[dict[str, Any]] = [
    {"scale": 2},
    {"scale": 1.5, "time_factor": 3},
    {"scale": 1, "fps": Fraction(50)},
    {"scale": 2, "fps": Fraction(7)},
    {"scale": 2, "scene_threshold": 0.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("variable", [False, True], ids=["constant", "variable"])
@pytest.mark.parametrize("frames", [1, 5, 100])
def test_a_resumable_run_writes_the_file_of_one_run(
    toy: Path, tmp_path: Path, options: dict[str, Any], variable: bool, frames: int
) -> None:
    ticks = [n + n * n // 30 for n in range(22)] if variable else None
    clip = two_scenes(tmp_path / "clip.mp4", ticks)
    whole = upscale(lossless_request(clip, tmp_path / "whole.mp4", model=toy, **options))
    parts = upscale_resumable(
        lossless_request(clip, tmp_path / "parts.mp4", model=toy, **options), segment_frames=frames
    )
    assert_equal_files(tmp_path / "parts.mp4", tmp_path / "whole.mp4")
    for name in ("frames_in", "frames_out", "cuts_s", "duration_s", "size_out", "warnings"):
        assert getattr(parts, name) == getattr(whole, name), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "parts.mp4", "whole.mp4"]


@pytest.mark.parametrize(
    ("bundles", "factor"),
    [((SLIDING_X4,), 1), ((RUN_X4,), 2), ((DOUBLED_X1,), 2), ((RUN_X1, SLIDING_X4), 2), ((RUN_X2_ANY_TIME,), 3)],
    ids=["sliding", "run", "doubled", "chain", "any time"],
)
def test_every_kind_of_window_is_cut_into_segments(
    runs: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    bundles: tuple[Bundle, ...],
    factor: int,
) -> None:
    for module in (run, resume):
        monkeypatch.setattr(module, "find_bundles", lambda _: bundles)
    clip = two_scenes(tmp_path / "clip.mp4")
    upscale(lossless_request(clip, tmp_path / "whole.mp4", time_factor=factor))
    count = len(runs)
    upscale_resumable(lossless_request(clip, tmp_path / "parts.mp4", time_factor=factor), segment_frames=4)
    assert_equal_files(tmp_path / "parts.mp4", tmp_path / "whole.mp4")
    assert len(runs) == 2 * count, "frames around a segment cost nothing"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_everything_beside_the_picture_is_that_of_one_run(toy: Path, tmp_path: Path, suffix: str) -> None:
    clip = make_clip(
        tmp_path / f"clip{suffix}",
        count=24,
        pts=[n * 1001 + (7 if n % 2 else 0) for n in range(24)],
        options={"bf": "2", "g": "6"},
        aspect=Fraction(4, 3),
        languages=("deu", "fra"),
        chapters=((0, 300, "first"), (300, 900, "second")),
        metadata={"language": "eng"},
        rotation=(90, False),
        subtitles=((100, 400, "one"),) if suffix == ".mkv" else (),
    )
    options = {"model": toy, "scale": 2, "encoder_options": {"qp": "0", "bf": "2"}}
    upscale(lossless_request(clip, tmp_path / f"whole{suffix}", **options))
    upscale_resumable(lossless_request(clip, tmp_path / f"parts{suffix}", **options), segment_frames=7)
    assert_equal_files(tmp_path / f"parts{suffix}", tmp_path / f"whole{suffix}")


def late_recording(folder: Path) -> Path:
    return make_source(folder / "late.ts", video="libx264", audio="aac", count=12, start=Fraction(36000))


def windows_media(folder: Path) -> Path:
    return make_source(folder / "clip.wmv", video="wmv2", audio="wmav2", count=12)


def high_rate(folder: Path) -> Path:
    return make_source(folder / "clip.mp4", video="libx264", count=12, rate=Fraction(400), options={"bf": "0"})


def timecoded(folder: Path) -> Path:
    return make_clip(folder / "clip.mov", count=12, metadata={"timecode": "10:00:00:05"})


SOURCES = [joined_recording, late_recording, windows_media, high_rate, timecoded]


@pytest.mark.parametrize(
    ("make", "suffix"),
    [
        pytest.param(make, suffix, marks=() if number % 2 == (suffix == ".mkv") else pytest.mark.slow)
        for number, make in enumerate(SOURCES)
        for suffix in (".mp4", ".mkv")
    ],
)
def test_clocks_and_converted_streams_are_those_of_one_run(
    toy: Path, tmp_path: Path, make: Callable[[Path], Path], suffix: str
) -> None:
    clip = make(tmp_path)
    options = {"model": toy, "scale": 2, "time_factor": 2}
    whole = upscale(lossless_request(clip, tmp_path / f"whole{suffix}", **options))
    parts = upscale_resumable(lossless_request(clip, tmp_path / f"parts{suffix}", **options), segment_frames=5)
    assert_equal_files(tmp_path / f"parts{suffix}", tmp_path / f"whole{suffix}")
    slow = [SLOW_PARTS] if make is joined_recording else []
    assert [*parts.warnings] == [*whole.warnings, *slow]
    assert (parts.frames_out, parts.duration_s) == (whole.frames_out, whole.duration_s)
    times, _ = frames_of(tmp_path / f"whole{suffix}")
    assert len(times) == whole.frames_out == 2 * whole.frames_in
    assert all(first < second for first, second in pairwise(times))
    assert times[0] < Fraction(1, 10)
    assert whole.duration_s < 2.1
    assert whole.frames_in == 12


@pytest.mark.parametrize(
    ("codec", "suffix", "lossless"),
    [("libx265", ".mp4", {"x265-params": "log-level=error:lossless=1"}), ("ffv1", ".mkv", {})],
)
def test_other_encoders_are_joined_too(
    toy: Path, tmp_path: Path, codec: str, suffix: str, lossless: dict[str, str]
) -> None:
    clip = two_scenes(tmp_path / "clip.mp4")
    options = {"model": toy, "scale": 2, "codec": codec, "encoder_options": lossless}
    upscale(lossless_request(clip, tmp_path / f"whole{suffix}", **options))
    upscale_resumable(lossless_request(clip, tmp_path / f"parts{suffix}", **options), segment_frames=5)
    assert_equal_files(tmp_path / f"parts{suffix}", tmp_path / f"whole{suffix}")
    with av.open(str(tmp_path / f"parts{suffix}")) as container:
        assert (container.streams.video[0].codec_context.codec_tag == "hvc1") == (codec == "libx265")


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("libvpx-vp9", ".webm")])
def test_lossy_segments_have_the_times_of_one_run(toy: Path, tmp_path: Path, codec: str, suffix: str) -> None:
    clip = two_scenes(tmp_path / "clip.mp4")
    options = {"model": toy, "scale": 2, "codec": codec, "encoder_options": None}
    upscale(lossless_request(clip, tmp_path / f"whole{suffix}", **options))
    upscale_resumable(lossless_request(clip, tmp_path / f"parts{suffix}", **options), segment_frames=5)
    assert facts_of(tmp_path / f"parts{suffix}") == facts_of(tmp_path / f"whole{suffix}")
    (times, frames), (expected_times, expected) = (frames_of(tmp_path / f"{n}{suffix}") for n in ("parts", "whole"))
    assert times == expected_times
    assert np.abs(frames.astype(int) - expected).mean() < 2


def test_a_folder_of_images_is_resumable(toy: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", count=9)
    options = {"model": toy, "scale": 2, "input_fps": Fraction(24)}
    upscale(lossless_request(folder, tmp_path / "whole.mp4", **options))
    upscale_resumable(lossless_request(folder, tmp_path / "parts.mp4", **options), segment_frames=4)
    assert_equal_files(tmp_path / "parts.mp4", tmp_path / "whole.mp4")
