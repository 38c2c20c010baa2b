"""Worker threads and bounded channels that stop together as soon as one of them fails."""

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

_Item = TypeVar("_Item")

_WAKE_S = 0.5  # waits are bounded: an unbounded one cannot be interrupted on every platform


class Stopped(Exception):  # noqa: N818 - a signal between threads, not an error
    """The group has stopped: nothing passes through its channels any more."""


class WorkerGroup:
    """Runs functions in threads beside the calling thread. A context manager.

    When a function or the body of the `with` raises (an interrupt included), every wait on a channel ends with
    `Stopped`. Leaving the `with` joins all threads and raises the first error.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._stopped = False
        self._error: BaseException | None = None
        self._leaving = False
        self._catches_interrupts = False

    def spawn(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread of its own."""

        def guarded() -> None:
            try:
                work()
            except Stopped:
                pass
            except BaseException as error:
                self._stop(error)
            finally:
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()

        with self._changed:
            self._running += 1
        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _stop(self, error: BaseException | None) -> None:
        if not self._stopped:
            self._stopped, self._error = True, error
        # Without waiting for the lock: an interrupt may come while this thread holds it. Waits wake every _WAKE_S.
        if self._changed.acquire(blocking=False):
            self._changed.notify_all()
            self._changed.release()

    def __enter__(self) -> Self:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._catches_interrupts = True
            signal.signal(signal.SIGINT, self._interrupt)
        return self

    def _interrupt(self, number: int, frame: object) -> None:
        """End the body at the first Ctrl-C; a later one must not cut short the wait for the threads."""
        error = KeyboardInterrupt()
        self._stop(error)
        if not self._leaving:
            self._leaving = True
            raise error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        if error is not None and not isinstance(error, Stopped):
            self._stop(error)
        # Wait before joining: in Python 3.11 an interrupt within join() marks a running thread as ended.
        with self._changed:
            while self._running:
                self._changed.wait(_WAKE_S)
        for thread in self._threads:
            thread.join()
        if self._catches_interrupts:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._error is not None and self._error is not error:
            raise self._error from None


class Channel(Generic[_Item]):
    """A queue of at most `capacity` items between two threads of a group."""

    def __init__(self, group: WorkerGroup, capacity: int) -> None:
        self._group = group
        self._changed = group._changed
        self._items: deque[_Item] = deque()
        self._capacity = capacity
        self._closed = False

    def put(self, item: _Item) -> None:
        """Append an item, as soon as there is room. Raises Stopped if the group has stopped."""
        with self._changed:
            self._wait(lambda: len(self._items) < self._capacity)
            self._items.append(item)
            self._changed.notify_all()

    def close(self) -> None:
        """Mark the end of the items."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[_Item]:
        """Yield items until the channel is closed and empty. Raises Stopped if the group has stopped."""
        while True:
            with self._changed:
                self._wait(lambda: bool(self._items) or self._closed)
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
            del item  # or it would live until the next one

    def _wait(self, ready: Callable[[], bool]) -> None:
        while not self._group._stopped and not ready():
            self._changed.wait(_WAKE_S)
        if self._group._stopped:
            raise Stopped
