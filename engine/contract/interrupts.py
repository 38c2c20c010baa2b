"""Signals that end a run: Ctrl-C, SIGTERM and SIGHUP become one exception, which unwinds the run as an error does."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# By number; Windows has no SIGHUP.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_GRACE_S = 5.0  # for cleaning up, in which further signals change nothing
_received: list[tuple[int, float]] = []  # number and time of the first signal, and of the last that was obeyed
_deferred: list[list[int]] = []  # for each block of `deferred` that is open, the signals that wait for its end


class Interrupted(KeyboardInterrupt):
    """A signal has asked the run to end; `number` is the signal's."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def catch_signals() -> None:
    """Let each of `SIGNALS` raise Interrupted in the main thread, unless the process was started to ignore it."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, raise_interrupted)


def raise_interrupted(number: int, frame: FrameType | None = None) -> None:
    """Raise Interrupted, but not again while the first one is still unwinding, and not inside `deferred`."""
    if _deferred:
        _deferred[-1].append(number)
        return
    now = time.monotonic()
    if not _received or now - _received[-1][1] > _GRACE_S:
        _received.append((number, now))
        raise Interrupted(number)


@contextmanager
def deferred() -> Iterator[None]:
    """Let a signal raise Interrupted at the end of the block, which is complete then."""
    waiting: list[int] = []
    _deferred.append(waiting)
    try:
        yield
    finally:
        _deferred.remove(waiting)
    if waiting:
        raise_interrupted(waiting[0])


def record(number: int) -> None:
    """Remember that a signal was received and is obeyed."""
    _received.append((number, time.monotonic()))


def received() -> int | None:
    """Return the number of the first signal that was received, or None.

    An exception can be lost on its way, as Python ignores those of destructors, or become another one during an import.
    """
    return _received[0][0] if _received else None


def is_default(number: int) -> bool:
    """Return whether a signal has the handler of Python or of this module, and none of the host program."""
    return signal.getsignal(number) in (signal.default_int_handler, raise_interrupted)
