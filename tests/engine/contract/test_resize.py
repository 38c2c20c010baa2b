"""Bicubic resizing: the taps, the matrices and the frames agree with one another and with the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stvsr.engine.contract.resize import (
    coarse_size,
    cubic_kernel,
    cubic_matrix,
    cubic_taps,
    resize_matrix,
    resized,
    shrink,
)

from tests.support.paths import ORACLES

lengths = st.integers(1, 40)


def centres(n_in: int, n_out: int) -> np.ndarray:
    """Return the positions of output samples in the input if the first and last edges of both coincide."""
    return (np.arange(n_out) + 0.5) * n_in / n_out - 0.5


def test_cubic_kernel_has_the_values_of_keys_1981() -> None:
    np.testing.assert_allclose(cubic_kernel(np.array([0, 0.5, 1, 1.5, 2, 3])), [1, 0.5625, 0, -0.0625, 0, 0])
    distances = np.linspace(-3, 3, 61)
    np.testing.assert_array_equal(cubic_kernel(distances), cubic_kernel(-distances))


@settings(deadline=None)
@given(n_in=lengths, n_out=lengths)
def test_cubic_taps_are_input_samples_with_weights_of_sum_1(n_in: int, n_out: int) -> None:
    indices, weights = cubic_taps(n_in, centres(n_in, n_out), n_out / n_in)
    assert indices.shape == weights.shape
    assert len(indices) == n_out
    assert weights.dtype == np.float64
    assert (indices >= 0).all()
    assert (indices < n_in).all()
    np.testing.assert_allclose(weights.sum(1), 1)


@settings(deadline=None)
@given(n_in=lengths, n_out=lengths, seed=st.integers(0, 9))
def test_taps_and_matrix_compute_the_same_samples(n_in: int, n_out: int, seed: int) -> None:
    signal = np.random.default_rng(seed).random(n_in)
    indices, weights = cubic_taps(n_in, centres(n_in, n_out), n_out / n_in)
    matrix = resize_matrix(n_in, n_out)
    assert matrix.shape == (n_out, n_in)
    np.testing.assert_allclose(matrix.sum(1), 1)
    np.testing.assert_allclose(matrix @ signal, (signal[indices] * weights).sum(1), atol=1e-12)
    np.testing.assert_allclose(matrix, cubic_matrix(n_in, centres(n_in, n_out), n_out / n_in), atol=1e-9)


@settings(deadline=None)
@given(h=lengths, w=lengths, size=st.tuples(lengths, lengths), seed=st.integers(0, 9))
def test_resized_agrees_with_the_matrices(h: int, w: int, size: tuple[int, int], seed: int) -> None:
    frames = np.random.default_rng(seed).random((2, 3, h, w))
    expected = resize_matrix(h, size[0]) @ frames @ resize_matrix(w, size[1]).T
    actual = resized(frames, size)
    assert actual.dtype == np.float32
    assert actual.shape == (2, 3, *size)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size"), [("0.25", (16, 24)), ("0.5", (32, 48)), ("2", (128, 192)), ("4", (256, 384))]
)
def test_resized_agrees_with_the_reference(name: str, size: tuple[int, int]) -> None:
    with np.load(ORACLES / "metrics_resize.npz") as arrays:
        frame, expected = arrays["a_rgb_u8"] / 255.0, arrays[f"imresize_np/{name}"]
    np.testing.assert_allclose(resized(frame.transpose(2, 0, 1), size), expected.transpose(2, 0, 1), atol=3e-6)


def test_resized_returns_frames_of_the_same_size_unchanged() -> None:
    frames = np.random.default_rng(0).random((3, 5, 7)).astype(np.float32)
    np.testing.assert_array_equal(resized(frames, (5, 7)), frames)


@pytest.mark.parametrize(("n_in", "n_out"), [(5, 7), (7, 5)])
def test_the_identity_and_constants_are_exact(n_in: int, n_out: int) -> None:
    np.testing.assert_allclose(resize_matrix(n_in, n_in), np.eye(n_in), atol=1e-12)
    np.testing.assert_allclose(resized(np.full((3, n_in, n_in), 0.25, np.float32), (n_out, n_out)), 0.25, atol=1e-6)


def test_resize_matrix_takes_the_scale_of_a_length_that_was_rounded_up() -> None:
    exact = resize_matrix(10, 4, 1 / 3)
    assert exact.shape == (4, 10)
    np.testing.assert_allclose(exact, cubic_matrix(10, (np.arange(4) + 0.5) * 3 - 0.5, 1 / 3))
    assert np.abs(exact - resize_matrix(10, 4)).max() > 0.01


def test_matrices_are_read_only_because_they_are_cached() -> None:
    with pytest.raises(ValueError, match="read-only"):
        resize_matrix(6, 3)[0, 0] = 1


def test_resized_does_not_clip_overshoot_and_shrink_does() -> None:
    frame = np.zeros((3, 16, 16), np.float32)
    frame[:, :, 8:] = 1
    half = resized(frame, (8, 8))
    assert half.min() < 0
    assert half.max() > 1
    np.testing.assert_array_equal(shrink(frame, 2), half.clip(0, 1))


@pytest.mark.parametrize(("factor", "size"), [(1, (9, 14)), (2, (4, 7)), (4, (2, 3))])
def test_shrink_rounds_sizes_down(factor: int, size: tuple[int, int]) -> None:
    assert shrink(np.full((3, 9, 14), 0.5, np.float32), factor).shape == (3, *size)


def test_shrink_by_1_returns_the_frame_itself() -> None:
    frame = np.full((3, 4, 4), 0.5, np.float32)
    assert shrink(frame, 1) is frame


@pytest.mark.parametrize(
    ("size", "coarse", "expected"),
    [
        ((90, 160), 1, (90, 160)),
        ((90, 160), 2, (45, 80)),
        ((90, 160), 4, (23, 40)),
        ((90, 160), 8, (12, 20)),
        ((3, 17), 8, (2, 3)),
        ((1, 1), 1, (2, 2)),
    ],
)
def test_coarse_size_rounds_up_and_keeps_two_pixels(
    size: tuple[int, int], coarse: int, expected: tuple[int, int]
) -> None:
    assert coarse_size(size, coarse) == expected
