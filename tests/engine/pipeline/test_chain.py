"""Chains that run on toy networks: the times and sizes of their frames, scene cuts, tiles and optical flow."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from stvsr import Bundle, InputFrame
from stvsr.engine.contract.manifest import FixedFactors
from stvsr.engine.contract.picture import FULL_SCALE
from stvsr.engine.pipeline.chain import Chain
from stvsr.engine.pipeline.flow import optical_flow
from stvsr.engine.pipeline.inference import Inference
from stvsr.engine.pipeline.plan import plan_passes

from tests.support.network_bundles import (
    ANY_TIME,
    DOUBLED_X1,
    RUN,
    RUN_X1,
    RUN_X2_ANY_TIME,
    RUN_X4,
    SLIDING,
    SLIDING_X4,
    network_bundle,
)

H, W = 12, 20
STEP = 0.01  # in brightness, from one frame of the ramp to the next


def ramp(count: int, times: tuple[Fraction, ...], scene_ends: tuple[int, ...] = ()) -> Iterator[InputFrame]:
    """Yield `count` frames of a picture that brightens evenly; scenes end after the frames `scene_ends`."""
    picture = np.random.default_rng(0).random((3, H, W), np.float32) * 0.1
    for i in range(count):
        yield InputFrame(picture + np.float32(STEP * i), times, i == count - 1 or i in scene_ends)


def even_times(factor: int) -> tuple[Fraction, ...]:
    return tuple(Fraction(i, factor) for i in range(factor))


def times_in_ramp(frames: list[np.ndarray]) -> list[float]:
    """Return the times of output frames, in input frames from the first, measured by their brightness."""
    start = next(ramp(1, ())).rgb.mean()
    return [round(float((frame / FULL_SCALE).mean() - start) / STEP, 2) for frame in frames]


def fixed_factor(factors: Any) -> int:
    """Return the only factor of a bundle in space or in time."""
    assert isinstance(factors, FixedFactors)
    (factor,) = factors.factors
    return factor


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("bundle", [RUN_X4, RUN_X1], ids=["run-x4", "run-x1"])
def test_repetition_gives_every_time(bundle: Bundle, factor: int, runs: list[Any]) -> None:
    scale = fixed_factor(bundle.manifest.space)
    size = (scale * H, scale * W)
    with Chain(plan_passes([bundle], (H, W), size, factor)) as chain:
        frames = list(chain.frames(ramp(6, even_times(factor))))
    assert {frame.shape for frame in frames} == {(3, *size)}
    assert times_in_ramp(frames) == pytest.approx([min(i / factor, 5) for i in range(6 * factor)], abs=0.03)


def test_a_continuous_run_gives_any_time(runs: list[Any]) -> None:
    with Chain(plan_passes([RUN_X2_ANY_TIME], (H, W), (2 * H, 2 * W), 3)) as chain:
        frames = list(chain.frames(ramp(7, even_times(3))))
    assert times_in_ramp(frames) == pytest.approx([min(i / 3, 6) for i in range(21)], abs=0.03)
    assert len(runs) == 3 * 2  # three windows of three frames, each at two times


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_doubled_window_gives_every_time(factor: int, runs: list[Any]) -> None:
    with Chain(plan_passes([DOUBLED_X1], (H, W), (H, W), factor)) as chain:
        frames = list(chain.frames(ramp(9, even_times(factor))))
    assert len(frames) == 9 * factor
    inner = slice(2 * factor, -2 * factor)  # the toy does not extrapolate at the ends of a scene
    expected = [(i + 0.5) / factor - 0.5 for i in range(9 * factor)]
    assert times_in_ramp(frames)[inner] == pytest.approx(expected[inner], abs=0.03)


def test_a_chain_of_two_repeats_the_last_frame_of_each_scene(runs: list[Any]) -> None:
    with Chain(plan_passes([RUN_X1, SLIDING_X4], (H, W), (4 * H, 4 * W), 4)) as chain:
        frames = list(chain.frames(ramp(5, even_times(4), scene_ends=(1,))))
    expected = [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 2, 2.25, 2.5, 2.75, 3, 3.25, 3.5, 3.75, 4, 4, 4, 4]
    assert times_in_ramp(frames) == pytest.approx(expected, abs=0.03)
    assert {frame.shape for frame in frames} == {(3, 4 * H, 4 * W)}


def test_a_chain_of_two_gives_uneven_times(runs: list[Any]) -> None:
    times = [(Fraction(0), Fraction(2, 3)), (Fraction(1, 3),), (), (Fraction(0),)]
    inputs = [InputFrame(frame.rgb, own, frame.last) for frame, own in zip(ramp(4, ()), times, strict=True)]
    continuous = network_bundle(RUN, 1, ANY_TIME)
    with Chain(plan_passes([continuous, SLIDING_X4], (H, W), (4 * H, 4 * W), None)) as chain:
        assert times_in_ramp(list(chain.frames(inputs))) == pytest.approx([0, 0.67, 1.33, 3], abs=0.03)


@pytest.mark.parametrize("bundle", [RUN_X4, DOUBLED_X1], ids=["run-x4", "doubled-x1"])
def test_scenes_are_not_blended(bundle: Bundle, runs: list[Any]) -> None:
    scale = fixed_factor(bundle.manifest.space)
    with Chain(plan_passes([bundle], (H, W), (scale * H, scale * W), 2)) as chain:
        two_scenes = times_in_ramp(list(chain.frames(ramp(7, even_times(2), scene_ends=(2,)))))
        first_scene = times_in_ramp(list(chain.frames(ramp(3, even_times(2)))))
    assert two_scenes[:6] == first_scene
    assert len(two_scenes) == 14


@pytest.mark.parametrize("bundle", [RUN_X4, SLIDING_X4, DOUBLED_X1], ids=["run-x4", "sliding-x4", "doubled-x1"])
def test_tiles_do_not_change_the_frames(bundle: Bundle, runs: list[dict[str, np.ndarray]]) -> None:
    scale, factor = fixed_factor(bundle.manifest.space), fixed_factor(bundle.manifest.time)
    passes = plan_passes([bundle], (H, W), (scale * H, scale * W), factor)
    results = []
    for tile in (0, 12):
        with Chain(passes, inference=Inference(tile)) as chain:
            results.append(list(chain.frames(ramp(4, even_times(factor)))))
    np.testing.assert_array_equal(results[0], results[1])
    assert {inputs["frames"].shape[-1] for inputs in runs} == {W, 12}


@pytest.mark.parametrize("method", [None, "dis"])
def test_flows_follow_the_manifest_and_are_cut_into_tiles(
    method: str | None, runs: list[dict[str, np.ndarray]]
) -> None:
    flow = {"name": "flow", "pairs": ((1, 0), (1, 2)), "method": "farneback"}
    bundle = network_bundle(SLIDING, 4, 1, flows=(flow,))
    rng = np.random.default_rng(0)
    frames = [rng.random((3, H, W + 2), np.float32) for _ in range(4)]
    with Chain(plan_passes([bundle], (H, W + 2), (4 * H, 4 * W + 8), 1), inference=Inference(16, method)) as chain:
        inputs = (InputFrame(frame, last=i == 3) for i, frame in enumerate(frames))
        assert len(list(chain.frames(inputs))) == 4
    assert {inputs["flow"].shape for inputs in runs} == {(1, 2, 2, H, 16)}

    def flow_between(first: int, second: int) -> np.ndarray:
        return optical_flow(frames[first], frames[second], method or "farneback")

    # Two tiles a frame: columns 0 to 15 and 8 to 23, of which the last two are padding.
    np.testing.assert_array_equal(runs[0]["flow"][0, 0], flow_between(0, 1)[..., :16])
    expected = np.stack([flow_between(1, 0), flow_between(1, 2)])
    np.testing.assert_array_equal(runs[2]["flow"][0], expected[..., :16])
    np.testing.assert_array_equal(runs[3]["flow"][0, ..., : W + 2 - 8], expected[..., 8:])
