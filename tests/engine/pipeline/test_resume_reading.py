"""Resumable runs of video that is deinterlaced, repaired or without its repetitions write the file of one run."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from stvsr import Backend, Report, RequestError, UpscaleRequest, upscale, upscale_resumable

from tests.support.equal_files import assert_equal_files
from tests.support.faulty import damage_packet, interlaced, smooth_pan, soft_telecine, telecined, write_gray
from tests.support.media import make_video, pan

FRAMES = smooth_pan(32, (48, 64))
SHORT_GOPS = {"g": "5", "bf": "0", "sc_threshold": "0"}


def request(source: Path, output: Path, toy: Path, **options: Any) -> UpscaleRequest:
    fixed: dict[str, Any] = {"model": toy, "scale": 1, "backend": Backend(device="cpu"), "encoder_options": {"qp": "0"}}
    return UpscaleRequest(input=source, output=output, **{**fixed, **options})


def assert_equal_runs(clip: Path, folder: Path, toy: Path, frames: int = 4, **options: Any) -> Report:
    """Compare a run with a resumable one of segments of some frames, and return the report."""
    whole = upscale(request(clip, folder / "whole.mp4", toy, **options))
    parts = upscale_resumable(request(clip, folder / "parts.mp4", toy, **options), segment_frames=frames)
    assert_equal_files(folder / "parts.mp4", folder / "whole.mp4")
    names = ("frames_in", "frames_out", "repeated_frames", "still_frames", "cuts_s", "duration_s", "rate_out")
    for name in (*names, "warnings", "repairs"):
        assert getattr(parts, name) == getattr(whole, name), name
    return whole


@pytest.mark.parametrize(
    "options",
    [{}, {"field_rate": "single"}, {"deinterlace": "yadif"}, {"deinterlace": "off"}, {"fps": Fraction(60)}],
    ids=str,
)
def test_interlaced_video(toy: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    clip = write_gray(tmp_path / "clip.mp4", interlaced(FRAMES), flags="tff", options=SHORT_GOPS)
    report = assert_equal_runs(clip, tmp_path, toy, **options)
    double = options.get("deinterlace") != "off" and "field_rate" not in options
    assert report.frames_in == (32 if double else 16)
    if "fps" not in options:
        assert report.rate_out == ("100" if double else "50")


@pytest.mark.parametrize("kind", ["hard", "soft", "variable"])
def test_film_and_a_variable_rate(toy: Path, tmp_path: Path, kind: str) -> None:
    if kind == "hard":
        clip = write_gray(
            tmp_path / "clip.mp4", telecined(FRAMES), flags="tff", time_base=Fraction(1, 30), options=SHORT_GOPS
        )
    elif kind == "soft":
        clip = soft_telecine(tmp_path / "clip.m2v", FRAMES)
    else:
        ticks = [n + n * n // 8 for n in range(16)]
        clip = write_gray(tmp_path / "clip.mp4", interlaced(FRAMES), flags="tff", ticks=ticks, options=SHORT_GOPS)
    report = assert_equal_runs(clip, tmp_path, toy)
    assert report.frames_in == 32
    if kind != "variable":
        assert float(Fraction(report.rate_out)) == pytest.approx(48, rel=0.002)


@pytest.mark.parametrize(
    ("codec", "suffix", "number", "on_damage"),
    [
        ("libx264", ".mp4", 13, "repeat"),
        ("libx264", ".ts", 15, "skip"),
        ("mpeg2video", ".ts", 13, "repeat"),
        ("libx264", ".mkv", 0, "skip"),
        pytest.param("libx264", ".mp4", 13, "skip", marks=pytest.mark.slow),
        pytest.param("libx264", ".ts", 15, "repeat", marks=pytest.mark.slow),
    ],
)
def test_damaged_video(toy: Path, tmp_path: Path, codec: str, suffix: str, number: int, on_damage: str) -> None:
    options = SHORT_GOPS if codec == "libx264" else {"g": "5"}
    clip = tmp_path / f"damaged{suffix}"
    damage_packet(
        write_gray(tmp_path / f"clip{suffix}", FRAMES[:30], codec=codec, options=options), clip, number, "middle"
    )
    report = assert_equal_runs(clip, tmp_path, toy, on_damage=on_damage)
    assert len(report.repairs) == (1 if number else 0), "frames before the first that can be decoded are no damage"
    if number:
        assert report.repairs[0]["action"] == ("repeated" if on_damage == "repeat" else "left out")
        assert any("damaged" in warning for warning in report.warnings)
        assert report.frames_in == (30 if on_damage == "repeat" else 29)


VARIABLE = [n + n // 3 for n in range(30)]


@pytest.mark.parametrize(
    ("ticks", "options", "frames"),
    [
        pytest.param(ticks, options, frames, marks=() if chosen else pytest.mark.slow)
        for number, (ticks, options) in enumerate(
            (ticks, options)
            for ticks in (None, VARIABLE)
            for options in ({}, {"time_factor": 1}, {"fps": Fraction(50)})
        )
        for frames in (1, 4, 100)
        for chosen in [(number, frames) in {(0, 4), (1, 100), (3, 1), (5, 4)}]
    ],
)
def test_repeated_frames(
    toy: Path, tmp_path: Path, ticks: list[int] | None, options: dict[str, Any], frames: int
) -> None:
    """Twos, a pause and a cut."""
    scene = pan(8)
    order = [0, 0, 1, 1, 2, 2, *[3] * 10, 4, 4]
    pictures = [*(scene[n] for n in order), *(1 - scene[n] for n in (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5))]
    clip = make_video(tmp_path / "clip.mp4", pictures, ticks)
    report = assert_equal_runs(clip, tmp_path, toy, frames, dedup=True, **options)
    assert report.frames_in == 30
    assert report.repeated_frames >= 8
    assert report.still_frames > 0
    assert len(report.cuts_s) == 1


def test_all_at_once(toy: Path, tmp_path: Path) -> None:
    twos = [frame for frame in FRAMES for _ in range(2)]
    clip = write_gray(tmp_path / "clip.mp4", interlaced(twos), flags="tff", options=SHORT_GOPS)
    damage_packet(clip, tmp_path / "damaged.mp4", 12, "all")
    report = assert_equal_runs(
        tmp_path / "damaged.mp4", tmp_path, toy, on_damage="repeat", dedup=True, deinterlace="bwdif"
    )
    assert report.repeated_frames > 10
    assert len(report.repairs) == 1


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"deinterlace": "off"}, "reading"),
        ({"field_rate": "single"}, "reading"),
        ({"on_damage": "skip"}, "reading"),
        ({"dedup": True}, "repeated frames"),
    ],
)
def test_another_way_of_reading_is_another_run(
    toy: Path, tmp_path: Path, changes: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_video(tmp_path / "clip.mp4", pan(9))

    def stop(progress: Any) -> None:
        if progress.frames_in >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_resumable(request(clip, tmp_path / "out.mp4", toy), stop, segment_frames=2)
    with pytest.raises(RequestError, match=f"whose {name} differs"):
        upscale_resumable(request(clip, tmp_path / "out.mp4", toy, **changes), segment_frames=2)
