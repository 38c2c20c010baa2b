"""The upscaler: a bundle's open graphs, run on the windows of a stream of frames."""

import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Literal, cast

import numpy as np

from ..backends.options import Backend
from ..backends.preparation import Preparation
from ..backends.stages import StageClock
from ..contract.bundle import Bundle, find_bundle
from ..contract.closing import Closing
from ..contract.errors import BundleError, RequestError
from ..contract.manifest import Precision
from ..contract.picture import Picture, PictureFormat, as_frame
from ..contract.weights import differing_weights, read_weights
from ..contract.windows import InputFrame, WindowFrames, split_windows
from .device_queue import DeviceQueue, NumberedWindow
from .inference import Inference, Preset
from .live import live_inputs, run_in_thread
from .plan import check_size, check_times
from .spreading import Spreading
from .tiles import TileSize


class Upscaler(Closing):
    """Upscales streams of frames with one bundle. A context manager that holds the bundle's open graphs.

    Several streams may run at once, each in a thread of its own or as an asynchronous iterator: they take turns.

    bundle: a bundle, its folder, or the name of a shipped one.
    backend: how to compute it; without one, by the fastest one of this machine. If it names several devices, the
        windows of a stream are spread over them: outputs come in order and are the same, but later, since more frames
        are taken before the first comes.
    tile: the side of tiles in input pixels, halo included; 0: whole frames; None: tiles for large frames.
    flow: the method of optical flow, "farneback" or "dis", for a bundle that takes flow; None: the bundle's own.
    preset: "fast"; "balanced" and "best" take two and four times as long, for frames that are the mean of as many runs
        of the network on mirrored frames.
    batch: how many windows of different streams, with frames of one size and the same times, are computed at once if
        they wait at the same time. Results then differ by float rounding.
    clock: sums the busy seconds of upload, network and download, on one device; None: they are not measured.

    `warnings` lists, in sentences, what differs from the request. `weights` is the fingerprint of the bundle whose
    weights are in use, or None after `refit` with weights by their names. Raises BundleError, BackendError,
    RequestError.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        backend: Backend | None = None,
        *,
        tile: int | None = None,
        flow: str | None = None,
        preset: Preset = "fast",
        batch: int = 1,
        clock: StageClock | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else find_bundle(bundle)
        self.weights: str | None = self.bundle.fingerprint
        self._replaced: dict[str, np.ndarray] = {}  # weights that are in use in the place of the bundle's own
        self._lock = threading.RLock()  # reentrant, as a generator may be finalized while it is held
        self._running = 0  # streams that have begun and not ended
        self.warnings: list[str] = []
        inference = Inference(tile, flow, preset)
        TileSize(self.bundle.manifest, tile)  # refuse a wrong tile before graphs are opened
        self.queues: list[DeviceQueue] = []  # of each device
        with ExitStack() as opened:
            backends = (backend or Backend()).by_device()
            for one in backends:
                # The same kind on every device, or frames would differ by rounding.
                one = replace(one, kind=self.backend) if self.queues else one
                alone = len(backends) == 1
                warn = self._warn(None if alone else one.device)
                queue = DeviceQueue(self.bundle, one, inference, batch, warn, clock, alone=alone)
                self.queues.append(opened.enter_context(queue))
            opened.pop_all()
        self._spreading = Spreading(self.queues)

    @property
    def device(self) -> str:
        """The name of the device, "cpu" or "cuda:N", or the names of several with commas."""
        return ",".join(queue.device.name for queue in self.queues)

    @property
    def backend(self) -> Literal["ort", "tensorrt", "remote"]:
        """The kind of the backend, which is the same on every device."""
        return self.queues[0].graphs.backend

    @property
    def precision(self) -> Precision:
        """The precision of products; it changes to tf32 if fp16 turns out to be too small for the network's values.

        Of several devices, one may have changed alone.
        """
        precisions = [queue.graphs.precision for queue in self.queues]
        return "tf32" if "tf32" in precisions else precisions[0]

    @property
    def preparation(self) -> Preparation:
        """The time that the graphs took to open and for their first runs, since the last `begin_run`."""
        return sum((graphs.preparation for queue in self.queues for graphs in queue.opened), Preparation())

    def begin_run(self) -> None:
        """Forget the warnings and the times of an earlier run."""
        self.warnings.clear()
        for queue in self.queues:
            for graphs in queue.opened:
                graphs.preparation.reset()

    def frames(
        self,
        inputs: Iterable[InputFrame | None],  # None: the scene has ended
        size: tuple[int, int],  # (H, W)
    ) -> Generator[np.ndarray]:  # of (3, H, W) uint16, 65535 is white
        """Yield a frame of `size` for every input frame and each of its times, in order.

        Raises RequestError for a size or a time that the bundle does not support.
        """
        return cast(Generator[np.ndarray], self.pictures(inputs, size, None))

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
    ) -> Generator[Picture]:
        """Yield the frames of `frames` as planes of `picture_format` if the device can convert to it, else as RGB."""
        windows = _numbered(split_windows(self.bundle.manifest.window, self._checked(inputs, size)))
        with self._lock:
            self._running += 1
        try:
            if len(self.queues) == 1:
                yield from self.queues[0].pictures(windows, size, picture_format)
            else:
                yield from self._spreading.pictures(windows, size, picture_format)
        finally:
            with self._lock:
                self._running -= 1

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

    def refit(self, weights: Mapping[str, np.ndarray] | Bundle) -> None:
        """Replace the weights for the streams that come next, while the graphs stay open.

        weights: by their names in the graphs, others stay as they are; or a bundle that differs from the upscaler's own
            in its weights alone, such as `stvsr adapt` writes. The upscaler's own bundle brings the original ones back.

        Streams that begin meanwhile wait for the new weights. Raises RequestError while a stream is computed: first
        take its last frame, or close it. Raises BundleError for weights that no graph has or that do not fit, and
        BackendError for engines that were compiled without `Backend.refit` and for an inference server, which keeps
        its own weights. After an error the former weights are in use.
        """
        with self._lock:
            if self._running:
                raise RequestError(
                    "The weights cannot be replaced while a stream is computed: take its last frame first, or close it."
                )
            if isinstance(weights, Bundle):
                replaced, in_use = self._weights_of(weights), weights.fingerprint
            else:
                replaced, in_use = dict(weights), None
            former = {**self._own(set(replaced)), **self._replaced} if len(self.queues) > 1 else {}
            for number, queue in enumerate(self.queues if replaced else ()):
                try:
                    queue.refit(replaced)
                except BaseException:
                    for earlier in self.queues[:number]:
                        earlier.refit(former)
                    raise
            self._replaced |= replaced
            self.weights = in_use

    def close(self) -> None:
        """Close the graphs. A second call does nothing."""
        self._spreading.close()
        for queue in self.queues:
            queue.close()

    def _weights_of(self, bundle: Bundle) -> dict[str, np.ndarray]:
        """Return the weights that make the open graphs those of another bundle. Raises BundleError if none do."""
        weights = differing_weights(self.bundle, bundle)
        if weights is None:
            raise BundleError(
                f"{bundle.folder} differs from {self.bundle.folder} in more than its weights: open it in an upscaler of"
                " its own."
            )
        return {**self._own(set(self._replaced) - set(weights)), **weights}

    def _own(self, names: set[str]) -> dict[str, np.ndarray]:
        """Return weights of the upscaler's own bundle by their names."""
        own: dict[str, np.ndarray] = {}
        if names:
            for graph in self.bundle.manifest.graphs:
                stored = read_weights(self.bundle.path(graph.role).read_bytes())
                own |= {name: stored[name] for name in names & stored.keys()}
        return own

    def _warn(self, device: str | None) -> Callable[[str], None]:
        """Return a function that takes warnings, and adds the name of the device that they are about."""
        return lambda warning: self.warnings.append(warning if device is None else f"On device '{device}': {warning}")

    def _checked(self, inputs: Iterable[InputFrame | None], size: tuple[int, int]) -> Iterator[InputFrame | None]:
        for frame in inputs:
            if frame is not None:
                check_size(self.bundle, frame.rgb.shape[1:], size)
                check_times(self.bundle, frame.times)
            yield frame


def _numbered(windows: Iterable[WindowFrames]) -> Iterator[NumberedWindow]:
    """Yield the windows of a stream with the numbers of their first outputs."""
    number = 0
    for window in windows:
        yield number, window
        number += len(window.outputs)
        del window  # or its frames would live until the next one
