"""Whole runs: frames, timestamps, sizes, names of outputs, and refused requests."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stvsr import (
    Backend,
    Bundle,
    BundleError,
    MediaError,
    Progress,
    Report,
    RequestError,
    UpscaleRequest,
    upscale,
    upscale_resumable,
)
from stvsr.engine.contract.manifest import FixedFactors
from stvsr.engine.media.frame import Frame
from stvsr.engine.media.reader import open_reader
from stvsr.engine.pipeline.adaptation import Adapting, AdaptSettings, SceneAdaptation
from stvsr.engine.pipeline.scene_frames import read_scenes

from tests.support.learners import KnownLearner
from tests.support.media import make_video, pan, picture
from tests.support.paths import SAMPLE
from tests.support.toy import blend_and_sample, write_toy

CPU = Backend(device="cpu")


def run(source: Path, toy: Path, **options: Any) -> tuple[Report, list[Frame]]:
    """Upscale without loss, and read the output back."""
    options = {"scale": 2, "crf": 0, "encoder_options": {"preset": "ultrafast"}, **options}
    report = upscale(UpscaleRequest(input=source, model=toy, backend=CPU, **options))
    with open_reader(report.output) as reader:
        return report, list(reader)


def mean_difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).mean())


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_time_factor_multiplies_every_frame(clip: Path, toy: Path, factor: int) -> None:
    report, frames = run(clip, toy, time_factor=factor)
    assert (report.frames_in, report.frames_out, len(frames)) == (7, 7 * factor, 7 * factor)
    start = frames[0].pts
    assert [frame.pts - start for frame in frames] == [Fraction(n, 24 * factor) for n in range(7 * factor)]
    assert sum(frame.duration for frame in frames) == Fraction(7, 24)
    source = pan(7)
    for i, frame in enumerate(frames[::factor]):
        assert mean_difference(frame.rgb, blend_and_sample(source[i], source[i], 0, (96, 128))) < 0.02
    if factor > 1:
        between = blend_and_sample(source[2], source[3], 1 / factor, (96, 128))
        assert mean_difference(frames[2 * factor + 1].rgb, between) < 0.02


def test_the_last_frame_is_repeated(clip: Path, toy: Path) -> None:
    _, frames = run(clip, toy, time_factor=3)
    assert mean_difference(frames[-1].rgb, frames[-3].rgb) < 0.01


def test_a_target_rate_sets_the_timestamps(clip: Path, toy: Path) -> None:
    report, frames = run(clip, toy, fps=Fraction(60))
    assert len(frames) == report.frames_out == 18  # 17.5 of them last 7/24 s
    start = frames[0].pts
    assert [frame.pts - start for frame in frames] == [Fraction(n, 60) for n in range(18)]


def test_a_target_rate_below_the_source_drops_frames(clip: Path, toy: Path) -> None:
    report, frames = run(clip, toy, fps=Fraction(8))
    assert report.frames_in == 7
    assert len(frames) == report.frames_out == 3


def test_a_variable_rate_keeps_its_timestamps(tmp_path: Path, toy: Path) -> None:
    ticks = [0, 1, 4, 5, 9]
    source = make_video(tmp_path / "vfr.mp4", pan(5), ticks)
    _, frames = run(source, toy)
    start = frames[0].pts
    assert [(frame.pts - start) * 24 for frame in frames[::2]] == ticks
    assert [(frame.pts - start) * 24 for frame in frames[1:-1:2]] == [0.5, 2.5, 4.5, 7]


def test_nothing_is_blended_across_a_cut(tmp_path: Path, toy: Path) -> None:
    before, after = picture(1, (90, 160)), picture(2, (90, 160))
    assert mean_difference(before, after) / 4 > 0.06  # a quarter of the other scene would show
    source = make_video(tmp_path / "cut.mp4", [before] * 3 + [after] * 3)
    report, frames = run(source, toy, time_factor=4, scale=1)
    assert report.cuts_s == (3 / 24,)
    assert len(frames) == 24
    for i, frame in enumerate(frames):
        assert mean_difference(frame.rgb, before if i < 12 else after) < 0.04  # halved chroma takes 0.03
    report, frames = run(source, toy, time_factor=4, scale=1, scene_threshold=0, overwrite=True)
    assert report.cuts_s == ()
    assert mean_difference(frames[10].rgb, (before + after) / 2) < 0.04


def test_a_video_of_one_frame_is_upscaled(tmp_path: Path, toy: Path) -> None:
    report, frames = run(make_video(tmp_path / "one.mp4", pan(1)), toy)
    assert (report.frames_in, report.frames_out, len(frames)) == (1, 2, 2)
    assert sum(frame.duration for frame in frames) == Fraction(1, 24)


def test_odd_sizes_are_kept(tmp_path: Path, toy: Path) -> None:
    source = make_video(tmp_path / "odd.mp4", pan(3, (37, 53)))
    report, frames = run(source, toy, scale=None, size=(106, 74))
    assert report.size_in == (53, 37)
    assert frames[0].rgb.shape == (3, 74, 106)
    report, frames = run(source, toy, scale=3, pix_fmt="yuv444p")
    assert report.size_out == (159, 111)
    assert frames[0].rgb.shape == (3, 111, 159)


def test_tiles_give_the_same_video_as_whole_frames(clip: Path, toy: Path, tmp_path: Path) -> None:
    _, whole = run(clip, toy, tile=0, output=tmp_path / "whole.mp4")
    _, tiled = run(clip, toy, tile=24, output=tmp_path / "tiled.mp4")
    for one, other in zip(whole, tiled, strict=True):
        assert np.abs(one.rgb - other.rgb).max() <= 1 / 255


def test_the_shipped_sample_keeps_its_audio(tmp_path: Path, toy: Path) -> None:
    report, frames = run(SAMPLE, toy, scale=1.5, output=tmp_path / "bee.mp4")
    assert (report.frames_in, len(frames)) == (60, 120)
    assert report.size_out == (360, 204)
    assert report.cuts_s == ()
    with av.open(report.output) as container:
        assert len(container.streams.audio) == 1


def test_the_report_is_json_with_consistent_times(clip: Path, toy: Path) -> None:
    report, _ = run(clip, toy)
    fields = json.loads(json.dumps(report.as_dict()))
    assert fields["output"] == str(clip.parent / "clip_x2_48fps.mp4")
    assert fields["bundle"] == "toy"
    assert len(fields["fingerprint"]) == 64
    assert fields["duration_s"] == pytest.approx(7 / 24)
    assert fields["seconds"] > max(fields["decode_seconds"], fields["inference_seconds"], fields["encode_seconds"]) > 0
    assert fields["opening_seconds"] > 0
    assert fields["inference_seconds"] > fields["first_run_seconds"] > 0


def test_progress_counts_every_input_frame(clip: Path, toy: Path) -> None:
    reported: list[Progress] = []
    upscale(UpscaleRequest(input=clip, model=toy, scale=1, backend=CPU), reported.append)
    assert [progress.frames_in for progress in reported] == [1, 2, 3, 4, 5, 6, 7, 7]
    assert reported[-1].frames_out == 14
    assert {progress.total_in for progress in reported} <= {None, 7}


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "clip_x4_48fps.mp4"),
        ({"scale": 2.5, "time_factor": 3}, "clip_x2.5_72fps.mp4"),
        ({"size": (128, 96), "fps": Fraction(60000, 1001)}, "clip_128x96_59.94fps.mp4"),
    ],
)
def test_the_default_output_is_named_by_scale_and_rate(
    clip: Path, toy: Path, options: dict[str, Any], name: str
) -> None:
    report = upscale(UpscaleRequest(input=clip, model=toy, backend=CPU, **options))
    assert Path(report.output) == clip.parent / name
    assert Path(report.output).is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 2, "size": (10, 10)}, "either a scale or a size"),
        ({"scale": -1}, "scale is -1: give a number above 0"),
        ({"scale": float("nan")}, "scale is nan: give a number above 0"),
        ({"scale": 9}, "x1 to x8"),
        ({"size": (32, 24)}, "x1 to x8"),
        ({"time_factor": 2, "fps": Fraction(60)}, "either a time factor or a frame rate"),
        ({"time_factor": 0}, "give a number from 1 on"),
        ({"scene_threshold": 2}, "from 0 .* to 1"),
        ({"tile": 8}, "at least"),
    ],
)
def test_an_impossible_request_is_refused_before_any_work(
    clip: Path, toy: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        upscale(UpscaleRequest(input=clip, model=toy, backend=CPU, **options))
    assert list(clip.parent.iterdir()) == [clip]


def test_a_time_factor_that_the_bundle_lacks_is_refused(clip: Path, tmp_path: Path) -> None:
    fixed = write_toy(tmp_path / "fixed", time=FixedFactors(factors=(2,)))
    for options in ({"time_factor": 3}, {"fps": Fraction(48)}):
        with pytest.raises(RequestError, match="by x2, and by repetition x4 and x8"):
            upscale(UpscaleRequest(input=clip, model=fixed, backend=CPU, **options))


@pytest.mark.parametrize("name", [None, "out.mp4"])
def test_an_existing_output_is_not_overwritten(clip: Path, toy: Path, name: str | None) -> None:
    output = clip.parent / (name or "clip_x4_48fps.mp4")
    output.write_text("precious")
    request = UpscaleRequest(input=clip, model=toy, output=output if name else None, backend=CPU)
    with pytest.raises(RequestError, match="exists already: choose another output, or pass --overwrite"):
        upscale(request)
    assert output.read_text() == "precious"


def test_the_input_is_never_overwritten(clip: Path, toy: Path) -> None:
    with pytest.raises(RequestError, match="the input itself"):
        upscale(UpscaleRequest(input=clip, model=toy, output=clip, overwrite=True, backend=CPU))


def test_a_missing_bundle_or_input_is_reported(clip: Path, toy: Path) -> None:
    with pytest.raises(BundleError, match="no bundle"):
        upscale(UpscaleRequest(input=clip, model="no-such-model"))
    with pytest.raises(MediaError):
        upscale(UpscaleRequest(input=clip.parent / "absent.mp4", model=toy))


def test_each_scene_uses_its_own_adapted_bundle(tmp_path: Path, toy: Path) -> None:
    """Graphs that differ in more than their weights are opened for their scenes."""
    scenes = [pan(6), [1 - frame for frame in pan(5)], pan(7)]
    source = make_video(tmp_path / "in.mp4", [frame for scene in scenes for frame in scene])
    parent = Bundle.load(toy).fingerprint
    blurred = Bundle.load(write_toy(tmp_path / "blurred", blur_px=3, training={"adapted": {"parent": parent}}))
    same = Bundle.load(write_toy(tmp_path / "same", training={"adapted": {"parent": parent}}))
    options: dict[str, Any] = {"crf": 0, "encoder_options": {"preset": "ultrafast"}}
    request = UpscaleRequest(input=source, model=toy, backend=CPU, scale=2, time_factor=1, **options)
    assert [len(scene) for scene in read_scenes(request)] == [6, 5, 7]
    assert [len(scene) for scene in read_scenes(request, most_frames=6)] == [6, 5, 6]
    plain, plain_frames = run(source, toy, time_factor=1, output=tmp_path / "plain.mp4")
    adapting = Adapting(AdaptSettings("scene"), lambda *_: KnownLearner([(same,), (blurred,), (blurred,)]))
    with SceneAdaptation(request, adapting) as adaptation:
        report = upscale(replace(request, output=tmp_path / "adapted.mp4"), None, adaptation)
    assert [record["unit"] for record in report.adaptation] == [0, 1, 2]
    assert plain.adaptation == ()
    with open_reader(report.output) as reader:
        frames = list(reader)
    assert [frame.pts for frame in frames] == [frame.pts for frame in plain_frames]
    differs = [mean_difference(a.rgb, b.rgb) > 0.01 for a, b in zip(frames, plain_frames, strict=True)]
    assert differs == [False] * 6 + [True] * 12


@pytest.mark.parametrize("name", ["12:30.mp4", "http:clip.mp4", "pipe:0.mp4", "-.mp4", "a b%d'\"#?.mp4"])
@pytest.mark.parametrize("resumable", [False, True])
def test_any_name_is_that_of_a_file(
    clip: Path, toy: Path, tmp_path: Path, name: str, resumable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also as a relative path, which FFmpeg would read as an address."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(clip.read_bytes())
    output = Path(f"out_{name}") if resumable else Path(name.replace(".mp4", ".x2.mp4"))
    request = UpscaleRequest(input=Path(name), output=output, model=toy, scale=2, backend=Backend(device="cpu"))
    report = (upscale_resumable if resumable else upscale)(request)
    assert report.frames_out == 14
    assert output.is_file()
