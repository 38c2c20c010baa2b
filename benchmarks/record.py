"""JSON lines of measurements, with the machine and the versions, and the tables that are written from them."""

import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PACKAGES = (
    *("stvsr", "onnxruntime-gpu", "onnxruntime", "torch", "torchvision", "triton", "cupy-cuda13x", "tensorrt"),
    *("tensorrt-rtx", "tensorrt-rtx-cu13-bindings", "numpy", "av"),
)


def hardware() -> dict[str, Any]:
    """Return the processor, the number of cores that this process may use, and the GPU if there is one."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine: dict[str, Any] = {"cpu": model, "cores": cores}
    try:
        import torch

        if torch.cuda.is_available():
            machine["gpu"] = torch.cuda.get_device_name()
    except ImportError:
        pass
    return machine


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that figures depend on."""
    installed = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


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


def timed(call: Callable[[], Any], runs: int) -> list[float]:
    """Return the seconds of each run, after one run for warm-up."""
    call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def write_between(path: Path, begin: str, end: str, table: str) -> None:
    """Replace the text between two markers of a file; raises ValueError if the file lacks them."""
    before, has_begin, rest = path.read_text().partition(begin)
    _, has_end, after = rest.partition(end)
    if not has_begin or not has_end:
        raise ValueError(f"{path} has no line {begin} with {end} after it: add both where the table belongs")
    path.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}")
