import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose, assert_array_equal
from stvsr.kernels import reference
from stvsr.kernels.deform_conv import DeformConv

from tests.support.compare import assert_close_to_range
from tests.support.cuda_cpu import assert_errs_at_most_twice, everywhere
from tests.support.paths import ORACLES

CASES = [entry["case"] for entry in json.loads((ORACLES / "dcnv2.json").read_text())["cases"]]

# Configurations that no oracle has: (input's size, convolution).
OTHERS = {
    "groups": ((5, 11), DeformConv(12, 10, padding=(1, 1), groups=2, offset_groups=3)),
    "a group for each channel": ((9, 4), DeformConv(6, 6, padding=(1, 1), groups=6, offset_groups=2)),
    "rectangular": ((9, 14), DeformConv(20, 7, (1, 5), (2, 3), (0, 2), (1, 2), offset_groups=2)),
    "tall": ((12, 3), DeformConv(9, 3, (4, 2), (1, 2), (3, 1), (2, 1))),
    "more rows than a block": ((3, 7), DeformConv(8, 131, padding=(1, 1), offset_groups=4)),
    "one pixel": ((1, 1), DeformConv(3, 2, padding=(1, 1))),
}


def oracle(number: int) -> tuple[DeformConv, list[np.ndarray], np.ndarray]:
    case = CASES[number]
    with np.load(ORACLES / "dcnv2.npz") as arrays:
        inputs = [arrays[f"{number}/{name}"] for name in ("X", "offset", "mask", "W", "B")]
        expected = arrays[f"{number}/Y"]
    stride, padding, dilation = ((case[name],) * 2 for name in ("stride", "pad", "dil"))
    shape = (case["C"], case["O"], (case["k"],) * 2, stride, padding, dilation)
    return DeformConv(*shape, offset_groups=case["dg"]), inputs, expected


