"""Names of unfinished files and folders, and the removal of those that a killed process has left.

Who writes one holds a lock on it, which the system releases with the process. So an unfinished file without a lock is
nobody's, on this machine and on the other machines of a network file system that has locks.
"""

import os
import re
import secrets
import shutil
import sys
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_UNFINISHED = re.compile(r"\..*\.[0-9a-f]{16}\.part(\.\w+)?", re.DOTALL)
_LONGEST_NAME = 255  # bytes, on every common file system


def unfinished_path(path: Path, folder: Path | None = None) -> Path:
    """Return a new hidden name for the unfinished version of `path`, in its folder or in `folder`, with its suffix."""
    stem, end = path.stem, f".{secrets.token_hex(8)}.part{path.suffix}"
    while len(os.fsencode(f".{stem}{end}")) > _LONGEST_NAME:
        stem = stem[:-1]
    return (folder or path.parent) / f".{stem}{end}"


class Claim:
    """A lock on an unfinished file or folder that exists; `release` it when the file has its name or is deleted."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        if sys.platform != "win32":
            self._descriptor = os.open(path, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks: nothing is removed there either
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Release the lock. A second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Delete the unfinished files and folders in `folder` that no process holds. Errors are ignored."""
    if sys.platform == "win32":
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _UNFINISHED.fullmatch(entry.name) and not entry.is_symlink():
                _remove_unlocked(Path(entry.path))


def _remove_unlocked(path: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        finally:
            os.close(descriptor)
