"""Sampling operators and deformable convolution: values, gradients and exported graphs."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from stvsr.export.translations import onnx_translations
from stvsr.training.networks.ops import (
    Border,
    modulated_deform_conv2d,
    nearest_index,
    sample,
    sample_bilinear,
    sample_nearest,
    target_coordinates,
    warp,
)
from torch import Tensor, nn
from torch.export import Dim

from tests.support.compare import assert_close_to_range
from tests.support.paths import ORACLES

DEFORM_CASES = [entry["case"] for entry in json.loads((ORACLES / "dcnv2.json").read_text())["cases"]]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("number", range(len(DEFORM_CASES)))
def test_deform_conv_agrees_with_the_official_kernel(number: int) -> None:
    case = DEFORM_CASES[number]
    with np.load(ORACLES / "dcnv2.npz") as arrays:
        names = ("X", "offset", "mask", "W", "B")
        x, offset, mask, weight, bias = (torch.from_numpy(arrays[f"{number}/{name}"]) for name in names)
        expected = arrays[f"{number}/Y"]
    geometry = (case["stride"], case["pad"], case["dil"], case["dg"])
    out = modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry)
    assert_close_to_range(out, expected, mean=1e-6, max=1e-5)
    assert np.abs(out.numpy() - expected).max() < 1e-5


def test_deform_conv_with_zero_offsets_is_a_convolution() -> None:
    x, weight = random(2, 6, 9, 7), random(4, 6, 3, 3, seed=1)
    # Slices of a larger tensor, as in a network, so they are not contiguous.
    offset, mask = torch.zeros(2, 54, 5, 4).split((36, 18), dim=1)
    out = modulated_deform_conv2d(x, offset, mask + 1, weight, None, stride=2, padding=1, offset_groups=2)
    torch.testing.assert_close(out, F.conv2d(x, weight, None, 2, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_deform_conv_passes_gradcheck() -> None:
    shapes = ((2, 4, 4, 5), (2, 36, 4, 5), (2, 18, 4, 5), (3, 4, 3, 3), (3,))
    inputs = [random(*shape, seed=i).double().requires_grad_() for i, shape in enumerate(shapes)]

    def operator(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return modulated_deform_conv2d(x, offset, mask, weight, bias, padding=1, offset_groups=2)

    assert torch.autograd.gradcheck(operator, inputs)


def test_warp_with_zero_flow_is_the_identity() -> None:
    features = random(2, 3, 5, 8)
    for border in ("zeros", "clamp"):
        torch.testing.assert_close(warp(features, torch.zeros(2, 2, 5, 8), border), features, rtol=0, atol=1e-5)


def test_warp_samples_where_the_flow_points() -> None:
    features = random(1, 3, 5, 8)
    flow = torch.zeros(1, 2, 5, 8)
    flow[:, 0], flow[:, 1] = 2, -1  # two columns to the right, one row up
    inner = features[:, :, :-1, 2:]
    zeros, clamped = warp(features, flow, "zeros"), warp(features, flow, "clamp")
    torch.testing.assert_close(zeros[:, :, 1:, :-2], inner, rtol=0, atol=1e-5)
    torch.testing.assert_close(clamped[:, :, 1:, :-2], inner, rtol=0, atol=1e-5)
    assert zeros[:, :, 0].abs().max() < 1e-5
    torch.testing.assert_close(clamped[:, :, 0, :-2], features[:, :, 0, 2:], rtol=0, atol=1e-5)


def test_warp_passes_gradcheck() -> None:
    features, flow = (random(1, 2, 4, 5, seed=i).double().requires_grad_() for i in (0, 1))
    for border in ("zeros", "clamp"):
        assert torch.autograd.gradcheck(lambda f, v, border=border: warp(f, v, border), (features, flow))


def test_warp_computes_float16_positions_in_float32() -> None:
    features = torch.arange(2048, dtype=torch.float16).view(1, 1, 1, -1) / 2048
    out = warp(features, torch.full((1, 2, 1, 2048), 0.5).half() * torch.tensor([1.0, 0.0]).half().view(1, 2, 1, 1))
    assert out.dtype == torch.float16
    expected = (torch.arange(2047) + 0.5) / 2048
    assert (out[0, 0, 0, :-1].float() - expected).abs().max() < 2**-11


@pytest.mark.parametrize("size", [(5, 8), (10, 24), (7, 13), (3, 20)])
def test_bilinear_sampling_at_target_coordinates_equals_interpolate(size: tuple[int, int]) -> None:
    features = random(2, 3, 5, 8)
    y, x = target_coordinates(5, size[0]), target_coordinates(8, size[1])
    expected = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(sample_bilinear(features, y, x, "clamp"), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("border", ["zeros", "clamp"])
def test_separable_bilinear_sampling_agrees_with_sample(border: Border) -> None:
    features = random(2, 3, 5, 8)
    y, x = torch.linspace(-2, 6, 11), torch.linspace(-1.5, 9, 17)
    positions = (x.expand(2, 11, 17), y[:, None].expand(2, 11, 17))
    expected = sample(features, *positions, border)
    torch.testing.assert_close(sample_bilinear(features, y, x, border), expected, rtol=0, atol=1e-5)


def test_nearest_sampling_takes_whole_pixels_and_clamps() -> None:
    features = random(1, 2, 5, 8)
    y, x = torch.tensor([-3.0, 0.4, 1.6, 9.0]), torch.tensor([0.0, 2.6, 7.3])
    assert nearest_index(y, 5).tolist() == [0, 0, 2, 4]
    expected = features[:, :, [0, 0, 2, 4]][:, :, :, [0, 3, 7]]
    assert torch.equal(sample_nearest(features, y, x), expected)


class EveryOperator(nn.Module):
    """A network with one of each operator."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets = nn.Conv2d(4, 54, 3, padding=1)
        self.deformed = nn.Conv2d(4, 6, 3, padding=1)

    def forward(self, x: Tensor, y_out: Tensor, x_out: Tensor) -> Tensor:
        out = self.offsets(x)
        offset, mask = out[:, :36], torch.sigmoid(out[:, 36:])
        weight, bias = self.deformed.weight, self.deformed.bias
        x = modulated_deform_conv2d(x, offset, mask, weight, bias, padding=1, offset_groups=2)
        x = warp(x, offset[:, :2], "zeros") + warp(x, offset[:, 2:4], "clamp")
        return sample_nearest(x, y_out, x_out) + sample_bilinear(x, y_out, x_out, "zeros")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Any, Path]:
    torch.manual_seed(0)
    network = EveryOperator().eval()
    inputs = (random(2, 4, 6, 9), target_coordinates(6, 11), target_coordinates(9, 14))
    free = Dim.DYNAMIC
    shapes = ({0: free, 2: free, 3: free}, {0: free}, {0: free})
    program = torch.onnx.export(
        network,
        inputs,
        dynamo=True,
        opset_version=20,
        dynamic_shapes=shapes,
        custom_translation_table=onnx_translations(),
        verbose=False,
    )
    path = tmp_path_factory.mktemp("ops") / "operators.onnx"
    assert program is not None
    program.save(path)
    return network, program.model, path


