"""The priority of threads that a library starts."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_THREADS = "/proc/self/task"


@contextmanager
def keep_priority() -> Iterator[None]:
    """Keep the scheduling of the calling thread over a block, and give it to threads that are started in the block.

    The encoder SVT-AV1 gives its threads, and the one that opens it, the highest real-time priority where it may, as
    root: they would keep all other programs, and the rest of the run, from the processor. Elsewhere than on Linux,
    nothing is done.
    """
    if sys.platform != "linux":
        yield
        return
    scheduling, before = None, set[str]()
    with suppress(OSError):  # in a sandbox, where no thread can change its priority either
        scheduling, before = (os.sched_getscheduler(0), os.sched_getparam(0)), set(os.listdir(_THREADS))
    try:
        yield
    finally:
        if scheduling is not None:
            for thread in (0, *(int(name) for name in set(os.listdir(_THREADS)) - before)):
                with suppress(OSError):  # a thread that has ended
                    if os.sched_getscheduler(thread) != scheduling[0]:
                        os.sched_setscheduler(thread, *scheduling)
