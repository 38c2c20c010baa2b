"""Deformable convolution against the official one and against the oracle."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose, assert_array_equal
from stvsr.kernels.deform_conv import DeformConv, Variant
from stvsr.kernels.variants import text_of

from tests.support.compare import assert_close_to_range
from tests.support.cuda_cpu import Run, assert_errs_at_most_twice, everywhere
from tests.support.kernel_scenes import DEFORM_CONVS, deform_conv_in_plain_half, deform_conv_scene, deform_conv_truth
from tests.support.paths import ORACLES

CASES = [entry["case"] for entry in json.loads((ORACLES / "dcnv2.json").read_text())["cases"]]


def oracle(number: int) -> tuple[DeformConv, list[np.ndarray], np.ndarray]:
    """Return a convolution, its inputs (x, offset, mask, weight, bias), and the official output."""
    case = CASES[number]
    with np.load(ORACLES / "dcnv2.npz") as arrays:
        inputs = [arrays[f"{number}/{name}"] for name in ("X", "offset", "mask", "W", "B")]
        expected = arrays[f"{number}/Y"]
    stride, padding, dilation = ((case[name],) * 2 for name in ("stride", "pad", "dil"))
    shape = (case["C"], case["O"], (case["k"],) * 2, stride, padding, dilation)
    return DeformConv(*shape, offset_groups=case["dg"]), inputs, expected


def convolve(
    run: Run,
    conv: DeformConv,
    x: np.ndarray,
    offset: np.ndarray,
    mask: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    return run(lambda x, o, m, w, b: conv(x, o, m, conv.pack(w), b), x, offset, mask, weight, bias)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_reference_agrees_with_the_official_kernel(number: int) -> None:
    conv, inputs, expected = oracle(number)
    assert_close_to_range(deform_conv_truth(conv, *inputs), expected, mean=1e-6, max=1e-5)


def test_the_reference_supports_groups() -> None:
    conv = DeformConv(12, 10, (3, 2), (2, 1), (1, 2), (1, 2), groups=2, offset_groups=3)
    x, offset, mask, weight, bias = deform_conv_scene(conv, (8, 11))
    out = deform_conv_truth(conv, x, 0 * offset, 0 * mask + 1, weight, bias)
    doubles = [torch.from_numpy(array).double() for array in (x, weight, bias)]
    expected = F.conv2d(doubles[0], doubles[1], doubles[2], conv.stride, conv.padding, conv.dilation, conv.groups)
    assert_allclose(out, expected.numpy(), rtol=0, atol=1e-9)


@everywhere
@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_kernel_agrees_with_the_official_one(run: Run, number: int) -> None:
    conv, inputs, expected = oracle(number)
    out = convolve(run, conv, *inputs)
    assert out.dtype == np.float32
    assert_close_to_range(out, expected, mean=1e-6, max=1e-5)


@everywhere
@pytest.mark.parametrize("name", DEFORM_CONVS)
def test_the_kernel_agrees_with_the_reference(run: Run, name: str) -> None:
    size, conv = DEFORM_CONVS[name]
    inputs = deform_conv_scene(conv, size)
    for given in (inputs, inputs[:-1]):  # with and without a bias
        assert_close_to_range(convolve(run, conv, *given), deform_conv_truth(conv, *given), mean=1e-6, max=1e-5)


@everywhere
@pytest.mark.parametrize("name", ["official 2", *DEFORM_CONVS])
def test_half_precision_rounds_only_columns_and_results(run: Run, name: str) -> None:
    if name in DEFORM_CONVS:
        size, conv = DEFORM_CONVS[name]
        x, offset, mask, weight, bias = deform_conv_scene(conv, size)
    else:
        conv, (x, offset, mask, weight, bias), _ = oracle(2)
    x, weight, bias = (array.astype(np.float16) for array in (x, weight, bias))
    inputs = (x, offset, mask, weight, bias)
    out = convolve(run, conv, *inputs)
    assert out.dtype == np.float16
    assert_errs_at_most_twice(out, deform_conv_in_plain_half(conv, *inputs), deform_conv_truth(conv, *inputs))


def variants(*numbers: int) -> list[Any]:
    """Return the variants of these numbers that a network's convolutions have, and all others as slow."""
    listed = []
    for dtype, outs in (("float32", 64), ("float16", 64), ("float16", 70)):
        for number, variant in enumerate(DeformConv(8, outs).candidates(dtype)):
            marks = () if number in numbers and outs == 64 else pytest.mark.slow
            listed.append(pytest.param(dtype, outs, variant, id=f"{dtype}-{text_of(variant)}", marks=marks))
    return listed


@everywhere
@pytest.mark.parametrize(("dtype", "outs", "variant"), variants(0, 1))
def test_every_variant_agrees_with_the_reference(run: Run, dtype: str, outs: int, variant: Variant) -> None:
    # More pixels than a block of any variant has, more steps than stages, and strips that share a position.
    for conv, size in (
        (DeformConv(72, outs, padding=(1, 1), offset_groups=3), (11, 25)),
        (DeformConv(20, outs - 3, (1, 2), offset_groups=4), (3, 7)),
    ):
        inputs = deform_conv_scene(conv, size, batch=1)
        x, weight, bias = (inputs[i].astype(dtype) for i in (0, 3, 4))
        inputs = [x, inputs[1], inputs[2], weight, bias]
        out = run(lambda x, o, m, w, b, c=conv: c(x, o, m, c.pack(w), b, variant=variant), *inputs)
        truth = deform_conv_truth(conv, *inputs)
        if dtype == "float32":
            assert_close_to_range(out, truth, mean=1e-6, max=1e-5)
        else:
            assert_errs_at_most_twice(out, deform_conv_in_plain_half(conv, *inputs), truth)


