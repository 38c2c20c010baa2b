"""Confidence intervals of means over few clips: Student's t, for values that are about normal.

A bootstrap over fewer than ten clips gives intervals that are too narrow; Student's t has the stated confidence from
two clips on. It is exact for normal values, and a statement about clips of the kind that was measured.
"""

import math
from collections.abc import Sequence

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the interval that has the mean of all such clips with a confidence of 95 %.

    None for one value, of which nothing is known about others, and for values that are not finite.
    """
    count = len(values)
    if count < 2 or not all(map(math.isfinite, values)):
        return None
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = t_quantile(count - 1) * math.sqrt(variance / count)
    return mean - half, mean + half


def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Return the t that |T| exceeds with the probability 1 - confidence, for `degrees` of freedom, by bisection."""
    low, high = 0.0, 1.0
    while _share_within(high, degrees) < confidence:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _share_within(middle, degrees) < confidence else (low, middle)
    return high


def _share_within(t: float, degrees: int) -> float:
    """Return the probability that |T| <= t (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3-4)."""
    angle = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for step in range(odd, degrees - 1, 2):  # terms in the cosine's powers `step`
        total += term
        term *= cosine**2 * (step + 1) / (step + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
