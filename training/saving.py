"""Write files that appear as a whole or not at all."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an error.

    An existing file is replaced. The temporary name is unique, so several processes can write the same file at the
    same time. After an error the temporary file is removed and an existing file stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def save(content: dict[str, Any], path: Path) -> None:
    """Write a file for `torch.load`, atomically."""
    with atomic_path(path) as partial:
        torch.save(content, partial)
