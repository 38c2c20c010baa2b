"""Measurements of the kernels at the sizes of networks, next to PyTorch's operators and the floor of the device."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from stvsr.kernels import launcher, variants

from .bench import Bench
from .cases import CASES, DTYPES, Case
from .summary import FLOOR_FACTOR, TORCH_FACTOR, compared, floor_ms, summary, verdict

_CASE_S = 8.0  # upper limit of the time that a case takes


def measure_floors(bench: Bench) -> None:
    """Record the limits of the device: the bandwidth of a copy and the rates of large matrix products."""
    count, side = (1 << 16, 128) if bench.dry_run else (1 << 29, 8192)
    copied = _copy(bench, count)
    bench.record(part="floors", case="copy", **copied, floors={"gb_per_s": 8e-6 * count / copied["ms"]})
    little = bench.normal(1)
    bench.record(part="floors", case="smallest launch", dtype="float32", **summary(bench.device_ms(little.neg_)))
    for dtype in DTYPES:
        figures = _product(bench, side, dtype)
        rate = 2e-9 * side**3 / figures["ms"]
        bench.record(part="floors", case=f"product of {side}x{side}", dtype=dtype, **figures, floors={dtype: rate})


def _copy(bench: Bench, count: int) -> dict[str, Any]:
    source, target = bench.normal(count), bench.normal(count)
    return summary(bench.device_ms(lambda: target.copy_(source)))


def _product(bench: Bench, side: int, dtype: str) -> dict[str, Any]:
    left, right = (bench.normal(side, side, dtype=dtype) for _ in range(2))
    return summary(bench.device_ms(lambda: left @ right))


def measure(bench: Bench, kernel: str) -> None:
    """Check and record every case of a kernel; the next case runs even if one fails."""
    for case in CASES[kernel](bench):
        fields: dict[str, Any] = {"part": "kernels", "kernel": kernel, "case": case.name, "dtype": case.dtype}
        with bench.guarded(_CASE_S, **fields):
            fields["first_s"] = round(_first_s(bench, case), 3)
            if case.truth is not None:
                name = f"{kernel} {case.dtype}, {case.name}, beside PyTorch"
                bench.check("kernels", name, partial(compare, bench, case, case.call, torch_result(bench, case)))
            bench.record(**fields, **_figures(bench, case))


def _first_s(bench: Bench, case: Case) -> float:
    """Return the seconds of the first call in this process: the kernel is compiled, or loaded from CuPy's cache."""
    bench.sync()
    began = time.perf_counter()
    case.call()
    bench.sync()
    return time.perf_counter() - began


def _figures(bench: Bench, case: Case) -> dict[str, Any]:
    timing = summary(bench.device_ms(case.call))
    figures: dict[str, Any] = {**timing, "host_ms": bench.host_ms(case.call)}
    if case.key:
        card = None if bench.dry_run else launcher.card()
        figures["variant"] = variants.text_of(variants.choose(case.key, case.candidates, card))
    figures |= {"moved_bytes": case.moved_bytes, "operations": case.operations, "against": {}}
    for name, call in case.against.items():
        try:
            figures["against"][name] = summary(bench.device_ms(call))
        except Exception as error:
            figures.setdefault("errors", {})[name] = bench.describe(error)
    floors, goals = bench.floors(), []
    if {"gb_per_s", case.dtype} <= floors.keys():
        least, limit = floor_ms(case.moved_bytes, case.operations, floors["gb_per_s"], floors[case.dtype])
        figures |= {"floor_ms": least, "floor_of": limit, "over_floor": timing["ms"] / least}
        goals.append(("floor", figures["over_floor"], FLOOR_FACTOR, True))
    if figures["against"]:
        replaced, other = next(iter(figures["against"].items()))
        figures |= {"replaces": replaced, "speedup": other["ms"] / timing["ms"]}
        goals.append(("PyTorch", figures["speedup"], TORCH_FACTOR, False))
    figures["goal"] = verdict(goals)
    if case.parts:
        figures["parts"] = {name: summary(bench.device_ms(call)) for name, call in case.parts.items()}
    if case.memory:
        calls = {"kernels": case.call, **case.against}
        figures["memory_bytes"] = {name: bench.peak_bytes(call) for name, call in calls.items()}
    return figures


def torch_result(bench: Bench, case: Case) -> Any:
    """Return the result of PyTorch in float32, without TF32."""
    assert case.truth is not None
    with bench.torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return _tensor(bench, case.truth())


def compare(bench: Bench, case: Case, call: Callable[[], Any], truth: Any) -> dict[str, Any]:
    """Compare the result of a call with that of PyTorch."""
    return compared(_tensor(bench, call()), truth, *case.bounds[case.dtype])


def _tensor(bench: Bench, result: Any) -> Any:
    """Return a result as one tensor on its device; planes are concatenated."""
    torch = bench.torch
    if isinstance(result, tuple):
        return torch.cat([_tensor(bench, plane).flatten() for plane in result])
    if not isinstance(result, torch.Tensor):
        # PyTorch has few operators for unsigned 16-bit integers.
        result = torch.from_dlpack(result.view(np.int16) if result.dtype == np.uint16 else result)
    return result.int() & 0xFFFF if result.dtype == torch.int16 else result
