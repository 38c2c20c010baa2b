"""The terminal: consoles, progress bars, and the parsing of options that several commands share."""

import errno
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
from rich.table import Column, Table
from rich.text import Text

from ..engine.contract.cpus import limit_openmp
from ..engine.contract.errors import BackendError, RequestError
from ..engine.contract.interrupts import Interrupted

# Characters that would move the cursor, end the line or turn the direction of the text, and halves of characters.
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST_LINE = 10_000  # characters of a line in a file or pipe


class Terminal(Console):
    """A console that prints text as it is, without markup in brackets or names of emoji.

    Lines are as wide as the terminal, or as COLUMNS; those of files and pipes are as long as what is printed.
    A stream that cannot be written, as on a full disk, is given up: it does not end a run.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if not self.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
            self.width = _LONGEST_LINE

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does; an error of the stream becomes a note on stderr."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            self._give_up(error)

    def print_json(self, json: str | None = None, **options: Any) -> None:
        """Print JSON in ASCII, so that no text in it can control the terminal."""
        super().print_json(json, **{**options, "ensure_ascii": True})

    def on_broken_pipe(self) -> None:
        """Give the stream up: rich would end the program, and discard its standard output whichever stream it was."""
        self._give_up(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))

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


def quiet_encoders() -> None:
    """Let SVT-AV1, which has no other way, write errors alone to stderr, unless the user has chosen otherwise."""
    os.environ.setdefault("SVT_LOG", "1")


class Answers:
    """Answers to programs: events of a run, and errors as JSON. `main` begins and ends them.

    json_on: the console that gets an error as JSON; None: people read it.
    sinks: functions that receive each event, by its name and facts.
    only_events: standard error has events and nothing else.
    native_lines_diverted: native code does not write to standard error.
    opened: what is closed when the command has ended.
    """

    def __init__(self) -> None:
        self.begin(errors_as_json=False)

    def begin(self, *, errors_as_json: bool) -> None:
        """Forget what another command has set."""
        self.json_on: Terminal | None = out if errors_as_json else None
        self.sinks: list[Callable[[str, dict[str, Any]], None]] = []
        self.only_events = self.native_lines_diverted = False
        self.opened = ExitStack()
        self._failed = False

    def emit(self, event: str, **facts: Any) -> None:
        """Send an event to every sink."""
        for sink in self.sinks:
            sink(event, facts)

    def fail(self, code: str, sentence: str, exit_code: int) -> None:
        """Answer the first error: by the event `failed`, and as JSON where a command has been asked for JSON."""
        if self._failed:
            return
        self._failed = True
        error = {"code": code, "message": sentence}
        self.emit("failed", error=error, exit_code=exit_code)
        if self.json_on is not None and not (self.json_on is err and self.only_events):
            self.json_on.print_json(json.dumps({"error": error}))

    @property
    def reads_sentences(self) -> bool:
        """Return whether standard error is for people: it has neither events nor JSON."""
        return not self.only_events and self.json_on is not err


answers = Answers()


def headline(text: object, rest: str = "", on: Terminal = out) -> None:
    """Print a line that starts with a bold text."""
    on.print(Text.assemble((plain(text), "bold"), rest), soft_wrap=True)


def note(sentence: object, *, event: bool = True) -> None:
    """Print a note on stderr; it is an event, too, unless that was sent before."""
    if event:
        answers.emit("warning", message=str(sentence))
    if not answers.only_events:
        err.print(Text.assemble(("Note:", "yellow"), f" {plain(sentence)}"), soft_wrap=True)


def complain(sentence: object) -> None:
    """Print an error on stderr, unless programs read it."""
    if answers.reads_sentences:
        err.print(Text.assemble(("Error:", "bold red"), f" {plain(sentence)}"), soft_wrap=True)


def fail(sentence: object, code: str) -> NoReturn:
    """Print an error of a kind, and exit with code 1."""
    complain(sentence)
    answers.fail(code, str(sentence), 1)
    sys.exit(1)


def interrupted(sentence: str, number: int) -> int:
    """Print a sentence about an interrupt by a signal, and return the exit code."""
    if answers.reads_sentences:
        err.print(sentence, soft_wrap=True)
    answers.fail("interrupted", sentence, 128 + number)
    return 128 + number


@contextmanager
def interruptible(consequence: str) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into one sentence about its consequence, and exit code 128 + the signal."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise typer.Exit(interrupted(f"Interrupted: {consequence}.", interrupt_number(interrupt))) from None


def interrupt_number(interrupt: KeyboardInterrupt) -> int:
    """Return the number of the signal behind an interrupt."""
    return interrupt.number if isinstance(interrupt, Interrupted) else Interrupted().number


@contextmanager
def training_extra(extra: str = "training") -> Iterator[None]:
    """Raise BackendError, which names the extra to install, if PyTorch or the exporter is missing.

    PyTorch, if it is imported in the block, starts no more threads than the quota of the control groups allows.
    """
    limit_openmp()
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("torch", "onnx", "onnxscript"):
            raise
        raise BackendError(
            f'This command needs {error.name}, which is not installed: pip install "stvsr[{extra}]".'
        ) from error


def plain(text: object) -> str:
    """Return the text on one line, with characters that control a terminal shown as escapes."""
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], str(text))


def read_pairs(items: list[str]) -> dict[str, str]:
    """Parse KEY=VALUE items. Raises RequestError."""
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise RequestError(f"'{item}' is not an option: write key=value, as in -e preset=slow or -c frames=7.")
        pairs[key] = value
    return pairs


def new_table(*heads: str | Column) -> Table:
    """Return a table without lines, in which words that are too long for a terminal are broken and not cut."""
    columns = (Column(head, overflow="fold") if isinstance(head, str) else head for head in heads)
    return Table(*columns, box=None)


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
