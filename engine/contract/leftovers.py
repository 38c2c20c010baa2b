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


def temporary_path(path: Path) -> Path:
    """Return a new hidden name beside `path`, with its suffix, for a moment's work: nobody else removes such a file."""
    return path.with_name(_hidden_name(path, f"{secrets.token_hex(4)}.part"))


class Unfinished:
    """A new unfinished file, or a folder if `is_folder` is true, at `path`, which other processes leave alone.

    It has a hidden name and the suffix of `final`, and lies in the folder of `final` or in `folder`. Rename or delete
    it, and `release` it then. Raises OSError.
    """

    def __init__(self, final: Path, folder: Path | None = None, *, is_folder: bool = False) -> None:
        folder, token = folder or final.parent, secrets.token_hex(8)
        self.path = folder / _hidden_name(final, f"{token}.part")
        # Until it is locked it has a name that nobody removes.
        new = folder / _hidden_name(final, f"{token}.new")
        if is_folder:
            new.mkdir()
        else:
            new.touch(exist_ok=False)
        self._descriptor: int | None = None
        try:
            if sys.platform != "win32":
                self._descriptor = os.open(new, os.O_RDONLY)
                with suppress(OSError):  # a file system without locks: nothing is removed there either
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(self.path)
        except BaseException:
            self.release()
            new.rmdir() if is_folder else new.unlink()
            raise

    def release(self) -> None:
        """Release the lock. A second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _hidden_name(path: Path, end: str) -> str:
    """Return a hidden name with the suffix of `path` that is not too long."""
    stem, end = path.stem, f".{end}{path.suffix}"
    while len(os.fsencode(f".{stem}{end}")) > _LONGEST_NAME:
        stem = stem[:-1]
    return f".{stem}{end}"


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