def test_operators_export_as_standard_onnx(exported: tuple[nn.Module, Any, Path]) -> None:
    _, model, _ = exported
    operators = Counter(node.op_type for node in model.graph)
    assert operators["DeformConv"] == 1
    assert operators["GridSample"] == 2
    assert {node.domain for node in model.graph} <= {"", "ai.onnx"}
    assert set(model.opset_imports) <= {"", "ai.onnx"}


@pytest.mark.parametrize(("batch", "height", "width", "target"), [(1, 13, 7, (20, 9)), (3, 4, 16, (5, 40))])
def test_exported_operators_agree_at_other_sizes(
    exported: tuple[nn.Module, Any, Path], batch: int, height: int, width: int, target: tuple[int, int]
) -> None:
    network, _, path = exported
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    # Positions slightly off the ties, where rounding could go either way.
    y, x = target_coordinates(height, target[0]) + 1e-3, target_coordinates(width, target[1]) + 1e-3
    inputs = (random(batch, 4, height, width, seed=3), y, x)
    with torch.no_grad():
        expected = network(*inputs)
    arrays = {spec.name: tensor.numpy() for spec, tensor in zip(session.get_inputs(), inputs, strict=True)}
    (out,) = session.run(None, arrays)
    assert_close_to_range(out, expected, mean=1e-6, max=1e-5)
