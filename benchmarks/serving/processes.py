"""Readings of a process and its children from /proc: processor time, memory and descriptors. Linux alone has them."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Processor time, memory, descriptors and threads of some processes."""

    cpu_s: float  # with that of their children that have ended
    memory_bytes: int  # PSS: memory that processes share counts in equal parts
    resident_bytes: int  # RSS: memory that processes share counts in each
    descriptors: int
    threads: int

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.cpu_s + other.cpu_s,
            self.memory_bytes + other.memory_bytes,
            self.resident_bytes + other.resident_bytes,
            self.descriptors + other.descriptors,
            self.threads + other.threads,
        )


NOTHING = Usage(0.0, 0, 0, 0, 0)


def usage(process: int) -> Usage:
    """Return what one process uses; nothing if it has ended."""
    folder = Path(f"/proc/{process}")
    try:
        # The name in the second field may have spaces and brackets.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        memory = (folder / "smaps_rollup").read_text()
        descriptors = len(list((folder / "fd").iterdir()))
    except OSError:
        return NOTHING
    pss, rss = (_kibibytes(memory, name) for name in ("Pss", "Rss"))
    return Usage(sum(map(int, fields[11:15])) / _TICKS_PER_S, 1024 * pss, 1024 * rss, descriptors, int(fields[17]))


def _kibibytes(memory: str, name: str) -> int:
    return next(int(line.split()[1]) for line in memory.splitlines() if line.startswith(f"{name}:"))


def usage_of_tree(process: int) -> Usage:
    """Return what a process and all its descendants use."""
    return sum(map(usage_of_tree, children(process)), usage(process))


def children(process: int) -> list[int]:
    """Return the children of a process."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def workers(server: int) -> list[int]:
    """Return the worker processes of a server."""
    found = []
    for child in children(server):
        with suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found
