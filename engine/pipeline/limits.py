"""Limits of the options of a run: what is above them is refused before work begins."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from ..contract.errors import RequestError

if TYPE_CHECKING:
    from .request import UpscaleRequest

LARGEST_SCALE = 1000
MOST_TIMES = 1000  # output frames for each input frame
LEAST_RATE, LARGEST_RATE = Fraction(1, 1_000_000), 10_000  # frames per second
MOST_ENCODER_THREADS = 1024
_MAX_INT = 2**31 - 1  # FFmpeg's fractions have numerators and denominators up to this
_SIMPLE = 1_000_000  # the largest denominator of a rate that is rounded


def check_limits(request: UpscaleRequest) -> None:
    """Raise RequestError for a scale, time factor, rate or number of encoder threads beyond the limits."""
    if request.scale is not None and not 0 < request.scale <= LARGEST_SCALE:
        raise RequestError(f"The scale is {request.scale:g}: give a number above 0 and up to {LARGEST_SCALE}.")
    if request.time_factor is not None and request.time_factor > MOST_TIMES:
        raise RequestError(
            f"The time factor is {request.time_factor:.10g}: at most {MOST_TIMES} frames are made of one; give less."
        )
    if request.fps is not None and not LEAST_RATE <= request.fps <= LARGEST_RATE:
        raise RequestError(
            f"The frame rate is {_shown(request.fps)} frames per second: give from {float(LEAST_RATE):g} to"
            f" {LARGEST_RATE}."
        )
    threads = (request.encoder_options or {}).get("threads")
    if threads is not None and not (
        threads.isascii() and threads.isdigit() and len(threads) < 10 and int(threads) <= MOST_ENCODER_THREADS
    ):
        raise RequestError(
            f"The encoder's option 'threads' is '{threads}': give a number from 0 (automatic) to"
            f" {MOST_ENCODER_THREADS}."
        )


def storable_rate(rate: Fraction) -> Fraction:
    """Return a nominal rate in frames per second as a fraction that FFmpeg can store, rounded if it must be."""
    if max(rate.numerator, rate.denominator) <= _MAX_INT:
        return rate
    return _rounded(rate) if rate >= 1 else 1 / _rounded(1 / rate)


def _rounded(number: Fraction) -> Fraction:
    """Return the nearest fraction to a number from 1 on with a small denominator and a numerator that FFmpeg stores."""
    number = min(number, Fraction(_MAX_INT))
    return min(number.limit_denominator(max(1, min(_SIMPLE, _MAX_INT // math.ceil(number)))), Fraction(_MAX_INT))


def _shown(rate: Fraction) -> str:
    try:
        return f"{float(rate):g}"
    except OverflowError:
        return f"10^{math.log10(rate.numerator) - math.log10(rate.denominator):.0f}"
