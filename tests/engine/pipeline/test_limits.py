"""Options beyond their limits are refused before a file is opened, and rates become fractions that FFmpeg stores."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stvsr import Backend, BackendError, RequestError, UpscaleRequest
from stvsr.engine.pipeline.limits import storable_rate

REQUEST = UpscaleRequest(input="no such file.mp4")
LARGEST = 2**31 - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": float("inf")}, "The scale is inf"),
        ({"scale": float("nan")}, "The scale is nan"),
        ({"scale": 1e300}, r"The scale is 1e\+300"),
        ({"time_factor": 100_000}, "at most 1000 frames"),
        ({"fps": Fraction(10**9)}, r"The frame rate is 1e\+09"),
        ({"fps": Fraction(1, 10**30)}, "The frame rate is 1e-30"),
        ({"fps": Fraction(10**400)}, r"The frame rate is 10\^400"),
        ({"encoder_options": {"threads": "abc"}}, "'threads' is 'abc'"),
        ({"encoder_options": {"threads": "-1"}}, "'threads' is '-1'"),
        ({"encoder_options": {"threads": "1" * 5000}}, "'threads' is '1"),
    ],
)
def test_an_option_beyond_its_limit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        replace(REQUEST, **options).check()


@pytest.mark.parametrize(
    "options", [{"threads": 0}, {"threads": 10**6}, {"time_limit_s": 0.0}, {"time_limit_s": 1e300}]
)
def test_a_backend_beyond_its_limits_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match="give"):
        Backend(**options)


@given(st.fractions(min_value=Fraction(1, 10**6), max_value=10**4))
def test_a_rate_that_fits_stays(rate: Fraction) -> None:
    stored = storable_rate(rate)
    assert max(stored.numerator, stored.denominator) <= LARGEST
    assert abs(stored - rate) <= rate * Fraction(1, 10**5)
    if max(rate.numerator, rate.denominator) <= LARGEST:
        assert stored == rate


@given(st.fractions(min_value=Fraction(1, 10**40), max_value=10**40))
def test_any_rate_is_stored(rate: Fraction) -> None:
    stored = storable_rate(rate)
    assert stored > 0
    assert max(stored.numerator, stored.denominator) <= LARGEST


def test_a_decimal_rate_becomes_the_fraction_that_it_stands_for() -> None:
    assert storable_rate(Fraction("59.94005994005994")) == Fraction(60000, 1001)
