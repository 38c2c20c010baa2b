"""The agreement of every network of official size with the official code."""

import pytest

from tests.support.agreement import AGREEMENTS, Agreement
from tests.support.exports import FULL

SLOW = {"stinet", "tmnet", "videoinr", "zsm"}  # ten seconds each


@pytest.mark.parametrize(
    "agreement",
    [
        pytest.param(agreement, id=agreement.network, marks=pytest.mark.slow if agreement.network in SLOW else ())
        for agreement in AGREEMENTS
    ],
)
def test_output_agrees_with_the_official_network(agreement: Agreement) -> None:
    try:
        assert agreement.difference() < agreement.bound
    except FileNotFoundError as absent:
        pytest.skip(str(absent))


def test_every_official_network_has_an_oracle() -> None:
    """Only Ada-VSR has no official code."""
    without_code = {"adavsr-temporal", "adavsr-spatial"}
    assert {agreement.network for agreement in AGREEMENTS} | without_code == {*FULL, "videoinr"}
