"""A bundle's graphs on one device, and the windows of a stream that are queued on it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from ..backends.bundle_graphs import Graphs
from ..backends.cuda import CudaDevice
from ..backends.device import drain
from ..backends.graphs import Warn, open_graphs
from ..backends.options import Backend
from ..backends.stages import StageClock, TimedGraphs
from ..contract.bundle import Bundle
from ..contract.closing import Closing
from ..contract.errors import DeviceMemoryError, NonFiniteError
from ..contract.picture import Picture, PictureFormat
from ..contract.windows import WindowFrames
from .ensemble import EnsembleRunner
from .inference import Inference
from .runners import runner_for
from .sharing import SharedRunner
from .tiles import GPU_TILE_PX, TileSize, gpu_tile_px

NumberedWindow = tuple[int, WindowFrames]  # with the number of the window's first output in the stream


class DeviceQueue(Closing):
    """Computes windows on one device, several in flight on a GPU. A context manager that holds the open graphs.

    `bundle`, `batch`, `clock` and the settings of `inference` are those of `Upscaler`, and `backend` names one device.
    `warn` receives what differs from the request, in sentences. `alone` is false if other threads use a GPU at the same
    time. Raises BackendError, BundleError.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        inference: Inference,
        batch: int,
        warn: Warn,
        clock: StageClock | None = None,
        *,
        alone: bool,
    ) -> None:
        self.bundle, self._alone = bundle, alone
        self._requested, self._inference, self._batch, self._warn, self._clock = backend, inference, batch, warn, clock
        self._weights: dict[str, np.ndarray] = {}  # replacements of the bundle's own
        self._retired: list[Graphs] = []  # of a precision that was given up; their results may still be awaited
        self.graphs = self._open_graphs(backend)
        self.device = self.graphs.device
        self.tile_size = TileSize(bundle.manifest, inference.tile, self._gpu_px())
        self.runner = self._open_runner()
        self._streams = self.device.stream_count if batch == 1 else 1  # a batch is computed on one device stream

    def pictures(
        self, windows: Iterable[NumberedWindow], size: tuple[int, int], picture_format: PictureFormat | None
    ) -> Iterator[Picture]:
        """Yield the requested outputs of windows as `Upscaler.pictures` does."""
        return drain(self._queue(windows, size, picture_format), self.device.in_flight)

    @property
    def opened(self) -> tuple[Graphs, ...]:
        """All graphs that were opened: those of a precision that was given up, and those in use."""
        return *self._retired, self.graphs

    def refit(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace weights, by their names in the graphs, while the graphs stay open; see `Graphs.refit`."""
        self.graphs.refit(weights)
        self._weights.update(weights)

    def close(self) -> None:
        """Close the graphs. A second call does nothing."""
        for graphs in self.opened:
            graphs.close()

    def _queue(
        self, windows: Iterable[NumberedWindow], size: tuple[int, int], picture_format: PictureFormat | None
    ) -> Iterator[Callable[[], Picture]]:
        """Queue windows on the device's streams in turn, and yield a function that waits for each output.

        When memory runs out, the outputs that are left of a window are computed again with smaller tiles.
        """
        for turn, (number, window) in enumerate(windows):
            remaining = window.outputs
            device = self.device
            buffers = self.runner.run(window, size)
            while remaining:
                try:
                    with device.stream(turn % self._streams):
                        result = device.download(next(buffers), picture_format)
                except NonFiniteError as error:
                    raise self._not_finite(number) from error
                except DeviceMemoryError:
                    device.trim()
                    height, width = window.frames[0].shape[1:]
                    if not self._shrink_tiles(height, width):
                        raise
                    device, buffers = self.device, self.runner.run(replace(window, outputs=remaining), size)
                    continue
                again = partial(self._compute_again, replace(window, outputs=remaining[:1]), size, picture_format)
                remaining = remaining[1:]
                yield partial(self._wait, result, again, number)
                number += 1
                del result  # or its buffer would live until the next one

    def _wait(self, result: Callable[[], Picture], again: Callable[[], Picture], number: int) -> Picture:
        """Return an output, which is computed again in tf32 if its values are too large for fp16."""
        try:
            return result()
        except NonFiniteError as error:
            if not self._retired and not self._leave_fp16(number):
                raise self._not_finite(number) from error
        try:
            return again()
        except NonFiniteError as error:
            raise self._not_finite(number) from error

    def _compute_again(
        self, window: WindowFrames, size: tuple[int, int], picture_format: PictureFormat | None
    ) -> Picture:
        """Compute a window with one output and wait for it."""
        with self.device.stream(0):
            result = self.device.download(next(iter(self.runner.run(window, size))), picture_format)
        return result()

    def _leave_fp16(self, number: int) -> bool:
        """Compute in tf32 from now on, if the precision is fp16 and not that of a server; return whether it was."""
        if self.graphs.precision != "fp16" or self.graphs.backend == "remote":
            return False
        backend = replace(self._requested, kind=self.graphs.backend, device=self.device.name, precision="tf32")
        graphs = self._open_graphs(backend)
        if self._weights:
            graphs.refit(self._weights)
        self._retired.append(self.graphs)
        self.graphs, self.device = graphs, graphs.device
        self.runner = self._open_runner()
        self._warn(
            f"Values of '{self.bundle.manifest.name}' exceed the range of fp16 in output frame {number + 1}: the rest"
            " was computed in tf32."
        )
        return True

    def _open_graphs(self, backend: Backend) -> Graphs:
        graphs = open_graphs(self.bundle, backend, self._warn, captures=self._alone)
        return graphs if self._clock is None else TimedGraphs(graphs, self._clock)

    def _open_runner(self) -> SharedRunner:
        mirrorings = self._inference.mirrorings
        runner = runner_for(self.graphs, self.tile_size, self._inference.flow, len(mirrorings))
        if len(mirrorings) > 1:
            runner = EnsembleRunner(runner, self.device, mirrorings)
        return SharedRunner(runner, self._batch)

    def _gpu_px(self) -> int | None:
        """Return the largest side of a tile on a GPU; None on the CPU."""
        if self.device.name == "cpu":
            return None
        if self.graphs.backend == "ort" and isinstance(self.device, CudaDevice):
            return gpu_tile_px(self.device.free_bytes())
        return GPU_TILE_PX

    def _not_finite(self, number: int) -> NonFiniteError:
        return NonFiniteError(
            f"Bundle '{self.bundle.manifest.name}' computes values that are not finite numbers in"
            f" {self.graphs.precision}, in output frame {number + 1} of its stream: use another bundle, or export it"
            " from a checkpoint that works."
        )

    def _shrink_tiles(self, height: int, width: int) -> bool:
        sides = self.tile_size.shrink(height, width)
        if sides is None:
            return False
        self._warn(
            f"The memory of device '{self.device.name}' is too small for tiles of {sides[0]} pixels: tiles of"
            f" {sides[1]} were used, which takes longer."
        )
        return True
