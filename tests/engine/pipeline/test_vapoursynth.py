"""Clips of VapourSynth: frames in any order and from several threads equal those of one run."""

import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stvsr
from stvsr import Backend, RequestError, Upscaler
from stvsr.engine.contract.picture import to_float
from stvsr.engine.contract.windows import InputFrame

from tests.support.toy import write_toy as write_pair
from tests.support.toy_windows import WINDOWS, time_factor, write_toy

vs = pytest.importorskip("vapoursynth", reason="VapourSynth is not installed: pip install vapoursynth")
pytestmark = pytest.mark.slow

CPU = Backend(device="cpu", threads=1)
H, W = 10, 14
SCENES = (9, 1, 2, 5)  # frames
STARTS = (9, 10, 12)


@pytest.fixture(autouse=True, params=[1, 4])
def _core_threads(request: pytest.FixtureRequest) -> None:
    vs.core.num_threads = request.param


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Return scenes of shaded noise that moves, as 16 bits: a cut changes the noise and the colors."""
    frames = []
    for number, length in enumerate(SCENES):
        noise = np.random.default_rng(number).random((3, H, W)) * 0.5
        noise[number % 3] += 0.4
        frames += [np.roll(noise, shift, 2) for shift in range(length)]
    return (np.stack(frames) * 65535).astype(np.uint16)


def clip_of(pictures: np.ndarray, format: Any, cuts: tuple[int, ...] | None = None) -> Any:
    """Return a clip of RGB frames; `cuts` are the frames that begin scenes, in the frames' properties."""
    blank = vs.core.std.BlankClip(width=W, height=H, format=format, length=len(pictures), fpsnum=24000, fpsden=1001)

    def write(n: int, f: Any) -> Any:
        frame = f.copy()
        for plane, values in enumerate(pictures[n]):
            np.copyto(np.asarray(frame[plane]), values)
        frame.props["number"] = n
        if cuts is not None:
            frame.props["_SceneChangeNext"] = int(n + 1 in cuts)
        return frame

    return vs.core.std.ModifyFrame(blank, blank, write)


def read(clip: Any, number: int) -> np.ndarray:
    with clip.get_frame(number) as frame:
        return np.stack([np.asarray(plane).copy() for plane in frame])


def read_all(clip: Any, threads: int = 3) -> np.ndarray:
    """Read the frames of a clip in a random order, some of them twice, from several threads."""
    numbers = [*range(clip.num_frames), *range(0, clip.num_frames, 3)]
    random.Random(1).shuffle(numbers)
    with ThreadPoolExecutor(threads) as pool:
        frames = dict(zip(numbers, pool.map(lambda number: read(clip, number), numbers), strict=True))
    return np.stack([frames[number] for number in range(clip.num_frames)])


