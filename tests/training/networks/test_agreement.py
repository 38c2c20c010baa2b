"""The agreement of every network of official size with the official code."""

import pytest

from tests.support.agreement import AGREEMENTS, Agreement
from tests.support.exports import FULL


@pytest.mark.parametrize("agreement", AGREEMENTS, ids=lambda agreement: agreement.network)
def test_output_agrees_with_the_official_network(agreement: Agreement) -> None:
    try:
        assert agreement.difference() < agreement.bound
    except FileNotFoundError as absent:
        pytest.skip(str(absent))


def test_every_official_network_has_an_oracle() -> None:
    """Only Ada-VSR has no official code."""
    without_code = {"adavsr-temporal", "adavsr-spatial"}
    assert {agreement.network for agreement in AGREEMENTS} | without_code == {*FULL, "videoinr"}
