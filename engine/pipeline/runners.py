"""Runners: windows of frames through a bundle's graphs, tile by tile, into output buffers.

A run takes one window, or several with frames of one size and the same outputs, which the graphs compute as a batch. A
runner belongs to a kind of bundle: `PairRunner` encodes a pair of frames once and decodes it at any time and size,
`NetworkRunner` makes all outputs of a window with a single graph.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from ..backends.device import Array, Device
from ..backends.graphs import Graphs
from ..contract.manifest import ContinuousTime, Manifest, Role
from ..contract.windows import Output, WindowFrames
from .flow import optical_flow
from .tiles import Span, Tile, TileSize

DECODE_PX = 1 << 22  # target pixels in one run of the decoder, which works at the input's size first
BUFFER_BYTES = 1 << 30  # output buffers of tiled frames at once; for frames beyond, tiles are encoded again

Buffers = tuple[Array, ...]  # an output buffer (3, H, W) of each window, or its `Rendering`


class Runner(Protocol):
    """Computes windows of frames."""

    def run(self, windows: Sequence[WindowFrames], size: tuple[int, int]) -> Iterator[Buffers]:
        """Yield, for each requested output in order, an output buffer (3, H, W) of `size` of each window.

        On a GPU it may be a `Rendering`. Buffers may come several times; they are released after the last time.
        """


def runner_for(graphs: Graphs, tile_size: TileSize, flow: str | None, copies: int = 1) -> Runner:
    """Return the runner of a bundle.

    `flow` replaces the manifest's method of optical flow. `copies` is how many of its runs go on at once, each of which
    has buffers of the same outputs; if there are several, the buffers are arrays.
    """
    if graphs.bundle.manifest.window.kind == "pair":
        return PairRunner(graphs, tile_size, copies)
    return NetworkRunner(graphs, tile_size, flow)


class PairRunner:
    """Encodes a pair of frames, and decodes the frame at each requested time.

    At integer factors the bundle's integer decoder is used, if it has one: it renders whole tiles, halo included. With
    it, an input frame whose size does not change passes through as it is. Where a GPU can render a frame as the picture
    that is made of it, and the frame is one tile, it gets no buffer.
    """

    def __init__(self, graphs: Graphs, tile_size: TileSize, copies: int = 1) -> None:
        self._graphs, self._tile_size, self._copies = graphs, tile_size, copies
        self._device, self._manifest = graphs.device, graphs.bundle.manifest

    def run(self, windows: Sequence[WindowFrames], size: tuple[int, int]) -> Iterator[Buffers]:
        """Yield output buffers for each requested output; see `Runner.run`."""
        shape = windows[0].frames[0].shape[1:]
        frames = upload_windows(self._graphs, windows)
        tiles = self._tile_size.plan(*shape)
        requested = [float(output.index + output.time) for output in windows[0].outputs]
        times = list(dict.fromkeys(requested))
        # Each tile is encoded once for as many times as memory holds buffers for; a single tile stays encoded.
        buffer_bytes = self._copies * len(windows) * self._device.output_buffer_bytes(size)
        at_once = 1 if len(tiles) == 1 else max(1, BUFFER_BYTES // buffer_bytes)
        passed = {0.0, 1.0} if size == shape and pixel_phases(self._manifest, shape, size) else set()
        features = self._encode(frames, tiles[0]) if len(tiles) == 1 and not passed.issuperset(times) else None
        for start in range(0, len(times), at_once):
            now, rendered = times[start : start + at_once], None
            if features and now[0] not in passed:
                rendered = self._renderings(features, now[0], shape, size, len(windows))
            buffers = {now[0]: rendered} if rendered else {t: _output_buffers(self._device, windows, size) for t in now}
            computed = {time: buffers[time] for time in now if not rendered and time not in passed}
            del rendered  # or its maps would live until the next one
            for time in buffers.keys() & passed:
                for window_frames, buffer in zip(frames, buffers[time], strict=True):
                    self._pass_through(window_frames[int(time)], buffer)
            for tile in tiles if computed else ():
                tile_features = features or self._encode(frames, tile)
                self._decode_times(tile_features, tile, shape, computed)
            for time in list(buffers):
                repeated = [buffers.pop(time)] * requested.count(time)
                while repeated:
                    yield repeated.pop()

    def _pass_through(self, frame: Array, buffer: Array) -> None:
        """Write a padded input frame (3, h', w') into a buffer (3, h, w)."""
        self._device.write(buffer, frame[:, : buffer.shape[1], : buffer.shape[2]], *self._manifest.value_range)

    def _encode(self, frames: Array, tile: Tile) -> dict[str, Array]:
        return self._graphs.run("encoder", {"frames": _cut(frames, tile)}, keep=True)

    def _renderings(
        self, features: Mapping[str, Array], time: float, shape: tuple[int, ...], size: tuple[int, int], count: int
    ) -> Buffers | None:
        """Return what renders the frame at a time of each window, or None if it is decoded into a buffer."""
        role, at = decoder_inputs(self._manifest, shape, size)
        if self._copies > 1 or self._manifest.value_range != (0.0, 1.0) or not self._graphs.renders(role):
            return None
        maps = refine(self._graphs, features, np.full(count, time, np.float32))
        return self._graphs.renderings(role, {**maps, **at}, size)

    def _decode_times(
        self, features: Mapping[str, Array], tile: Tile, shape: tuple[int, ...], buffers: Mapping[float, Buffers]
    ) -> None:
        for time, buffers_of_time in buffers.items():
            self._decode(features, time, tile, shape, buffers_of_time)

    def _decode(
        self, features: Mapping[str, Array], time: float, tile: Tile, shape: tuple[int, ...], buffers: Buffers
    ) -> None:
        """Write a tile's core of one frame of each window into its buffer; at other than integer factors, by bands."""
        maps = refine(self._graphs, features, np.full(len(buffers), time, np.float32))
        low, high = self._manifest.value_range
        height, width = buffers[0].shape[1:]
        rows, columns = tile.rows.target(shape[0], height), tile.columns.target(shape[1], width)
        if phases := pixel_phases(self._manifest, shape, (height, width)):
            fy, fx = (len(phases[name]) for name in ("y", "x"))
            frames = self._graphs.run("integer_decoder", {**maps, **phases})["frame"]
            top, left = rows.start - tile.rows.start * fy, columns.start - tile.columns.start * fx
            for frame, buffer in zip(frames, buffers, strict=True):  # (3, fy * h', fx * w')
                core = frame[:, top : top + len(rows), left : left + len(columns)]
                self._device.write(buffer[:, rows.start : rows.stop, columns.start : columns.stop], core, low, high)
            return
        y = positions(rows, shape[0], height, tile.rows.start)
        x = positions(columns, shape[1], width, tile.columns.start)
        band = max(1, DECODE_PX // max(1, len(columns)))
        for start in range(0, len(rows), band):
            inputs = {**maps, "y": y[start : start + band], "x": x}
            frames = self._graphs.run("decoder", inputs)["frame"]
            top = rows.start + start
            for frame, buffer in zip(frames, buffers, strict=True):  # (3, band, W)
                part = buffer[:, top : top + frame.shape[1], columns.start : columns.stop]
                self._device.write(part, frame, low, high)


class NetworkRunner:
    """Computes the outputs of a window with a single graph, each of them once however often it is requested."""

    def __init__(self, graphs: Graphs, tile_size: TileSize, flow: str | None) -> None:
        self._graphs, self._tile_size, self._flow = graphs, tile_size, flow
        self._device, self._manifest = graphs.device, graphs.bundle.manifest

    def run(self, windows: Sequence[WindowFrames], size: tuple[int, int]) -> Iterator[Buffers]:
        """Yield output buffers for each requested output; see `Runner.run`."""
        shape, outputs = windows[0].frames[0].shape[1:], windows[0].outputs
        inputs: dict[str, Array] = {"frames": upload_windows(self._graphs, windows)}
        inputs |= {name: self._device.upload(flows) for name, flows in self._flows(windows).items()}
        tiles = self._tile_size.plan(*shape)
        buffers = {output: _output_buffers(self._device, windows, size) for output in outputs}
        for time, group in self._group_by_run(buffers).items():
            if isinstance(self._manifest.time, ContinuousTime):
                inputs["time"] = np.full(len(windows), time, np.float32)
            for tile in tiles:
                results = self._graphs.run("network", {name: _cut(value, tile) for name, value in inputs.items()})
                self._write_core(results["upscaled"], tile, shape, {output: buffers[output] for output in group})
        remaining = list(outputs)
        while remaining:
            output = remaining.pop(0)
            yield buffers[output] if output in remaining else buffers.pop(output)

    def _flows(self, windows: Sequence[WindowFrames]) -> dict[str, np.ndarray]:
        """Compute the optical flows that the graph takes, padded, (B, pairs, 2, h', w')."""
        flows = {}
        for flow in self._manifest.flows:
            method = self._flow or flow.method
            pairs = [
                [optical_flow(window.frames[a], window.frames[b], method) for a, b in flow.pairs] for window in windows
            ]
            flows[flow.name] = self._manifest.size.pad(np.stack(pairs))
        return flows

    def _group_by_run(self, outputs: Iterable[Output]) -> dict[float, list[Output]]:
        """Group outputs by the run of the graph that computes them: one for each time, or a single one."""
        outputs = list(outputs)
        times = list(dict.fromkeys(float(output.time) for output in outputs if output.time))
        if not isinstance(self._manifest.time, ContinuousTime) or not times:
            return {0.5: outputs}
        groups = {time: [output for output in outputs if float(output.time) == time] for time in times}
        groups[times[0]] += [output for output in outputs if not output.time]  # every run computes the input times
        return groups

    def _write_core(
        self, results: Array, tile: Tile, shape: tuple[int, ...], buffers: Mapping[Output, Buffers]
    ) -> None:
        """Write the core of a tile's results, (B, M, 3, H', W'), into the buffers of each window."""
        low, high = self._manifest.value_range
        for output, buffers_of_output in buffers.items():
            height, width = buffers_of_output[0].shape[1:]
            rows, columns = tile.rows.target(shape[0], height), tile.columns.target(shape[1], width)
            top = rows.start - tile.rows.start * height // shape[0]
            left = columns.start - tile.columns.start * width // shape[1]
            for frames, buffer in zip(results, buffers_of_output, strict=True):
                core = frames[self._index(output), :, top : top + len(rows), left : left + len(columns)]
                part = buffer[:, rows.start : rows.stop, columns.start : columns.stop]
                self._device.write(part, core, low, high)

    def _index(self, output: Output) -> int:
        """Return the index of an output among the graph's frames."""
        match self._manifest.window.kind:
            case "sliding":
                return 0
            case "doubled":
                return 2 * output.index + round(2 * output.time)
            case _:
                return 2 * output.index + (output.time > 0)


def refine(graphs: Graphs, features: Mapping[str, Array], time: Array) -> Mapping[str, Array]:
    """Return what the decoders of a pair take beside target pixels, for its features and a time (1,)."""
    if all(graph.role != "refiner" for graph in graphs.bundle.manifest.graphs):
        return {**features, "time": time}
    return graphs.run("refiner", {**features, "time": time}, keep=True)


def upload_windows(graphs: Graphs, windows: Sequence[WindowFrames]) -> Array:
    """Upload the frames of windows, padded and in the network's value range, (B, N, 3, h', w') float32."""
    manifest = graphs.bundle.manifest
    low, high = manifest.value_range
    uploaded: dict[int, Array] = {}  # a frame may be in a window several times
    flat = [frame for window in windows for frame in window.frames]
    for frame in flat:
        if id(frame) not in uploaded:
            uploaded[id(frame)] = graphs.device.upload(frame.astype(np.float32, copy=False))
    frames = np.stack([uploaded[id(frame)] for frame in flat]).reshape(len(windows), -1, *flat[0].shape)
    if (low, high) != (0.0, 1.0):
        frames = frames * np.float32(high - low) + np.float32(low)
    return manifest.size.pad(frames)


def _output_buffers(device: Device, windows: Sequence[WindowFrames], size: tuple[int, int]) -> Buffers:
    return tuple(device.output_buffer(size) for _ in windows)


def pixel_phases(manifest: Manifest, shape: tuple[int, ...], size: tuple[int, int]) -> dict[str, np.ndarray] | None:
    """Return the inputs `y` and `x` of the integer decoder for frames of `shape` (h, w) that become `size` (H, W).

    They are None if a factor is not an integer, or if the bundle has no such decoder.
    """
    factors = [target_px // size_px for size_px, target_px in zip(shape, size, strict=True)]
    integer = all(n * factor == m for n, m, factor in zip(shape, size, factors, strict=True))
    if not integer or all(graph.role != "integer_decoder" for graph in manifest.graphs):
        return None
    return {name: positions(range(factor), 1, factor, 0) for name, factor in zip("yx", factors, strict=True)}


def decoder_inputs(manifest: Manifest, shape: tuple[int, ...], size: tuple[int, int]) -> tuple[Role, dict[str, Array]]:
    """Return which graph decodes whole frames of `shape` (h, w) to `size` (H, W), and its inputs `y` and `x`."""
    if phases := pixel_phases(manifest, shape, size):
        return "integer_decoder", phases
    return "decoder", {name: positions(range(m), n, m, 0) for name, n, m in zip("yx", shape, size, strict=True)}


def positions(targets: range, size_px: int, target_px: int, origin_px: int) -> np.ndarray:  # (len(targets),) float32
    """Return the centres of target pixels, in input pixels from the centre of the tile's first pixel."""
    return ((np.arange(targets.start, targets.stop) + 0.5) * size_px / target_px - 0.5 - origin_px).astype(np.float32)


def _cut(value: Array, tile: Tile) -> Array:
    """Return a tile's part of frames or flows, (..., h, w); a time, (B,), is returned unchanged."""
    return value if value.ndim < 2 else value[..., _slice(tile.rows), _slice(tile.columns)]


def _slice(span: Span) -> slice:
    return slice(span.start, span.stop)
