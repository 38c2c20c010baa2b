"""Tiles cover a frame, and their cores partition the target."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stvsr import RequestError
from stvsr.engine.contract.manifest import SizeConstraint
from stvsr.engine.pipeline.tiles import Tile, least_tile_px, plan_tiles

constraints = st.builds(SizeConstraint, minimum=st.integers(1, 40), multiple_of=st.sampled_from([1, 2, 4, 8, 12]))


@st.composite
def plans(draw: st.DrawFn) -> tuple[tuple[int, int], int, int, SizeConstraint, tuple[Tile, ...]]:
    size = draw(st.tuples(st.integers(1, 400), st.integers(1, 400)))
    constraint, halo_px = draw(constraints), draw(st.integers(0, 30))
    least_px = least_tile_px(halo_px, constraint)
    fewest_px = least_px + max(size) // 10  # about ten tiles a side keep the test quick
    tile_px = draw(st.integers(fewest_px, fewest_px + 200))
    return size, tile_px, halo_px, constraint, plan_tiles(size, tile_px, halo_px, constraint)


@settings(deadline=None)
@given(plan=plans(), scale=st.fractions(Fraction(1), Fraction(8), max_denominator=50))
def test_cores_partition_the_target(
    plan: tuple[tuple[int, int], int, int, SizeConstraint, tuple[Tile, ...]], scale: Fraction
) -> None:
    size, _, _, _, tiles = plan
    for axis, spans in ((0, {tile.rows for tile in tiles}), (1, {tile.columns for tile in tiles})):
        target_px = max(1, round(size[axis] * scale))
        covered = [i for span in sorted(spans, key=lambda s: s.start) for i in span.target(size[axis], target_px)]
        assert covered == list(range(target_px))
    assert len(tiles) == len({tile.rows for tile in tiles}) * len({tile.columns for tile in tiles})


@settings(deadline=None)
@given(plan=plans())
def test_tiles_have_one_size_that_the_network_accepts(
    plan: tuple[tuple[int, int], int, int, SizeConstraint, tuple[Tile, ...]],
) -> None:
    size, tile_px, _, constraint, tiles = plan
    shapes = {(tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start) for tile in tiles}
    assert len(shapes) == 1
    for tile in tiles:
        for span, size_px in ((tile.rows, size[0]), (tile.columns, size[1])):
            length_px = span.stop - span.start
            assert constraint.padded(length_px) == length_px <= max(tile_px, constraint.minimum)
            assert span.start % constraint.multiple_of == 0
            assert 0 <= span.start < span.stop <= constraint.padded(size_px)


@settings(deadline=None)
@given(plan=plans())
def test_cores_keep_the_halo_from_borders_inside_the_frame(
    plan: tuple[tuple[int, int], int, int, SizeConstraint, tuple[Tile, ...]],
) -> None:
    size, _, halo_px, constraint, tiles = plan
    for tile in tiles:
        for span, size_px in ((tile.rows, size[0]), (tile.columns, size[1])):
            assert span.core_start < span.core_stop
            assert span.start == 0 or span.core_start - span.start >= halo_px
            assert span.stop == constraint.padded(size_px) or span.stop - span.core_stop >= halo_px


def test_a_known_plan() -> None:
    tiles = plan_tiles((100, 64), 64, 8, SizeConstraint(minimum=16, multiple_of=8))
    rows = sorted({(tile.rows.start, tile.rows.stop, tile.rows.core_stop) for tile in tiles})
    assert rows == [(0, 64, 52), (40, 104, 100)]
    assert {(tile.columns.start, tile.columns.stop) for tile in tiles} == {(0, 64)}


def test_a_frame_without_tiles_is_padded() -> None:
    (tile,) = plan_tiles((37, 53), None, 99, SizeConstraint(minimum=16, multiple_of=8))
    assert (tile.rows.stop, tile.columns.stop) == (40, 56)
    assert tile.rows.target(37, 111) == range(111)


def test_a_tile_without_a_core_is_refused() -> None:
    with pytest.raises(RequestError, match="at least 40"):
        plan_tiles((100, 100), 32, 16, SizeConstraint(minimum=16, multiple_of=8))
