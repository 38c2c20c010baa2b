"""The device, timing, checks and records that all parts of the GPU benchmark use.

Kernels are timed on the device alone: by events around each call, queued behind enough other work that the device
never waits for the host. That work also overwrites the caches, so that every call reads device memory.
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

_FLUSH_BYTES = 256 << 20  # more than any GPU's caches
_MAX_FLUSHES = 64
_WARM_UPS = 3


def gpu_state() -> dict[str, str]:
    """Return the driver's version, clocks, temperature and power right now; empty without nvidia-smi."""
    fields = ("driver_version", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "memory.total")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields, (value.strip() for value in done.stdout.strip().split(",")), strict=False))


class OutOfTimeError(Exception):
    """The time of the run is up: no further case starts."""


class Bench:
    """A device to measure, and the results: lines in `out`/gpu.jsonl, tracebacks in `out`/errors.txt.

    command: the command line, for the record. until: when the time is up, in seconds since the epoch.
    """

    def __init__(self, out: Path, command: str, *, dry_run: bool, quick: bool, until: float) -> None:
        import torch

        self.out, self.command, self.dry_run, self.quick, self.until = out, command, dry_run, quick, until
        self.torch = torch
        self.device = torch.device("cpu" if dry_run else "cuda:0")
        self._flush: Any = None
        self._flush_ms = 0.0

    @functools.cached_property
    def random(self) -> Any:
        """The generator of all random tensors, seeded with 0."""
        return self.torch.Generator(self.device).manual_seed(0)

    @property
    def left_s(self) -> float:
        """Seconds until the time is up."""
        return self.until - time.time()

    def record(self, **figures: Any) -> None:
        """Append a line to gpu.jsonl and print it in short."""
        if self.dry_run:
            figures["dry_run"] = True
        record("gpu", self.out, self.command, show=False, **figures)
        printed = {name: value for name, value in figures.items() if name != "dry_run" and not isinstance(value, dict)}
        print(" ".join(f"{name}={_short(value)}" for name, value in printed.items()), flush=True)

    def check(self, part: str, name: str, call: Callable[[], dict[str, Any]]) -> bool:
        """Record the result of a check, which is that of `summary.compared`, and return whether it passed.

        An exception is a failure.
        """
        try:
            figures = call()
        except Exception as error:
            figures = {"passed": False, "error": self.describe(error)}
        self.record(part=part, check=name, **figures)
        return bool(figures["passed"])

    @contextmanager
    def guarded(self, needed_s: float, **fields: Any) -> Iterator[None]:
        """Run one case, whose line has these fields; an exception is recorded in it, and the next case can follow.

        Raises OutOfTimeError, after recording it, if less than `needed_s` seconds are left.
        """
        if self.left_s < needed_s:
            self.record(**fields, skipped="no time was left")
            raise OutOfTimeError
        try:
            yield
        except Exception as error:
            self.record(**fields, error=self.describe(error))

    def describe(self, error: Exception) -> str:
        """Return an error as one line, and append its traceback to errors.txt."""
        with (self.out / "errors.txt").open("a") as file:
            file.write("".join(traceback.format_exception(error)) + "\n")
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]

    def lines(self) -> list[dict[str, Any]]:
        """Return all lines recorded so far, those of other steps included."""
        path = self.out / "gpu.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def floors(self) -> dict[str, float]:
        """Return the measured limits of the device: gb_per_s of a copy, and TFLOP/s of products by dtype."""
        return {name: value for line in self.lines() for name, value in line.get("floors", {}).items()}

    def tf32(self) -> dict[str, bool]:
        """Return whether PyTorch rounds float32 to TF32 in convolutions and in products."""
        backends = self.torch.backends
        return {"convolutions": backends.cudnn.allow_tf32, "products": backends.cuda.matmul.allow_tf32}

    def normal(self, *shape: int, dtype: str = "float32", scale: float = 1.0) -> Any:
        """Draw a tensor on the device from a normal distribution."""
        return (self.torch.randn(shape, device=self.device, generator=self.random) * scale).to(self.dtype(dtype))

    def uniform(self, *shape: int, dtype: str = "float32") -> Any:
        """Draw a tensor on the device from [0, 1)."""
        return self.torch.rand(shape, device=self.device, generator=self.random).to(self.dtype(dtype))

    def smooth(self, channels: int, height: int, width: int, px: float) -> Any:
        """Draw flows or offsets of about `px` pixels that change slowly between pixels. (1, C, H, W) float32"""
        coarse = self.normal(1, channels, height // 8 + 2, width // 8 + 2, scale=px)
        return self.torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")

    def dtype(self, name: str) -> Any:
        """Return torch's dtype of this name."""
        return getattr(self.torch, name)

    def array(self, tensor: Any) -> Any:
        """Return a contiguous tensor as an array for the kernels, sharing its memory: CuPy, or NumPy in a dry run."""
        if self.dry_run:
            return tensor.numpy()
        import cupy

        return cupy.from_dlpack(tensor)

    def asarray(self, array: np.ndarray) -> Any:
        """Return a NumPy array as an array for the kernels: CuPy, or NumPy in a dry run."""
        if self.dry_run:
            return np.ascontiguousarray(array)
        import cupy

        return cupy.asarray(array)

    def numpy(self, array: Any) -> np.ndarray:
        """Return a tensor, a CuPy or a NumPy array as a NumPy array."""
        if isinstance(array, self.torch.Tensor):
            return array.detach().cpu().numpy()
        return array if isinstance(array, np.ndarray) else array.get()

    def run(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a function of `stvsr.kernels`; in a dry run its kernels run on the CPU."""
        if not self.dry_run:
            return function(*arguments, **options)
        from tests.support.cuda_cpu import on_cpu

        return on_cpu(function, *arguments, **options)

    def sync(self) -> None:
        """Wait for all work on the device."""
        if not self.dry_run:
            self.torch.cuda.synchronize()

    def wall_ms(self, call: Callable[[], Any], *, seconds: float = 1.0, least: int = 5, most: int = 50) -> list[float]:
        """Time calls by the host's clock, each until all of its results are on the device."""
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
        """Return the time that the host takes to queue a call, the median of a few."""
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
        flushes = min(_MAX_FLUSHES, 2 + int(1.5 * self.host_ms(call) / self._flush_ms))
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
        """Return the device memory that a call takes in torch and CuPy together, beyond what is allocated before."""
        if self.dry_run:
            call()
            return None
        import cupy

        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        self.torch.cuda.empty_cache()
        self.torch.cuda.reset_peak_memory_stats()
        before = self.torch.cuda.memory_allocated() + pool.total_bytes()
        call()
        self.sync()
        return self.torch.cuda.max_memory_allocated() + pool.total_bytes() - before


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
