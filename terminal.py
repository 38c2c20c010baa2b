"""The terminal: consoles, progress bars, and the parsing of options that several commands share."""

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from .engine.contract.errors import BackendError, RequestError
from .engine.contract.interrupts import Interrupted

# Characters that would move the cursor, end the line or turn the direction of the text, and halves of characters.
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_RATE = re.compile(r"[^eE]{1,80}([eE][+-]?\d{1,3})?")  # a longer exponent would take all memory


class Terminal(Console):
    """A console that prints text as it is, without markup in brackets or names of emoji.

    A stream that cannot be written, as on a full disk, is given up: it does not end a run.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does; an error of the stream becomes a note on stderr."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            self._give_up(error)

    def print_json(self, json: str | None = None, **options: Any) -> None:
        """Print JSON in ASCII, so that no text in it can control the terminal."""
        super().print_json(json, **{**options, "ensure_ascii": True})

    def _give_up(self, error: OSError) -> None:
        """Discard what is printed from now on, and what is left in the stream's buffer."""
        try:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.file.fileno())
            os.close(nothing)
        except (OSError, ValueError, io.UnsupportedOperation):  # a stream without a descriptor
            pass
        if not self.stderr and error.errno != errno.EPIPE:  # who closes a pipe needs no note
            note(f"Standard output cannot be written ({error.strerror}): what it should show is lost.")


out = Terminal()
err = Terminal(stderr=True)


def protect_streams() -> None:
    """Let the standard streams show characters that their encoding lacks as escapes, in the place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def headline(text: object, rest: str = "") -> None:
    """Print a line on stdout that starts with a bold text."""
    out.print(Text.assemble((plain(text), "bold"), rest), soft_wrap=True)


def note(sentence: object) -> None:
    """Print a note on stderr."""
    err.print(Text.assemble(("Note:", "yellow"), f" {plain(sentence)}"), soft_wrap=True)


def complain(sentence: object) -> None:
    """Print an error on stderr."""
    err.print(Text.assemble(("Error:", "bold red"), f" {plain(sentence)}"), soft_wrap=True)


def fail(sentence: object) -> NoReturn:
    """Print an error and exit with code 1."""
    complain(sentence)
    sys.exit(1)


@contextmanager
def interruptible(consequence: str) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into one sentence about its consequence, and exit code 128 + the signal."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        err.print(f"Interrupted: {consequence}.", soft_wrap=True)
        raise typer.Exit(128 + interrupt_number(interrupt)) from None


def interrupt_number(interrupt: KeyboardInterrupt) -> int:
    """Return the number of the signal behind an interrupt."""
    return interrupt.number if isinstance(interrupt, Interrupted) else Interrupted().number


@contextmanager
def training_extra() -> Iterator[None]:
    """Raise BackendError, which names the extra to install, if PyTorch or the exporter is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("torch", "onnx", "onnxscript"):
            raise
        raise BackendError(
            f'This command needs {error.name}, which is not installed: pip install "stvsr[training]".'
        ) from error


def plain(text: object) -> str:
    """Return the text on one line, with characters that control a terminal shown as escapes."""
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], str(text))


def read_size(text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT in pixels. Raises RequestError."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise RequestError(f"'{text}' is not a size: write width and height in pixels, as in 1280x720.") from None
    if min(width, height) < 1:
        raise RequestError(f"'{text}' is not a size: width and height must be at least 1.")
    return width, height


def read_rate(text: str) -> Fraction:
    """Parse frames per second, a number or a fraction. Raises RequestError."""
    try:
        if not _RATE.fullmatch(text):
            raise ValueError
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise RequestError(
            f"'{text}' is not a frame rate: write a number or a fraction, as in 60 or 60000/1001."
        ) from None
    if rate <= 0:
        raise RequestError(f"'{text}' is not a frame rate: it must be above 0.")
    return rate


def read_pairs(items: list[str]) -> dict[str, str]:
    """Parse KEY=VALUE items. Raises RequestError."""
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise RequestError(f"'{item}' is not an option: write key=value, as in -e preset=slow or -c frames=7.")
        pairs[key] = value
    return pairs


def progress_bar(hidden: bool) -> Progress:
    """Return a progress bar with a note, the elapsed and the remaining time; it is hidden without a terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
        disable=hidden or not err.is_terminal,
        transient=True,
    )
