"""Streams that share an upscaler: their windows are computed in turns, or several of them at once as a batch."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..backends.device import Array
from ..contract.errors import DeviceMemoryError
from ..contract.windows import Output, WindowFrames
from .runners import Runner


class Turns:
    """Lets threads do something one at a time, in the order in which they come."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets: deque[object] = deque()  # the first one has its turn

    @contextmanager
    def turn(self, done: Callable[[], bool] = lambda: False) -> Iterator[bool]:
        """Wait for the turn of a block, and yield true; or yield false when another turn has made `done` true."""
        ticket = object()
        first = False
        try:
            with self._changed:
                self._tickets.append(ticket)
                self._changed.wait_for(lambda: done() or self._tickets[0] is ticket)
                first = not done()
            yield first
        finally:
            with self._changed:
                self._tickets.remove(ticket)
                self._changed.notify_all()


@dataclass(eq=False)
class _Waiting:
    """A window that waits to be computed, and its buffers afterwards."""

    window: WindowFrames
    kind: tuple[tuple[int, ...], tuple[int, int], tuple[Output, ...]]  # windows of one kind can be a batch
    buffers: list[Array] | None = None


class SharedRunner:
    """Runs the windows of several streams, each of which has a thread of its own.

    Each output is a turn, so that no stream waits for more than one output of every other. With `most` above 1, windows
    that wait at the same time for the same sizes and times are computed at once, at most so many, all outputs in one
    turn. A window never waits for others to come.
    """

    def __init__(self, runner: Runner, most: int = 1) -> None:
        self._runner, self._most = runner, most
        self._turns = Turns()
        self._waiting: list[_Waiting] = []

    def run(self, window: WindowFrames, size: tuple[int, int]) -> Iterator[Array]:
        """Yield an output buffer (3, H, W) of `size` for each requested output of a window, in order."""
        if self._most > 1:
            yield from self._run_at_once(window, size)
            return
        outputs = self._runner.run([window], size)
        for _ in window.outputs:
            with self._turns.turn():
                (buffer,) = next(outputs)
            yield buffer
            del buffer  # or it would live until the next one

    def _run_at_once(self, window: WindowFrames, size: tuple[int, int]) -> Iterator[Array]:
        own = _Waiting(window, (window.frames[0].shape, size, window.outputs))
        self._waiting.append(own)
        try:
            with self._turns.turn(lambda: own.buffers is not None) as first:
                if first:
                    self._compute(own, size)
        finally:
            if own in self._waiting:
                self._waiting.remove(own)
        assert own.buffers is not None
        while own.buffers:
            yield own.buffers.pop(0)

    def _compute(self, own: _Waiting, size: tuple[int, int]) -> None:
        """Compute a window, and with it others of its kind."""
        others = [other for other in list(self._waiting) if other is not own and other.kind == own.kind]
        batch = [own, *others[: self._most - 1]]
        try:
            results = list(self._runner.run([one.window for one in batch], size))
        except DeviceMemoryError:
            if len(batch) == 1:
                raise
            batch = [own]
            results = list(self._runner.run([own.window], size))
        for number, one in enumerate(batch):
            one.buffers = [buffers[number] for buffers in results]
            self._waiting.remove(one)
