"""Write files and folders that appear as a whole or not at all."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import RequestError
from .leftovers import Unfinished, remove_leftovers, temporary_path

if sys.platform != "win32":
    import fcntl


@contextmanager
def atomic_path(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an error.

    An existing file is replaced. The temporary name is unique, so several processes can write the same file at the
    same time. After an error the temporary file is removed and an existing file stays as it was. With `sync`, the
    contents are on the disk before the file has its name, so that a loss of power cannot leave an empty file.
    """
    partial = temporary_path(path)
    try:
        yield partial
        if sync:
            sync_file(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let no other block like this one run for a file, which the block reads and replaces.

    Where there are no locks, as on Windows and on some network file systems, the blocks run at once. Raises OSError for
    a file that does not exist.
    """
    descriptor = _lock(path)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    """Return a descriptor that holds the lock of a file, under its present name."""
    while True:
        descriptor = os.open(path, os.O_RDONLY)
        if sys.platform != "win32":
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
            return descriptor
        os.close(descriptor)  # the file was replaced while this one waited


def sync_file(path: Path) -> None:
    """Wait until a file's contents are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`, which is deleted at the end of the block.

    Those that killed processes have left there are deleted too.
    """
    remove_leftovers(path.parent)
    unfinished = Unfinished(path, is_folder=True)
    try:
        yield unfinished.path
    finally:
        shutil.rmtree(unfinished.path, ignore_errors=True)
        unfinished.release()


@contextmanager
def new_folder(folder: Path, content: str, overwrite: bool, may_replace: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield an empty temporary folder, which is renamed to `folder` if the block ends without an error.

    If the block raises, the temporary folder is deleted and `folder` stays as it was. Raises RequestError if `folder`
    exists and is not empty, unless `overwrite` is set and `may_replace` accepts the folder. `content` names for the
    message what it then holds, such as "a bundle".
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not overwrite:
            raise RequestError(f"{folder} exists already; name another folder or pass --overwrite.")
        if not (folder.is_dir() and may_replace(folder)):
            raise RequestError(
                f"{folder} contains something other than {content} and is not overwritten; name another folder."
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder) as temporary:
        partial, replaced = temporary / folder.name, temporary / "replaced"
        partial.mkdir()
        yield partial
        if folder.exists():
            folder.rename(replaced)
        try:
            partial.rename(folder)
        except OSError:
            with suppress(OSError):
                replaced.rename(folder)
            raise
