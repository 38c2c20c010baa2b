"""What commands share: the terminal, its bars, and how options are read."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
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

from .engine.contract.errors import RequestError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def fail(sentence: str) -> NoReturn:
    """Print the sentence and end with exit code 1."""
    err.print(f"[bold red]Error:[/] {sentence}", soft_wrap=True)
    sys.exit(1)


@contextmanager
def interruptible(consequence: str) -> Iterator[None]:
    """Says what Ctrl-C left behind."""
    try:
        yield
    except KeyboardInterrupt:
        err.print(f"Interrupted: {consequence}.")
        raise typer.Exit(130) from None


def plain(text: object) -> str:
    """The text with nothing in it that rich would read as markup."""
    return escape(str(text))


def read_size(text: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT in pixels. Raises RequestError."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise RequestError(f"'{text}' is no size: write width and height in pixels, as in 1280x720.") from None
    if min(width, height) < 1:
        raise RequestError(f"'{text}' is no size: width and height are at least 1.")
    return width, height


def read_rate(text: str) -> Fraction:
    """Read frames per second. Raises RequestError."""
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise RequestError(
            f"'{text}' is no frame rate: write a number or a fraction, as in 60 or 60000/1001."
        ) from None
    if rate <= 0:
        raise RequestError(f"'{text}' is no frame rate: it must be above 0.")
    return rate


def read_pairs(items: list[str]) -> dict[str, str]:
    """Read KEY=VALUE of each. Raises RequestError."""
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise RequestError(f"'{item}' is no option: write key=value, as in -e preset=slow or -c frames=7.")
        pairs[key] = value
    return pairs


def progress_bar(hidden: bool) -> Progress:
    """A bar with how much is done, a note, and the time gone and left; nothing where no terminal shows it."""
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
