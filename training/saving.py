"""Files of checkpoints and weights."""

from pathlib import Path
from typing import Any

import torch

from ..engine.contract.atomic import atomic_path


def save(content: dict[str, Any], path: Path) -> None:
    """Write a file for `torch.load`, atomically, in a folder that is created if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        torch.save(content, partial)