def scene(conv: DeformConv, size: tuple[int, int], batch: int = 2) -> list[np.ndarray]:
    """x, offset, mask, weight and bias; some offsets lead far outside."""
    random = np.random.default_rng(conv.in_channels)
    out, maps = conv.out_size(*size), conv.offset_groups * conv.taps
    offset = random.normal(0, 2, (batch, 2 * maps, *out))
    offset = np.where(random.random(offset.shape) < 0.05, offset * 1e5, offset)
    made = (
        random.standard_normal((batch, conv.in_channels, *size)),
        offset,
        random.random((batch, maps, *out)),
        random.standard_normal((conv.out_channels, conv.in_channels // conv.groups, *conv.kernel)) / 5,
        random.standard_normal(conv.out_channels),
    )
    return [array.astype(np.float32) for array in made]


def truth_of(conv: DeformConv, x, offset, mask, weight, bias=None) -> np.ndarray:
    places = (conv.stride, conv.padding, conv.dilation, conv.groups, conv.offset_groups)
    return reference.deform_conv(x, offset, mask, weight, bias, *places)


def plain_half(conv: DeformConv, x, offset, mask, weight, bias) -> np.ndarray:
    """Columns and result rounded to half, all between them exact."""
    places = (conv.kernel, conv.stride, conv.padding, conv.dilation, conv.offset_groups)
    columns = reference.deform_columns(x, offset, mask, *places).astype(np.float16)
    return reference.multiply_columns(columns.astype(float), weight, bias, conv.groups).astype(np.float16)


def convolve(run, conv: DeformConv, x, offset, mask, weight, bias=None) -> np.ndarray:
    return run(lambda x, o, m, w, b: conv(x, o, m, conv.pack(w), b), x, offset, mask, weight, bias)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_reference_agrees_with_the_official_kernel(number: int) -> None:
    conv, inputs, expected = oracle(number)
    assert_close_to_range(truth_of(conv, *inputs), expected, mean=1e-6, max=1e-5)


def test_the_reference_knows_groups() -> None:
    conv = DeformConv(12, 10, (3, 2), (2, 1), (1, 2), (1, 2), groups=2, offset_groups=3)
    x, offset, mask, weight, bias = scene(conv, (8, 11))
    out = truth_of(conv, x, 0 * offset, 0 * mask + 1, weight, bias)
    tensors = (torch.from_numpy(array).double() for array in (x, weight, bias))
    expected = F.conv2d(*tensors, conv.stride, conv.padding, conv.dilation, conv.groups)
    assert_allclose(out, expected.numpy(), rtol=0, atol=1e-9)


@everywhere
@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_kernel_agrees_with_the_official_one(run, number: int) -> None:
    conv, inputs, expected = oracle(number)
    out = convolve(run, conv, *inputs)
    assert out.dtype == np.float32
    assert_close_to_range(out, expected, mean=1e-6, max=1e-5)


@everywhere
@pytest.mark.parametrize("name", OTHERS)
def test_any_shape_agrees(run, name: str) -> None:
    size, conv = OTHERS[name]
    inputs = scene(conv, size)
    assert_close_to_range(convolve(run, conv, *inputs), truth_of(conv, *inputs), mean=1e-6, max=1e-5)
    assert_close_to_range(convolve(run, conv, *inputs[:-1]), truth_of(conv, *inputs[:-1]), mean=1e-6, max=1e-5)


@everywhere
@pytest.mark.parametrize("name", ["official 2", *OTHERS])
def test_half_precision_rounds_columns_and_results_alone(run, name: str) -> None:
    if name in OTHERS:
        size, conv = OTHERS[name]
        x, offset, mask, weight, bias = scene(conv, size)
    else:
        conv, (x, offset, mask, weight, bias), _ = oracle(2)
    x, weight, bias = (array.astype(np.float16) for array in (x, weight, bias))
    inputs = (x, offset, mask, weight, bias)
    out = convolve(run, conv, *inputs)
    assert out.dtype == np.float16
    assert_errs_at_most_twice(out, plain_half(conv, *inputs), truth_of(conv, *inputs))


@everywhere
def test_without_offsets_it_is_a_convolution_of_large_groups(run) -> None:
    conv = DeformConv(40, 70, padding=(1, 1), offset_groups=1)
    x, offset, mask, weight, bias = scene(conv, (6, 13), batch=1)
    out = convolve(run, conv, x, 0 * offset, 0 * mask + 1, weight, bias)
    expected = F.conv2d(*(torch.from_numpy(array) for array in (x, weight, bias)), padding=1)
    assert_close_to_range(out, expected.numpy(), mean=1e-6, max=1e-5)


@everywhere
def test_where_offsets_are_no_numbers_zero_is_read(run) -> None:
    conv = DeformConv(8, 4, (1, 1))
    x, offset, mask, weight, bias = scene(conv, (5, 6))
    offset[0, :, 2, 3], offset[1, :, 1, 1] = np.nan, -np.inf
    out = convolve(run, conv, x, offset, mask, weight, bias)
    assert_array_equal(out[0, :, 2, 3], bias)
    assert_array_equal(out[1, :, 1, 1], bias)
    assert np.isfinite(out).all()


@pytest.mark.parametrize(
    ("channels", "size", "batch"), [((0, 4), (5, 6), 2), ((8, 0), (5, 6), 2), ((8, 4), (5, 6), 0), ((8, 4), (1, 6), 2)]
)
def test_of_nothing_nothing_is_launched(channels: tuple[int, int], size: tuple[int, int], batch: int) -> None:
    # No device is at hand here: a launch would fail.
    conv = DeformConv(*channels)
    x, offset, mask, weight, bias = scene(conv, size, batch)
    out = conv(x, offset, mask, conv.pack(weight), bias)
    assert out.shape == (batch, channels[1], *conv.out_size(*size))
    assert_array_equal(out, np.broadcast_to(bias[:, None, None], out.shape))


def test_an_input_without_pixels_gives_the_bias() -> None:
    conv = DeformConv(8, 4, padding=(1, 2))
    x, offset, mask, weight, bias = scene(conv, (4, 0))
    out = conv(x, offset, mask, conv.pack(weight), bias)
    assert out.shape == (2, 4, 4, 2)
    assert_array_equal(out, np.broadcast_to(bias[:, None, None], out.shape))
    assert_array_equal(conv(x, offset, mask, conv.pack(weight)), 0)


def test_packing_keeps_every_weight_once() -> None:
    conv = DeformConv(12, 70, (3, 2), groups=2, offset_groups=3)
    weight = np.arange(1, 70 * 6 * 6 + 1, dtype=np.float32).reshape(70, 6, 3, 2)
    packed = conv.pack(weight)
    assert packed.shape == (2, 32 * conv.steps, 64)
    assert_array_equal(np.sort(packed[packed != 0]), np.arange(1, weight.size + 1))


def test_what_does_not_fit_is_refused() -> None:
    for wrong in ({"groups": 5}, {"offset_groups": 3}, {"kernel": (0, 3)}, {"padding": (-1, 0)}, {"stride": (1, 0)}):
        with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
            replace(DeformConv(8, 4), **wrong)
    conv = DeformConv(8, 4)
    x, offset, mask, weight, bias = scene(conv, (5, 6))
    packed = conv.pack(weight)
    for inputs, message in (
        ((x[:, :4], offset, mask, packed), "x must be"),
        ((x, offset[:, :4], mask, packed), "offset must be"),
        ((x, offset, mask.astype(np.float16), packed), "mask must be .* float32"),
        ((x, offset, mask[:1], packed), "mask must be"),
        ((x, offset, mask, weight), "packed must be"),
        ((x, offset, mask, packed.astype(np.float16)), "packed must be"),
        ((x, offset, mask, packed, bias[:2]), "bias must be"),
        ((x, offset, mask, packed, bias, x), "out must be"),
    ):
        with pytest.raises(ValueError, match=message):
            conv(*inputs)
    with pytest.raises(ValueError, match="the weight must be"):
        conv.pack(weight[:, :4])
