"""The kernels of plugins compute what the oracles compute, with the arguments that an engine passes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from stvsr.engine.backends.tensorrt.plugins.kernels import PLUGINS
from stvsr.kernels import reference, videoinr_decoder
from stvsr.kernels.deform_conv import DeformConv

from tests.support import cuda_cpu
from tests.support.compare import assert_close_to_range
from tests.support.kernel_scenes import fusion_scene
from tests.support.plugin_kernels import deform_conv_attributes, deform_conv_shapes, run_kernel
from tests.support.videoinr import DECODER_CASES, DecoderCase

CONVOLUTIONS = {
    "of a network": ((7, 9), DeformConv(16, 64, padding=(1, 1), offset_groups=8)),
    "groups": ((5, 11), DeformConv(12, 10, padding=(1, 1), groups=2, offset_groups=3)),
    "rectangular": ((9, 14), DeformConv(20, 7, (1, 5), (2, 3), (0, 2), (1, 2), offset_groups=2)),
    "blocks of 128 rows": ((3, 7), DeformConv(8, 120, padding=(1, 1))),
    "blocks of 64 rows": ((3, 7), DeformConv(8, 131, padding=(1, 1), offset_groups=4)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_deform_conv_agrees_with_the_oracle(name: str, dtype: Any, tmp_path: Path) -> None:
    size, conv = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)
    shapes = deform_conv_shapes(conv, 2, size)
    weight = rng.normal(0, 0.3, (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel)).astype(dtype)
    x = rng.normal(0, 1, (2, conv.in_channels, *size)).astype(dtype)
    offset, mask, bias = (rng.normal(0, 1, shapes[index]) for index in (2, 3, 4))
    strips = cuda_cpu.on_cpu(conv.pack_features, x)
    inputs = [strips, conv.pack(weight), offset.astype("f4"), mask.astype("f4"), bias.astype(dtype)]
    kernel = PLUGINS["deform_conv2d"].kernel(shapes, deform_conv_attributes(conv), np.dtype(dtype))
    output = run_kernel(kernel, tmp_path, inputs, np.empty((2, conv.out_channels, *conv.out_size(*size)), dtype))
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups, conv.offset_groups)
    expected = reference.deform_conv(x, inputs[2], inputs[3], weight, inputs[4], *geometry)
    bounds = {"mean": 1e-6, "max": 1e-5} if dtype == np.float32 else {"mean": 3e-4, "max": 3e-3}
    assert_close_to_range(output, expected, **bounds)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("border", ["zeros", "clamp"])
@pytest.mark.parametrize(("align_corners", "limit"), [(True, 0.0), (False, 0.0), (False, 1 - 1e-6), (True, 0.8)])
def test_warp_agrees_with_the_oracle(
    dtype: Any, border: Any, align_corners: bool, limit: float, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 19, 7, 13)).astype(dtype)
    flows = rng.normal(0, 3, (2, 4, 6, 35)).astype(np.float32)
    attributes = {"border": border, "align_corners": align_corners, "grid_limit": limit}
    kernel = PLUGINS["warp"].kernel([features.shape, flows.shape], attributes, features.dtype)
    output = run_kernel(kernel, tmp_path, [features, flows], np.empty((2, 38, 6, 35), dtype))
    expected = reference.warp(features, flows, border, align_corners, limit or None)
    assert_allclose(output, expected, rtol=0 if dtype == np.float32 else 1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_fusion_inputs_agree_with_the_oracle(dtype: Any, tmp_path: Path) -> None:
    features, motion = fusion_scene(4, (7, 13))
    features, time = features.astype(dtype), np.array([0.3, 0.8], np.float32)
    shapes = [features.shape, motion.shape, time.shape]
    kernel = PLUGINS["fusion_inputs"].kernel(shapes, {"count": 4}, features.dtype)
    output = run_kernel(kernel, tmp_path, [features, motion, time], np.empty((2, 24, 7, 13), dtype))
    expected, _ = reference.fusion_inputs(features, motion, time)
    assert_allclose(output, expected, rtol=1e-6 if dtype == np.float32 else 1e-3, atol=2e-5)


def decode(case: DecoderCase, dtype: Any, folder: Path) -> np.ndarray:
    """Decode a case by the three plugins of the decoder."""
    conventions: dict[str, Any] = {"official_sampling": case.official, "frame_upsample": case.factor}
    weights = videoinr_decoder.pack(case.state, dtype, **conventions, ordered=False)  # as the graph packs them
    prepared = videoinr_decoder.prepare(case.features.astype(dtype), weights)
    mixed, frames, time, (rows, columns) = prepared.mixed, prepared.frames, case.time, case.axes
    size = np.array([rows.size, columns.size], np.float32)
    relative = (rows.relative, columns.relative)
    inputs: dict[str, tuple[Any, ...]] = {  # a string stands for the output of another plugin
        "target_features": (mixed, time, rows.nearest, columns.nearest, *relative, *weights.features),
        "target_flows": (
            *(mixed, frames, "target_features", time, rows.position, columns.position),
            *weights.flows,
        ),
        "target_colours": (
            *(mixed, frames, "target_features", "target_flows", time, rows.index, columns.index, size),
            *weights.colours,
        ),
    }
    results: dict[str, np.ndarray] = {}
    for name, values in inputs.items():
        plugin = PLUGINS[name]
        arrays = [results[value] if isinstance(value, str) else value for value in values]
        attributes = {key: {"channels": weights.nf, **conventions}[key] for key in plugin.attributes}
        shapes = [array.shape for array in arrays]
        output = np.empty(tuple(plugin.shape(shapes, attributes)), "f4" if plugin.output[1] == "FP32" else dtype)
        (folder / name).mkdir()
        kernel = plugin.kernel(shapes, attributes, weights.mix.dtype)
        results[name] = run_kernel(kernel, folder / name, arrays, output)
    return results["target_colours"]


@pytest.mark.parametrize("name", ["official", "corrected", "frames not enlarged", "part of the target"])
def test_the_decoder_agrees_with_the_oracle(name: str, tmp_path: Path) -> None:
    case = DecoderCase(**DECODER_CASES[name])
    assert_close_to_range(decode(case, np.float32, tmp_path), case.by_oracle(np.float64), mean=3e-6, max=1e-4)


@pytest.mark.slow
def test_the_decoder_in_half_precision_equals_the_kernels(tmp_path: Path) -> None:
    case = DecoderCase()
    assert_array_equal(decode(case, np.float16, tmp_path), case.by_kernels(cuda_cpu.on_cpu, np.float16))
