"""Read files that come from others: regular files alone, up to a size."""

import errno
import os
import stat
from pathlib import Path


class UnfitFileError(OSError):
    """A file is not a regular one, or it is larger than its reader accepts; `strerror` says which."""


def read_file(path: Path, most_bytes: int) -> bytes:
    """Return the contents of a regular file, which links may lead to.

    A pipe or a device is not waited for, and no more than `most_bytes` are read. Raises OSError; its kind
    `UnfitFileError` for another kind of file and for one that is larger.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        check_file(status, path, most_bytes)
        return file.read(status.st_size)


def check_file(status: os.stat_result, path: Path, most_bytes: int) -> None:
    """Raise OSError unless a file's status is that of a regular file of at most `most_bytes`."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise UnfitFileError(errno.EINVAL, "it is a pipe or a device and not a regular file", str(path))
    if status.st_size > most_bytes:
        raise UnfitFileError(errno.EFBIG, f"it is larger than {most_bytes / (1 << 20):g} MiB", str(path))
