"""Limits of the options of a run: what is above them is refused before work begins; and values of some options."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

from ..contract.errors import RequestError

FlowMethod = Literal["farneback", "dis"]
METHODS: tuple[FlowMethod, ...] = ("farneback", "dis")  # of optical flow
# Of scene cuts; real clips at half their rate: at most 0.33 within a scene, at least 0.40 at cuts.
DEFAULT_THRESHOLD = 0.38
LARGEST_SCALE = 1000
MOST_TIMES = 1000  # output frames for each input frame
LEAST_RATE, LARGEST_RATE = Fraction(1, 1_000_000), 10_000  # frames per second
MOST_ENCODER_THREADS = 1024
_MAX_INT = 2**31 - 1  # FFmpeg's fractions have numerators and denominators up to this
_SIMPLE = 1_000_000  # the largest denominator of a rate that is rounded


def check_scale(scale: Fraction | float) -> None:
    """Raise RequestError for a factor in space that is not above 0, or is beyond the limit."""
    if not 0 < scale <= LARGEST_SCALE:
        raise RequestError(f"The scale is {_shown(scale)}: give a number above 0 and up to {LARGEST_SCALE}.")


def check_factor(factor: Fraction, name: str) -> None:
    """Raise RequestError for a factor in time, by its name, that is below 1 or beyond the limit."""
    shown = _shown(factor)
    if factor < 1:
        raise RequestError(f"The {name} is {shown}: give a number from 1 on.")
    if factor > MOST_TIMES:
        raise RequestError(f"The {name} is {shown}: at most {MOST_TIMES} frames are made of one; give less.")


def check_rate(rate: Fraction) -> None:
    """Raise RequestError for a rate in frames per second beyond the limits."""
    if not LEAST_RATE <= rate <= LARGEST_RATE:
        raise RequestError(
            f"The frame rate is {_shown(rate)} frames per second: give from {float(LEAST_RATE):g} to {LARGEST_RATE}."
        )


def check_encoder_options(options: Mapping[str, str]) -> None:
    """Raise RequestError for a number of encoder threads beyond the limit."""
    threads = options.get("threads")
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


def _shown(number: Fraction | float) -> str:
    if isinstance(number, float):
        return f"{number:g}"
    try:
        return f"{float(number):.10g}" if number == int(number) and abs(number) < 10**7 else f"{float(number):g}"
    except OverflowError:
        return f"10^{math.log10(number.numerator) - math.log10(number.denominator):.0f}"
