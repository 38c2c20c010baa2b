"""Self-ensemble: a network sees each window several times, mirrored, and its frames are averaged.

Timofte et al., "Seven ways to improve example-based single image super resolution", CVPR 2016. Errors that depend on
the orientation cancel, at the cost of a run for each mirroring.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..backends.device import Array, Device
from ..contract.windows import WindowFrames
from .inference import Mirroring
from .runners import Buffers, Runner


class EnsembleRunner:
    """Computes windows as the mean of another runner's frames over mirrorings.

    The runner's buffers are arrays, of which one of each mirroring is in use at once.
    """

    def __init__(self, runner: Runner, device: Device, mirrorings: Sequence[Mirroring]) -> None:
        self._runner, self._device, self._mirrorings = runner, device, tuple(mirrorings)

    def run(self, windows: Sequence[WindowFrames], size: tuple[int, int]) -> Iterator[Buffers]:
        """Yield output buffers for each requested output; see `Runner.run`."""
        runs = [self._runner.run([_mirrored(window, one) for window in windows], size) for one in self._mirrorings]
        for mirrored in zip(*runs, strict=True):
            restored = [
                [mirror(buffer, one) for buffer in buffers]
                for buffers, one in zip(mirrored, self._mirrorings, strict=True)
            ]
            yield tuple(self._device.mean(buffers) for buffers in zip(*restored, strict=True))
            del mirrored, restored  # or their buffers would live until the next ones


def mirror(frame: Array, mirroring: Mirroring) -> Array:
    """Return a view of a frame (..., H, W) that is mirrored, or mirrored back."""
    return frame[..., :: -1 if mirroring.rows else 1, :: -1 if mirroring.columns else 1]


def _mirrored(window: WindowFrames, mirroring: Mirroring) -> WindowFrames:
    if not any(mirroring):
        return window
    # A frame that is in a window several times is copied once: runners compare frames by identity.
    copies = {id(frame): np.ascontiguousarray(mirror(frame, mirroring)) for frame in window.frames}
    return replace(window, frames=tuple(copies[id(frame)] for frame in window.frames))
