"""The work of a stream worker: streams of frames, each in a thread, through sessions that stay open."""

import functools
import signal
import threading
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import numpy as np

from ..backends.options import Backend
from ..contract.bundle import MANIFEST, Bundle, find_bundles, named_bundles
from ..contract.errors import MediaError, RequestError, StvsrError
from ..pipeline.chain import Chain
from ..pipeline.inference import Inference
from ..pipeline.live import live_inputs
from ..pipeline.pool import UpscalerPool
from ..pipeline.run import Clock
from .frame_coding import decode_frame, encode_frame
from .frame_options import FrameOptions, StreamLimits
from .payloads import UNDER_WAY, PayloadReader, PayloadWriter


def serve_streams(limits: StreamLimits, connection: Connection, backend: Backend) -> None:
    """Run streams that come over a connection until it closes: the main function of a worker, with limits before.

    A message to it is ("messages", LIST) of ("open", stream, options), ("frame", stream, payload), and without a value
    ("end", stream, None), "sent" when a new frame was taken, and "close". Its answers are such lists of ("taken",
    stream) for each input frame, ("waiting", stream) when it can do nothing without another one, ("opened", stream,
    width, height, times) before the first new frame, ("frame", stream, payload, seconds) with the seconds in which
    frames were computed so far, and at the end ("done", stream) or ("failed", stream, code, sentence). The files of new
    payloads follow a list.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends its workers
    with UpscalerPool(batch=limits.batch) as pool:
        for model in limits.warm:
            for bundle in find_bundles(model):
                pool.release(pool.get(bundle, backend))
        _StreamWorker(limits, connection, backend, pool).run()


class _StreamWorker:
    """The streams of a worker."""

    def __init__(self, limits: StreamLimits, connection: Connection, backend: Backend, pool: UpscalerPool) -> None:
        self.limits, self.backend, self.pool = limits, backend, pool
        self._connection = connection
        self._lock = threading.Lock()  # of what is sent
        self._streams: dict[int, _Stream] = {}

    def run(self) -> None:
        """Take messages until the connection closes."""
        try:
            while True:
                _, messages = self._connection.recv()
                opened = [self._open(number, value) for kind, number, value in messages if kind == "open"]
                for message in messages:
                    self._take(*message)
                for stream in opened:
                    stream.start()  # now that its first frames are there
        except (EOFError, OSError):
            pass
        for thread in threading.enumerate():
            if isinstance(thread, _Stream):
                thread.close()
                thread.join()

    def send(self, messages: list[tuple[Any, ...]], writer: PayloadWriter) -> None:
        """Send messages of a stream."""
        try:
            with self._lock:
                self._connection.send(("messages", messages))
                for message in messages:
                    if message[0] == "frame":
                        writer.send_file(self._connection, message[2])
        except OSError:  # the server has ended, which the next message tells
            return

    def _open(self, number: int, options: FrameOptions) -> "_Stream":
        self._streams[number] = _Stream(self, number, options)
        return self._streams[number]

    def _take(self, kind: str, number: int, value: Any) -> None:
        stream = self._streams[number]
        match kind:
            case "frame":
                stream.inputs.put(stream.reader.unpack(self._connection, value))
            case "end":
                stream.inputs.put(None)
            case "sent":
                stream.room.release()
            case "close":
                stream.close()
                del self._streams[number]


class _Closed(Exception):  # noqa: N818 - a signal, not an error
    """The server has closed the stream."""


class _Stream(threading.Thread):
    """Computes the new frames of a stream, until it ends or is closed."""

    def __init__(self, worker: _StreamWorker, number: int, options: FrameOptions) -> None:
        super().__init__(name=f"stvsr-stream-{number}", daemon=True)
        self._worker, self._number, self._options = worker, number, options
        self.inputs: SimpleQueue[bytes | None] = SimpleQueue()  # None: there are no more
        self.room = threading.Semaphore(UNDER_WAY)  # for new frames
        self.reader = PayloadReader()  # of the thread that takes messages
        self._writer = PayloadWriter(UNDER_WAY)
        self._messages: list[tuple[Any, ...]] = []  # that wait for the next one that must not wait
        self._closed = False

    def close(self) -> None:
        """End the stream, after the frame that is being computed."""
        self._closed = True
        self.reader.close()
        self.inputs.put(None)
        self.room.release()

    def run(self) -> None:
        """Compute the stream."""
        try:
            for data, seconds in self._compute():
                self.room.acquire()
                if self._closed:
                    return
                self._post("frame", self._writer.pack(data), seconds)
                self._flush()
            self._post("done")
        except _Closed:
            return
        except StvsrError as error:
            code = {RequestError: "bad-request", MediaError: "unreadable"}.get(type(error), "failed")
            self._post("failed", code, str(error))
        except Exception:
            traceback.print_exc()
            self._post("failed", "failed", "The frames cannot be computed: look for the cause in the server's log.")
        finally:
            self._flush()
            self._writer.close()

    def _post(self, kind: str, *values: Any) -> None:
        self._messages.append((kind, self._number, *values))

    def _flush(self) -> None:
        if self._messages and not self._closed:
            self._worker.send(self._messages, self._writer)
        self._messages = []

    def _inputs(self) -> Iterator[bytes]:
        while True:
            if waits := self.inputs.empty():
                self._post("waiting")
                self._flush()
            data = self.inputs.get()
            if self._closed:
                raise _Closed
            if data is None:
                return
            self._post("taken")
            if waits:
                self._flush()
            yield data

    def _compute(self) -> Iterator[tuple[bytes, float]]:
        """Yield each new frame, and the seconds in which frames were computed so far."""
        options, limits, coded, clock = self._options, self._worker.limits, self._inputs(), Clock()
        first = next(coded, None)
        if first is None:
            return
        frame_format = options.frame_format
        frame, bits = self._decode(first)
        height, width = frame.shape[1:]
        passes, times = options.plan(_bundles(options.model), (height, width))
        new_height, new_width = passes[-1].size
        if new_height * new_width * frame_format.pixel_bytes > limits.most_frame_bytes:
            raise RequestError(
                f"New frames of {new_width}x{new_height} pixels are too large for this server: choose another size."
            )
        self._post("opened", new_width, new_height, tuple(str(time) for time in times))
        head = [frame]
        del frame  # or it would live as long as the stream

        def decoded() -> Iterator[np.ndarray]:
            yield head.pop()
            while True:
                with clock.idle():
                    data = next(coded, None)
                    if data is None:
                        return
                    rgb, _ = self._decode(data)
                if rgb.shape[1:] != (height, width):
                    raise RequestError(
                        f"A frame has {rgb.shape[2]}x{rgb.shape[1]} pixels, and the first one {width}x{height}: send"
                        " frames of one size."
                    )
                yield rgb

        inference = Inference(options.tile, preset=options.preset)
        with Chain(passes, self._worker.backend, inference, pool=self._worker.pool) as opened:
            results = opened.frames(live_inputs(decoded(), times, options.scene_threshold))
            while True:
                with clock.busy():
                    result = next(results, None)
                if result is None:
                    return
                data = encode_frame(result, frame_format, bits)
                del result  # or it would live until the next one
                yield data, clock.seconds

    def _decode(self, data: bytes) -> tuple[np.ndarray, int]:
        frame_format, most = self._options.frame_format, self._worker.limits.most_pixels
        width, height = frame_format.size(data)
        if width * height > most:
            raise RequestError(
                f"A frame has {width}x{height} pixels, and this server takes {most} pixels: make it smaller."
            )
        return decode_frame(data, frame_format)


def _bundles(model: str) -> tuple[Bundle, ...]:
    """Return the bundles of a model, which are read again when they have changed."""
    folders = named_bundles()
    stamps = tuple((folders[name] / MANIFEST).stat().st_mtime_ns for name in model.split("+") if name in folders)
    return _load_bundles(model, stamps)


@functools.lru_cache(16)
def _load_bundles(model: str, stamps: tuple[int, ...]) -> tuple[Bundle, ...]:
    return find_bundles(model)
