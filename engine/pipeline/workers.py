"""Worker threads and bounded channels that stop together as soon as one of them fails."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ..contract.errors import BackendError
from ..contract.interrupts import SIGNALS, Interrupted, is_default, record
from ..contract.shortage import describe_shortage

_Item = TypeVar("_Item")

_WAKE_S = 0.5  # waits are bounded: an unbounded one cannot be interrupted on every platform
_END_S = 60.0  # that threads get to end after an error; one that is stuck in a library is left behind


class Stopped(Exception):  # noqa: N818 - a signal between threads, not an error
    """The group has stopped: nothing passes through its channels any more."""


class WorkerGroup:
    """Runs functions in threads beside the calling thread. A context manager.

    When a function or the body of the `with` raises (an interrupt included), every wait on a channel ends with
    `Stopped`. Leaving the `with` joins all threads and raises the first error.

    catches_signals: let signals that ask the program to end stop the group, in the main thread. A generator that holds
        a group must not: it is suspended while other code runs.
    """

    def __init__(self, *, catches_signals: bool = True) -> None:
        self._catches_signals = catches_signals
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._stopped = False
        self._error: BaseException | None = None
        self._leaving = False
        self._spawning = False
        self._handlers: dict[int, Any] = {}  # of signals, before the group caught them

    def spawn(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread of its own. Raises BackendError if no thread can be started."""

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

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._spawning = True  # an interrupt in between would leave a count without a thread
        try:
            with self._changed:
                self._running += 1
            thread.start()
            self._threads.append(thread)
        except (RuntimeError, MemoryError) as error:
            with self._changed:
                self._running -= 1
            raise BackendError(describe_shortage(error) or f"A thread cannot be started: {error}.") from error
        finally:
            self._spawning = False

    def _stop(self, error: BaseException | None) -> None:
        if not self._stopped:
            self._stopped, self._error = True, error
        # Without waiting for the lock: an interrupt may come while this thread holds it. Waits wake every _WAKE_S.
        if self._changed.acquire(blocking=False):
            self._changed.notify_all()
            self._changed.release()

    def end(self) -> None:
        """Stop the group from outside its `with`, where waits raise `Stopped`, and wait for its threads."""
        self._stop(None)
        self._wait_for_threads()

    def _wait_for_threads(self) -> None:
        # Wait before joining: in Python 3.11 an interrupt within join() marks a running thread as ended.
        until = time.monotonic() + _END_S
        with self._changed:
            while self._running and not (self._stopped and time.monotonic() > until):
                self._changed.wait(_WAKE_S)
        if not self._running:
            for thread in self._threads:
                thread.join()

    def __enter__(self) -> Self:
        if self._catches_signals and threading.current_thread() is threading.main_thread():
            for number in filter(is_default, SIGNALS):
                self._handlers[number] = signal.signal(number, self._interrupt)
        return self

    def _interrupt(self, number: int, frame: object) -> None:
        """End the body at the first Ctrl-C; a later one must not cut short the wait for the threads."""
        error = Interrupted(number)
        record(number)
        self._stop(error)
        if not self._leaving and not self._spawning:
            self._leaving = True
            raise error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        if error is not None and not isinstance(error, Stopped):
            self._stop(error)
        self._wait_for_threads()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
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
