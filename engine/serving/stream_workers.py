"""The processes that compute streams of frames, and the thread that owns them and passes messages."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from queue import SimpleQueue
from typing import Any

from ..backends.options import Backend
from ..contract.closing import Closing
from ..pipeline.worker import ENDED, Work, Worker, wait_for_messages
from .logs import log
from .payloads import UNDER_WAY, PayloadReader, PayloadWriter, discard

_POLL_S = 0.5

# Takes the messages of a worker for one stream: the kind and the values of each. It is called in the thread.
Deliver = Callable[[list[tuple[str, tuple[Any, ...]]]], None]


@dataclass(eq=False)
class Link:
    """The link of a stream to its worker; all but the first four fields belong to the thread."""

    number: int
    worker: int
    deliver: Deliver
    takes_all: bool  # the caller takes every new frame at once, and sends no "sent"
    reader: PayloadReader = field(default_factory=PayloadReader)
    writer: PayloadWriter = field(default_factory=lambda: PayloadWriter(UNDER_WAY))
    owed: int = 0  # answers to input frames and to their end
    given: int = 0  # new frames that the caller has not taken


class StreamWorkers(Closing):
    """A worker process for each backend, and the streams that each computes.

    A worker that dies is replaced; its streams get the message ENDED. So does one that is silent for `task_s` seconds
    while it owes an answer: it is killed. `most_bytes` limits the memory of each.
    """

    def __init__(self, work: Work, backends: Sequence[Backend], task_s: float, most_bytes: int | None = None) -> None:
        self._workers = [Worker(work, backend, most_bytes) for backend in backends]
        self._task_s = task_s
        self._count = 0
        self._links: dict[int, Link] = {}  # of the thread
        self._heard: list[float] = []  # when each worker last gave a message, or owed nothing
        self._outbox: SimpleQueue[tuple[Link, str, Any]] = SimpleQueue()
        self._wake_reader, self._wake_writer = Pipe(duplex=False)
        self._woken = threading.Lock()  # held from a wake until the thread has seen it
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the processes, unless they run."""
        if self._thread is None or not (self._thread.is_alive() or self._ending.is_set()):
            self._thread = threading.Thread(target=self._run, name="stvsr-streams")
            self._thread.start()

    def close(self) -> None:
        """End the processes. A second call does nothing."""
        self._ending.set()
        if self._thread is not None:
            self.wake()
            self._thread.join()

    def open(self, worker: int, deliver: Deliver, options: Any, takes_all: bool = False) -> Link:
        """Open a stream on a worker, by its number. Its messages go to `deliver`, until `send` closes it.

        With `takes_all` the caller does not send that it has taken a new frame. The worker learns of the stream after
        the next `wake`.
        """
        self.start()
        self._count += 1
        link = Link(self._count, worker, deliver, takes_all)
        self.send(link, "open", options)
        if self._ending.is_set():
            deliver([(ENDED, ())])
        return link

    def send(self, link: Link, kind: str, value: Any = None) -> None:
        """Send a message to the worker of a stream, with the next `wake`.

        It is "frame" with its bytes, "end", "sent" or "close".
        """
        self._outbox.put((link, kind, value))

    def wake(self) -> None:
        """Let the thread send what there is to send."""
        if self._woken.acquire(blocking=False):
            self._wake_writer.send(None)

    def _run(self) -> None:
        with ExitStack() as stack:
            stack.callback(self._end_all_streams)
            for worker in self._workers:
                stack.enter_context(worker.running())
                worker.task = "streams"  # it is never idle
            self._heard = [time.monotonic()] * len(self._workers)
            while not self._ending.is_set():
                for worker, kind, value in wait_for_messages(self._workers, _POLL_S, self._wake_reader):
                    self._take(self._workers.index(worker), kind, value)
                if self._woken.locked():
                    self._woken.release()  # what is put into the outbox from now on wakes the thread again
                self._send_all()
                self._end_silent_workers()

    def _send_all(self) -> None:
        """Send what is in the outbox, in one list to each worker."""
        lists: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
        while not self._outbox.empty():
            link, kind, value = self._outbox.get()
            if kind == "open":
                self._links[link.number] = link
            if link.number in self._links:
                link.owed += kind in ("frame", "end")
                link.given -= kind == "sent"
                lists[link.worker].append((kind, link.number, link.writer.pack(value) if kind == "frame" else value))
        for worker, messages in lists.items():
            connection = self._workers[worker].connection
            with suppress(OSError):  # the worker has ended, which its next message tells
                connection.send(("messages", messages))
                for kind, number, value in messages:
                    if kind == "frame":
                        self._links[number].writer.send_file(connection, value)
            for kind, number, _ in messages:
                if kind == "close":
                    self._forget(self._links[number])

    def _take(self, worker: int, kind: str, messages: Any) -> None:
        """Deliver the messages of a worker, at once to each stream."""
        self._heard[worker] = time.monotonic()
        if kind == ENDED:
            log.warning("stream worker ended", extra={"reason": f"exit code {messages}"})
            self._end_streams([worker])
            return
        lists: dict[Link, list[tuple[str, tuple[Any, ...]]]] = defaultdict(list)
        try:
            for kind, number, *values in messages:
                link = self._links.get(number)
                if kind == "frame":
                    connection = self._workers[worker].connection
                    if link is None:
                        discard(connection, values[0])
                    else:
                        values[0] = link.reader.unpack(connection, values[0])
                if link is not None:  # or the caller has closed it
                    link.owed = 0 if kind == "failed" else link.owed - (kind in ("taken", "done"))
                    if kind == "frame":
                        link.given += 1
                        if link.takes_all:
                            self._outbox.put((link, "sent", None))  # which the thread sends before it waits again
                    lists[link].append((kind, tuple(values)))
        except (EOFError, OSError):  # the worker has ended, which its next message tells
            return
        for link, list_of_link in lists.items():
            link.deliver(list_of_link)

    def _end_all_streams(self) -> None:
        while not self._outbox.empty():
            link, kind, _ = self._outbox.get()
            if kind == "open":
                self._links[link.number] = link
        self._end_streams(range(len(self._workers)))

    def _end_streams(self, workers: Sequence[int]) -> None:
        for link in [link for link in self._links.values() if link.worker in workers]:
            self._forget(link)
            link.deliver([(ENDED, ())])

    def _forget(self, link: Link) -> None:
        del self._links[link.number]
        link.reader.close()
        link.writer.close()

    def _end_silent_workers(self) -> None:
        now = time.monotonic()
        for number, worker in enumerate(self._workers):
            owing = [link for link in self._links.values() if link.worker == number and link.owed > 0]
            if all(link.given >= UNDER_WAY for link in owing):
                self._heard[number] = now
            elif now - self._heard[number] > self._task_s:
                self._heard[number] = now
                worker.kill()
