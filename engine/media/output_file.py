"""The base class of outputs that appear as a whole or not at all, whatever is written."""

from contextlib import suppress
from types import TracebackType
from typing import Self

from av.container import OutputContainer

from .partfile import UnfinishedOutput


class OutputFile:
    """A file that is being written: a context manager that leaves the complete file, or no file after an error.

    Subclasses set what `_open` needs before they call this constructor, which calls it.
    """

    def __init__(self, file: UnfinishedOutput) -> None:
        self._file = file
        self._output: OutputContainer | None = None
        try:
            with self._file.media_errors():
                self._open()
        except BaseException:
            self._abandon()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._abandon()
            return
        try:
            with self._file.media_errors():
                self._finish()
            self._publish()
        except BaseException:
            self._abandon()
            raise

    def _open(self) -> None:
        """Open the output, and set up its streams."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Write what remains, and close the output."""
        raise NotImplementedError

    def _publish(self) -> None:
        """Give the finished file its name."""
        self._file.publish()

    def _abandon(self) -> None:
        """Close what is open and delete the unfinished file."""
        with suppress(Exception):
            if self._output is not None:
                self._output.close()
        self._file.discard()
