"""Quantities as people write them: rates of NTSC, factors, times and sizes, all of them bounded."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from stvsr import RequestError
from stvsr.engine.pipeline.quantities import (
    read_factor,
    read_rate,
    read_scale,
    read_seconds,
    read_size,
    target_size,
)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("23.976", Fraction(24000, 1001)),
        ("23.98", Fraction(24000, 1001)),
        ("23.97", Fraction(24000, 1001)),
        ("23.976023976", Fraction(24000, 1001)),
        ("29.97", Fraction(30000, 1001)),
        ("59.94", Fraction(60000, 1001)),
        ("59.94005994", Fraction(60000, 1001)),
        ("119.88", Fraction(120000, 1001)),
        ("14.985", Fraction(15000, 1001)),
        ("47.952", Fraction(48000, 1001)),
        (59.94005994005994, Fraction(60000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (np.float64(23.976), Fraction(24000, 1001)),
        ("60000/1001", Fraction(60000, 1001)),
        ("24", Fraction(24)),
        ("24.0", Fraction(24)),
        ("24.00", Fraction(24)),
        ("23.9", Fraction(239, 10)),
        ("29.98", Fraction(2998, 100)),
        ("24.975", Fraction(24975, 1000)),
        ("12.5", Fraction(25, 2)),
        (25, Fraction(25)),
        (Fraction(2997, 100), Fraction(2997, 100)),
        ("0.5", Fraction(1, 2)),
        ("2.5e1", Fraction(25)),
    ],
)
def test_decimals_of_ntsc_rates_mean_their_fractions(text: Any, rate: Fraction) -> None:
    assert read_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        *("1e9", "0", "-25", "10001", "1e-99999", "1e-7", "fast", "", "1/0", "nan", "inf", "1e400000000", "9" * 100),
        *(float("nan"), 10**400, Fraction(1, 10**400)),
    ],
)
def test_rates_are_bounded(text: Any) -> None:
    with pytest.raises(RequestError, match=r"is not a frame rate|The frame rate is"):
        read_rate(text)


@pytest.mark.parametrize(("text", "factor"), [("2", 2), ("2.5", Fraction(5, 2)), (2.5, Fraction(5, 2)), ("5/2", 2.5)])
def test_factors_may_be_fractions(text: Any, factor: Any) -> None:
    assert read_factor(text) == factor


@pytest.mark.parametrize("text", ["0", "0.5", "1001", "1e9", "x", float("inf"), "nan", 10**400])
def test_factors_are_bounded(text: Any) -> None:
    with pytest.raises(RequestError, match="time factor"):
        read_factor(text)


@pytest.mark.parametrize("text", ["0", "-2", "1e9", "x", float("nan"), float("inf"), 10**400])
def test_scales_are_bounded(text: Any) -> None:
    with pytest.raises(RequestError, match="scale"):
        read_scale(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1:30", 90),
        ("01:02:03.5", Fraction(37235, 10)),
        ("62.5s", Fraction(125, 2)),
        (".5", Fraction(1, 2)),
        (2.5, Fraction(5, 2)),
        ("0", 0),
        ("4/3", Fraction(4, 3)),
    ],
)
def test_times_are_seconds_or_those_of_a_clock(text: Any, seconds: Any) -> None:
    assert read_seconds(text) == seconds


@pytest.mark.parametrize("text", ["-1", "1:2:3:4", "noon", "1e300", "", float("nan")])
def test_times_are_bounded(text: Any) -> None:
    with pytest.raises(RequestError, match="is not a time"):
        read_seconds(text)


@pytest.mark.parametrize(
    ("size", "source", "target"),
    [
        ("1280x720", (64, 48), (1280, 720)),
        ("1920x-1", (64, 48), (1920, 1440)),
        ("-1x1080", (64, 48), (1440, 1080)),
        ("-1x100", (63, 47), (134, 100)),
        ("-2x101", (63, 48), (132, 101)),
        ((-1, 96), (64, 48), (128, 96)),
        ("1080p", (64, 36), (1920, 1080)),
        ("1080P", (64, 48), (1440, 1080)),
        ("1080p", (1920, 804), (1920, 804)),
        ("1080p", (36, 64), (1080, 1920)),
        ("480p", (64, 36), (854, 480)),
        ("4k", (64, 36), (3840, 2160)),
        ("720p", (853, 480), (1280, 720)),
    ],
)
def test_sizes_follow_the_proportions_of_the_frame(size: Any, source: tuple[int, int], target: tuple[int, int]) -> None:
    assert target_size(size, *source) == target


@pytest.mark.parametrize("size", ["big", "-1x-1", "0x48", "99999999999x48", "99999x48", "1080", "64x", (0, 5), (-3, 5)])
def test_sizes_are_bounded(size: Any) -> None:
    with pytest.raises(RequestError, match="is not a size"):
        read_size(size)
