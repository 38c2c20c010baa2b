"""The upscaler: a bundle's sessions, fed with the windows of frames that stream by."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np

from ..backends.device import Array, settled
from ..backends.graphs import open_graphs
from ..contract.bundle import Bundle, find_bundle
from ..contract.closing import Closing
from ..contract.errors import DeviceMemoryError, RequestError
from ..contract.manifest import ContinuousTime, FixedFactors, Library, Precision
from ..contract.picture import Picture, PictureFormat
from ..contract.windows import Feed, InputFrame, Wanted, feeds
from .flow import optical_flow
from .tiles import Span, Tile, check_tile, least_tile_px, plan_tiles

WHOLE_PX = 640 * 360  # a frame of up to so many input pixels goes through the network of a pair whole
DEFAULT_TILE_PX = 384  # 1920x1080 to 7680x4320 peaks below 4 GB with it; 480 takes 3.8 GB and is a tenth faster
NETWORK_TILE_PX = 256  # networks that make whole frames at once take 10 to 100 KB for each input pixel
GPU_TILE_PX = 640  # what engines are built for
DECODE_PX = 1 << 22  # target pixels per run of the decoder, which works at the input's size first
CANVAS_BYTES = 1 << 30  # of the tiled frames that are under way at once; beyond that tiles are encoded again


class Upscaler(Closing):
    """Runs a bundle on frames that stream by; a context manager that holds the bundle's sessions.

    `tile` is a tile's side in input pixels, halo included; 0: whole frames; None: tiles for frames that are large.
    `flow` is the method of optical flow for a bundle that takes it, instead of the manifest's. `precision`, `library`
    and `refit`, without which they keep their weights, are for engines. `notes` says in sentences what was not done as
    asked.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        backend: str = "ort",
        device: str = "auto",
        tile: int | None = None,
        threads: int | None = None,
        flow: str | None = None,
        precision: Precision = "fp32",
        library: Library | None = None,
        refit: bool = False,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else find_bundle(bundle)
        self.tile = tile
        self.notes: list[str] = []
        self._flow = flow
        self._most_px: int | None = None  # a tile's side at most, after memory did not suffice
        _check_tile(self.bundle, tile)
        self._graphs = open_graphs(
            self.bundle,
            backend=backend,
            device=device,
            threads=threads,
            precision=precision,
            library=library,
            refit=refit,
            say=self.notes.append,
        )
        self._place = self._graphs.place
        self.device = self._place.device

    def frames(
        self,
        inputs: Iterable[InputFrame],
        size: tuple[int, int],  # (H, W)
    ) -> Iterator[np.ndarray]:  # of (3, H, W) uint16, 65535 is white
        """Yield a frame of `size` for every input frame and each of its times, in order."""
        return cast(Iterator[np.ndarray], self.pictures(inputs, size, None))

    def pictures(
        self, inputs: Iterable[InputFrame], size: tuple[int, int], wanted: PictureFormat | None
    ) -> Iterator[Picture]:
        """Yield the same in the planes of a format, if the place makes that, and else as `frames` does."""
        windows = feeds(self.bundle.manifest.window, self._checked(inputs, size))
        return settled(self._stream(windows, size, wanted), self._place.in_flight)

    def between(
        self,
        first: np.ndarray,  # (3, h, w) in [0, 1]
        second: np.ndarray,  # (3, h, w) in [0, 1]
        times: Sequence[float | Fraction],  # growing; 0: at the first frame, 1: at the second
        size: tuple[int, int],  # (H, W)
    ) -> Iterator[np.ndarray]:  # of (3, H, W) uint16, 65535 is white
        """Yield a new frame for each time, of two frames alone."""
        check_size(self.bundle, first.shape[1:], size)
        check_times(self.bundle, times)
        exact = tuple(Fraction(time) for time in times)
        before = tuple(time for time in exact if time < 1)
        pair = [InputFrame(first, before), InputFrame(second, (Fraction(0),) * (len(exact) - len(before)), last=True)]
        return self.frames(pair, size)

    def take_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Go on with other weights, by their names; see `Graphs.take_weights`."""
        self._graphs.take_weights(weights)

    def close(self) -> None:
        """Close the sessions."""
        self._graphs.close()

    def _checked(self, inputs: Iterable[InputFrame], size: tuple[int, int]) -> Iterator[InputFrame]:
        for frame in inputs:
            check_size(self.bundle, frame.rgb.shape[1:], size)
            check_times(self.bundle, frame.times)
            yield frame

    def _stream(
        self, windows: Iterable[Feed], size: tuple[int, int], wanted: PictureFormat | None
    ) -> Iterator[Callable[[], Picture]]:
        """Queue windows, each on the lane that is next, and give what waits for their frames."""
        run = self._run_pair if self.bundle.manifest.window.kind == "pair" else self._run_network
        for number, feed in enumerate(windows):
            left = feed.wanted
            results = run(feed, size)
            while left:
                try:
                    with self._place.lane(number):
                        result = self._place.download(next(results), wanted)
                except DeviceMemoryError:
                    self._place.trim()
                    self._take_smaller_tiles(feed.frames[0].shape[1:])
                    results = run(replace(feed, wanted=left), size)
                    continue
                left = left[1:]
                yield result
                del result

    def _take_smaller_tiles(self, shape: tuple[int, ...]) -> None:
        """Halve the tiles, and say so; raise the error that is under way where they cannot be smaller."""
        manifest = self.bundle.manifest
        tried_px = self._tile_px(*shape) or manifest.size.padded(max(shape))
        step_px = manifest.size.multiple_of
        tile_px = tried_px // 2 // step_px * step_px
        if self.tile == 0 or manifest.halo_px is None or tile_px < least_tile_px(manifest.halo_px, manifest.size):
            raise
        self._most_px = tile_px
        self.notes.append(
            f"The memory of device '{self.device}' did not hold tiles of {tried_px} pixels: tiles of {tile_px} were"
            " used, which takes longer."
        )

    def _tile_px(self, h: int, w: int) -> int | None:
        manifest = self.bundle.manifest
        tile_px = self.tile or None
        if self.tile is None and manifest.halo_px is not None:
            pair = manifest.window.kind == "pair"
            if self.device != "cpu":
                default_px, whole = GPU_TILE_PX, max(h, w) <= GPU_TILE_PX
            elif pair:
                default_px, whole = DEFAULT_TILE_PX, h * w <= WHOLE_PX
            else:
                default_px, whole = NETWORK_TILE_PX, h * w <= NETWORK_TILE_PX**2
            # With a wide halo a larger tile: at least half of each side is core.
            tile_px = None if whole else max(default_px, 2 * least_tile_px(manifest.halo_px, manifest.size))
        return min(filter(None, (tile_px, self._most_px)), default=None)

    def _prepare(self, feed: Feed) -> tuple[Array, tuple[Tile, ...]]:
        """Return the window as the network takes it, (1, N, 3, h', w'), and the tiles that cover it."""
        manifest = self.bundle.manifest
        low, high = manifest.value_range
        h, w = feed.frames[0].shape[-2:]
        there: dict[int, Array] = {}  # a frame may stand in the window several times
        for frame in feed.frames:
            if id(frame) not in there:
                there[id(frame)] = self._place.upload(frame.astype(np.float32, copy=False))
        window = np.stack([there[id(frame)] for frame in feed.frames])
        if (low, high) != (0.0, 1.0):
            window = window * np.float32(high - low) + np.float32(low)
        tiles = plan_tiles((h, w), self._tile_px(h, w), manifest.halo_px or 0, manifest.size)
        return manifest.size.pad(window)[None], tiles

    def _run_network(self, feed: Feed, size: tuple[int, int]) -> Iterator[Array]:
        """Make a window's results by one graph; each of them is made once, however often it is wanted."""
        manifest = self.bundle.manifest
        window, tiles = self._prepare(feed)
        inputs: dict[str, Array] = {"frames": window}
        inputs |= {
            flow.name: self._place.upload(
                manifest.size.pad(
                    np.stack(
                        [optical_flow(feed.frames[a], feed.frames[b], self._flow or flow.method) for a, b in flow.pairs]
                    )
                )[None]
            )
            for flow in manifest.flows
        }
        canvases = {wanted: self._place.canvas(size) for wanted in feed.wanted}
        for time, group in self._groups(canvases).items():
            if isinstance(manifest.time, ContinuousTime):
                inputs["time"] = np.array([time], np.float32)
            for tile in tiles:
                made = self._graphs.run("network", {name: _cut(value, tile) for name, value in inputs.items()})
                self._put_core(made["upscaled"][0], tile, feed.frames[0].shape[1:], {w: canvases[w] for w in group})
        left = list(feed.wanted)
        while left:  # let go of each one as it leaves for the last time
            wanted = left.pop(0)
            yield canvases[wanted] if wanted in left else canvases.pop(wanted)

    def _groups(self, wanted: Iterable[Wanted]) -> dict[float, list[Wanted]]:
        """Sort results by the run that makes them: one for each time that the graph takes, or a single one."""
        wanted = list(wanted)
        moments = list(dict.fromkeys(float(w.time) for w in wanted if w.time))
        if not isinstance(self.bundle.manifest.time, ContinuousTime) or not moments:
            return {0.5: wanted}
        own = [w for w in wanted if not w.time]  # the input frames' own times come with every run
        groups: dict[float, list[Wanted]] = {time: [w for w in wanted if float(w.time) == time] for time in moments}
        groups[moments[0]] += own
        return groups

    def _put_core(self, made: Array, tile: Tile, shape: tuple[int, ...], canvases: Mapping[Wanted, Array]) -> None:
        """Put the core of a tile's results, (M, 3, H', W'), where it belongs in each canvas (3, H, W)."""
        low, high = self.bundle.manifest.value_range
        for wanted, canvas in canvases.items():
            rows, columns = tile.rows.target(shape[0], canvas.shape[1]), tile.columns.target(shape[1], canvas.shape[2])
            top = rows.start - tile.rows.start * canvas.shape[1] // shape[0]
            left = columns.start - tile.columns.start * canvas.shape[2] // shape[1]
            core = made[self._index(wanted), :, top : top + len(rows), left : left + len(columns)]
            part = canvas[:, rows.start : rows.stop, columns.start : columns.stop]
            self._place.put(part, core, low, high)

    def _index(self, wanted: Wanted) -> int:
        """Return which frame of a graph's result it is."""
        match self.bundle.manifest.window.kind:
            case "sliding":
                return 0
            case "doubled":
                return 2 * wanted.place + round(2 * wanted.time)
            case _:
                return 2 * wanted.place + (wanted.time > 0)

    def _run_pair(self, feed: Feed, size: tuple[int, int]) -> Iterator[Array]:
        """Encode the pair, and decode each time when it is asked for; with tiles, many times of each tile at once."""
        pair, tiles = self._prepare(feed)
        shape = feed.frames[0].shape[1:]
        wanted = [float(w.place + w.time) for w in feed.wanted]
        times = list(dict.fromkeys(wanted))
        at_once = max(1, CANVAS_BYTES // self._place.canvas_bytes(size))
        if len(tiles) == 1:
            features = self._encode(pair, tiles[0])
            for time in times:
                made = [self._decode(features, time, tiles[0], shape, self._place.canvas(size))]
                made *= wanted.count(time)
                while made:
                    yield made.pop()
            return
        for start in range(0, len(times), at_once):
            canvases = {time: self._place.canvas(size) for time in times[start : start + at_once]}
            for tile in tiles:
                features = self._encode(pair, tile)
                for time, canvas in canvases.items():
                    self._decode(features, time, tile, shape, canvas)
            for time in list(canvases):  # let go of each one as it leaves
                made = [canvases.pop(time)] * wanted.count(time)
                while made:
                    yield made.pop()

    def _encode(self, pair: Array, tile: Tile) -> dict[str, Array]:
        return self._graphs.run("encoder", {"frames": _cut(pair, tile)}, keep=True)

    def _decode(
        self, features: dict[str, Array], time: float, tile: Tile, shape: tuple[int, ...], canvas: Array
    ) -> Array:
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
            frame = self._graphs.run("decoder", inputs)["frame"][0]  # (3, band, W)
            top = rows.start + start
            part = canvas[:, top : top + frame.shape[1], columns.start : columns.stop]
            self._place.put(part, frame, low, high)
        return canvas


def _cut(value: Array, tile: Tile) -> Array:
    """Return a tile's part of frames or flows, (..., h, w); a time stays as it is."""
    return value if value.ndim < 2 else value[..., _slice(tile.rows), _slice(tile.columns)]


def _slice(span: Span) -> slice:
    return slice(span.start, span.stop)


def positions(targets: range, size_px: int, target_px: int, origin_px: int) -> np.ndarray:  # (len(targets),) float32
    """Return the centres of target pixels, in input pixels from the centre of the tile's first one."""
    return ((np.arange(targets.start, targets.stop) + 0.5) * size_px / target_px - 0.5 - origin_px).astype(np.float32)


def check_size(bundle: Bundle, shape: tuple[int, ...], size: tuple[int, int]) -> None:
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
