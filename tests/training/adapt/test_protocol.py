"""Budgets and clocks of adaptation."""

from typing import Any

import pytest
from stvsr.engine.contract.errors import AdaptationError, RequestError
from stvsr.training.adapt.protocol import Budget, Losses


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give a number of steps or of seconds"),
        ({"steps": 0}, "0 steps learns nothing: give at least 1 step"),
        ({"seconds": -2.5}, "-2.5 seconds learns nothing: give more than 0"),
        ({"seconds": float("nan")}, "nan seconds learns nothing"),
        ({"steps": 3, "seconds": 0.0}, "0 seconds learns nothing"),
    ],
)
def test_budget_without_an_end_or_steps_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        Budget(**options)


def test_clock_is_done_at_the_earlier_end_of_its_budget() -> None:
    clock = Budget(steps=4, seconds=1000.0).start()
    clock.steps = 1
    assert not clock.done()
    assert clock.fraction() == 0.25
    clock.steps = 4
    assert clock.done()
    assert clock.fraction() == 1.0


def test_losses_that_rise_for_long_are_a_divergence() -> None:
    losses = Losses()
    for loss in [1.0] * 5 + [2.0] * 4:
        losses.add(loss)
    with pytest.raises(AdaptationError, match=r"rose from 1\.00e\+00 to .*: take a lower learning rate\.$"):
        losses.add(99.0)
