"""The CPUs that this process may use: those of its affinity, and as much of their time as its control groups allow."""

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_ROOT = Path("/")  # of /proc and of the mounted control groups; tests have a tree of their own


def cpu_threads() -> int:
    """Return how many threads may compute at the same time.

    It is the number of CPUs of the affinity, or the quota of the control groups where that is less, as in a container
    that was started with `--cpus 2`. A quota is rounded to the nearest number: two threads that wait for each other in
    1.5 CPUs compute more than one thread does, and in 1.2 CPUs less.
    """
    cpus, quota = _affinity(), cpu_quota()
    return cpus if quota is None else max(1, min(cpus, math.floor(quota + 0.5)))


def codec_threads() -> int:
    """Return the number of threads for a codec of FFmpeg; 0: its own number, which knows the affinity and no quota."""
    threads = cpu_threads()
    return threads if threads < _affinity() else 0


def limit_openmp() -> None:
    """Let libraries with OpenMP that are loaded later, such as PyTorch, start as many threads as the quota allows.

    They know the affinity and no quota. A number that is set in the environment (OMP_NUM_THREADS) stays.
    """
    if threads := codec_threads():
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def cpu_quota() -> float | None:
    """Return the processor time that the control groups allow, in seconds a second; None: as much as there is.

    Read from `cpu.max` (version 2) or `cpu.cfs_quota_us` (version 1) of each group that this process is in.
    """
    with suppress(OSError, ValueError):  # another system than Linux
        return min((quota for group in _groups() if (quota := _quota_of(group)) is not None), default=None)
    return None


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _groups() -> Iterator[Path]:
    """Yield the folders of the groups of processor time that this process is in, each with those above it."""
    own: dict[str, str] = {}  # the group's path by the kind of the file system
    for line in (_ROOT / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            own["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            own["cgroup"] = path
    for line in (_ROOT / "proc/self/mountinfo").read_text().splitlines():
        mount, _, system = line.partition(" - ")
        kind, _, options = system.split(" ", 2)
        if kind not in own or (kind == "cgroup" and "cpu" not in options.split(",")):
            continue
        root, folder = (_unescaped(field) for field in mount.split(" ")[3:5])
        # In a container the mounted part may begin at the process's own group, or have other names than it.
        inside = PurePosixPath(own[kind])
        below = (
            inside.relative_to(root) if inside.is_relative_to(root) and ".." not in inside.parts else PurePosixPath()
        )
        group = _ROOT / folder.removeprefix("/")
        yield group
        for part in below.parts:
            group /= part
            yield group


def _quota_of(group: Path) -> float | None:
    """Return the quota of one group; None: it has none."""
    with suppress(OSError, ValueError):
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()  # "max 100000" is no quota
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))  # -1 is none
        if int(quota) > 0 and int(period) > 0:
            return int(quota) / int(period)
    return None


def _unescaped(field: str) -> str:
    r"""Return a path of mountinfo, in which a space is written as \040."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field)
