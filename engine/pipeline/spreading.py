"""Windows of one stream that are spread over several devices, whose outputs come in the order of the stream."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from weakref import WeakSet

import numpy as np

from ..contract.errors import BackendError, StvsrError
from ..contract.picture import Picture, PictureFormat
from .device_queue import DeviceQueue, NumberedWindow
from .workers import Channel, Stopped, WorkerGroup

RESULT_BYTES = 256 << 20  # memory for computed frames of one device that wait for their turn, at least one

Windows = Channel[NumberedWindow]
Results = Channel[Picture]


class Spreading:
    """Distributes the windows of a stream: each device computes every n-th one, and outputs come in order.

    Each device has a thread of its own for each stream. `close` ends all of them.
    """

    def __init__(self, queues: Sequence[DeviceQueue]) -> None:
        self._queues = tuple(queues)
        self._groups: WeakSet[WorkerGroup] = WeakSet()

    def pictures(
        self, windows: Iterable[NumberedWindow], size: tuple[int, int], picture_format: PictureFormat | None
    ) -> Iterator[Picture]:
        """Yield the requested outputs of windows as `Upscaler.pictures` does.

        Windows are taken ahead of the outputs: for each device, one that it computes, one that waits, and as many as it
        has outputs in flight. An error of a device, which is named, ends the work of all.
        """
        # With fewer a device would wait for a window before it returns an output of an earlier one.
        ahead = 2 + max(queue.device.in_flight for queue in self._queues)
        frame_bytes = 3 * size[0] * size[1] * np.dtype(np.uint16).itemsize
        group = WorkerGroup(catches_signals=False)
        self._groups.add(group)
        try:
            with group:
                channels: list[tuple[Windows, Results]] = []
                for number, queue in enumerate(self._queues):
                    given: Windows = Channel(group, ahead)
                    results: Results = Channel(group, max(1, RESULT_BYTES // frame_bytes))
                    work = partial(_compute, queue, given, results, size, picture_format)
                    group.spawn(f"stvsr-device-{number}", work)
                    channels.append((given, results))
                yield from _in_order(channels, windows, ahead)
        except Stopped:
            raise BackendError("The upscaler was closed while it computed a stream: open another one.") from None

    def close(self) -> None:
        """End the threads of every stream, and wait for them."""
        for group in list(self._groups):
            group.end()


def _in_order(
    channels: Sequence[tuple[Windows, Results]], windows: Iterable[NumberedWindow], ahead: int
) -> Iterator[Picture]:
    """Give windows to the devices in turn, and yield the outputs of each window before those of later ones."""
    pending: deque[tuple[Iterator[Picture], int]] = deque()  # the outputs of a device, and how many a window has
    outputs = [iter(results) for _, results in channels]
    with_outputs = (numbered for numbered in windows if numbered[1].outputs)
    for turn, numbered in enumerate(with_outputs):
        device = turn % len(channels)
        channels[device][0].put(numbered)
        pending.append((outputs[device], len(numbered[1].outputs)))
        del numbered  # or its frames would live until the next one
        if len(pending) == ahead * len(channels):
            yield from _take(*pending.popleft())
    for given, _ in channels:
        given.close()
    while pending:
        yield from _take(*pending.popleft())


def _take(outputs: Iterator[Picture], count: int) -> Iterator[Picture]:
    for _ in range(count):
        yield next(outputs)


def _compute(
    queue: DeviceQueue,
    given: Windows,
    results: Results,
    size: tuple[int, int],
    picture_format: PictureFormat | None,
) -> None:
    """Compute the windows that one device is given. Raises StvsrErrors that name the device."""
    try:
        for picture in queue.pictures(given, size, picture_format):
            results.put(picture)
            del picture  # or it would live until the next one
    except StvsrError as error:
        raise type(error)(f"On device '{queue.device.name}': {error}") from error
