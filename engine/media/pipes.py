"""Pipes: an input that can be read once, by several readers at their own speed, and an output that cannot be sought.

Reading a video opens it several times: to describe it, to decode it, and to copy its other streams. The bytes of a pipe
are kept from its beginning until decoding begins, and from then on as long as a reader has not come so far.
"""

import errno
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakSet

from ..contract.closing import Closing
from ..contract.errors import MediaError

_CHUNK = 1 << 20  # bytes of one read
_WAKE_S = 0.5  # after which a wait for bytes looks for an interrupt
_OTHER_END_S = 20  # seconds within which another program must open a named pipe
_RETRY_S = 0.05
STANDARD = "-"  # the name of the standard input or output


def is_pipe(path: str | Path) -> bool:
    """Return whether a path is the standard input or output, or a pipe, socket or device."""
    if str(path) == STANDARD:
        return True
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def input_name(path: str | Path) -> str:
    """Return the name of an input for a sentence."""
    return "The standard input" if str(path) == STANDARD else str(path)


def _open_input(path: str | Path) -> tuple[int, bytes]:
    """Open a pipe, and return it with its first bytes. Raises OSError, and MediaError if no program writes into it."""
    if not stat.S_ISFIFO(os.stat(path).st_mode):
        return os.open(path, os.O_RDONLY), b""
    file, head = os.open(path, os.O_RDONLY | os.O_NONBLOCK), b""
    try:
        for _ in _tries(path, "writes into"):
            with suppress(BlockingIOError):
                if not (head := os.read(file, _CHUNK)) and not _has_ended(file):
                    continue
            os.set_blocking(file, True)
            return file, head
        raise AssertionError
    except BaseException:
        os.close(file)
        raise


def _has_ended(file: int) -> bool:
    """Return whether a program has opened a named pipe for writing and closed it since `file` was opened."""
    waiting = select.poll()
    waiting.register(file, select.POLLIN)
    return any(event & select.POLLHUP for _, event in waiting.poll(0))


def _open_output(path: str | Path) -> int:
    """Open a pipe for writing. Raises OSError, and MediaError if no program reads it."""
    if not stat.S_ISFIFO(os.stat(path).st_mode):
        return os.open(path, os.O_WRONLY)
    for _ in _tries(path, "reads"):
        try:
            file = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no program reads it yet
                raise
        else:
            os.set_blocking(file, True)
            return file
    raise AssertionError


def _tries(path: str | Path, does: str) -> Iterator[None]:
    """Yield while another program may still open the other end of a pipe, and raise MediaError after that."""
    for _ in range(round(_OTHER_END_S / _RETRY_S)):
        yield
        time.sleep(_RETRY_S)
    raise MediaError(f"{path} is a pipe, and no program {does} it: start that program within {_OTHER_END_S} s.")


