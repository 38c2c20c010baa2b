"""Write files that appear as a whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .leftovers import unfinished_path


@contextmanager
def atomic_path(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an error.

    An existing file is replaced. The temporary name is unique, so several processes can write the same file at the
    same time. After an error the temporary file is removed and an existing file stays as it was. With `sync`, the
    contents are on the disk before the file has its name, so that a loss of power cannot leave an empty file.
    """
    partial = unfinished_path(path)
    try:
        yield partial
        if sync:
            sync_file(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Wait until a file's contents are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
