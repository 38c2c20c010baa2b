"""The adaptive learning rate: it stays while the loss falls, and is divided by ten when the loss stops falling."""

import numpy as np
import pytest
from stvsr.training.adapt.adaptive_rate import AdaptiveRate


def noisy_losses(start: float, slope: float, noise: float, count: int, seed: int = 0) -> np.ndarray:
    return start + slope * np.arange(count) + noise * np.random.default_rng(seed).standard_normal(count)


def test_rate_stays_while_the_loss_falls() -> None:
    rate = AdaptiveRate(1e-3)
    for loss in noisy_losses(1.0, -1e-3, 0.05, 600):
        rate.add(loss)
    assert rate.rate == 1e-3


@pytest.mark.parametrize("slope", [0.0, 1e-3])
def test_rate_falls_when_the_loss_stops_falling(slope: float) -> None:
    rate = AdaptiveRate(1e-3, every=50, window=200)
    for k, loss in enumerate(noisy_losses(1.0, slope, 0.05, 400)):
        rate.add(loss)
        expected = 1e-3 if k < 199 else 1e-4 if k < 399 else 1e-5
        assert rate.rate == pytest.approx(expected)
    assert not rate.spent


def test_rate_is_spent_when_it_reaches_the_final_rate() -> None:
    rate = AdaptiveRate(1e-4, final=1e-6, every=50, window=100)
    for loss in noisy_losses(1.0, 0.0, 0.05, 199):
        rate.add(loss)
    assert not rate.spent
    rate.add(1.0)
    assert rate.spent
