"""The command lines of the modules here."""

import argparse
import sys
from pathlib import Path

from .record import RESULTS


def new_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of `python -m benchmarks.MODULE`; its help begins with the module's docstring as it is."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add the option for the folder of the lines."""
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON lines (benchmarks/results)")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add the option for the threads of the networks, by default those of the published figures."""
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the networks (2)")


def given_command(module: str) -> str:
    """Return the command that runs, for the lines: paths are shortened to their last part."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return " ".join([f"python -m benchmarks.{module}", *words])
