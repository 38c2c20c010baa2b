"""What the parts of the GPU benchmark share: a place to compute in, timing, checks and records.

Time of kernels is that of the device alone: events around each call, behind enough other work that the host is never
waited for. That other work also overwrites the caches, so that every call reads device memory.
"""

import functools
import json
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..record import record

_FLUSH_BYTES = 256 << 20  # more than any cache holds
_MOST_FLUSHES = 64
_WARM_UPS = 3


def gpu_state() -> dict[str, str]:
    """Clocks, temperature and power as they are now; empty where nvidia-smi is not."""
    fields = ("driver_version", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "memory.total")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields, (value.strip() for value in done.stdout.strip().split(",")), strict=False))


class Bench:
    """Where a part of the benchmark runs and what it leaves: `out`/gpu.jsonl, and tracebacks in `out`/errors.txt."""

    def __init__(self, out: Path, command: str, *, dry_run: bool, quick: bool, until: float) -> None:
        import torch

        self.out, self.command, self.dry_run, self.quick, self.until = out, command, dry_run, quick, until
        self.torch = torch
        self.device = torch.device("cpu" if dry_run else "cuda:0")
        self._flush: Any = None
        self._flush_ms = 0.0

    @functools.cached_property
    def random(self) -> Any:
        """What random tensors are drawn with."""
        return self.torch.Generator(self.device).manual_seed(0)

    @property
    def left_s(self) -> float:
        """Seconds until the time that was given is over."""
        return self.until - time.time()

    def record(self, **figures: Any) -> None:
        """Append a line to gpu.jsonl, and print it short."""
        if self.dry_run:
            figures["dry_run"] = True
        record("gpu", self.out, self.command, show=False, **figures)
        shown = {name: value for name, value in figures.items() if name != "dry_run" and not isinstance(value, dict)}
        print(" ".join(f"{name}={_short(value)}" for name, value in shown.items()), flush=True)

    def check(self, part: str, name: str, call: Callable[[], dict[str, Any]]) -> None:
        """Record what `compared` says; an exception is a check that failed."""
        try:
            figures = call()
        except Exception as error:
            figures = {"passed": False, "error": self.told(error)}
        self.record(part=part, check=name, **figures)

    @contextmanager
    def guarded(self, needed_s: float, **what: Any) -> Iterator[None]:
        """Run one case, if there is time for it; an exception becomes a line, and the next case follows."""
        if self.left_s < needed_s:
            what["skipped"] = "no time was left"
            self.record(**what)
            raise OutOfTimeError
        try:
            yield
        except Exception as error:
            self.record(**what, error=self.told(error))

    def told(self, error: Exception) -> str:
        """An error in one line; where it came from goes to errors.txt."""
        with (self.out / "errors.txt").open("a") as file:
            file.write("".join(traceback.format_exception(error)) + "\n")
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]

    def lines(self) -> list[dict[str, Any]]:
        """Return what was recorded so far, by other steps too."""
        path = self.out / "gpu.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def floors(self) -> dict[str, float]:
        """What was measured of the device: gb_per_s of a copy, and the rate of products in TFLOP/s by dtype."""
        return {name: value for line in self.lines() for name, value in line.get("floors", {}).items()}

    def tf32(self) -> dict[str, bool]:
        """Whether PyTorch rounds float32 to TF32, as it does unless told."""
        backends = self.torch.backends
        return {"convolutions": backends.cudnn.allow_tf32, "products": backends.cuda.matmul.allow_tf32}

    def normal(self, *shape: int, dtype: str = "float32", scale: float = 1.0) -> Any:
        """Draw a tensor from a normal distribution, there."""
        return (self.torch.randn(shape, device=self.device, generator=self.random) * scale).to(self.dtype(dtype))

    def uniform(self, *shape: int, dtype: str = "float32") -> Any:
        """Draw a tensor from [0, 1), there."""
        return self.torch.rand(shape, device=self.device, generator=self.random).to(self.dtype(dtype))

    def smooth(self, channels: int, height: int, width: int, px: float) -> Any:
        """Draw flows or offsets of so many pixels or so, that change slowly from place to place. (1, C, H, W)"""
        coarse = self.normal(1, channels, height // 8 + 2, width // 8 + 2, scale=px)
        return self.torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")

    def dtype(self, name: str) -> Any:
        """Return torch's dtype of a name."""
        return getattr(self.torch, name)

    def array(self, tensor: Any) -> Any:
        """Return the kernels' view of a contiguous tensor: CuPy, or NumPy where there is no GPU."""
        if self.dry_run:
            return tensor.numpy()
        import cupy

        return cupy.from_dlpack(tensor)

    def asarray(self, array: np.ndarray) -> Any:
        """Return a NumPy array where the kernels want it."""
        if self.dry_run:
            return np.ascontiguousarray(array)
        import cupy

        return cupy.asarray(array)

    def numpy(self, array: Any) -> np.ndarray:
        """Return a tensor or an array of a kernel as NumPy's."""
        if isinstance(array, self.torch.Tensor):
            return array.detach().cpu().numpy()
        return array if isinstance(array, np.ndarray) else array.get()

    def run(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a function of `stvsr.kernels`; without a GPU its kernels run on the CPU."""
        if not self.dry_run:
            return function(*arguments, **options)
        from tests.support.cuda_cpu import on_cpu

        return on_cpu(function, *arguments, **options)

    def sync(self) -> None:
        """Wait for all that was queued."""
        if not self.dry_run:
            self.torch.cuda.synchronize()

    def wall_ms(self, call: Callable[[], Any], *, seconds: float = 1.0, least: int = 5, most: int = 50) -> list[float]:
        """Time calls as a host sees them: from the call until all of its results are there."""
        if self.dry_run:
            least = most = 1
        else:
            for _ in range(_WARM_UPS):
                call()
        self.sync()
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < most and (len(times) < least or time.perf_counter() - began < seconds):
            start = time.perf_counter()
            call()
            self.sync()
            times.append(1e3 * (time.perf_counter() - start))
        return times

    def host_ms(self, call: Callable[[], Any]) -> float:
        """How long the host takes to queue a call, the median of a few."""
        times = []
        for _ in range(1 if self.dry_run else 5):
            self.sync()
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
        self.sync()
        return statistics.median(times)

    def device_ms(
        self, call: Callable[[], Any], *, seconds: float = 0.4, least: int = 7, most: int = 50
    ) -> list[float]:
        """Time calls on the device alone, each after the caches were overwritten."""
        if self.dry_run:
            return self.wall_ms(call, seconds=seconds)
        for _ in range(_WARM_UPS):
            call()
        self.sync()
        if self._flush is None:
            self._flush = self.torch.empty(_FLUSH_BYTES, dtype=self.torch.uint8, device=self.device)
            self._flush_ms = statistics.median(self._timed(self._flush.zero_, 10, 1))
        flushes = min(_MOST_FLUSHES, 2 + int(1.5 * self.host_ms(call) / self._flush_ms))
        (once,) = self._timed(call, 1, flushes)
        count = int(min(most, max(least, 1e3 * seconds / (once + flushes * self._flush_ms))))
        return self._timed(call, count, flushes)

    def _timed(self, call: Callable[[], Any], count: int, flushes: int) -> list[float]:
        events = [[self.torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
        for start, end in events:
            for _ in range(flushes):
                self._flush.zero_()
            start.record()
            call()
            end.record()
        self.sync()
        return [start.elapsed_time(end) for start, end in events]

    def peak_bytes(self, call: Callable[[], Any]) -> int | None:
        """Device memory that a call takes on top of what is held, in torch and in CuPy together."""
        if self.dry_run:
            call()
            return None
        import cupy

        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        self.torch.cuda.empty_cache()
        self.torch.cuda.reset_peak_memory_stats()
        held = self.torch.cuda.memory_allocated() + pool.total_bytes()
        call()
        self.sync()
        return self.torch.cuda.max_memory_allocated() + pool.total_bytes() - held


class OutOfTimeError(Exception):
    """A part ends here: the time that was given is over."""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
