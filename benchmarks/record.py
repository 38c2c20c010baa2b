"""What every benchmark shares: a real clip of any size, the machine's description, and JSON lines."""

import json
import os
import platform
import time
from datetime import UTC, datetime
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

SAMPLE = Path(__file__).parents[1] / "tests" / "data" / "sample_bee_240.mp4"
RESULTS = Path(__file__).parent / "results"
_PACKAGES = (
    *("stvsr", "onnxruntime-gpu", "onnxruntime", "torch", "torchvision", "triton", "cupy-cuda13x", "tensorrt"),
    *("tensorrt-rtx", "tensorrt-rtx-cu13-bindings", "numpy", "av"),
)


def make_clip(path: Path, width: int, height: int, frames: int) -> Path:
    """The shipped sample at another size, repeated to a length, near lossless at 24 frames a second."""
    import av  # not every benchmark needs it

    with av.open(str(SAMPLE)) as source:
        pictures = [
            f.reformat(width, height, "yuv420p", interpolation="BICUBIC", threads=1) for f in source.decode(video=0)
        ]
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=24, options={"crf": "8", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, picture in enumerate(islice(cycle(pictures), frames)):
            picture.pts, picture.time_base = number, Fraction(1, 24)
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    return path


def hardware() -> dict[str, Any]:
    """The processor, the cores that this process may use, and the GPU if there is one."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {"cpu": model, "cores": cores}
    try:
        import torch

        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    except ImportError:
        pass
    return found


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def record(name: str, folder: Path, command: str, *, show: bool = True, **figures: Any) -> None:
    """Appends one JSON line to ``folder/NAME.jsonl`` and, unless told not to, prints the figures."""
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


def timed(call: Any, runs: int) -> list[float]:
    """Seconds of each run after one that warms up."""
    call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds
