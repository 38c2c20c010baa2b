"""Resizing and metrics equal the reference implementations of the field, value by value."""

import json
from collections.abc import Mapping

import numpy as np
import pytest
from stvsr.engine.contract.metrics import luma, psnr, ssim
from stvsr.engine.contract.resize import resize_matrix
from stvsr.training.resize import imresize, to_uint8

from tests.support.paths import ORACLES

Arrays = Mapping[str, np.ndarray]
Values = Mapping[str, float]


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return np.load(ORACLES / "metrics_resize.npz")


@pytest.fixture(scope="module")
def values() -> Values:
    return json.loads((ORACLES / "metrics_resize.json").read_text())


@pytest.mark.parametrize("scale", [1 / 4, 1 / 2, 1 / 8, 1 / 3, 10 / 27, 2, 4])
def test_imresize_agrees_with_the_reference(arrays: Arrays, scale: float) -> None:
    expected = arrays[f"imresize_np/{scale:g}"]
    actual = imresize(arrays["a_rgb_u8"] / 255.0, scale=scale)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < 3e-6


def test_imresize_of_a_0_to_255_range_agrees_with_the_reference(arrays: Arrays) -> None:
    actual = imresize(arrays["a_rgb_u8"].astype(np.float64), scale=0.25)
    assert np.abs(actual - arrays["imresize_np_u8in/0.25"]).max() < 3e-5


def test_psnr_agrees_with_the_reference(arrays: Arrays, values: Values) -> None:
    a, b = arrays["a_rgb_u8"], arrays["b_rgb_u8"]
    assert psnr(a, b) == pytest.approx(values["zsm_psnr_rgb"], abs=1e-9)
    assert psnr(luma(a), luma(b)) == pytest.approx(values["zsm_psnr_y(float, no rounding)"], abs=1e-9)


def test_ssim_agrees_with_the_reference(arrays: Arrays, values: Values) -> None:
    a, b = arrays["a_rgb_u8"], arrays["b_rgb_u8"]
    assert ssim(a, b) == pytest.approx(values["zsm_ssim_rgb(bgr array)"], abs=1e-9)
    assert ssim(luma(a), luma(b)) == pytest.approx(values["zsm_ssim_y"], abs=1e-9)


def test_luma_agrees_with_the_reference(arrays: Arrays) -> None:
    assert np.abs(luma(arrays["a_rgb_u8"]) / 255 - arrays["y_a_float01"]).max() < 1e-12


def test_rounding_to_bytes_agrees_with_the_reference(arrays: Arrays) -> None:
    actual = to_uint8(arrays["tensor2img_in"].transpose(1, 2, 0).clip(0, 1))
    assert np.array_equal(actual[..., ::-1], arrays["tensor2img_out_bgr_u8"])


def test_equal_images_have_an_infinite_psnr_and_an_ssim_of_1(arrays: Arrays) -> None:
    a = arrays["a_rgb_u8"]
    assert psnr(a, a) == float("inf")
    assert ssim(a, a) == pytest.approx(1.0)


def test_ssim_refuses_images_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match="11 pixels each way, not 40x10"):
        ssim(np.zeros((10, 40)), np.zeros((10, 40)))


@pytest.mark.parametrize(("n_in", "n_out"), [(7, 3), (3, 7), (192, 48), (50, 48), (1, 4)])
def test_resizing_keeps_flat_images_flat(n_in: int, n_out: int) -> None:
    assert np.allclose(resize_matrix(n_in, n_out).sum(1), 1)


def test_imresize_takes_exactly_one_of_size_and_scale() -> None:
    with pytest.raises(ValueError, match="either a size or a scale"):
        imresize(np.zeros((4, 4)), size=(2, 2), scale=0.5)
