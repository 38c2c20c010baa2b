"""The upscaler: two frames in, and frames at any times between them and of any size out."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from .bundle import Bundle, find_bundle
from .errors import RequestError
from .manifest import FixedFactors
from .session import Array, Session, open_session
from .tiles import Tile, check_tile, least_tile_px, plan_tiles

WHOLE_PX = 640 * 360  # a frame of up to so many input pixels goes through the encoder whole
DEFAULT_TILE_PX = 384  # 1920x1080 to 7680x4320 peaks below 4 GB with it; 480 takes 3.8 GB and is a tenth faster
DECODE_PX = 1 << 22  # target pixels per run of the decoder, which works at the input's size first
CANVAS_BYTES = 1 << 30  # of the tiled frames that are under way at once; beyond that tiles are encoded again
FULL_SCALE = 65535


class Upscaler:
    """Runs a bundle on pairs of frames; a context manager that holds the bundle's sessions.

    `tile` is a tile's side in input pixels, halo included; 0: whole frames; None: tiles for frames above 640x360.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        backend: str = "ort",
        device: str = "auto",
        tile: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else find_bundle(bundle)
        self.tile = tile
        _check_tile(self.bundle, tile)
        with ExitStack() as opened:
            self._encoder: Session = opened.enter_context(
                open_session(self.bundle.path("encoder"), backend, device, threads)
            )
            self._decoder: Session = opened.enter_context(
                open_session(self.bundle.path("decoder"), backend, device, threads)
            )
            self._sessions = opened.pop_all()
        self.device = self._encoder.device

    def frames(
        self,
        first: np.ndarray,  # (3, h, w) in [0, 1]
        second: np.ndarray,  # (3, h, w) in [0, 1]
        times: Sequence[float | Fraction],  # 0: at the first frame, 1: at the second
        size: tuple[int, int],  # (H, W)
    ) -> Iterator[np.ndarray]:  # of (3, H, W) uint16, 65535 is white
        """Yield a new frame for each time; without tiles each is made when it is asked for."""
        h, w = first.shape[1:]
        check_size(self.bundle, (h, w), size)
        check_times(self.bundle, times)
        constraint = self.bundle.manifest.size
        pair = constraint.pad(np.stack((first, second)).astype(np.float32, copy=False))[None]  # (1, 2, 3, h', w')
        tiles = plan_tiles((h, w), self._tile_px(h, w), self.bundle.manifest.halo_px or 0, constraint)
        return self._run(pair, (h, w), [float(time) for time in times], size, tiles)

    def close(self) -> None:
        """Close both sessions."""
        self._sessions.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tile_px(self, h: int, w: int) -> int | None:
        manifest = self.bundle.manifest
        if self.tile is not None:
            return self.tile or None
        if manifest.halo_px is None or h * w <= WHOLE_PX:
            return None
        # With a wide halo a larger tile: at least half of each side is core.
        return max(DEFAULT_TILE_PX, 2 * least_tile_px(manifest.halo_px, manifest.size))

    def _run(
        self, pair: np.ndarray, shape: tuple[int, int], times: list[float], size: tuple[int, int], tiles: Sequence[Tile]
    ) -> Iterator[np.ndarray]:
        if len(tiles) == 1:
            features = self._encode(pair, tiles[0])
            for time in times:
                yield self._decode(features, time, tiles[0], shape, np.empty((3, *size), np.uint16))
            return
        at_once = max(1, CANVAS_BYTES // (3 * size[0] * size[1] * np.dtype(np.uint16).itemsize))
        for start in range(0, len(times), at_once):
            now = times[start : start + at_once]
            canvases = [np.empty((3, *size), np.uint16) for _ in now]
            for tile in tiles:
                features = self._encode(pair, tile)
                for time, canvas in zip(now, canvases, strict=True):
                    self._decode(features, time, tile, shape, canvas)
            while canvases:  # let go of each one as it leaves
                yield canvases.pop(0)

    def _encode(self, pair: np.ndarray, tile: Tile) -> dict[str, Array]:
        low, high = self.bundle.manifest.value_range
        window = pair[..., tile.rows.start : tile.rows.stop, tile.columns.start : tile.columns.stop]
        frames = window if (low, high) == (0.0, 1.0) else window * np.float32(high - low) + np.float32(low)
        return self._encoder.run({"frames": frames}, keep=True)

    def _decode(
        self, features: dict[str, Array], time: float, tile: Tile, shape: tuple[int, int], canvas: np.ndarray
    ) -> np.ndarray:
        """Make the tile's core of one frame, a band of rows at a time, in `canvas` (3, H, W)."""
        low, high = self.bundle.manifest.value_range
        height, width = canvas.shape[1:]
        rows, columns = tile.rows.target(shape[0], height), tile.columns.target(shape[1], width)
        y, x = (
            positions(rows, shape[0], height, tile.rows.start),
            positions(columns, shape[1], width, tile.columns.start),
        )
        band = max(1, DECODE_PX // max(1, len(columns)))
        for start in range(0, len(rows), band):
            inputs = {**features, "time": np.array([time], np.float32), "y": y[start : start + band], "x": x}
            frame = self._decoder.run(inputs)["frame"][0]  # (3, band, W)
            top = rows.start + start
            canvas[:, top : top + frame.shape[1], columns.start : columns.stop] = to_uint16(frame, low, high)
        return canvas


def positions(targets: range, size_px: int, target_px: int, origin_px: int) -> np.ndarray:  # (len(targets),) float32
    """Return the centres of target pixels, in input pixels from the centre of the tile's first one."""
    return ((np.arange(targets.start, targets.stop) + 0.5) * size_px / target_px - 0.5 - origin_px).astype(np.float32)


def to_uint16(frame: np.ndarray, low: float, high: float) -> np.ndarray:
    """Round and clip: `low` becomes 0 and `high` 65535."""
    scaled = (frame - np.float32(low)) * np.float32(FULL_SCALE / (high - low))
    return np.clip(np.rint(scaled, out=scaled), 0, FULL_SCALE, out=scaled).astype(np.uint16)


def check_size(bundle: Bundle, shape: tuple[int, int], size: tuple[int, int]) -> None:
    """Refuse a target `size` (H, W) that the bundle does not make of frames of `shape` (h, w)."""
    space = bundle.manifest.space
    if min(size) < 1 or not all(map(space.serves, shape, size)):
        raise RequestError(
            f"Bundle '{bundle.manifest.name}' enlarges {space}: it does not make {size[1]}x{size[0]} of"
            f" {shape[1]}x{shape[0]}; choose another scale or size."
        )


def check_times(bundle: Bundle, times: Sequence[float | Fraction]) -> None:
    """Refuse times outside the window, or such as the bundle's time factors do not make."""
    kind = bundle.manifest.time
    for time in times:
        if not 0 <= time <= 1:
            raise RequestError(f"The time {float(time):g} is outside the pair of frames: choose one from 0 to 1.")
    if isinstance(kind, FixedFactors) and not any(
        all(math.isclose(time * factor, round(time * factor), abs_tol=1e-6) for time in times)
        for factor in kind.factors
    ):
        raise RequestError(
            f"Bundle '{bundle.manifest.name}' makes frames in time by {kind}: choose such a factor, or another bundle."
        )


def _check_tile(bundle: Bundle, tile: int | None) -> None:
    if not tile:
        return
    halo_px = bundle.manifest.halo_px
    if halo_px is None:
        raise RequestError(f"Bundle '{bundle.manifest.name}' cannot be tiled: leave the tile size out, or give 0.")
    check_tile(tile, halo_px, bundle.manifest.size)
