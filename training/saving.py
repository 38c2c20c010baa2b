"""Files that appear whole, or not at all."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Gives a name beside ``path`` to write to; the file takes its place, and that of one that was there, at the end.

    The name is the writer's alone, so that several may write the same file at once. Nothing is left of a failed write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def save(content: dict[str, Any], path: Path) -> None:
    """Write what `torch.load` reads, whole."""
    with appearing(path) as partial:
        torch.save(content, partial)