def test_first_variants_fit_into_the_memory_that_needs_no_attribute() -> None:
    for dtype, outs in (("float32", 64), ("float16", 64), ("float16", 70)):
        conv = DeformConv(8, outs)
        for variant in conv.candidates(dtype):
            launch = conv.launch(1, 9, 15, dtype, variant)
            assert launch.grid == (-(-135 // variant.pixels), conv.packed_shape[2] // variant.rows, 1)
            assert launch.shared_bytes <= 99 << 10  # the limit of compute capability 8.6 to 12.0
        assert conv.launch(1, 9, 15, dtype, conv.candidates(dtype)[0]).shared_bytes <= 48 << 10


@everywhere
def test_features_in_strips_are_taken_as_they_are(run: Run) -> None:
    conv = DeformConv(10, 4, padding=(1, 1), offset_groups=5)
    x, offset, mask, weight, bias = deform_conv_scene(conv, (4, 9))
    strips = run(conv.pack_features, x)
    assert strips.shape == (2, 5, 4, 9, 8)
    assert_array_equal(strips[..., :2].transpose(0, 1, 4, 2, 3).reshape(x.shape), x)
    assert_array_equal(strips[..., 2:], 0)
    expected = deform_conv_truth(conv, x, offset, mask, weight, bias)
    assert_close_to_range(convolve(run, conv, strips, offset, mask, weight, bias), expected, mean=1e-6, max=1e-5)


@everywhere
def test_zero_offsets_give_an_ordinary_convolution(run: Run) -> None:
    conv = DeformConv(40, 70, padding=(1, 1), offset_groups=1)
    x, offset, mask, weight, bias = deform_conv_scene(conv, (6, 13), batch=1)
    out = convolve(run, conv, x, 0 * offset, 0 * mask + 1, weight, bias)
    expected = F.conv2d(torch.from_numpy(x), torch.from_numpy(weight), torch.from_numpy(bias), padding=1)
    assert_close_to_range(out, expected.numpy(), mean=1e-6, max=1e-5)


@everywhere
def test_nan_and_infinite_offsets_read_zero(run: Run) -> None:
    conv = DeformConv(8, 4, (1, 1))
    x, offset, mask, weight, bias = deform_conv_scene(conv, (5, 6))
    offset[0, :, 2, 3], offset[1, :, 1, 1] = np.nan, -np.inf
    out = convolve(run, conv, x, offset, mask, weight, bias)
    assert_array_equal(out[0, :, 2, 3], bias)
    assert_array_equal(out[1, :, 1, 1], bias)
    assert np.isfinite(out).all()


@pytest.mark.parametrize(
    ("channels", "size", "batch"), [((0, 4), (5, 6), 2), ((8, 0), (5, 6), 2), ((8, 4), (5, 6), 0), ((8, 4), (1, 6), 2)]
)
def test_empty_inputs_and_outputs_need_no_launch(channels: tuple[int, int], size: tuple[int, int], batch: int) -> None:
    # Without `run` there is no device: a launch would fail.
    conv = DeformConv(*channels)
    x, offset, mask, weight, bias = deform_conv_scene(conv, size, batch)
    out = conv(x, offset, mask, conv.pack(weight), bias)
    assert out.shape == (batch, channels[1], *conv.out_size(*size))
    assert_array_equal(out, np.broadcast_to(bias[:, None, None], out.shape))


def test_an_input_without_pixels_gives_the_bias() -> None:
    conv = DeformConv(8, 4, padding=(1, 2))
    x, offset, mask, weight, bias = deform_conv_scene(conv, (4, 0))
    out = conv(x, offset, mask, conv.pack(weight), bias)
    assert out.shape == (2, 4, 4, 2)
    assert_array_equal(out, np.broadcast_to(bias[:, None, None], out.shape))
    assert_array_equal(conv(x, offset, mask, conv.pack(weight)), 0)


def test_a_packed_weight_contains_every_weight_once() -> None:
    conv = DeformConv(12, 70, (3, 2), groups=2, offset_groups=3)
    weight = np.arange(1, 70 * 6 * 6 + 1, dtype=np.float32).reshape(70, 6, 3, 2)
    packed = conv.pack(weight)
    assert packed.shape == (2, 192, 64)  # 3 runs of 2 channels, 6 taps, padded to strips of 8 and to 64
    assert_array_equal(np.sort(packed[packed != 0]), np.arange(1, weight.size + 1))


def test_wrong_configurations_shapes_and_dtypes_are_refused() -> None:
    for wrong in ({"groups": 5}, {"offset_groups": 3}, {"kernel": (0, 3)}, {"padding": (-1, 0)}, {"stride": (1, 0)}):
        with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
            replace(DeformConv(8, 4), **wrong)
    conv = DeformConv(8, 4)
    x, offset, mask, weight, bias = deform_conv_scene(conv, (5, 6))
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