def expected(
    folder: Path, pictures: np.ndarray, factor: Fraction, starts: tuple[int, ...], scale: int = 2
) -> np.ndarray:
    """Return the frames of one run, as 16 bits."""

    def inputs() -> Iterator[InputFrame]:
        for number, frame in enumerate(pictures):
            outputs = range(-(-number * factor // 1), -(-(number + 1) * factor // 1))
            times = tuple(output / factor - number for output in outputs)
            yield InputFrame(frame, times, number + 1 in (*starts, len(pictures)))

    with Upscaler(folder, CPU) as upscaler:
        return np.stack(list(upscaler.frames(inputs(), (scale * H, scale * W))))


@pytest.mark.parametrize("kind", WINDOWS)
def test_frames_equal_those_of_one_run(tmp_path: Path, pictures: np.ndarray, kind: str) -> None:
    folder = write_toy(tmp_path / "toy", WINDOWS[kind], timed=kind == "run 2") / "graphs"
    factor = time_factor(kind)
    clip = clip_of(pictures, vs.RGB48, STARTS)
    result = stvsr.vapoursynth.upscale(clip, 2, factor, folder, CPU)
    assert (result.width, result.height, result.format.id) == (2 * W, 2 * H, vs.RGB48)
    assert (result.num_frames, result.fps) == (factor * len(pictures), factor * Fraction(24000, 1001))
    frames = expected(folder, to_float(pictures), Fraction(factor), STARTS)
    np.testing.assert_array_equal(read_all(result), frames)


@pytest.mark.parametrize("name", ["RGBS", "RGB24", "RGB48"])
def test_formats_of_rgb_are_computed_as_they_are(tmp_path: Path, pictures: np.ndarray, name: str) -> None:
    folder, format = write_pair(tmp_path / "toy"), getattr(vs, name)
    values = {"RGBS": to_float(pictures), "RGB24": (pictures >> 8).astype(np.uint8), "RGB48": pictures}[name]
    scale = {"RGBS": 1, "RGB24": 255, "RGB48": 65535}[name]
    result = stvsr.vapoursynth.upscale(clip_of(values, format, STARTS), 2, 2, folder, CPU)
    frames = expected(folder, values.astype(np.float32) / np.float32(scale), Fraction(2), STARTS)
    assert result.format.id == format
    if name == "RGB24":
        assert np.abs(read_all(result) * 257.0 - frames).max() <= 129  # half a step of 8 bits
    else:
        np.testing.assert_array_equal(read_all(result), to_float(frames) if name == "RGBS" else frames)


@pytest.mark.parametrize("name", ["YUV420P8", "YUV444P16", "YUV422P10", "RGB30", "RGBH"])
def test_other_formats_are_kept(tmp_path: Path, pictures: np.ndarray, name: str) -> None:
    folder, format = write_pair(tmp_path / "toy"), getattr(vs, name)
    rgb = clip_of(pictures, vs.RGB48, STARTS)
    how = {"matrix": 1} if name.startswith("YUV") else {}
    clip = rgb.resize.Bicubic(format=format, **how)
    result = stvsr.vapoursynth.upscale(clip, 2, 1, folder, CPU)
    assert (result.format.id, result.num_frames) == (format, len(pictures))
    source = clip.resize.Bicubic(format=vs.RGBS)
    inputs = np.stack([read(source, number) for number in range(len(pictures))]).clip(0, 1)
    frames = clip_of_size(expected(folder, inputs, Fraction(1), STARTS)).resize.Bicubic(format=format, **how)
    for number in (0, 8, 9, 16):
        with result.get_frame(number) as actual, frames.get_frame(number) as wanted:
            for one, other in zip(actual, wanted, strict=True):
                np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
            assert actual.props.get("_Matrix") == (1 if how else 0)


def clip_of_size(pictures: np.ndarray) -> Any:
    blank = vs.core.std.BlankClip(
        width=pictures.shape[3], height=pictures.shape[2], format=vs.RGB48, length=len(pictures)
    )

    def write(n: int, f: Any) -> Any:
        frame = f.copy()
        for plane, values in enumerate(pictures[n]):
            np.copyto(np.asarray(frame[plane]), values)
        return frame

    return vs.core.std.ModifyFrame(blank, blank, write)


def test_cuts_are_those_of_the_properties_or_found(tmp_path: Path, pictures: np.ndarray) -> None:
    """Properties that name no cut are believed; without them cuts are found, unless the threshold forbids it."""
    folder = write_pair(tmp_path / "toy")
    both: tuple[tuple[int, ...], ...] = (STARTS, ())
    frames = {starts: expected(folder, to_float(pictures), Fraction(2), starts) for starts in both}
    assert (frames[STARTS] != frames[()]).any()
    cases: tuple[tuple[Any, dict[str, Any], tuple[int, ...]], ...] = (
        (clip_of(pictures, vs.RGB48, ()), {}, ()),
        (clip_of(pictures, vs.RGB48), {}, STARTS),
        (clip_of(pictures, vs.RGB48), {"scene_threshold": 0}, ()),
    )
    for clip, options, starts in cases:
        result = stvsr.vapoursynth.upscale(clip, 2, 2, folder, CPU, **options)
        np.testing.assert_array_equal(read_all(result), frames[starts])
        flags = [result.get_frame(number).props["_SceneChangePrev"] for number in range(result.num_frames)]
        assert [number for number, flag in enumerate(flags) if flag] == [2 * start for start in starts]
        flags = [result.get_frame(number).props["_SceneChangeNext"] for number in range(result.num_frames)]
        assert [number for number, flag in enumerate(flags) if flag] == [2 * start - 1 for start in starts]


@pytest.mark.parametrize("factor", ["5/2", "1.5", 3])
def test_factors_that_are_no_integers(tmp_path: Path, pictures: np.ndarray, factor: Any) -> None:
    folder, exact = write_pair(tmp_path / "toy"), Fraction(factor)
    result = stvsr.vapoursynth.upscale(clip_of(pictures, vs.RGB48, STARTS), 2, factor, folder, CPU)
    frames = expected(folder, to_float(pictures), exact, STARTS)
    assert result.num_frames == len(frames)
    np.testing.assert_array_equal(read_all(result), frames)
    properties = dict(result.get_frame(4).props)
    assert properties["number"] == 4 // exact
    assert Fraction(properties["_DurationNum"], properties["_DurationDen"]) == Fraction(1001, 24000) / exact


def test_the_defaults_are_those_of_the_bundle(pictures: np.ndarray) -> None:
    clip = clip_of(pictures, vs.RGB48, STARTS)
    whole = stvsr.vapoursynth.upscale(clip, backend=CPU)
    assert (whole.width, whole.height, whole.num_frames) == (4 * W, 4 * H, 2 * len(pictures))
    assert stvsr.vapoursynth.upscale(clip, model="edvr-s", backend=CPU).num_frames == len(pictures)
    assert read(whole, 7).std() > 1000


def test_networks_one_after_another(tmp_path: Path, pictures: np.ndarray) -> None:
    """The cuts that the first call marks hold for the second."""
    folder = write_pair(tmp_path / "toy")
    once = stvsr.vapoursynth.upscale(clip_of(pictures, vs.RGB48, STARTS), 1, 2, folder, CPU)
    twice = stvsr.vapoursynth.upscale(once, 2, 1, folder, CPU)
    between = to_float(expected(folder, to_float(pictures), Fraction(2), STARTS, scale=1))
    frames = expected(folder, between, Fraction(1), tuple(2 * start for start in STARTS))
    np.testing.assert_array_equal(read_all(twice), frames)


def test_what_cannot_be_upscaled_is_refused(tmp_path: Path, pictures: np.ndarray) -> None:
    folder = write_toy(tmp_path / "doubled", WINDOWS["run 2"]) / "graphs"
    core, clip = vs.core, clip_of(pictures, vs.RGB48)
    upscale = stvsr.vapoursynth.upscale
    with pytest.raises(RequestError, match="not str: give a VideoNode"):
        upscale("clip.mp4")
    with pytest.raises(RequestError, match="several formats or sizes"):
        upscale(core.std.Splice([clip, core.std.BlankClip(clip, width=2 * W)], mismatch=True))
    with pytest.raises(RequestError, match="is Gray8: convert it to RGB or YUV"):
        upscale(core.std.BlankClip(format=vs.GRAY8))
    with pytest.raises(RequestError, match="interlaced"):
        upscale(clip.std.SetFieldBased(2))
    with pytest.raises(RequestError, match="takes 2 passes for this: call upscale once for each"):
        upscale(clip, 2, 4, folder, CPU)
    with pytest.raises(RequestError, match="has no frames of 21x15: choose another scale"):
        upscale(core.std.BlankClip(clip, format=vs.YUV420P8), 1.5, 1, write_pair(tmp_path / "pair"), CPU)
    with pytest.raises(RequestError, match="x1 to x8"):
        upscale(clip, 9, 1, write_pair(tmp_path / "other"), CPU)


def test_an_error_of_a_frame_is_vapoursynths(tmp_path: Path, pictures: np.ndarray) -> None:
    def fail(n: int, f: Any) -> Any:
        if n == 8:
            raise ValueError("the source is damaged")
        return f

    clip = clip_of(pictures, vs.RGB48, ())
    result = stvsr.vapoursynth.upscale(vs.core.std.ModifyFrame(clip, clip, fail), 2, 2, write_pair(tmp_path / "t"), CPU)
    assert read(result, 1).shape == (3, 2 * H, 2 * W)
    with pytest.raises(vs.Error, match="the source is damaged"):
        result.get_frame(16)
    assert read(result, 30).shape == (3, 2 * H, 2 * W)


def test_the_module_does_not_hide_vapoursynth() -> None:
    """In the folder of a checkout, `import vapoursynth` is VapourSynth."""
    code = (
        "import vapoursynth as vs; import stvsr; from stvsr import vapoursynth; print(vs.core.num_threads, vapoursynth)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(stvsr.__file__).parent)
    assert done.returncode == 0, done.stderr
    assert "pipeline/vapoursynth.py" in done.stdout
