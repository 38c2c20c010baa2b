"""Tile blending against its oracle."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from stvsr.kernels import blend, reference

from tests.support.compare import assert_close_to_range
from tests.support.cuda_cpu import everywhere, on_cpu

Run = Callable[..., Any]
Tile = tuple[np.ndarray, tuple[int, int], tuple[int, int, int, int]]
SIZE = (29, 43)


def random_tiles(channels: int, dtype: type, seed: int = 0) -> list[Tile]:
    """Tiles of odd sizes, of which up to six overlap, and some reach out of the picture or lie outside of it."""
    rng = np.random.default_rng(seed)
    tiles: list[Tile] = []
    for shape, place in [
        ((29, 43), (0, 0)),
        ((13, 21), (-3, -5)),
        ((11, 17), (9, 14)),
        ((11, 19), (12, 17)),
        ((7, 9), (13, 19)),
        ((15, 23), (20, 31)),
        ((5, 5), (40, 3)),
        ((1, 1), (14, 20)),
    ]:
        feathers = tuple(int(n) for n in rng.integers(0, 7, 4))
        tiles.append((rng.normal(size=(channels, *shape)).astype(dtype), place, feathers))  # type: ignore[arg-type]
    return tiles


def blended(tiles: Sequence[Tile], channels: int, size: tuple[int, int], dtype: type) -> Callable[..., Any]:
    def on_device(*pictures: Any) -> Any:
        canvas = blend.new_canvas(pictures[0], channels, size)
        for picture, (_, place, feathers) in zip(pictures, tiles, strict=True):
            blend.add_tile(canvas, picture, place, feathers)
        return blend.normalised(canvas, dtype), canvas

    return on_device


@everywhere
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_the_oracle(run: Run, channels: int, dtype: type) -> None:
    tiles = random_tiles(channels, dtype)
    picture, _ = run(blended(tiles, channels, SIZE, dtype), *(tile for tile, _, _ in tiles))
    expected = reference.blend_tiles(tiles, SIZE)
    assert picture.dtype == dtype
    if dtype == np.float32:
        assert_close_to_range(picture, expected, mean=1e-7, max=1e-6)
    else:  # sums are float32: all that is left is the rounding of the result
        plain = np.abs(expected.astype(np.float16) - expected)
        error = np.abs(picture - expected)
        assert error.max() <= 2 * plain.max(), np.percentile(error, [50, 99, 100])
        assert error.mean() <= 2 * plain.mean(), np.percentile(error, [50, 99, 100])


@everywhere
def test_order_does_not_matter(run: Run) -> None:
    tiles = random_tiles(2, np.float32, seed=1)
    pictures = []
    for seed in range(3):
        mixed = [tiles[i] for i in np.random.default_rng(seed).permutation(len(tiles))]
        picture, _ = run(blended(mixed, 2, SIZE, np.float32), *(tile for tile, _, _ in mixed))
        pictures.append(picture)
    for other in pictures[1:]:
        assert_close_to_range(other, pictures[0], mean=1e-7, max=1e-6)


@everywhere
def test_feathers_as_wide_as_the_overlap_sum_to_one(run: Run) -> None:
    rows = np.linspace(0, 1, 20, dtype=np.float32)[:, None] * np.ones((1, 31), np.float32)
    tiles: list[Tile] = [
        (rows[None, :13, :], (0, 0), (0, 6, 0, 0)),
        (rows[None, 7:, :], (7, 0), (6, 0, 0, 0)),
    ]
    arrays = [np.ascontiguousarray(tile) for tile, _, _ in tiles]
    picture, canvas = run(blended(tiles, 1, (20, 31), np.float32), *arrays)
    np.testing.assert_allclose(canvas[1], 1, atol=1e-6)
    np.testing.assert_allclose(picture[0], rows, atol=1e-6)


@everywhere
def test_a_border_without_feather_is_as_it_was(run: Run) -> None:
    tile = np.random.default_rng(2).normal(size=(3, 9, 11)).astype(np.float32)
    tiles: list[Tile] = [(tile, (2, 3), (0, 0, 0, 0))]
    picture, _ = run(blended(tiles, 3, (14, 20), np.float32), tile)
    assert np.array_equal(picture[:, 2:11, 3:14], tile)
    picture[:, 2:11, 3:14] = 0
    assert not picture.any(), "where no tile is, there is 0"


def test_empty_tiles_and_pictures_need_no_launch() -> None:
    canvas = on_cpu(blend.new_canvas, np.empty(0, np.float32), 2, (5, 0))
    assert canvas.shape == (3, 5, 0)
    assert on_cpu(blend.normalised, canvas).shape == (2, 5, 0)
    canvas = on_cpu(blend.new_canvas, canvas, 2, (5, 4))
    on_cpu(blend.add_tile, canvas, np.empty((2, 0, 3), np.float32), (0, 0), (1, 1, 1, 1))
    assert not on_cpu(blend.normalised, canvas).any()


@pytest.mark.parametrize(
    ("shape", "feathers", "dtype", "message"),
    [
        ((3, 4, 4), (0, 0, 0, 0), np.float32, "2 channels"),
        ((4, 4), (0, 0, 0, 0), np.float32, "2 channels"),
        ((2, 4, 4), (0, -1, 0, 0), np.float32, "below 0"),
        ((2, 4, 4), (0, 0, 0, 0), np.float64, "float16"),
    ],
)
def test_what_does_not_fit_is_an_error(
    shape: tuple[int, ...], feathers: tuple[int, int, int, int], dtype: type, message: str
) -> None:
    canvas = on_cpu(blend.new_canvas, np.empty(0, np.float32), 2, (8, 8))
    with pytest.raises(ValueError, match=message):
        on_cpu(blend.add_tile, canvas, np.zeros(shape, dtype), (0, 0), feathers)
