"""The search for the fastest variant of each kernel on this card, and the table that the package reads.

Every variant is compared with PyTorch at every size before it is timed; one that is wrong at any size is not taken. The
table of the package is `kernels/variants.json`; OUT/variants.json is a copy, for a checkout elsewhere.
"""

import statistics
from datetime import UTC, datetime
from functools import partial
from typing import Any

from stvsr.kernels import launcher, variants
from stvsr.kernels.launcher import Card

from .bench import Bench
from .cases import CASES, Case
from .kernels import compare, torch_result
from .summary import summary

KERNELS = ("deform_conv", "warp", "fusion_inputs", "fourier_field")  # those with variants
_CASE_S = 10.0  # upper limit of the time that a case takes
_VARIANT_S = 0.1  # spent on the timings of a variant
_DRY_CARD = Card("no card", "0.0")

Times = dict[str, float]  # case -> ms


def measure(bench: Bench, kernel: str) -> None:
    """Time every variant of a kernel in every case, and record the fastest ones in the table.

    When the time is up, what was measured so far is recorded.
    """
    times: dict[str, dict[Any, Times]] = {}  # key -> variant -> times
    wrong: set[tuple[str, Any]] = set()
    try:
        for case in CASES[kernel](bench):
            if not case.key:
                continue
            fields = {"part": "variants", "kernel": kernel, "case": case.name, "dtype": case.dtype}
            with bench.guarded(_CASE_S, **fields):
                truth = torch_result(bench, case)
                # A dry run compiles each variant with the CPU's compiler: the first and the last run every path.
                tried = (case.candidates[0], case.candidates[-1]) if bench.dry_run else case.candidates
                for variant in tried:
                    ms = _time(bench, case, variant, truth, fields)
                    if ms is None:
                        wrong.add((case.key, variant))
                    else:
                        times.setdefault(case.key, {}).setdefault(variant, {})[case.name] = ms
    finally:
        _store(bench, {key: _right(by_variant, key, wrong) for key, by_variant in times.items()})


def fastest(times: dict[Any, Times]) -> Any:
    """Return the variant with the smallest geometric mean of times over the cases that all have, or None."""
    cases = set.intersection(*(set(by_case) for by_case in times.values())) if times else set()
    if not cases:
        return None
    return min(times, key=lambda variant: statistics.geometric_mean(times[variant][case] for case in cases))


def _time(bench: Bench, case: Case, variant: Any, truth: Any, fields: dict[str, Any]) -> float | None:
    """Check a variant, and return its time in ms, or None if it is wrong or fails."""
    call, text = partial(case.call, variant=variant), variants.text_of(variant)
    right = bench.check("variants", f"{case.key}, {case.name}, {text}", partial(compare, bench, case, call, truth))
    if not right:
        return None
    figures = summary(bench.device_ms(call, seconds=_VARIANT_S))
    bench.record(**fields, variant=text, **figures)
    return float(figures["ms"])


def _right(times: dict[Any, Times], key: str, wrong: set[tuple[str, Any]]) -> dict[Any, Times]:
    return {variant: by_case for variant, by_case in times.items() if (key, variant) not in wrong}


def _store(bench: Bench, times: dict[str, dict[Any, Times]]) -> None:
    """Write the fastest variants to the copy of the table in OUT and, with a GPU, to the table of the package."""
    card = _DRY_CARD if bench.dry_run else launcher.card()
    copy = bench.out / variants.TABLE.name
    table = variants.read_table(copy if copy.exists() else variants.TABLE)
    for key, by_variant in times.items():
        best = fastest(by_variant)
        if best is None:
            continue
        first = next(iter(by_variant))
        evidence = {"date": datetime.now(UTC).date().isoformat(), "ms": _rounded(by_variant[best])}
        if best != first:
            evidence["first_variant_ms"] = _rounded(by_variant[first])
        table = variants.with_record(table, card, key, best, evidence)
        bench.record(part="variants", case=key, fastest=variants.text_of(best))
    variants.write_table(table, copy)
    if not bench.dry_run:
        variants.write_table(table)


def _rounded(times: Times) -> Times:
    return {case: round(ms, 4) for case, ms in times.items()}
