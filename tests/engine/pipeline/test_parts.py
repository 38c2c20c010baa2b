"""Runs on parts of videos, slow motion and fractional factors: one run and segments alike."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import Backend, MediaError, RequestError, UpscaleRequest, upscale, upscale_resumable
from stvsr.engine.contract.bundle import find_bundles
from stvsr.engine.media.reader import open_reader

from tests.support.media import make_clip, make_folder, packets_of, times

CPU = Backend(device="cpu")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Write 24 frames at 30000/1001 per second, with sound."""
    return make_clip(tmp_path / "clip.mp4", count=24, languages=("deu",), options={"g": "8", "bf": "2"})


def request(source: Path, output: Path, toy: Path, **options: Any) -> UpscaleRequest:
    return UpscaleRequest(input=source, output=output, model=toy, backend=CPU, encoder_options={"qp": "0"}, **options)


OPTIONS: list[tuple[dict[str, Any], tuple[int, int], str, float]] = [
    # options, frames in and out, rate, duration in seconds
    ({"start": "0:00.2", "end": "0:00.6"}, (12, 24), "60000/1001", 12 * 1001 / 30000),
    ({"frames": 5, "time_factor": 1}, (5, 5), "30000/1001", 5 * 1001 / 30000),
    ({"slowmo": 4, "frames": 6}, (6, 24), "30000/1001", 24 * 1001 / 30000),
    ({"slowmo": "2.5", "start": 0.2, "frames": 8}, (8, 20), "30000/1001", 20 * 1001 / 30000),
    ({"slowmo": 2, "time_factor": 4, "frames": 6}, (6, 24), "60000/1001", 12 * 1001 / 30000),
    ({"slowmo": 2, "fps": "59.94", "frames": 6}, (6, 24), "60000/1001", 12 * 1001 / 30000),
    ({"time_factor": 2.5}, (24, 60), "75000/1001", 24 * 1001 / 30000),
    ({"fps": 23.976, "end": 0.5}, (15, 12), "24000/1001", 15 * 1001 / 30000),
]


@pytest.mark.parametrize(("options", "frames", "rate", "seconds"), OPTIONS, ids=lambda value: str(value))
def test_a_part_is_one_run_or_segments(
    clip: Path, toy: Path, tmp_path: Path, options: dict[str, Any], frames: tuple[int, int], rate: str, seconds: float
) -> None:
    whole = upscale(request(clip, tmp_path / "whole.mp4", toy, scale=1, **options))
    parts = upscale_resumable(request(clip, tmp_path / "parts.mp4", toy, scale=1, **options), segment_frames=4)
    for report in (whole, parts):
        assert ((report.frames_in, report.frames_out), report.rate_out) == (frames, rate)
        assert report.duration_s == pytest.approx(seconds, abs=1e-6)
    assert whole.warnings == parts.warnings
    with open_reader(tmp_path / "whole.mp4") as one, open_reader(tmp_path / "parts.mp4") as other:
        for first, second in zip(one, other, strict=True):
            assert (first.pts, first.duration) == (second.pts, second.duration)
            assert np.array_equal(first.rgb, second.rgb)
    assert packets_of(tmp_path / "whole.mp4", "audio") == packets_of(tmp_path / "parts.mp4", "audio")
    assert len(packets_of(tmp_path / "whole.mp4", "audio")) == ("slowmo" not in options)


def test_a_factor_of_two_and_a_half_makes_three_and_two_frames_in_turn(clip: Path, toy: Path, tmp_path: Path) -> None:
    upscale(request(clip, tmp_path / "out.mp4", toy, scale=1, time_factor="5/2", frames=4))
    step = Fraction(1001, 75000)
    assert times(tmp_path / "out.mp4") == [(n * step, step) for n in range(10)]


def test_a_variable_rate_stays_variable_at_any_factor(toy: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "vfr.mp4", pts=[0, 1000, 4000, 5000])
    last = times(clip)[-1][1] * 30000
    upscale(request(clip, tmp_path / "out.mp4", toy, scale=1, time_factor="3/2"))
    ticks = [pts * 30000 for pts, _ in times(tmp_path / "out.mp4")]
    assert ticks == [0, Fraction(2000, 3), 2000, 4000, 4000 + Fraction(2000, 3), 5000 + last / 3]


