"""JSON lines of measurements, with the machine and the versions, and the tables that are written from them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stvsr.engine.benchmark.environment import hardware, versions

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"


def record(name: str, folder: Path, command: str, *, show: bool = True, **figures: Any) -> None:
    """Append one JSON line to `folder/NAME.jsonl`, and print the figures unless `show` is False."""
    line = {
        "benchmark": name,
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "hardware": hardware(),
        "versions": versions(),
        **figures,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    if show:
        print(json.dumps({"benchmark": name, **figures}, indent=1))


def read_lines(name: str, folder: Path) -> list[dict[str, Any]]:
    """Return the lines of `folder/NAME.jsonl`."""
    return [json.loads(text) for text in (folder / f"{name}.jsonl").read_text().splitlines()]


def publish(table: str, folder: Path, begin: str, end: str) -> None:
    """Print a table, and write it between two markers of benchmarks/README.md if it is of the published lines."""
    print(table)
    if folder == RESULTS:
        write_between(README, begin, end, table)


def write_between(path: Path, begin: str, end: str, table: str) -> None:
    """Replace the text between two markers of a file; raises ValueError if the file lacks them."""
    before, has_begin, rest = path.read_text().partition(begin)
    _, has_end, after = rest.partition(end)
    if not has_begin or not has_end:
        raise ValueError(f"{path} has no line {begin} with {end} after it: add both where the table belongs")
    path.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}")
