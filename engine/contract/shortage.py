"""Recognize shortages of memory, threads, open files and disk space, so that none is taken for a damaged file."""

import errno
import mmap
import re
import sys
from pathlib import Path

if sys.platform != "win32":
    import resource

MEMORY = "There is not enough memory: close other programs, or use smaller tiles (--tile)."
_FILES = "Too many files are open: raise the limit of open files (ulimit -n)."
_THREADS = "No more threads can be started: use fewer (--threads), or raise the limit of processes (ulimit -u)."
_DISK = "The disk is full: free some space and run again."

_BY_NUMBER = {
    errno.ENOMEM: MEMORY,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.EAGAIN: _THREADS,
    errno.ENOSPC: _DISK,
    getattr(errno, "EDQUOT", None): _DISK,
}
_SPARE_BYTES = 64 << 20
# What libraries say without a number.
_BY_TEXT = (
    (re.compile(r"can't start new thread|pthread_create|pthread_setaffinity|thread constructor", re.I), _THREADS),
    (re.compile(r"bad_?alloc|bad allocation|out of memory|alloc\w* memory|failed to map segment", re.I), MEMORY),
    (re.compile(r"too many open files", re.I), _FILES),
    (re.compile(r"no space left on device", re.I), _DISK),
)


def is_memory_short() -> bool:
    """Return whether not even 64 MiB of memory can be had, so that any error of a library may come from it."""
    try:
        mmap.mmap(-1, _SPARE_BYTES).close()
    except OSError:
        return True
    return False


def was_memory_short() -> bool:
    """Return whether the process has come near its limit of memory (ulimit -v), so that any error may come from it.

    Libraries free what they have before they tell of an error, and call a want of memory by other names: a decoder that
    decodes nothing, an encoder that refuses its options.
    """
    if sys.platform != "linux":
        return False
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return False
    peak = re.search(r"VmPeak:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return peak is not None and int(peak[1]) * 1024 > limit - _SPARE_BYTES


def is_of_memory(error: BaseException) -> bool:
    """Return whether an error, or the one it comes from, tells of too little memory."""
    return describe_shortage(error) == MEMORY


def describe_shortage(error: BaseException) -> str | None:
    """Return a sentence about the shortage if an error, or the one it comes from, says so; else None."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError):
            return MEMORY
        if isinstance(seen, OSError) and seen.errno in _BY_NUMBER:
            return _BY_NUMBER[seen.errno]
        for pattern, sentence in _BY_TEXT:
            if pattern.search(str(seen)):
                return sentence
        seen = seen.__cause__ or seen.__context__
    return None
