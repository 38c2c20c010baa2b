"""The terminal: consoles, progress bars, and the parsing of options that several commands share."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .engine.contract.errors import BackendError, RequestError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def fail(sentence: str) -> NoReturn:
    """Print an error and exit with code 1."""
    err.print(f"[bold red]Error:[/] {sentence}", soft_wrap=True)
    sys.exit(1)


@contextmanager
def interruptible(consequence: str) -> Iterator[None]:
    """Turn Ctrl-C into one sentence about its consequence, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        err.print(f"Interrupted: {consequence}.")
        raise typer.Exit(130) from None


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
    """Return the text with its rich markup escaped."""
    return escape(str(text))


def read_size(text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT in pixels. Raises RequestError."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise RequestError(f"'{text}' is not a size: write width and height in pixels, as in 1280x720.") from None
    if min(width, height) < 1:
        raise RequestError(f"'{text}' is not a size: width and height must be at least 1.")
    return width, height


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
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
        disable=hidden or not err.is_terminal,
        transient=True,
    )
