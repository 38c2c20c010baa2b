"""The folder of files that save time when they are there: engines, compiled kernels, what libraries measured.

A file in it may be missing, unreadable or impossible to write: the work is then done again. Engines alone, which take
minutes, are an error if they cannot be written.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

from ..contract.atomic import atomic_path


def cache_folder(name: str) -> Path:
    """Return a folder of the cache, whether or not it exists.

    The cache is the folder STVSR_CACHE, else it is in the folder where this system keeps user caches. Raises
    RuntimeError if the system has no such folder for this user.
    """
    if folder := os.environ.get("STVSR_CACHE"):
        return Path(folder).expanduser() / name
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "stvsr" / name


def writable_folder(name: str) -> Path | None:
    """Return a folder of the cache that exists and can be written, or None."""
    try:
        folder = cache_folder(name)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def read_cached(name: str, file: str) -> bytes:
    """Return the content of a file in a folder of the cache; empty if it cannot be read."""
    try:
        return (cache_folder(name) / file).read_bytes()
    except (OSError, RuntimeError):
        return b""


def write_cached(name: str, file: str, content: bytes) -> None:
    """Write a file in a folder of the cache, whole or not at all; it is left out if it cannot be written."""
    folder = writable_folder(name)
    if folder is None:
        return
    with suppress(OSError), atomic_path(folder / file) as partial:
        partial.write_bytes(content)
