"""The upscaler: a bundle's open graphs, run on the windows of a stream of frames."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from ..backends.device import drain
from ..backends.graphs import Graphs, open_graphs
from ..backends.options import Backend
from ..backends.preparation import Preparation
from ..contract.bundle import Bundle, find_bundle
from ..contract.closing import Closing
from ..contract.errors import DeviceMemoryError, NonFiniteError, RequestError
from ..contract.manifest import Precision
from ..contract.picture import Picture, PictureFormat, as_frame
from ..contract.windows import InputFrame, WindowFrames, split_windows
from .live import live_inputs, run_in_thread
from .plan import check_size, check_times
from .runners import runner_for
from .sharing import SharedRunner
from .tiles import TileSize


class Upscaler(Closing):
    """Upscales streams of frames with one bundle. A context manager that holds the bundle's open graphs.

    Several streams may run at once, each in a thread of its own or as an asynchronous iterator: they take turns.

    bundle: a bundle, its folder, or the name of a shipped one.
    backend: how to compute it; without one, by the fastest one of this machine.
    tile: the side of tiles in input pixels, halo included; 0: whole frames; None: tiles for large frames.
    flow: the method of optical flow, "farneback" or "dis", for a bundle that takes flow; None: the bundle's own.
    batch: how many windows of different streams, with frames of one size and the same times, are computed at once if
        they wait at the same time. Results then differ by float rounding.

    `warnings` lists, in sentences, what differs from the request. Raises BundleError, BackendError, RequestError.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        backend: Backend | None = None,
        *,
        tile: int | None = None,
        flow: str | None = None,
        batch: int = 1,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else find_bundle(bundle)
        self.warnings: list[str] = []
        TileSize(self.bundle.manifest, tile, on_gpu=False)  # refuse a wrong tile before graphs are opened
        self._requested, self._flow = backend or Backend(), flow
        self._weights: dict[str, np.ndarray] = {}  # replacements of the bundle's own
        self._retired: list[Graphs] = []  # of a precision that was given up; their results may still be awaited
        self._graphs = open_graphs(self.bundle, self._requested, self.warnings.append)
        self.device, self.backend = self._graphs.device, self._graphs.backend
        self._tile_size = TileSize(self.bundle.manifest, tile, on_gpu=self.device.name != "cpu")
        self._batch = batch
        self._runner = self._open_runner()
        self._streams = self.device.stream_count if batch == 1 else 1  # a batch is computed on one device stream

    @property
    def precision(self) -> Precision:
        """The precision of products; it changes to tf32 if fp16 turns out to be too small for the network's values."""
        return self._graphs.precision

    @property
    def preparation(self) -> Preparation:
        """The time that the graphs took to open and for their first runs, since the last `begin_run`."""
        return sum((graphs.preparation for graphs in (*self._retired, self._graphs)), Preparation())

    def begin_run(self) -> None:
        """Forget the warnings and the times of an earlier run."""
        self.warnings.clear()
        for graphs in (*self._retired, self._graphs):
            graphs.preparation = Preparation()

    def frames(
        self,
        inputs: Iterable[InputFrame | None],  # None: the scene has ended
        size: tuple[int, int],  # (H, W)
    ) -> Iterator[np.ndarray]:  # of (3, H, W) uint16, 65535 is white
        """Yield a frame of `size` for every input frame and each of its times, in order.

        Raises RequestError for a size or a time that the bundle does not support.
        """
        return cast(Iterator[np.ndarray], self.pictures(inputs, size, None))

    def stream(
        self,
        frames: AsyncIterable[np.ndarray] | Iterable[np.ndarray],  # (3, h, w)
        size: tuple[int, int],  # (H, W)
        times: Sequence[float | Fraction] = (0,),  # in [0, 1), ascending, after each frame; 0: the frame's own time
        scene_threshold: float | None = None,  # of scene cuts, from 0 to 1; 0 or None: the frames are one scene
    ) -> AsyncGenerator[np.ndarray]:  # of (3, H, W) uint16, 65535 is white
        """Return an asynchronous iterator of the frames of a live stream, each of which comes when it is computed.

        The input frames hold floats in [0, 1], or uint8 or uint16, of which the largest value is white. They are taken
        when the network needs them. The work is done in a thread, one frame ahead of the caller; when the caller is
        cancelled, or closes the iterator, the thread ends after the frame that it computes.

        Raises RequestError for times that the bundle does not support. RequestError for a frame or a size, and errors
        of the input, are raised where a frame is awaited.
        """
        check_times(self.bundle, times)
        if any(time >= 1 for time in times):
            raise RequestError("A time of 1 is the next frame itself: give times below 1.")
        exact = tuple(Fraction(time) for time in times)
        return run_in_thread(lambda inputs: self.frames(live_inputs(inputs, exact, scene_threshold), size), frames)

    def pictures(
        self, inputs: Iterable[InputFrame | None], size: tuple[int, int], picture_format: PictureFormat | None
    ) -> Iterator[Picture]:
        """Yield the frames of `frames` as planes of `picture_format` if the device can convert to it, else as RGB."""
        windows = split_windows(self.bundle.manifest.window, self._checked(inputs, size))
        return drain(self._queue(windows, size, picture_format), self.device.in_flight)

    def between(
        self,
        first: np.ndarray,  # (3, h, w)
        second: np.ndarray,  # (3, h, w)
        times: Sequence[float | Fraction],  # ascending; 0: at the first frame, 1: at the second
        size: tuple[int, int],  # (H, W)
    ) -> Iterator[np.ndarray]:  # of (3, H, W) uint16, 65535 is white
        """Yield a new frame for each time between two frames.

        The frames hold floats in [0, 1], or uint8 or uint16, of which the largest value is white. Raises RequestError
        for other frames, and for a size or a time that the bundle does not support.
        """
        first, second = as_frame(first), as_frame(second)
        check_size(self.bundle, first.shape[1:], size)
        check_times(self.bundle, times)
        exact = tuple(Fraction(time) for time in times)
        before = tuple(time for time in exact if time < 1)
        pair = [InputFrame(first, before), InputFrame(second, (Fraction(0),) * (len(exact) - len(before)), last=True)]
        return self.frames(pair, size)

    def refit(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace weights, by their names in the graphs, while the graphs stay open; see `Graphs.refit`."""
        self._graphs.refit(weights)
        self._weights.update(weights)

    def close(self) -> None:
        """Close the graphs. A second call does nothing."""
        for graphs in (*self._retired, self._graphs):
            graphs.close()

    def _checked(self, inputs: Iterable[InputFrame | None], size: tuple[int, int]) -> Iterator[InputFrame | None]:
        for frame in inputs:
            if frame is not None:
                check_size(self.bundle, frame.rgb.shape[1:], size)
                check_times(self.bundle, frame.times)
            yield frame

    def _queue(
        self, windows: Iterable[WindowFrames], size: tuple[int, int], picture_format: PictureFormat | None
    ) -> Iterator[Callable[[], Picture]]:
        """Queue windows on the device's streams in turn, and yield a function that waits for each output.

        When memory runs out, the outputs that are left of a window are computed again with smaller tiles.
        """
        done = 0
        for number, window in enumerate(windows):
            remaining = window.outputs
            device = self.device
            buffers = self._runner.run(window, size)
            while remaining:
                try:
                    with device.stream(number % self._streams):
                        result = device.download(next(buffers), picture_format)
                except NonFiniteError as error:
                    raise self._not_finite(done) from error
                except DeviceMemoryError:
                    device.trim()
                    height, width = window.frames[0].shape[1:]
                    if not self._shrink_tiles(height, width):
                        raise
                    device, buffers = self.device, self._runner.run(replace(window, outputs=remaining), size)
                    continue
                again = partial(self._compute_again, replace(window, outputs=remaining[:1]), size, picture_format)
                remaining = remaining[1:]
                yield partial(self._wait, result, again, done)
                done += 1
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
            result = self.device.download(next(iter(self._runner.run(window, size))), picture_format)
        return result()

    def _leave_fp16(self, number: int) -> bool:
        """Compute in tf32 from now on, if the precision is fp16 and not that of a server; return whether it was."""
        if self.precision != "fp16" or self.backend == "remote":
            return False
        backend = replace(self._requested, kind=self.backend, device=self.device.name, precision="tf32")
        graphs = open_graphs(self.bundle, backend, self.warnings.append)
        if self._weights:
            graphs.refit(self._weights)
        self._retired.append(self._graphs)
        self._graphs, self.device = graphs, graphs.device
        self._runner = self._open_runner()
        self.warnings.append(
            f"Values of '{self.bundle.manifest.name}' exceed the range of fp16 in output frame {number + 1}: the rest"
            " was computed in tf32."
        )
        return True

    def _open_runner(self) -> SharedRunner:
        return SharedRunner(runner_for(self._graphs, self._tile_size, self._flow), self._batch)

    def _not_finite(self, number: int) -> NonFiniteError:
        return NonFiniteError(
            f"Bundle '{self.bundle.manifest.name}' computes values that are not finite numbers in {self.precision}, in"
            f" output frame {number + 1} of its stream: use another bundle, or export it from a checkpoint that works."
        )

    def _shrink_tiles(self, height: int, width: int) -> bool:
        sides = self._tile_size.shrink(height, width)
        if sides is None:
            return False
        self.warnings.append(
            f"The memory of device '{self.device.name}' is too small for tiles of {sides[0]} pixels: tiles of"
            f" {sides[1]} were used, which takes longer."
        )
        return True
