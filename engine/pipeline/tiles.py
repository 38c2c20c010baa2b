"""Tiles: a plan that covers a frame with overlapping tiles of one size, whose cores partition the target.

A tile's results are right at least `halo_px` away from those of its borders that lie inside the frame. Cores keep that
distance, so that neighbouring cores fit without blending. Origins are multiples of `multiple_of`: a network that works
on a coarser grid sees the grid of the whole frame.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from ..contract.errors import RequestError
from ..contract.manifest import Manifest, SizeConstraint

WHOLE_PX = 640 * 360  # frames of up to so many input pixels pass whole through a network of a pair, on a CPU
PAIR_TILE_PX = 384  # 1920x1080 to 7680x4320 peaks below 4 GB with it; 480 takes 3.8 GB and is a tenth faster
NETWORK_TILE_PX = 256  # networks that make whole frames at once take 10 to 100 KB for each input pixel
GPU_TILE_PX = 640  # the largest usual side of an engine
# Of free memory, for each input pixel of a tile in ONNX Runtime on a GPU. The shipped networks take 6 to 48 KB: those
# that take more get smaller tiles when memory runs out.
GPU_PX_BYTES = 16 << 10


@dataclass(frozen=True)
class Span:
    """One axis of a tile: input pixels `start` to `stop`, and the edges of its core in input pixels (exact)."""

    start: int
    stop: int
    core_start: Fraction
    core_stop: Fraction

    def target(self, size_px: int, target_px: int) -> range:
        """Return the target pixels whose centres lie in the core, when an axis of `size_px` becomes `target_px`."""
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


class TileSize:
    """The side of an upscaler's tiles, which shrinks when a device runs out of memory.

    tile_px: the requested side in input pixels, halo included; 0: whole frames; None: by the frame's size.
    gpu_px: on a GPU, the largest side of a tile where none is requested, and of a frame that is not cut.
    Raises RequestError for a side without room for a core, or for a network that cannot be tiled.
    """

    def __init__(self, manifest: Manifest, tile_px: int | None, gpu_px: int | None = None) -> None:
        if tile_px:
            if manifest.halo_px is None:
                raise RequestError(f"Bundle '{manifest.name}' cannot be tiled: leave the tile size out, or give 0.")
            check_tile(tile_px, manifest.halo_px, manifest.size)
        self._manifest, self._requested_px, self._gpu_px = manifest, tile_px, gpu_px
        self._most_px: int | None = None  # after memory ran out

    def side_px(self, height: int, width: int) -> int | None:
        """Return the side of the tiles of a frame, None for a whole frame."""
        tile_px = self._requested_px or None
        if self._requested_px is None and self._manifest.halo_px is not None:
            tile_px = self._default_px(height, width, self._manifest.halo_px)
        return min(filter(None, (tile_px, self._most_px)), default=None)

    def plan(self, height: int, width: int) -> tuple[Tile, ...]:
        """Return the tiles of a frame."""
        manifest = self._manifest
        return plan_tiles((height, width), self.side_px(height, width), manifest.halo_px or 0, manifest.size)

    def shrink(self, height: int, width: int) -> tuple[int, int] | None:
        """Halve the side, and return the side before and after; return None if tiles cannot be smaller."""
        manifest = self._manifest
        tried_px = self.side_px(height, width) or manifest.size.padded(max(height, width))
        step_px = manifest.size.multiple_of
        tile_px = tried_px // 2 // step_px * step_px
        fixed = self._requested_px == 0 or manifest.halo_px is None
        if fixed or tile_px < least_tile_px(manifest.halo_px or 0, manifest.size):
            return None
        self._most_px = tile_px
        return tried_px, tile_px

    def _default_px(self, height: int, width: int, halo_px: int) -> int | None:
        if self._gpu_px is not None:
            default_px, whole = self._gpu_px, height * width <= self._gpu_px**2
        elif self._manifest.window.kind == "pair":
            default_px, whole = PAIR_TILE_PX, height * width <= WHOLE_PX
        else:
            default_px, whole = NETWORK_TILE_PX, height * width <= NETWORK_TILE_PX**2
        # A wide halo takes a larger tile: at least half of each side is core.
        return None if whole else max(default_px, 2 * least_tile_px(halo_px, self._manifest.size))


def gpu_tile_px(free_bytes: int) -> int:
    """Return the largest side of a tile in ONNX Runtime on a GPU with that much free memory."""
    return max(GPU_TILE_PX, math.isqrt(free_bytes // GPU_PX_BYTES))


def plan_tiles(
    size: tuple[int, int], tile_px: int | None, halo_px: int, constraint: SizeConstraint
) -> tuple[Tile, ...]:
    """Return the tiles of at most `tile_px` that cover a frame of `size` (h, w); None makes a single tile.

    Spans lie in the frame as padded by `constraint`; cores lie in the frame itself. Raises RequestError for a tile
    without room for a core.
    """
    if tile_px is not None:
        check_tile(tile_px, halo_px, constraint)
    rows, columns = (_plan_axis(size_px, tile_px, halo_px, constraint) for size_px in size)
    return tuple(Tile(row, column) for row in rows for column in columns)


def least_tile_px(halo_px: int, constraint: SizeConstraint) -> int:
    """Return the smallest side of a tile that has a core: both halos and one step of the network's grid."""
    return constraint.padded(_overlap_px(halo_px, constraint) + constraint.multiple_of)


def check_tile(tile_px: int, halo_px: int, constraint: SizeConstraint) -> None:
    """Raise RequestError for a side without room for a core."""
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
    # As few tiles as the largest side allows, each of them as small as that number of tiles allows.
    even_px = math.ceil((padded_px + (count - 1) * overlap_px) / (count * step_px)) * step_px
    length_px = max(even_px, constraint.padded(1))
    starts = [min(i * (length_px - overlap_px), padded_px - length_px) for i in range(count)]
    middles = [Fraction(after + before + length_px, 2) for before, after in pairwise(starts)]
    edges = [Fraction(0), *middles, Fraction(size_px)]
    return [Span(start, start + length_px, *core) for start, core in zip(starts, pairwise(edges), strict=True)]