class PipeInput(Closing):
    """A pipe that is read once, whose bytes several views share. Raises MediaError if it cannot be opened."""

    def __init__(self, path: str | Path) -> None:
        self.name = input_name(path)
        try:
            head = b""
            if str(path) == STANDARD:
                self._file = os.dup(sys.stdin.fileno())
            else:
                self._file, head = _open_input(path)
        except OSError as error:
            raise MediaError(f"{self.name} cannot be read ({error.strerror or error}): check the path.") from error
        if os.isatty(self._file):
            os.close(self._file)
            raise MediaError(f"{self.name} is a terminal: pipe a video into it, or name a file.")
        self._data = threading.Lock()  # guards the fields below
        self._waiting = threading.Lock()  # held by the reader that waits for new bytes
        self._chunks: deque[bytes] = deque([head] if head else [])
        self._first = 0  # position of the first byte that is kept
        self._end = len(head)  # position after the last byte that was read
        self._ended = False
        self._keeps_all = True
        self._views: WeakSet[PipeView] = WeakSet()  # a view lives as long as the container that reads it

    def view(self) -> "PipeView":
        """Return a reader of all bytes. Raises MediaError if the first ones are not kept any more."""
        with self._data:
            if self._first:
                raise MediaError(f"{self.name} is a pipe, which can be read only once: save it to a file first.")
            view = PipeView(self)
            self._views.add(view)
            return view

    def forget(self) -> None:
        """Keep only the bytes that a view has not read yet, from now on."""
        with self._data:
            self._keeps_all = False
            self._drop()

    def interrupt(self) -> None:
        """End the reads that wait for bytes, and all later ones, as if the pipe had ended."""
        self._ended = True

    def close(self) -> None:
        """Close the pipe."""
        self.interrupt()
        with self._waiting, self._data:
            self._chunks.clear()
            if self._file >= 0:
                os.close(self._file)
            self._file = -1

    def read(self, view: "PipeView", size: int) -> bytes:
        """Return the next bytes of a view, at most `size`; none at the end."""
        while True:
            with self._data:
                if data := self._slice(view.position, size):
                    view.position += len(data)
                    self._drop()
                    return data
                if self._ended:
                    return b""
            with self._waiting:
                if self._end > view.position or self._ended:
                    continue
                chunk = self._next_chunk()
                with self._data:
                    if chunk:
                        self._chunks.append(chunk)
                        self._end += len(chunk)
                    else:
                        self._ended = True

    def _next_chunk(self) -> bytes:
        while not self._ended:
            with suppress(OSError, ValueError):  # Windows waits for sockets alone
                if not select.select([self._file], [], [], _WAKE_S)[0]:
                    continue
            try:
                return os.read(self._file, _CHUNK)
            except OSError as error:
                raise MediaError(f"{self.name} cannot be read ({error.strerror}).") from error
        return b""

    def _slice(self, position: int, size: int) -> bytes:
        start = self._first
        for chunk in self._chunks:
            if position < start + len(chunk):
                return chunk[position - start : position - start + size]
            start += len(chunk)
        return b""

    def _drop(self) -> None:
        if self._keeps_all:
            return
        needed = min((view.position for view in self._views), default=self._end)
        while self._chunks and self._first + len(self._chunks[0]) <= needed:
            self._first += len(self._chunks.popleft())


class PipeView:
    """A file that reads a pipe from its beginning, for FFmpeg."""

    def __init__(self, pipe: PipeInput) -> None:
        self._pipe = pipe
        self.name = pipe.name
        self.position = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`; none at the end."""
        return self._pipe.read(self, size)


_open: dict[str, PipeInput] = {}  # a path means the same bytes to every reader in this process


def pipe_view(path: str | Path) -> PipeView:
    """Return a reader of a pipe, which is opened if it is not open yet."""
    if str(path) not in _open:
        _open[str(path)] = PipeInput(path)
    return _open[str(path)].view()


def open_pipe(path: str | Path) -> PipeInput | None:
    """Return the pipe of a path if it is open."""
    return _open.get(str(path))


def close_pipe(path: str | Path) -> None:
    """Close the pipe of a path if it is open."""
    pipe = _open.pop(str(path), None)
    if pipe is not None:
        pipe.close()


class PipeOutput:
    """A pipe that an output is written to: what `PartFile` is for a file. Nothing that was written can be taken back.

    Raises MediaError if it cannot be opened, or if it is a terminal.
    """

    def __init__(self, path: str | Path) -> None:
        self._name = "The standard output" if str(path) == STANDARD else str(path)
        with self.media_errors():
            self._file = os.dup(sys.stdout.fileno()) if str(path) == STANDARD else _open_output(path)
        if os.isatty(self._file):
            self.discard()
            raise MediaError(f"{self._name} is a terminal: pipe it into a program, or write a file.")

    @property
    def target(self) -> "PipeOutput":
        """The file as FFmpeg opens it."""
        return self

    def write(self, data: bytes) -> int:
        """Write all of the bytes."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        return len(data)

    def publish(self) -> None:
        """Close the pipe, which tells its reader that the output is complete."""
        self.discard()

    def discard(self) -> None:
        """Close the pipe."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @contextmanager
    def media_errors(self) -> Iterator[None]:
        """Turn errors of the system and of FFmpeg into MediaError."""
        from av.error import FFmpegError  # others ask only which path is a pipe

        try:
            yield
        except (OSError, FFmpegError) as error:
            if error.errno == errno.EPIPE:
                raise MediaError(
                    f"{self._name} was closed by the program that reads it, before the end of the video: see why it"
                    " ended."
                ) from error
            reason = error.strerror or str(error)
            raise MediaError(f"{self._name} cannot be written ({reason}): check the codec and options.") from error
