"""Statistics of timings, the goals for them, and errors of results."""

from collections.abc import Sequence
from typing import Any

import numpy as np

# The goals of a kernel: at most this many times the floor, and at least this many times as fast as PyTorch.
FLOOR_FACTOR, TORCH_FACTOR = 1.5, 2.0


def summary(milliseconds: Sequence[float]) -> dict[str, Any]:
    """Return the median, the 10th and the 90th percentile in ms, and the number of timings."""
    low, middle, high = np.percentile(milliseconds, [10, 50, 90])
    return {"ms": float(middle), "ms_p10": float(low), "ms_p90": float(high), "runs": len(milliseconds)}


def floor_ms(moved_bytes: float, operations: float, gb_per_s: float, tflop_per_s: float) -> tuple[float, str]:
    """Return the floor in ms, and what sets it: "bytes" over the bandwidth or "operations" over the rate."""
    bytes_ms, operations_ms = 1e3 * moved_bytes / (1e9 * gb_per_s), 1e3 * operations / (1e12 * tflop_per_s)
    return (operations_ms, "operations") if operations_ms > bytes_ms else (bytes_ms, "bytes")


def verdict(goals: Sequence[tuple[str, float, float, bool]]) -> str:
    """Return "met", or the goals that are missed and by which factor.

    goals: (name, value, bound, whether the bound is an upper one). NaN misses every goal.
    """
    missed = []
    for name, value, bound, at_most in goals:
        if not (value <= bound if at_most else value >= bound):
            by = value / bound if at_most else bound / value if value else float("inf")
            missed.append(f"{name} {value:.2f} ({'at most' if at_most else 'at least'} {bound:g}: by {by:.2f})")
    return "missed: " + "; ".join(missed) if missed else "met"


def compared(out: Any, truth: Any, most: float, mean: float | None = None, plain: Any = None) -> dict[str, Any]:
    """Return the maximal and the mean error relative to the range of the truth, their bounds, and whether they pass.

    out, truth, plain: NumPy arrays, or tensors on one device. most, mean: the bounds; `mean` defaults to `most`. If
    `plain`, the result of a plain implementation in the same precision, is given, the bounds are twice its errors
    instead. NaN never passes.
    """
    out, truth = _tensor(out), _tensor(truth)
    if out.shape != truth.shape:
        return {"passed": False, "error": f"shape {tuple(out.shape)}, expected {tuple(truth.shape)}"}
    errors = _errors(out, truth)
    bounds = [most, mean or most] if plain is None else [2 * value for value in _errors(_tensor(plain), truth)]
    names = ("max_error", "mean_error", "max_bound", "mean_bound")
    passed = all(error <= bound for error, bound in zip(errors, bounds, strict=True))
    return {"passed": passed, **dict(zip(names, (*errors, *bounds), strict=True))}


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array


def _errors(out: Any, truth: Any) -> tuple[float, float]:
    span = float(truth.max() - truth.min()) or 1.0
    error = (out.double() - truth.double()).abs() / span
    return float(error.max()), float(error.mean())
