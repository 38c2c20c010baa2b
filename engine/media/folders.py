"""Folders of files, on this machine or at an address such as s3://bucket/prefix, which fsspec opens.

A file in a folder appears as a whole or not at all. Credentials and the server of an address come from the environment
and the configuration files of its library; for s3:// these are those of boto3.
"""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ..contract.atomic import atomic_path, sync_file
from ..contract.errors import BackendError, RequestError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://.")


class Folder(Protocol):
    """Files by their names. Every method raises an OSError if the folder cannot be used."""

    def __str__(self) -> str:
        """Return the path or the address."""

    def create(self) -> None:
        """Create the folder, in a folder that exists, unless it exists."""

    def exists(self, name: str) -> bool:
        """Return whether there is a file."""

    def names(self) -> list[str]:
        """Return the names of the files and folders in it, sorted; none if it does not exist."""

    def read(self, name: str) -> bytes:
        """Return the content of a file. Raises FileNotFoundError if there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Write a small file; processes may write the same one at the same time."""

    def path(self, name: str) -> Path:
        """Return the path on this machine at which a file is written, before `keep`, and found after `fetch`."""

    def keep(self, name: str) -> None:
        """Make the file at `path` part of the folder: it is complete, and survives the end of the machine."""

    def fetch(self, name: str) -> Path:
        """Bring a file to its `path` on this machine. Raises FileNotFoundError if there is none."""

    def put(self, source: Path, name: str) -> None:
        """Copy a file of this machine into the folder."""

    def remove(self) -> None:
        """Delete the folder with all that it contains, as far as possible."""


def is_remote(address: str | Path | None) -> bool:
    """Return whether text is an address, not a path of this machine."""
    return isinstance(address, str) and _ADDRESS.match(address) is not None


def open_folder(address: str | Path, work: Path) -> Folder:
    """Return the folder at a path or an address; files of an address are copied to the folder `work` for use.

    Raises RequestError or BackendError for an address that cannot be opened here.
    """
    return RemoteFolder(str(address), work) if is_remote(address) else LocalFolder(Path(address))


def split_address(address: str | Path) -> tuple[str | Path, str]:
    """Return the folder of a file and its name. Raises RequestError for an address that names no file."""
    if not is_remote(address):
        return Path(address).absolute().parent, Path(address).name
    folder, _, name = str(address).rpartition("/")
    if not name or not is_remote(folder):
        raise RequestError(f"{address} names no file: write it as in s3://bucket/folder/clip.mp4.")
    return folder, name


class LocalFolder:
    """A folder of this machine, or one that machines share by their file systems."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    def create(self) -> None:
        """Create the folder."""
        self._folder.mkdir(exist_ok=True)

    def exists(self, name: str) -> bool:
        """Return whether there is a file."""
        return self.path(name).exists()

    def names(self) -> list[str]:
        """Return the names of the files and folders."""
        return sorted(path.name for path in self._folder.iterdir()) if self._folder.is_dir() else []

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return self.path(name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Write a small file; it is on the disk before it has its name."""
        with atomic_path(self.path(name), sync=True) as partial:
            partial.write_bytes(content)

    def path(self, name: str) -> Path:
        """Return the path of a file."""
        return self._folder / name

    def keep(self, name: str) -> None:
        """Wait until the file is on the disk."""
        sync_file(self.path(name))

    def fetch(self, name: str) -> Path:
        """Return the path of a file."""
        if not self.exists(name):
            raise FileNotFoundError(errno.ENOENT, "No such file", str(self.path(name)))
        return self.path(name)

    def put(self, source: Path, name: str) -> None:
        """Copy a file into the folder."""
        with atomic_path(self.path(name), sync=True) as partial:
            shutil.copyfile(source, partial)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)


class RemoteFolder:
    """A folder at an address in a store of objects, which is but the beginning of their names."""

    def __init__(self, address: str, work: Path) -> None:
        self._address, self._work = address.rstrip("/"), work
        self._files, self._root = _open_address(self._address)

    def __str__(self) -> str:
        return self._address

    def create(self) -> None:
        """Do nothing: it exists when it has a file, and a bucket that is missing is not created by mistake."""

    def exists(self, name: str) -> bool:
        """Return whether there is a file."""
        with _os_errors():
            return bool(self._files.exists(self._at(name)))

    def names(self) -> list[str]:
        """Return the names of the files and folders."""
        try:
            with _os_errors():
                found = self._files.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        return sorted(name for path in found if (name := path.rstrip("/").rpartition("/")[2]))

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        with _os_errors():
            return bytes(self._files.cat_file(self._at(name)))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        with _os_errors():
            self._files.pipe_file(self._at(name), content)

    def path(self, name: str) -> Path:
        """Return the path of a file's copy on this machine."""
        self._work.mkdir(parents=True, exist_ok=True)
        return self._work / name

    def keep(self, name: str) -> None:
        """Upload a file."""
        self.put(self.path(name), name)

    def fetch(self, name: str) -> Path:
        """Download a file."""
        with atomic_path(self.path(name)) as partial, _os_errors():
            self._files.get_file(self._at(name), str(partial))
        return self.path(name)

    def put(self, source: Path, name: str) -> None:
        """Upload a file of this machine."""
        with _os_errors():
            self._files.put_file(str(source), self._at(name))

    def remove(self) -> None:
        """Delete every file below the address, as far as possible."""
        try:
            with _os_errors():
                self._files.rm(self._root, recursive=True)
        except OSError:
            pass  # it may be deleted by another process at the same time

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _open_address(address: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address, and its path there."""
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise BackendError(f'{address} needs fsspec, which is not installed: pip install "stvsr[s3]".') from error
    try:
        # Other processes and machines write there, so what it contains is asked for each time.
        files, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        raise BackendError(f'{address} cannot be opened here ({error}): pip install "stvsr[s3]" for s3://.') from error
    except ValueError as error:
        raise RequestError(f"{address} cannot be opened ({error}): name a folder, or an address as s3://.") from error
    return files, str(root).rstrip("/")


@contextmanager
def _os_errors() -> Iterator[None]:
    """Turn the errors of a file system's library into OSError; it has tried again by then, where that may help."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise
        code = errno.ENOENT if isinstance(error, FileNotFoundError) else getattr(error, "errno", None) or errno.EIO
        raise OSError(code, str(error) or type(error).__name__) from error  # of the class that has this code
