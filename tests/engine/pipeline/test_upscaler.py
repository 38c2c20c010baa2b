from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr.engine.contract.bundle import Bundle
from stvsr.engine.contract.errors import RequestError
from stvsr.engine.contract.manifest import ContinuousSpace, FixedFactors
from stvsr.engine.contract.picture import to_uint16
from stvsr.engine.pipeline import upscaler as upscaler_module
from stvsr.engine.pipeline.upscaler import Upscaler, positions

from tests.support.toy import blend_and_sample, write_toy

H, W = 37, 53  # neither is a multiple of 8


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture(scope="module")
def blurred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("bundles") / "blurred", blur_px=3)


@pytest.fixture(scope="module")
def pair() -> np.ndarray:
    return np.random.default_rng(0).random((2, 3, H, W), dtype=np.float32)


def rounded(frame: np.ndarray) -> np.ndarray:
    return np.rint(frame * np.float32(65535)).astype(np.uint16)


def levels_apart(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())


@pytest.mark.parametrize("size", [(H, W), (2 * H, 2 * W), (100, 131), (8 * H, 8 * W), (H, 3 * W)])
def test_frames_are_what_the_network_makes(toy: Path, pair: np.ndarray, size: tuple[int, int]) -> None:
    times = (0.0, 0.25, 1 / 3, 1.0)
    with Upscaler(toy, device="cpu") as upscaler:
        made = list(upscaler.between(*pair, times, size))
    assert len(made) == len(times)
    for time, frame in zip(times, made, strict=True):
        assert frame.shape == (3, *size)
        assert frame.dtype == np.uint16
        assert levels_apart(frame, rounded(blend_and_sample(*pair, time, size))) <= 1


def test_the_same_size_at_time_0_is_the_first_frame_exactly(toy: Path, pair: np.ndarray) -> None:
    with Upscaler(toy, device="cpu") as upscaler:
        (frame,) = upscaler.between(*pair, [0.0], (H, W))
    np.testing.assert_array_equal(frame, rounded(pair[0]))


@pytest.mark.parametrize("tile", [24, 32, 40])
@pytest.mark.parametrize("size", [(2 * H, 2 * W), (100, 131), (H, W)])
def test_tiles_leave_no_trace(blurred: Path, pair: np.ndarray, tile: int, size: tuple[int, int]) -> None:
    times = (0.0, 0.4)
    with Upscaler(blurred, device="cpu", tile=0) as whole, Upscaler(blurred, device="cpu", tile=tile) as tiled:
        for one, other in zip(whole.between(*pair, times, size), tiled.between(*pair, times, size), strict=True):
            assert levels_apart(one, other) <= 2  # of 65535


def test_too_small_a_halo_leaves_traces(tmp_path: Path, pair: np.ndarray) -> None:
    """The test above can fail."""
    folder = write_toy(tmp_path / "lying", blur_px=3, halo_px=0)
    with Upscaler(folder, device="cpu", tile=0) as whole, Upscaler(folder, device="cpu", tile=24) as tiled:
        (one,), (other,) = (upscaler.between(*pair, [0.0], (H, W)) for upscaler in (whole, tiled))
    assert levels_apart(one, other) > 500


