"""Conversions between callers' frames, the engine's float32 frames and its uint16 frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stvsr.engine.contract.errors import RequestError
from stvsr.engine.contract.picture import FULL_SCALE, as_frame, to_float, to_uint16


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_frames_become_float32(dtype: type[np.floating]) -> None:
    frame = np.linspace(0, 1, 3 * 4 * 5).reshape(3, 4, 5).astype(dtype)
    actual = as_frame(frame)
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, frame.astype(np.float32))


def test_float32_frames_are_not_copied() -> None:
    frame = np.zeros((3, 2, 2), np.float32)
    assert as_frame(frame) is frame


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_integer_frames_are_scaled_by_the_maximum_of_their_dtype(dtype: type[np.unsignedinteger], white: int) -> None:
    frame = np.array([0, 1, white // 2, white - 1, white, white], dtype).reshape(3, 1, 2)
    actual = as_frame(frame)
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, frame.astype(np.float32) / np.float32(white))
    assert (actual.min(), actual.max()) == (0, 1)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (1, 4, 5), (4, 4, 5), (1, 3, 4, 5), (3, 0, 5), (3, 4, 0), ()])
def test_frames_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match=r"shape \(3, height, width\)") as refused:
        as_frame(np.zeros(shape, np.float32))
    assert str(shape) in str(refused.value)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint32", "uint64", "complex64"])
def test_frames_of_another_dtype_are_refused(dtype: str) -> None:
    with pytest.raises(RequestError, match=f"{dtype}.*uint8 or uint16"):
        as_frame(np.zeros((3, 4, 5), dtype))


@pytest.mark.parametrize(
    "value", [-1e-6, 1 + 1e-6, 255.0, -np.inf, np.inf, np.nan], ids=["low", "high", "255", "-inf", "inf", "nan"]
)
def test_float_frames_outside_the_range_are_refused(value: float) -> None:
    frame = np.full((3, 4, 5), 0.5, np.float32)
    frame[1, 2, 3] = value
    with pytest.raises(RequestError, match=r"scale floats to \[0, 1\]"):
        as_frame(frame)


def test_every_uint16_value_survives_the_round_trip() -> None:
    frame = np.arange(FULL_SCALE + 1, dtype=np.uint16)
    floats = to_float(frame)
    assert floats.dtype == np.float32
    assert (floats[0], floats[-1]) == (0, 1)
    assert (np.diff(floats) > 0).all()
    actual = to_uint16(floats, 0, 1)
    assert actual.dtype == np.uint16
    np.testing.assert_array_equal(actual, frame)


def test_output_frames_are_accepted_as_input_frames() -> None:
    frame = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5) * 1000
    np.testing.assert_array_equal(as_frame(frame), to_float(frame))


@given(low=st.integers(-300, 300), width=st.integers(1, 600))
def test_to_uint16_maps_the_value_range_to_full_scale(low: int, width: int) -> None:
    high = low + width
    frame = np.array([low, low + width / 4, low + width / 2, high], np.float32)
    # Half a step of rounding, and the float32 error of values up to 900 in a range as narrow as 1.
    np.testing.assert_allclose(to_uint16(frame, low, high), np.array([0, 1, 2, 4]) / 4 * FULL_SCALE, atol=0.5 + 0.01)


def test_to_uint16_rounds_and_clips_without_changing_its_input() -> None:
    frame = np.array([-0.5, 0.4 / FULL_SCALE, 0.6 / FULL_SCALE, 1.5], np.float32)
    before = frame.copy()
    np.testing.assert_array_equal(to_uint16(frame, 0, 1), [0, 0, 1, FULL_SCALE])
    np.testing.assert_array_equal(frame, before)
