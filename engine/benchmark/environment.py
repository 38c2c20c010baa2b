"""The machine and the versions that figures depend on; nothing in it names the machine or its user."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..backends.cuda_driver import device_count, device_name
from ..backends.nvml import driver_version
from ..contract.cpus import cpu_threads

_PACKAGES = (
    *("stvsr", "onnxruntime-gpu", "onnxruntime", "torch", "torchvision", "triton", "cupy-cuda13x", "tensorrt"),
    *("tensorrt-rtx", "tensorrt-rtx-cu13-bindings", "numpy", "av"),
)


def hardware() -> dict[str, Any]:
    """Return the processor, the cores that this process may use, the memory, and the GPUs if there are any."""
    machine: dict[str, Any] = {"cpu": _processor(), "cores": cpu_threads()}
    if (memory := _memory_bytes()) is not None:
        machine["memory_gb"] = round(memory / 1e9, 1)
    if names := [device_name(index) for index in range(device_count())]:
        machine["gpu"] = ", ".join(names)
    return machine


def versions() -> dict[str, str]:
    """Return the versions of the system, of Python, of the driver and of the packages that figures depend on."""
    installed = {"system": f"{platform.system()} {platform.machine()}", "python": platform.python_version()}
    if (driver := driver_version()) is not None:
        installed["nvidia-driver"] = driver
    for package in _PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def _processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # another system than Linux
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    """Return the size of the machine's memory; None if the system does not state it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no such call
        return None
