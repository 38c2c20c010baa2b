"""Write a file under a hidden temporary name, and rename it when it is complete."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from ..contract.errors import MediaError
from ..contract.leftovers import Unfinished, remove_leftovers
from ..contract.shortage import describe_shortage


class PartFile:
    """An unfinished output file at `part`, in the folder of `path` or in `folder`; end it with `publish` or `discard`.

    `folder` is on the same file system. The constructor creates the file. Raises MediaError if the folder is missing or
    cannot be written, if `path` is the source itself, or if `path` exists and `overwrite` is false.
    """

    def __init__(self, path: Path, *, source: Path | None, overwrite: bool, folder: Path | None = None) -> None:
        self.path = path
        self._overwrite = overwrite
        if not path.parent.is_dir():
            raise MediaError(f"The folder {path.parent} does not exist: create it first.")
        if path.is_dir():
            raise MediaError(f"{path} is a folder: choose the name of a file.")
        if path.exists():
            if source is not None and source.exists() and path.samefile(source):
                raise MediaError(f"{path} is the input itself: choose another output.")
            if not overwrite:
                raise MediaError(f"{path} already exists: choose another output, or allow overwriting.")
        remove_leftovers(folder or path.parent)
        with self.media_errors():
            self._unfinished = Unfinished(path, folder)
        self.part = self._unfinished.path

    def publish(self) -> None:
        """Rename the finished file to `path`.

        Raises MediaError if `path` has been created since and `overwrite` is false.
        """
        with self.media_errors():
            self._rename()
        self._unfinished.release()

    def discard(self) -> None:
        """Delete the unfinished file."""
        self.part.unlink(missing_ok=True)
        self._unfinished.release()

    def _rename(self) -> None:
        if self._overwrite:
            os.replace(self.part, self.path)
            return
        try:
            os.link(self.part, self.path)  # fails if the file exists, where a rename would replace it
        except FileExistsError:
            raise self._created_since() from None
        except OSError:  # the file system has no hard links
            if self.path.exists():
                raise self._created_since() from None
            os.rename(self.part, self.path)
            return
        self.part.unlink()

    @contextmanager
    def media_errors(self) -> Iterator[None]:
        """Turn errors of the system and of FFmpeg into MediaError."""
        try:
            yield
        except (OSError, av.error.FFmpegError) as error:
            if error.errno == errno.ENOSPC:
                raise MediaError(f"The disk of {self.path.parent} is full: free some space and run again.") from error
            if error.errno != errno.EAGAIN and (shortage := describe_shortage(error)) is not None:
                raise MediaError(f"{self.path} cannot be written. {shortage}") from error
            reason = error.strerror or str(error)
            raise MediaError(
                f"{self.path} cannot be written ({reason}): check its folder, codec and options."
            ) from error

    def _created_since(self) -> MediaError:
        return MediaError(f"{self.path} was created by another program meanwhile: choose another output.")
