"""The work of a stream worker: streams of frames, several at once, through sessions that stay open."""

import asyncio
import functools
import signal
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ..backends.options import Backend
from ..contract.bundle import MANIFEST, Bundle, find_bundles, named_bundles
from ..contract.errors import MediaError, RequestError, StvsrError
from ..pipeline.chain import Chain
from ..pipeline.live import live_inputs, run_in_thread
from ..pipeline.pool import UpscalerPool
from ..pipeline.run import Clock
from .frame_options import FrameOptions
from .payloads import PayloadReader, PayloadWriter

UNDER_WAY = 2  # frames of a stream in each direction that the receiver has not taken yet


@dataclass(frozen=True)
class StreamLimits:
    """The limits of a worker, and the models that it opens at once."""

    most_pixels: int  # of an input frame
    most_frame_bytes: int  # of a new frame
    batch: int = 1  # windows of several streams that are computed at once
    warm: tuple[str, ...] = ()


def serve_streams(limits: StreamLimits, connection: Connection, backend: Backend) -> None:
    """Run streams that come over a connection until it closes: the main function of a worker, with limits before.

    Messages to it are ("open", (stream, options)), ("frame", (stream, payload)), ("end", stream), ("sent", stream) when
    a new frame was taken, and ("close", stream). It answers ("waiting", stream) when it can do nothing without another
    input frame, ("taken", stream) for each of them, ("opened", (stream, width, height, times)) before the first new
    frame, ("frame", (stream, payload, seconds)) with the seconds in which frames were computed so far, and at the end
    ("done", stream) or ("failed", (stream, code, sentence)).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends its workers
    with UpscalerPool(batch=limits.batch) as pool:
        worker = _StreamWorker(limits, connection, backend, pool)
        for model in limits.warm:
            for bundle in find_bundles(model):
                pool.release(pool.get(bundle, backend, None, None))
        asyncio.run(worker.run())


@dataclass
class _Stream:
    """A stream, as its worker sees it."""

    number: int
    options: FrameOptions
    inputs: "asyncio.Queue[bytes | None]" = field(default_factory=asyncio.Queue)  # None: the last frame was there
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(UNDER_WAY))
    writer: PayloadWriter = field(default_factory=lambda: PayloadWriter(UNDER_WAY))
    task: "asyncio.Task[None] | None" = None


class _StreamWorker:
    def __init__(self, limits: StreamLimits, connection: Connection, backend: Backend, pool: UpscalerPool) -> None:
        self._limits, self._connection, self._backend, self._pool = limits, connection, backend, pool
        self._streams: dict[int, _Stream] = {}
        self._readers: dict[int, PayloadReader] = {}  # of the thread that receives

    async def run(self) -> None:
        """Take messages until the connection closes."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "stvsr-messages") as reader:
            while (message := await loop.run_in_executor(reader, self._receive)) is not None:
                self._take(*message)
        tasks = [stream.task for stream in self._streams.values() if stream.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _receive(self) -> tuple[str, Any] | None:
        try:
            kind, value = self._connection.recv()
            if kind == "frame":
                number, payload = value
                value = number, self._readers[number].unpack(self._connection, payload)
        except (EOFError, OSError):
            return None
        if kind == "open":
            self._readers[value[0]] = PayloadReader()
        elif kind == "close":
            self._readers.pop(value).close()
        return kind, value

    def _take(self, kind: str, value: Any) -> None:
        if kind == "open":
            number, options = value
            stream = self._streams[number] = _Stream(number, options)
            stream.task = asyncio.create_task(self._serve(stream))
            return
        number, data = value if kind == "frame" else (value, None)
        if (stream_or_none := self._streams.get(number)) is None:  # it has ended already
            return
        if kind == "sent":
            stream_or_none.room.release()
        elif kind == "close" and stream_or_none.task is not None:
            stream_or_none.task.cancel()
        else:
            stream_or_none.inputs.put_nowait(data)

    async def _serve(self, stream: _Stream) -> None:
        loop = asyncio.get_running_loop()

        def announce(*facts: Any) -> None:
            loop.call_soon_threadsafe(self._send, "opened", (stream.number, *facts))

        compute = functools.partial(self._compute, stream.options, announce)
        try:
            async with aclosing(run_in_thread(compute, self._inputs(stream))) as frames:
                async for data, seconds in frames:
                    await stream.room.acquire()
                    payload = stream.writer.pack(data)
                    self._send("frame", (stream.number, payload, seconds))
                    stream.writer.send_file(self._connection, payload)
            self._send("done", stream.number)
        except StvsrError as error:
            code = {RequestError: "bad-request", MediaError: "unreadable"}.get(type(error), "failed")
            self._send("failed", (stream.number, code, str(error)))
        except Exception:
            traceback.print_exc()
            sentence = "The frames cannot be computed: look for the cause in the server's log."
            self._send("failed", (stream.number, "failed", sentence))
        finally:
            del self._streams[stream.number]
            stream.writer.close()

    async def _inputs(self, stream: _Stream) -> AsyncIterator[bytes]:
        while True:
            if stream.inputs.empty():
                self._send("waiting", stream.number)
            data = await stream.inputs.get()
            if data is None:
                return
            self._send("taken", stream.number)
            yield data

    def _send(self, kind: str, value: Any) -> None:
        try:
            self._connection.send((kind, value))
        except OSError:  # the server has ended, which the next message tells
            return

    def _compute(
        self, options: FrameOptions, announce: Callable[..., None], inputs: Iterable[bytes]
    ) -> Iterator[tuple[bytes, float]]:
        """Yield each new frame of a stream and the seconds in which frames were computed, in a thread of its own."""
        coded = iter(inputs)
        first = next(coded, None)
        if first is None:
            return
        frame_format, clock = options.frame_format, Clock()
        frame, bits = self._decode(options, first)
        height, width = frame.shape[1:]
        passes, times = options.plan(_bundles(options.model), (height, width))
        new_height, new_width = passes[-1].size
        if new_height * new_width * frame_format.pixel_bytes > self._limits.most_frame_bytes:
            raise RequestError(
                f"New frames of {new_width}x{new_height} pixels are too large for this server: choose another size."
            )
        announce(new_width, new_height, tuple(str(time) for time in times))

        def decoded() -> Iterator[np.ndarray]:
            yield frame
            while True:
                with clock.idle():
                    data = next(coded, None)
                    if data is None:
                        return
                    rgb, _ = self._decode(options, data)
                if rgb.shape[1:] != (height, width):
                    raise RequestError(
                        f"A frame has {rgb.shape[2]}x{rgb.shape[1]} pixels, and the first one {width}x{height}: send"
                        " frames of one size."
                    )
                yield rgb

        with Chain(passes, self._backend, tile=options.tile, pool=self._pool) as opened:
            results = opened.frames(live_inputs(decoded(), times, options.scene_threshold))
            while True:
                with clock.busy():
                    result = next(results, None)
                if result is None:
                    return
                yield frame_format.encode(result, bits), clock.seconds

    def _decode(self, options: FrameOptions, data: bytes) -> tuple[np.ndarray, int]:
        frame_format = options.frame_format
        width, height = frame_format.size(data)
        if width * height > self._limits.most_pixels:
            raise RequestError(
                f"A frame has {width}x{height} pixels, and this server takes {self._limits.most_pixels} pixels: make it"
                " smaller."
            )
        return frame_format.decode(data)


def _bundles(model: str) -> tuple[Bundle, ...]:
    """Return the bundles of a model, which are read again when they have changed."""
    folders = named_bundles()
    stamps = tuple((folders[name] / MANIFEST).stat().st_mtime_ns for name in model.split("+") if name in folders)
    return _load_bundles(model, stamps)


@functools.lru_cache(16)
def _load_bundles(model: str, stamps: tuple[int, ...]) -> tuple[Bundle, ...]:
    return find_bundles(model)
