"""The upscaler on toy bundles: exact frames, tiles without traces, and refused sizes and times."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import Backend, Bundle, RequestError, Upscaler
from stvsr.engine.contract.manifest import ContinuousSpace, FixedFactors
from stvsr.engine.contract.picture import to_uint16
from stvsr.engine.pipeline import runners
from stvsr.engine.pipeline.runners import positions
from stvsr.engine.pipeline.tiles import PAIR_TILE_PX, TileSize, gpu_tile_px

from tests.support.toy import blend_and_sample, write_toy

H, W = 37, 53  # neither is a multiple of 8
CPU = Backend(device="cpu")
Pair = tuple[np.ndarray, np.ndarray]  # two frames (3, H, W)


@pytest.fixture(scope="module")
def blurred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy whose halo is 4 px, and whose smallest tile is therefore 16 px."""
    return write_toy(tmp_path_factory.mktemp("bundles") / "blurred", blur_px=3)


@pytest.fixture(scope="module")
def untileable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("bundles") / "untileable", halo_px=None)


@pytest.fixture(scope="module")
def integer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy with a decoder for integer factors, which adds an eighth of y and a sixteenth of x inside each pixel."""
    return write_toy(tmp_path_factory.mktemp("bundles") / "integer", integer=True, value_range=(-1.0, 1.0))


@pytest.fixture(scope="module")
def pair() -> Pair:
    first, second = np.random.default_rng(0).random((2, 3, H, W), dtype=np.float32)
    return first, second


def rounded(frame: np.ndarray) -> np.ndarray:
    return np.rint(frame * np.float32(65535)).astype(np.uint16)


def levels_apart(first: np.ndarray, second: np.ndarray) -> int:
    """Return the largest difference of two frames, in levels of 16 bits."""
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def record_roles(upscaler: Upscaler) -> list[str]:
    """Return a list that receives the role of each graph when it runs."""
    roles: list[str] = []
    run = upscaler.queues[0].graphs.run

    def recorded(role: Any, inputs: Mapping[str, np.ndarray], **options: Any) -> dict[str, np.ndarray]:
        roles.append(role)
        return run(role, inputs, **options)

    upscaler.queues[0].graphs.run = recorded  # type: ignore[method-assign]
    return roles


# --- frames ---


@pytest.mark.parametrize("tile", [0, 24])
def test_a_refiner_runs_once_for_each_tile_and_time(
    tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch, tile: int
) -> None:
    """Bands of a target share it, and the frames are those of a bundle without a refiner."""
    monkeypatch.setattr(runners, "DECODE_PX", 4 * W)
    frames: list[np.ndarray] = []
    runs: list[Counter[str]] = []
    for name, refined in (("plain", False), ("refined", True)):
        with Upscaler(write_toy(tmp_path / name, integer=True, refined=refined), CPU, tile=tile) as upscaler:
            roles = record_roles(upscaler)
            for size in ((2 * H, 2 * W), (2 * H, 2 * W + 1)):
                frames += upscaler.between(*pair, [0.25, 0.5], size)
            runs.append(Counter(roles))
    for plain, other in zip(frames[:4], frames[4:], strict=True):
        np.testing.assert_array_equal(plain, other)
    tiles = runs[1]["integer_decoder"] // 2
    assert runs[1]["refiner"] == 2 * 2 * tiles < runs[1]["integer_decoder"] + runs[1]["decoder"]
    assert runs[0] == runs[1] - Counter(refiner=runs[1]["refiner"])


@pytest.mark.parametrize("size", [(H, W), (2 * H, 2 * W), (100, 131), (8 * H, 8 * W), (H, 3 * W)])
def test_frames_equal_those_of_the_network(toy: Path, pair: Pair, size: tuple[int, int]) -> None:
    times = (0.0, 0.25, 1 / 3, 1.0)
    with Upscaler(toy, CPU) as upscaler:
        frames = list(upscaler.between(*pair, times, size))
    assert len(frames) == len(times)
    for time, frame in zip(times, frames, strict=True):
        assert frame.shape == (3, *size)
        assert frame.dtype == np.uint16
        assert levels_apart(frame, rounded(blend_and_sample(*pair, time, size))) <= 1


def test_the_first_frame_is_exact_at_its_own_time_and_size(toy: Path, pair: Pair) -> None:
    with Upscaler(toy, CPU) as upscaler:
        (frame,) = upscaler.between(*pair, [0.0], (H, W))
    np.testing.assert_array_equal(frame, rounded(pair[0]))


@pytest.mark.parametrize(("fy", "fx"), [(2, 2), (1, 3), (8, 4)])
@pytest.mark.parametrize("tile", [0, 24])
def test_integer_factors_take_the_integer_decoder(integer: Path, pair: Pair, fy: int, fx: int, tile: int) -> None:
    with Upscaler(integer, CPU, tile=tile) as upscaler:
        roles = record_roles(upscaler)
        frames = list(upscaler.between(*pair, [0.0, 0.25], (fy * H, fx * W)))
    assert set(roles) == {"encoder", "integer_decoder"}
    for time, frame in zip((0.0, 0.25), frames, strict=True):
        blended = pair[0] + (pair[1] - pair[0]) * np.float32(time)
        repeated = blended.repeat(fy, 1).repeat(fx, 2)
        # The phases are added in the network's range, which is twice as wide as that of pictures.
        y, x = (np.tile((np.arange(f) + 0.5) / f - 0.5, n) for f, n in ((fy, H), (fx, W)))
        expected = repeated + (y[:, None] / 8 + x / 16) / 2
        assert levels_apart(frame, rounded(expected.clip(0, 1).astype(np.float32))) <= 1


def test_other_factors_take_the_decoder(integer: Path, pair: Pair) -> None:
    with Upscaler(integer, CPU) as upscaler:
        roles = record_roles(upscaler)
        list(upscaler.between(*pair, [0.5], (2 * H, 2 * W + 1)))
    assert roles == ["encoder", "decoder"]


@pytest.mark.parametrize("tile", [0, 24])
def test_input_frames_of_the_same_size_pass_through(integer: Path, pair: Pair, tile: int) -> None:
    with Upscaler(integer, CPU, tile=tile) as upscaler:
        roles = record_roles(upscaler)
        ends = list(upscaler.between(*pair, [0.0, 1.0], (H, W)))
        assert not roles, "no graph runs"
        (_, middle) = upscaler.between(*pair, [0.0, 0.5], (H, W))
    assert "integer_decoder" in roles
    for frame, expected in zip(ends, pair, strict=True):
        assert levels_apart(frame, rounded(expected)) <= 1
    assert levels_apart(middle, rounded((pair[0] + pair[1]) / 2)) <= 1


def test_each_frame_is_computed_when_it_is_requested(toy: Path, pair: Pair) -> None:
    with Upscaler(toy, CPU) as upscaler:
        roles = record_roles(upscaler)
        frames = upscaler.between(*pair, (0.0, 0.5), (H, W))
        assert roles.count("decoder") == 0
        next(frames)
        assert roles.count("decoder") == 1


def test_value_ranges_of_networks_do_not_change_the_frames(tmp_path: Path, toy: Path, pair: Pair) -> None:
    signed = write_toy(tmp_path / "signed", value_range=(-1.0, 1.0), space=ContinuousSpace(minimum=1, maximum=2))
    with Upscaler(Bundle.load(signed), CPU) as other, Upscaler(toy, CPU) as plain:
        (one,), (two,) = (upscaler.between(*pair, [0.5], (2 * H, 2 * W)) for upscaler in (other, plain))
    assert levels_apart(one, two) <= 1


def test_values_are_rounded_and_clipped() -> None:
    frame = np.array([-0.5, 0, 0.4 / 65535, 0.6 / 65535, 1, 1.5], np.float32)
    np.testing.assert_array_equal(to_uint16(frame.copy(), 0, 1), [0, 0, 0, 1, 65535, 65535])
    np.testing.assert_array_equal(to_uint16(np.array([-1, 1], np.float32), -1, 1), [0, 65535])


def test_positions_are_exact_far_from_the_origin() -> None:
    actual = positions(range(30716, 30720), 3840, 30720, 3800)
    np.testing.assert_array_equal(actual, [39 + (i + 0.5) / 8 - 0.5 for i in range(4, 8)])


# --- tiles ---


@pytest.mark.parametrize("tile", [24, 32, 40])
@pytest.mark.parametrize("size", [(2 * H, 2 * W), (100, 131), (H, W)])
def test_tiles_leave_no_trace(blurred: Path, pair: Pair, tile: int, size: tuple[int, int]) -> None:
    times = (0.0, 0.4)
    with Upscaler(blurred, CPU, tile=0) as whole, Upscaler(blurred, CPU, tile=tile) as tiled:
        roles = record_roles(whole), record_roles(tiled)
        for one, other in zip(whole.between(*pair, times, size), tiled.between(*pair, times, size), strict=True):
            assert levels_apart(one, other) <= 2  # of 65535
    assert roles[0].count("encoder") == 1 < roles[1].count("encoder")


def test_tiles_with_too_small_a_halo_leave_traces(tmp_path: Path, pair: Pair) -> None:
    """`test_tiles_leave_no_trace` fails for a bundle with a wrong halo."""
    folder = write_toy(tmp_path / "wrong", blur_px=3, halo_px=0)
    with Upscaler(folder, CPU, tile=0) as whole, Upscaler(folder, CPU, tile=24) as tiled:
        (one,), (other,) = (upscaler.between(*pair, [0.0], (H, W)) for upscaler in (whole, tiled))
    assert levels_apart(one, other) > 500


def test_bands_and_groups_of_times_leave_no_trace(blurred: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    times = (0.0, 0.2, 0.4, 0.6, 0.8)
    with Upscaler(blurred, CPU, tile=32) as upscaler:
        at_once = list(upscaler.between(*pair, times, (2 * H, 2 * W)))
        monkeypatch.setattr(runners, "DECODE_PX", 300)
        monkeypatch.setattr(runners, "BUFFER_BYTES", 2 * 3 * 2 * H * 2 * W * 2)
        in_parts = list(upscaler.between(*pair, times, (2 * H, 2 * W)))
    np.testing.assert_array_equal(at_once, in_parts)


def test_large_frames_are_tiled_unless_whole_frames_are_requested(blurred: Path, untileable: Path) -> None:
    with Upscaler(blurred, CPU) as upscaler:
        assert upscaler.queues[0].tile_size.side_px(360, 640) is None
        assert upscaler.queues[0].tile_size.side_px(360, 641) == PAIR_TILE_PX
    with Upscaler(blurred, CPU, tile=0) as upscaler:
        assert upscaler.queues[0].tile_size.side_px(1080, 1920) is None
    with Upscaler(untileable, CPU) as upscaler:
        assert upscaler.queues[0].tile_size.side_px(1080, 1920) is None


@pytest.mark.parametrize(
    ("tile", "size", "steps"),
    [
        (64, (360, 640), [(64, 32), (32, 16)]),
        (88, (360, 640), [(88, 40), (40, 16)]),  # halves are rounded down to multiples of 8
        (None, (1080, 1920), [(384, 192), (192, 96), (96, 48), (48, 24)]),
        (None, (37, 53), [(56, 24)]),  # a whole frame, padded to a multiple of 8
    ],
)
def test_tiles_shrink_by_half_down_to_the_smallest_with_a_core(
    blurred: Path, tile: int | None, size: tuple[int, int], steps: list[tuple[int, int]]
) -> None:
    tile_size = TileSize(Bundle.load(blurred).manifest, tile)
    for before, after in steps:
        assert tile_size.shrink(*size) == (before, after)
        assert tile_size.side_px(*size) == after
    assert tile_size.shrink(*size) is None
    assert tile_size.side_px(*size) == steps[-1][1]
    assert tile_size.side_px(2160, 3840) == steps[-1][1]  # of later frames too


@pytest.mark.parametrize("tile", [0, None])
def test_whole_frames_do_not_shrink(blurred: Path, untileable: Path, tile: int | None) -> None:
    manifest = Bundle.load(blurred if tile == 0 else untileable).manifest
    tile_size = TileSize(manifest, tile)
    assert tile_size.shrink(1080, 1920) is None
    assert tile_size.side_px(1080, 1920) is None


@pytest.mark.parametrize(
    ("free_gb", "size", "side"),
    [
        (80, (1080, 1920), None),
        (80, (2160, 3840), 2289),
        (24, (1080, 1920), 1254),
        (2, (640, 640), None),
        (2, (640, 641), 640),
    ],
)
def test_tiles_on_a_gpu_are_as_large_as_its_memory_allows(
    blurred: Path, free_gb: int, size: tuple[int, int], side: int | None
) -> None:
    tile_size = TileSize(Bundle.load(blurred).manifest, None, gpu_tile_px(free_gb << 30))
    assert tile_size.side_px(*size) == side


def test_tiles_that_do_not_suit_the_bundle_are_refused(blurred: Path, untileable: Path) -> None:
    with pytest.raises(RequestError, match="at least 16"):
        Upscaler(blurred, tile=8)
    with pytest.raises(RequestError, match="cannot be tiled"):
        Upscaler(untileable, tile=64)


# --- refused sizes and times ---


def test_scales_outside_the_range_are_refused(toy: Path, pair: Pair) -> None:
    with Upscaler(toy, CPU) as upscaler:
        for size in ((H - 1, W), (9 * H, 9 * W), (0, 0)):
            with pytest.raises(RequestError, match="x1 to x8"):
                upscaler.between(*pair, [0.0], size)


def test_factors_other_than_the_fixed_ones_are_refused(tmp_path: Path, pair: Pair) -> None:
    folder = write_toy(tmp_path / "fixed", space=FixedFactors(factors=(2, 4)), time=FixedFactors(factors=(2,)))
    with Upscaler(folder, CPU) as upscaler:
        assert len(list(upscaler.between(*pair, [0, 0.5], (2 * H, 2 * W)))) == 2
        with pytest.raises(RequestError, match="x2, x4"):
            upscaler.between(*pair, [0], (3 * H, 3 * W))
        with pytest.raises(RequestError, match="in time by x2"):
            upscaler.between(*pair, [0.25], (2 * H, 2 * W))


def test_times_outside_the_pair_are_refused(toy: Path, pair: Pair) -> None:
    with Upscaler(toy, CPU) as upscaler, pytest.raises(RequestError, match="from 0 to 1"):
        upscaler.between(*pair, [1.5], (H, W))
