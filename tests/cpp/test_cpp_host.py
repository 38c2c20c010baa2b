"""The C++ host, on fakes of CUDA and of the inference library, equals the Python upscaler bit for bit."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import Backend, InputFrame, Upscaler

from tests.support.cpp_host import (
    DTYPES,
    Programs,
    assert_cpp_equals_python,
    edit_manifest,
    random_clip,
    run,
    upscale_with_cpp,
    upscale_with_python,
)
from tests.support.toy_windows import PAIR, WINDOWS, engine_entry, time_factor, write_toy


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 12])
@pytest.mark.parametrize("kind", list(WINDOWS))
def test_every_kind_of_window_equals_python(programs: Programs, toys: dict[str, Path], kind: str, count: int) -> None:
    assert_cpp_equals_python(programs, toys[kind], random_clip(count, (7, 10), "rgb24"), 2, time_factor(kind))


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["pair", "run 3 at any time"])
def test_times_between_frames_equal_python(programs: Programs, toys: dict[str, Path], kind: str, factor: int) -> None:
    assert_cpp_equals_python(programs, toys[kind], random_clip(6, (6, 9), "rgb48le"), 2, factor)


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (3, 17), (8, 12), (1, 1)])
@pytest.mark.parametrize("format", DTYPES)
@pytest.mark.parametrize("kind", ["pair", "replicate 3"])
def test_odd_sizes_are_padded_and_cropped(
    programs: Programs, toys: dict[str, Path], kind: str, format: str, size: tuple[int, int]
) -> None:
    assert_cpp_equals_python(programs, toys[kind], random_clip(3, size, format), 2, time_factor(kind))


@pytest.mark.parametrize("scale", [1, 1.25, 2.7, 3, 8])
def test_continuous_scales_equal_python(programs: Programs, toys: dict[str, Path], scale: float) -> None:
    assert_cpp_equals_python(programs, toys["pair"], random_clip(2, (6, 10), "rgb48le"), scale, 2)


@pytest.mark.parametrize("refined", [False, True])
@pytest.mark.parametrize("scale", [1, 2, 2.5, 3, 8])
def test_optional_graphs_equal_python(programs: Programs, tmp_path: Path, scale: float, refined: bool) -> None:
    toy = write_toy(tmp_path / "toy", PAIR, integer=True, refined=refined)
    assert_cpp_equals_python(programs, toy, random_clip(3, (6, 10), "rgb48le"), scale, 3)


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 255.0), (0.25, 0.5)])
@pytest.mark.parametrize("format", DTYPES)
def test_other_value_ranges_equal_python(
    programs: Programs, tmp_path: Path, format: str, value_range: tuple[float, float]
) -> None:
    for window in (PAIR, WINDOWS["run 4"]):
        folder = write_toy(tmp_path / window["kind"], window, value_range=value_range)
        assert_cpp_equals_python(programs, folder, random_clip(3, (5, 6), format), 2, 2)


def test_default_scale_and_factor_come_from_the_bundle(
    programs: Programs, toys: dict[str, Path], tmp_path: Path
) -> None:
    frames = random_clip(2, (6, 9), "rgb24")
    for kind, scale in (("pair", 4), ("run 2", 2), ("replicate 3", 2), ("doubled 4+2", 2)):
        expected = upscale_with_python(toys[kind], frames, (6 * scale, 9 * scale), time_factor(kind))
        np.testing.assert_array_equal(upscale_with_cpp(programs, toys[kind], frames), expected.ravel())
    space = {"kind": "continuous", "minimum": 1, "maximum": 3}
    smaller_scales = write_toy(tmp_path / "smaller_scales", PAIR, space=space)
    assert upscale_with_cpp(programs, smaller_scales, frames).size == 4 * 18 * 27 * 3


def test_half_precision_uses_its_own_engine(programs: Programs, toys: dict[str, Path], tmp_path: Path) -> None:
    folder = write_toy(tmp_path / "toy", WINDOWS["replicate 3"])
    frames = random_clip(2, (4, 4), "rgb24")
    text = (folder / "engines/network.tensorrt-rtx.sm89.fp32.engine").read_text()

    def add_engine(manifest: Any) -> None:
        manifest["engines"].append(engine_entry(folder / "engines", manifest["graphs"][0], text, precision="fp16"))

    edit_manifest(folder, add_engine)
    (folder / "engines/network.tensorrt-rtx.sm89.fp32.engine").unlink()
    expected = upscale_with_python(folder, frames, (8, 8), 1).ravel()
    np.testing.assert_array_equal(upscale_with_cpp(programs, folder, frames, "--precision", "fp16"), expected)


def test_verbose_reports_on_standard_error(programs: Programs, toys: dict[str, Path]) -> None:
    frames = random_clip(3, (4, 6), "rgb24")
    arguments = (toys["pair"] / "engines", "--size", "6x4", "--verbose", "--scale", 2)
    done = run(programs.upscale, *arguments, data=frames.tobytes())
    assert done.stderr.startswith(b"3 frames to 6 frames of 12x8 with tensorrt-rtx on device 0: ")
    assert done.stderr.endswith(b" ms per output frame\n")
    assert len(done.stdout) == 6 * 12 * 8 * 3


def test_streams_events_and_memory_belong_to_the_requested_device(programs: Programs, toys: dict[str, Path]) -> None:
    frames = random_clip(3, (4, 6), "rgb24")
    arguments = (toys["pair"] / "engines", "--size", "6x4", "--device", 1)
    done = run(programs.upscale, *arguments, data=frames.tobytes(), FAKE_CUDA_DEVICES="2")
    assert (done.returncode, len(done.stdout)) == (0, 6 * 24 * 16 * 3), done.stderr


TIMES = ["-", "0/1", "0/1,1/2", "1/2", "0/1,0/1,1/2"]
EVERY_TIME = [*TIMES, "1/3,2/3", "0/4,1/4,3/4", "1/2,3/4"]


@pytest.mark.parametrize("kind", ["pair", "run 4", "run 3 at any time", "doubled 2+1", "circle 5"])
def test_library_on_a_stream_of_the_host_equals_python(programs: Programs, toys: dict[str, Path], kind: str) -> None:
    """Request random times of each frame, none of some, in scenes of random lengths; repeat it after a failed call."""
    rng = np.random.default_rng(len(kind))
    choice = EVERY_TIME if kind in ("pair", "run 3 at any time") else ["-", "0/1"] if "circle" in kind else TIMES
    for _ in range(4):
        lengths = rng.integers(1, 8, 3)
        words = [str(rng.choice(choice)) + "!" * int(i == n - 1) for n in lengths for i in range(n)]
        frames = rng.random((len(words), 3, 6, 9), np.float32)
        size = (12, 18)
        inputs = []
        for frame, word in zip(frames, words, strict=True):
            times = tuple(Fraction(part) for part in word.rstrip("!").split(",") if part != "-")
            inputs.append(InputFrame(frame, times, word.endswith("!")))
        with Upscaler(toys[kind] / "graphs", Backend(device="cpu", threads=1), tile=0) as upscaler:
            expected = list(upscaler.frames(inputs, size))
        done = run(programs.host, "upscale", toys[kind] / "engines", "9x6", "18x12", *words, data=frames.tobytes())
        assert done.returncode == 0, done.stderr
        assert done.stderr == b"A frame of 161 values does not have the size 9x6: pass three planes of that size.\n"
        twice = np.frombuffer(done.stdout, np.uint16).reshape(2, len(expected), 3, *size)
        for actual in twice:
            np.testing.assert_array_equal(actual, np.array(expected, np.uint16).reshape(actual.shape))


@pytest.mark.parametrize("times", ["1/1", "3/2", "1/3"])
def test_unsupported_times_are_refused(programs: Programs, toys: dict[str, Path], times: str) -> None:
    done = run(programs.host, "upscale", toys["run 4"] / "engines", "4x4", "8x8", times + "!", data=bytes(192))
    out_of_range = f"The time {times} is not in the range from 0 to below 1"
    assert ("supports the time factors x2" if times == "1/3" else out_of_range) in done.stderr.decode()