def test_another_part_is_another_run(clip: Path, toy: Path, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.frames_in > 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        upscale_resumable(request(clip, tmp_path / "out.mp4", toy, scale=1, frames=9), stop, segment_frames=4)
    with pytest.raises(RequestError, match="another run, whose part differs"):
        upscale_resumable(request(clip, tmp_path / "out.mp4", toy, scale=1, frames=8), segment_frames=4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": 2, "end": 1}, "The end 1 is not after the start 2"),
        ({"end": 0}, "The end 0 is not after the start 0"),
        ({"frames": 0}, "number of frames is 0"),
        ({"start": "noon"}, "'noon' is not a time"),
        ({"slowmo": 0.5}, "The slow motion is 0.5: give a number from 1 on"),
        ({"fps": "1e9"}, "The frame rate is 1e.09 frames per second"),
        ({"size": "big"}, "'big' is not a size"),
        ({"scale": float("inf")}, "The scale is inf"),
        ({"scale": "x"}, "'x' is not a scale"),
        ({"format": "y4m"}, "leave the format out"),
    ],
)
def test_impossible_parts_and_quantities_are_refused(
    clip: Path, toy: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        upscale(request(clip, tmp_path / "out.mp4", toy, **options))
    with pytest.raises(MediaError, match="no frame from 9 s on"):
        upscale(request(clip, tmp_path / "out.mp4", toy, start=9))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "clip_x2_59.94fps.mp4"),
        ({"start": "1:02", "end": 90.5, "frames": 3}, "clip_x2_from62s_to90.5s_3frames_59.94fps.mp4"),
        ({"slowmo": 4}, "clip_x2_slow4_29.97fps.mp4"),
        ({"fps": "23.976"}, "clip_x2_23.976fps.mp4"),
        ({"time_factor": "2.5"}, "clip_x2_74.925fps.mp4"),
    ],
)
def test_default_names_tell_parts_and_rates_apart(clip: Path, toy: Path, options: dict[str, Any], name: str) -> None:
    wanted = UpscaleRequest(input=clip, model=toy, scale=2, **options)
    with open_reader(clip) as reader:
        info = reader.info
        if "slowmo" in options:
            info = open_reader(clip, part=wanted.part).info
        assert wanted.plan(find_bundles(toy), info).output == clip.parent / name


def test_inputs_of_one_stem_have_default_names_of_their_own(toy: Path, tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"a{suffix}") for suffix in (".mp4", ".mkv", ".ts")]
    clips.append(make_folder(tmp_path / "a", 2))
    names = set()
    for clip in clips:
        wanted = UpscaleRequest(input=clip, model=toy, scale=2, input_fps=25 if clip.is_dir() else None)
        with open_reader(clip, fps=wanted.input_rate) as reader:
            names.add(Path(wanted.plan(find_bundles(toy), reader.info).output).name)
    assert names == {
        "a_x2_59.94fps.mp4",
        "a_mkv_x2_59.94fps.mp4",
        "a_ts_x2_59.94fps.mp4",
        "a_images_x2_50fps.mp4",
    }


def test_an_image_becomes_an_image(toy: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", 1)
    report = upscale(UpscaleRequest(input=folder / "frame9.png", model=toy, backend=CPU, scale=2))
    assert (report.output, report.frames_in, report.frames_out) == (str(folder / "frame9_x2.png"), 1, 1)
    with open_reader(report.output) as reader:
        assert (reader.info.width, reader.info.height) == (64, 48)
    with pytest.raises(RequestError, match=r"frame9_x2\.png exists already"):
        upscale(UpscaleRequest(input=folder / "frame9.png", model=toy, backend=CPU, scale=2))


@pytest.mark.parametrize(("name", "frames"), [("out.gif", 24), ("out.apng", 48), ("images/", 48), ("x_%03d.jpg", 48)])
def test_every_kind_of_output_has_every_frame(toy: Path, clip: Path, tmp_path: Path, name: str, frames: int) -> None:
    """GIF holds no 59.94 frames per second: there the rate is not raised by default."""
    report = upscale(UpscaleRequest(input=clip, output=f"{tmp_path}/{name}", model=toy, backend=CPU, scale=1))
    assert report.frames_out == frames
    assert any("audio stream 1 (aac) was left out" in warning for warning in report.warnings)
    with open_reader(f"{tmp_path}/{name}", fps=Fraction(25) if "." not in name or "%" in name else None) as reader:
        assert len(list(reader)) == frames
    with pytest.raises(RequestError, match=r"writes a video file .* and .* is none"):
        upscale_resumable(UpscaleRequest(input=clip, output=f"{tmp_path}/2{name}", model=toy, backend=CPU, scale=1))


def test_a_video_is_no_single_image_except_of_one_frame(toy: Path, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"is one image, and the input has several frames: write out_%05d\.png"):
        upscale(UpscaleRequest(input=clip, output=tmp_path / "out.png", model=toy, backend=CPU))
    still = UpscaleRequest(
        input=clip, output=tmp_path / "out.png", model=toy, backend=CPU, start=0.3, frames=1, scale=1
    )
    assert upscale(still).frames_out == 1
