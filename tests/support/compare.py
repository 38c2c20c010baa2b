"""A comparison of arrays that reports where and by how much they differ."""

import numpy as np
from numpy.typing import ArrayLike


def assert_close_to_range(actual: ArrayLike, expected: ArrayLike, *, mean: float, max: float) -> None:
    """Assert that the mean and largest absolute errors, relative to the expected range, are below these bounds."""
    a, e = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert a.shape == e.shape, f"shape {a.shape}, expected {e.shape}"
    assert np.isfinite(a).all(), f"{(~np.isfinite(a)).sum()} of {a.size} values are not finite"
    span = np.ptp(e)
    assert span > 0, "the expected array is constant, so it has no range"
    error = np.abs(a - e) / span
    if error.mean() < mean and error.max() < max:
        return
    shares = ", ".join(f"{q}%: {np.percentile(error, q):.2e}" for q in (10, 50, 90, 99, 99.9))
    worst = tuple(int(i) for i in np.unravel_index(error.argmax(), error.shape))
    raise AssertionError(
        f"mean error {error.mean():.2e} (bound {mean:.0e}), max {error.max():.2e} (bound {max:.0e}) of the range "
        f"{span:.4g}; percentiles {shares}; worst at {worst}: {a[worst]:.6g}, expected {e[worst]:.6g}"
    )
