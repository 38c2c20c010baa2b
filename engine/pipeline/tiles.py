"""Tiles: a plan that covers a frame with overlapping tiles of one size, whose cores partition the target.

A tile computes right values at least `halo_px` away from those of its borders that lie inside the frame. The cores stay
that far away, so what is cut at their edges fits: crops suffice, no feathering. Origins keep to `multiple_of`, so a
network that works on a coarser grid sees the grid of the whole frame.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from ..contract.errors import RequestError
from ..contract.manifest import SizeConstraint


@dataclass(frozen=True)
class Span:
    """One axis of a tile: input pixels `start` to `stop`, and the input positions of its core (pixel edges, exact)."""

    start: int
    stop: int
    core_start: Fraction
    core_stop: Fraction

    def target(self, size_px: int, target_px: int) -> range:
        """Return the target pixels whose centres lie in the core, when the axis of `size_px` becomes `target_px`."""
        # Target pixel i has its centre at (i + 1/2) * size / target, measured from the frame's edge.
        first, last = (
            math.ceil(edge * target_px / size_px - Fraction(1, 2)) for edge in (self.core_start, self.core_stop)
        )
        return range(max(first, 0), min(last, target_px))


@dataclass(frozen=True)
class Tile:
    """A tile: its rows and its columns."""

    rows: Span
    columns: Span


def plan_tiles(
    size: tuple[int, int], tile_px: int | None, halo_px: int, constraint: SizeConstraint
) -> tuple[Tile, ...]:
    """Cover a frame of `size` (h, w) with tiles of at most `tile_px`; None makes one tile of it.

    Spans lie in the frame as padded by `constraint`; cores lie in the frame itself.
    """
    if tile_px is not None:
        check_tile(tile_px, halo_px, constraint)
    rows, columns = (_plan_axis(size_px, tile_px, halo_px, constraint) for size_px in size)
    return tuple(Tile(row, column) for row in rows for column in columns)


def least_tile_px(halo_px: int, constraint: SizeConstraint) -> int:
    """Return the smallest tile that has a core: both halos and one step of the network's grid."""
    return constraint.padded(_overlap_px(halo_px, constraint) + constraint.multiple_of)


def check_tile(tile_px: int, halo_px: int, constraint: SizeConstraint) -> None:
    """Refuse a tile that has no core."""
    least_px = least_tile_px(halo_px, constraint)
    if tile_px < least_px:
        raise RequestError(
            f"A tile of {tile_px} pixels has no room for its halo of {halo_px} on each side: use at least {least_px},"
            " or 0 for whole frames."
        )


def _overlap_px(halo_px: int, constraint: SizeConstraint) -> int:
    return math.ceil(2 * halo_px / constraint.multiple_of) * constraint.multiple_of


def _plan_axis(size_px: int, tile_px: int | None, halo_px: int, constraint: SizeConstraint) -> list[Span]:
    padded_px, step_px = constraint.padded(size_px), constraint.multiple_of
    if tile_px is None or padded_px <= tile_px:
        return [Span(0, padded_px, Fraction(0), Fraction(size_px))]
    overlap_px = _overlap_px(halo_px, constraint)
    most_px = tile_px // step_px * step_px
    count = math.ceil((padded_px - overlap_px) / (most_px - overlap_px))
    # As many tiles as the largest ones need, and each no larger than that many must be.
    even_px = math.ceil((padded_px + (count - 1) * overlap_px) / (count * step_px)) * step_px
    length_px = max(even_px, constraint.padded(1))
    starts = [min(i * (length_px - overlap_px), padded_px - length_px) for i in range(count)]
    middles = [Fraction(after + before + length_px, 2) for before, after in pairwise(starts)]
    edges = [Fraction(0), *middles, Fraction(size_px)]
    return [Span(start, start + length_px, *core) for start, core in zip(starts, pairwise(edges), strict=True)]
