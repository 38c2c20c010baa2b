"""Streams of frames as asynchronous iterators: input frames go to a worker process, new frames come back."""

import asyncio
import functools
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Self

from ..backends.options import Backend
from ..contract.closing import Closing
from .frame_options import FrameOptions, StreamLimits
from .payloads import UNDER_WAY
from .problems import Problem
from .settings import Settings
from .stream_workers import Link, StreamWorkers

_STATUS = {"bad-request": 422, "unreadable": 400}  # of the errors of streams by their code; else 500


class StreamFacts(NamedTuple):
    """The size of a stream's new frames in pixels, and the times at which they follow each input frame."""

    width: int
    height: int
    times: tuple[str, ...]


class NewFrame(NamedTuple):
    """A new frame in the format of its stream, and the seconds that the stream's frames took so far.

    These are the seconds in which frames were computed, without decoding, encoding and waiting for input frames.
    """

    data: bytes
    seconds: float


class FrameStreams(Closing):
    """Runs streams of frames, at most `settings.most_streams` at once, on worker processes that keep sessions open.

    A context manager that ends the processes. They start with the first stream, or at once if `settings.warm` names
    models, which they open.
    """

    def __init__(self, settings: Settings, backends: Sequence[Backend]) -> None:
        self._most, self._idle_s = settings.most_streams, settings.most_idle_s
        limits = StreamLimits(settings.most_pixels, settings.most_frames_bytes, settings.batch, settings.warm)
        devices = list(dict.fromkeys(backends))  # a worker computes streams in turns, so that a device needs no second
        self._workers = StreamWorkers(
            functools.partial(_serve_streams, limits), devices, settings.task_s, settings.most_worker_bytes
        )
        self._streams: Counter[int] = Counter({number: 0 for number in range(len(devices))})  # by worker
        self._warm = bool(settings.warm)

    def __enter__(self) -> Self:
        if self._warm:
            self._workers.start()
        return self

    def close(self) -> None:
        """End the workers and all streams."""
        self._workers.close()

    def check_room(self) -> None:
        """Raise Problem if there are as many streams as there may be."""
        if self._streams.total() >= self._most:
            raise Problem(429, "busy", "Too many streams of frames are running: try again later.", retry_after="1")

    async def run(
        self, options: FrameOptions, frames: AsyncIterable[bytes], takes_all: bool = False
    ) -> AsyncGenerator[StreamFacts | NewFrame]:
        """Yield the facts of a stream and then its new frames, as they are ready.

        Input frames are taken as the worker needs them, and the worker waits while new frames are not taken, unless the
        caller has room for all of them (`takes_all`), which is faster. A caller that closes the iterator ends the
        stream. Raises Problem, also when the worker waits too long for a frame, and the errors of `frames`.
        """
        self.check_room()
        loop = asyncio.get_running_loop()
        messages: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

        def put_all(arrived: list[tuple[str, tuple[Any, ...]]]) -> None:
            for message in arrived:
                messages.put_nowait(message)

        def deliver(arrived: list[tuple[str, tuple[Any, ...]]]) -> None:
            with suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(put_all, arrived)

        worker = min(self._streams, key=lambda number: self._streams[number])
        self._streams[worker] += 1
        link = self._workers.open(worker, deliver, options, takes_all)
        room = asyncio.Semaphore(UNDER_WAY)
        sending = asyncio.create_task(self._send_frames(link, frames, room, messages))
        self._wake_soon()
        waiting = False
        try:
            while True:
                message = await self._next_message(messages, waiting)
                waiting = message[0] == "waiting"
                match message:
                    case "opened", (width, height, times):
                        yield StreamFacts(width, height, times)
                    case "frame", (data, seconds):
                        yield NewFrame(data, seconds)
                        if not takes_all:
                            self._send(link, "sent")
                    case "taken", _:
                        room.release()
                    case "waiting" | "sent", _:
                        pass
                    case "done", _:
                        return
                    case "failed", (code, sentence):
                        raise Problem(_STATUS.get(code, 500), code, sentence)
                    case "error", error:
                        raise error
                    case _:
                        sentence = "The worker of this stream has ended: try again."
                        raise Problem(503, "worker-ended", sentence, retry_after="1")
        finally:
            self._streams[worker] -= 1
            self._send(link, "close")
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def _send(self, link: Link, kind: str, value: Any = None) -> None:
        self._workers.send(link, kind, value)
        self._wake_soon()

    def _wake_soon(self) -> None:
        """Wake the workers in the next turn of the event loop, for all that is sent in this one."""
        asyncio.get_running_loop().call_soon(self._workers.wake)

    async def _next_message(self, messages: "asyncio.Queue[tuple[str, Any]]", waiting: bool) -> tuple[str, Any]:
        """Return the next message; raise Problem if the worker waits too long for a frame."""
        try:
            async with asyncio.timeout(self._idle_s if waiting else None):
                return await messages.get()
        except TimeoutError:
            raise Problem(408, "idle", f"No frame came for {self._idle_s:g} seconds: open the stream again.") from None

    async def _send_frames(
        self,
        link: Link,
        frames: AsyncIterable[bytes],
        room: asyncio.Semaphore,
        messages: "asyncio.Queue[tuple[str, Any]]",
    ) -> None:
        """Send input frames to the worker; an error of `frames` becomes a message."""
        try:
            async for data in frames:
                await room.acquire()
                self._send(link, "frame", data)
                messages.put_nowait(("sent", None))
            self._send(link, "end")
            messages.put_nowait(("sent", None))
        except Exception as error:
            messages.put_nowait(("error", error))


def _serve_streams(limits: StreamLimits, connection: Connection, backend: Backend) -> None:
    """Run streams as `serve_streams` does: the main function of a worker."""
    from .stream_tasks import serve_streams  # in this process alone: it needs the networks' libraries

    serve_streams(limits, connection, backend)
