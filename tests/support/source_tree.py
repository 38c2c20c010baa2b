"""The source tree of the package, and copies of it."""

import shutil
from pathlib import Path

import stvsr

ROOT = Path(stvsr.__file__).parent
ROOMS = ("cli", "engine", "kernels", "export", "training")  # the folders that are packages


def copy_source(folder: Path) -> None:
    """Copy what a wheel is built from into a new folder: setuptools leaves files in the tree that it builds."""
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, folder)
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
