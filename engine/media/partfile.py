"""A file that is written under a hidden name in its folder, and takes its own name only when it is whole."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from ..contract.errors import MediaError


class PartFile:
    """The unfinished file at `part`, made at once; end it with `publish` or `discard`."""

    def __init__(self, path: Path, *, source: Path | None, overwrite: bool) -> None:
        self.path = path
        self._overwrite = overwrite
        if not path.parent.is_dir():
            raise MediaError(f"The folder {path.parent} does not exist: make it first.")
        if path.is_dir():
            raise MediaError(f"{path} is a folder: name a file.")
        if path.exists():
            if source is not None and source.exists() and path.samefile(source):
                raise MediaError(f"{path} is the input itself: choose another output.")
            if not overwrite:
                raise MediaError(f"{path} is there already: choose another output, or allow it to be overwritten.")
        self.part = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")
        with self.explained():
            self.part.touch(exist_ok=False)

    def publish(self) -> None:
        """Give the file its name, over no other one unless that is allowed."""
        with self.explained():
            if self._overwrite:
                os.replace(self.part, self.path)
                return
            try:
                os.link(self.part, self.path)  # refuses where rename would replace
            except FileExistsError:
                raise self._appeared() from None
            except OSError:  # a file system without links
                if self.path.exists():
                    raise self._appeared() from None
                os.rename(self.part, self.path)
                return
            self.part.unlink()

    def discard(self) -> None:
        """Delete the unfinished file."""
        self.part.unlink(missing_ok=True)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the system's and FFmpeg's errors into ours."""
        try:
            yield
        except (OSError, av.error.FFmpegError) as error:
            if error.errno == errno.ENOSPC:
                raise MediaError(f"The disk of {self.path.parent} is full: make room and run again.") from error
            reason = error.strerror or str(error)
            raise MediaError(
                f"{self.path} cannot be written ({reason}): check its folder, codec and options."
            ) from error

    def _appeared(self) -> MediaError:
        return MediaError(f"{self.path} has appeared meanwhile: choose another output.")
