"""Busy seconds of upload, network and download: graphs and a device that measure each call."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import numpy as np

from ..contract.manifest import Role
from ..contract.picture import Picture, PictureFormat
from .device import Array, Device, Rendering
from .graphs import Graphs
from .session import Session

Stage = Literal["upload", "network", "download"]
STAGES: tuple[Stage, ...] = ("upload", "network", "download")


class StageClock:
    """Sums the busy seconds of each stage while `running` is set.

    A device that queues its work is awaited after each call then, so that stages do not overlap; the run takes longer.
    """

    def __init__(self) -> None:
        self.running = False
        self.seconds: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def busy(self, stage: Stage, device: Device) -> Iterator[None]:
        """Count the time of a block, with that of the work that it queues on a device."""
        if not self.running:
            yield
            return
        device.synchronize()
        start = time.perf_counter()
        yield
        device.synchronize()
        self.seconds[stage] += time.perf_counter() - start


class TimedDevice:
    """A device whose copies are measured; "download" includes the conversion of values, and renderings."""

    def __init__(self, device: Device, clock: StageClock) -> None:
        self._device, self._clock = device, clock
        self.name, self.stream_count, self.in_flight = device.name, device.stream_count, device.in_flight

    def stream(self, number: int) -> AbstractContextManager[None]:
        """Make a stream current; see `Device.stream`."""
        return self._device.stream(number)

    def upload(self, array: np.ndarray) -> Array:
        """Copy an array to the device; see `Device.upload`."""
        with self._clock.busy("upload", self._device):
            return self._device.upload(array)

    def output_buffer(self, size: tuple[int, int]) -> Array:
        """Allocate a frame; see `Device.output_buffer`."""
        return self._device.output_buffer(size)

    def output_buffer_bytes(self, size: tuple[int, int]) -> int:
        """Return the size of an output buffer in bytes."""
        return self._device.output_buffer_bytes(size)

    def write(self, buffer: Array, frame: Array, low: float, high: float) -> None:
        """Write values into an output buffer; see `Device.write`."""
        with self._clock.busy("download", self._device):
            self._device.write(buffer, frame, low, high)

    def mean(self, buffers: Sequence[Array]) -> Array:
        """Return the mean of output buffers; see `Device.mean`."""
        with self._clock.busy("download", self._device):
            return self._device.mean(buffers)

    def download(self, buffer: Array, picture_format: PictureFormat | None) -> Callable[[], Picture]:
        """Start to copy an output buffer; see `Device.download`."""
        with self._clock.busy("download", self._device):
            return self._device.download(buffer, picture_format)

    def synchronize(self) -> None:
        """Wait for all work."""
        self._device.synchronize()

    def trim(self) -> None:
        """Free cached memory."""
        self._device.trim()


class TimedGraphs(Graphs):
    """Open graphs whose runs are measured, on a device whose copies are."""

    def __init__(self, graphs: Graphs, clock: StageClock) -> None:
        super().__init__(graphs.bundle, TimedDevice(graphs.device, clock), graphs.precision)
        self._graphs, self._clock = graphs, clock
        self.backend, self.preparation = graphs.backend, graphs.preparation

    def run(self, role: Role, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Run one graph; see `Graphs.run`."""
        with self._clock.busy("network", self._graphs.device):
            return self._graphs.run(role, inputs, keep=keep)

    def renders(self, role: Role) -> bool:
        """Return whether a decoder's frames can be rendered as pictures; see `Graphs.renders`."""
        return self._graphs.renders(role)

    def renderings(self, role: Role, inputs: Mapping[str, Array], size: tuple[int, int]) -> tuple[Rendering, ...]:
        """Return frames that are rendered later; see `Graphs.renderings`."""
        return self._graphs.renderings(role, inputs, size)

    def session(self, role: Role, inputs: Mapping[str, Array]) -> Session:
        """Return a session that accepts inputs of these shapes."""
        return self._graphs.session(role, inputs)

    def refit(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace weights; see `Graphs.refit`."""
        self._graphs.refit(weights)

    def close(self) -> None:
        """Close every session."""
        self._graphs.close()
