"""A limit on the memory of a process, for workers that decode what strangers send. Linux alone has one that holds."""

import sys
from pathlib import Path

from ..contract.errors import BackendError, RequestError
from ..contract.shortage import is_of_memory

LEAST_BYTES = 512 << 20  # of a worker: its libraries and a network take half of it
OUT_OF_MEMORY = "worker-memory"  # the code of a task that needs more
_REMEDY = "ask for a smaller size, or for smaller tiles"
_NEAR = 0.8  # of the limit: some libraries do not name a lack of memory as the reason of their errors


def check_limit(most_bytes: int) -> None:
    """Raise RequestError for a limit that leaves no room to work, and BackendError where there is none."""
    if sys.platform != "linux":
        raise BackendError("The memory of workers can be limited on Linux alone: leave out --worker-memory.")
    if most_bytes < LEAST_BYTES:
        raise RequestError(
            f"A worker cannot run in {show_bytes(most_bytes)}: give it {show_bytes(LEAST_BYTES)} or more."
        )


def limit_memory(most_bytes: int) -> None:
    """Limit the memory of this process for good.

    It is memory of its own that it may write to; files that are mapped and address space that is reserved do not count.
    """
    import resource  # which Windows lacks

    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))


def describe_limit(error: BaseException, needs: str) -> str | None:
    """Return a sentence about the limit of this process if an error comes from it, or may; else None.

    `needs` begins the sentence, as in "The video needs".
    """
    if sys.platform != "linux":
        return None
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY:
        return None
    if is_of_memory(error):
        return f"{needs} more memory than a worker has ({show_bytes(most)}): {_REMEDY}."
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    if used < _NEAR * most:
        return None
    return (
        f"{error} Nearly all memory of the worker ({show_bytes(most)}) is in use, which may be the reason: {_REMEDY}."
    )


def show_bytes(size: int) -> str:
    """Return a size as an option has it, such as 512M."""
    return f"{size >> 30}G" if size % (1 << 30) == 0 else f"{size / (1 << 20):.0f}M"
