"""Live frames: inputs that come one after another, and generators that run in a thread for asynchronous callers."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from fractions import Fraction
from typing import Any, Generic, TypeVar

import numpy as np

from ..contract.picture import as_frame
from ..contract.windows import InputFrame
from .scenes import CutDetector

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_END: Any = object()


def live_inputs(
    frames: Iterable[np.ndarray], times: tuple[Fraction, ...], scene_threshold: float | None
) -> Iterator[InputFrame | None]:
    """Yield frames as inputs as soon as they come, and None where a scene ends: at detected cuts, and at the end.

    frames: (3, h, w), RGB: floats in [0, 1], or uint8 or uint16, of which the largest value is white.
    Raises RequestError for other frames.
    """
    detector = CutDetector(scene_threshold)
    for frame in frames:
        current = as_frame(frame)
        if detector.is_cut(current):
            yield None
        yield InputFrame(current, times)
    yield None


async def run_in_thread(
    generate: Callable[[Iterable[_In]], Iterator[_Out]], inputs: AsyncIterable[_In] | Iterable[_In]
) -> AsyncGenerator[_Out]:
    """Yield the results of `generate(inputs)`, which runs in a thread of its own.

    One result is computed ahead while the caller handles the one before, and inputs are taken when the generator asks
    for them. An error of the generator or of the inputs is raised here. When the caller is cancelled or closes this
    generator, a pending input is cancelled, and the thread ends after the result that it computes.
    """
    loop = asyncio.get_running_loop()
    bridge: _Bridge[_In] | None = None
    if isinstance(inputs, AsyncIterable):
        inputs = bridge = _Bridge(inputs, loop)
    results = _results(generate, inputs)
    executor = ThreadPoolExecutor(1, "stvsr-frames")
    upcoming = loop.run_in_executor(executor, next, results, _END)
    try:
        while (result := await upcoming) is not _END:
            upcoming = loop.run_in_executor(executor, next, results, _END)
            yield result
            del result  # or it would live until the next one
    finally:
        if bridge is not None:
            bridge.stop()
        try:
            await _finish(upcoming, loop.run_in_executor(executor, results.close))
        finally:
            executor.shutdown()
            if bridge is not None:
                await bridge.close()


def _results(generate: Callable[[Iterable[_In]], Iterator[_Out]], inputs: Iterable[_In]) -> Generator[_Out]:
    yield from generate(inputs)


async def _finish(*futures: "asyncio.Future[Any]") -> None:
    """Wait until futures are done, whatever their results are; a cancellation meanwhile is raised afterwards."""
    cancelled: asyncio.CancelledError | None = None
    waiting = asyncio.gather(*futures, return_exceptions=True)
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


class _Bridge(Generic[_In]):
    """An iterator for a thread over an asynchronous iterable of an event loop."""

    def __init__(self, inputs: AsyncIterable[_In], loop: asyncio.AbstractEventLoop) -> None:
        self._inputs: AsyncIterator[_In] = aiter(inputs)
        self._loop = loop
        self._lock = threading.Lock()
        self._reading = asyncio.Lock()
        self._pending: Future[Any] | None = None
        self._stopped = False

    def __iter__(self) -> Iterator[_In]:
        return self

    def __next__(self) -> _In:
        with self._lock:
            if self._stopped:
                raise CancelledError
            self._pending = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        item = self._pending.result()
        if item is _END:
            raise StopIteration
        return item

    def stop(self) -> None:
        """Let the thread's wait for an input, now and later, raise CancelledError."""
        with self._lock:
            self._stopped = True
            if self._pending is not None:
                self._pending.cancel()

    async def close(self) -> None:
        """Close the inputs, if they are a generator."""
        if isinstance(self._inputs, AsyncGenerator):
            async with self._reading:  # a cancelled wait for an input may still be ending
                await self._inputs.aclose()

    async def _next(self) -> Any:
        async with self._reading:
            return await anext(self._inputs, _END)