def test_bands_and_groups_of_times_leave_no_trace(
    blurred: Path, pair: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = (0.0, 0.2, 0.4, 0.6, 0.8)
    with Upscaler(blurred, device="cpu", tile=32) as upscaler:
        at_once = list(upscaler.between(*pair, times, (2 * H, 2 * W)))
        monkeypatch.setattr(upscaler_module, "DECODE_PX", 300)
        monkeypatch.setattr(upscaler_module, "CANVAS_BYTES", 2 * 3 * 2 * H * 2 * W * 2)
        in_parts = list(upscaler.between(*pair, times, (2 * H, 2 * W)))
    np.testing.assert_array_equal(at_once, in_parts)


def test_a_large_frame_is_tiled_unless_asked_not_to(blurred: Path, tmp_path: Path) -> None:
    with Upscaler(blurred, device="cpu") as upscaler:
        assert upscaler._tile_px(360, 640) is None
        assert upscaler._tile_px(360, 641) == upscaler_module.DEFAULT_TILE_PX
    with Upscaler(blurred, device="cpu", tile=0) as upscaler:
        assert upscaler._tile_px(1080, 1920) is None
    with Upscaler(write_toy(tmp_path / "whole", halo_px=None), device="cpu") as upscaler:
        assert upscaler._tile_px(1080, 1920) is None


def test_each_frame_without_tiles_is_made_when_it_is_asked_for(toy: Path, pair: np.ndarray) -> None:
    with Upscaler(toy, device="cpu") as upscaler:
        runs = 0
        run = upscaler._graphs.run

        def counted(role: Any, inputs: dict[str, np.ndarray], **options: Any) -> dict[str, np.ndarray]:
            nonlocal runs
            runs += role == "decoder"
            return run(role, inputs, **options)

        upscaler._graphs.run = counted  # type: ignore[method-assign]
        frames = upscaler.between(*pair, (0.0, 0.5), (H, W))
        assert runs == 0
        next(frames)
        assert runs == 1


def test_a_scale_outside_the_range_is_refused(toy: Path, pair: np.ndarray) -> None:
    with Upscaler(toy, device="cpu") as upscaler:
        for size in ((H - 1, W), (9 * H, 9 * W), (0, 0)):
            with pytest.raises(RequestError, match="x1 to x8"):
                upscaler.between(*pair, [0.0], size)


def test_fixed_factors_are_the_only_ones(tmp_path: Path, pair: np.ndarray) -> None:
    folder = write_toy(tmp_path / "fixed", space=FixedFactors(factors=(2, 4)), time=FixedFactors(factors=(2,)))
    with Upscaler(folder, device="cpu") as upscaler:
        assert len(list(upscaler.between(*pair, [0, 0.5], (2 * H, 2 * W)))) == 2
        with pytest.raises(RequestError, match="x2, x4"):
            upscaler.between(*pair, [0], (3 * H, 3 * W))
        with pytest.raises(RequestError, match="in time by x2"):
            upscaler.between(*pair, [0.25], (2 * H, 2 * W))


def test_a_time_outside_the_pair_is_refused(toy: Path, pair: np.ndarray) -> None:
    with Upscaler(toy, device="cpu") as upscaler, pytest.raises(RequestError, match="from 0 to 1"):
        upscaler.between(*pair, [1.5], (H, W))


def test_tiles_must_suit_the_bundle(blurred: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="at least 16"):
        Upscaler(blurred, tile=8)
    with pytest.raises(RequestError, match="cannot be tiled"):
        Upscaler(write_toy(tmp_path / "whole", halo_px=None), tile=64)


def test_other_value_ranges_are_mapped(tmp_path: Path, toy: Path, pair: np.ndarray) -> None:
    signed = write_toy(tmp_path / "signed", value_range=(-1.0, 1.0), space=ContinuousSpace(minimum=1, maximum=2))
    with Upscaler(Bundle.load(signed), device="cpu") as other, Upscaler(toy, device="cpu") as plain:
        (one,), (two,) = (upscaler.between(*pair, [0.5], (2 * H, 2 * W)) for upscaler in (other, plain))
    assert levels_apart(one, two) <= 1


def test_values_are_rounded_and_clipped() -> None:
    frame = np.array([-0.5, 0, 0.4 / 65535, 0.6 / 65535, 1, 1.5], np.float32)
    np.testing.assert_array_equal(to_uint16(frame.copy(), 0, 1), [0, 0, 0, 1, 65535, 65535])
    np.testing.assert_array_equal(to_uint16(np.array([-1, 1], np.float32), -1, 1), [0, 65535])


def test_positions_are_exact_far_from_the_origin() -> None:
    place = positions(range(30716, 30720), 3840, 30720, 3800)
    np.testing.assert_array_equal(place, [39 + (i + 0.5) / 8 - 0.5 for i in range(4, 8)])
