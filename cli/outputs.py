"""Files of results: found to be writable before the work begins, and written as a whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from ..engine.contract.errors import RequestError


def check_json(path: Path, content: str, *, overwrite: bool) -> None:
    """Raise RequestError for a file of JSON that cannot be written; `content` names what it will hold: "the scores"."""
    if not path.parent.is_dir():
        raise RequestError(f"The folder {path.parent} for {content} does not exist: create it first.")
    if path.is_dir():
        raise RequestError(f"{path} is a folder: name a file for {content}.")
    if path.exists() and not overwrite:
        raise RequestError(f"{path} exists already: choose another file, or pass --overwrite.")
    if not os.access(path.parent, os.W_OK):
        raise RequestError(f"The folder {path.parent} for {content} cannot be written: choose another one.")


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, and replace an existing file."""
    from ..engine.contract.atomic import atomic_path

    with atomic_path(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n")
