"""Plugins launch their kernels with the parameters of `stvsr.kernels`."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stvsr import BackendError
from stvsr.engine.backends.tensorrt.plugins.kernels import PLUGINS
from stvsr.kernels import deform_conv, launcher, videoinr_decoder
from stvsr.kernels.deform_conv import DeformConv
from stvsr.kernels.fusion_inputs import fusion_inputs
from stvsr.kernels.warp import warp

from tests.support.plugin_kernels import deform_conv_attributes, deform_conv_shapes


def launches(function: Any, *arguments: Any, **options: Any) -> list[tuple[Any, ...]]:
    """Call a function of `stvsr.kernels`, and return its calls of `launcher.launch`, which are not made."""
    calls: list[tuple[Any, ...]] = []
    with patch.object(launcher, "launch", lambda *launch: calls.append(launch)):
        function(*arguments, **options)
    return calls


def integers_of(arguments: tuple[Any, ...]) -> list[int]:
    return [int(argument) for argument in arguments if isinstance(argument, np.int32)]


convolutions = st.builds(
    lambda per, groups, offset_groups, outs, kernel, stride, padding, dilation: DeformConv(
        per * groups * offset_groups, outs * groups, kernel, stride, padding, dilation, groups, offset_groups
    ),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from((1, 3, 32, 64, 65, 128, 131, 200)),
    *(st.tuples(st.integers(low, high), st.integers(low, high)) for low, high in ((1, 3), (1, 3), (0, 3), (1, 2))),
)


@settings(max_examples=60, deadline=None)
@given(convolutions, st.integers(1, 3), st.integers(6, 40), st.integers(6, 40), st.sampled_from(("f4", "f2")))
def test_deform_conv_launches_like_its_kernel(conv: DeformConv, batch: int, height: int, width: int, kind: str) -> None:
    shapes = deform_conv_shapes(conv, batch, (height, width))
    plugin, attributes, dtype = PLUGINS["deform_conv2d"], deform_conv_attributes(conv), np.dtype(kind)
    kernel = plugin.kernel(shapes, attributes, dtype)
    assert tuple(plugin.shape(shapes, attributes)) == (batch, conv.out_channels, *conv.out_size(height, width))
    x, offset, mask = (np.zeros(shapes[0], dtype), np.zeros(shapes[2], "f4"), np.zeros(shapes[3], "f4"))
    weight = np.zeros((conv.out_channels, conv.in_channels // conv.groups, *conv.kernel), dtype)
    ((_, defines, function, launch, *arguments),) = launches(conv, x, offset, mask, conv.pack(weight))
    assert (kernel.entry.function, list(kernel.integers)) == (function, integers_of(tuple(arguments)))
    assert (kernel.launch, kernel.entry.defines) == (launch, defines)
    assert conv.pack(weight).shape == shapes[1]
    assert kernel.entry.defines in deform_conv.VARIANTS


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(2, 70), st.integers(2, 70)),
    st.integers(1, 3),
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from(("f4", "f2")),
)
def test_warp_launches_like_its_kernel(
    size: tuple[int, int, int, int], count: int, height: int, width: int, kind: str
) -> None:
    features, flows = np.zeros(size, kind), np.zeros((size[0], 2 * count, height, width), np.float32)
    plugin, attributes = PLUGINS["warp"], {"border": "clamp", "align_corners": False, "grid_limit": 0.9}
    shapes = [features.shape, flows.shape]
    kernel = plugin.kernel(shapes, attributes, features.dtype)
    assert tuple(plugin.shape(shapes, attributes)) == (size[0], count * size[1], height, width)
    ((_, defines, function, launch, *arguments),) = launches(warp, features, flows, "clamp")
    clamped = integers_of(tuple(arguments))[-1]
    assert (kernel.entry.function, kernel.launch, kernel.entry.defines) == (function, launch, defines)
    assert [*kernel.integers, clamped] == integers_of(tuple(arguments))
    assert f"const int clamped = {clamped};" in kernel.entry.source


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(0, 70), st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from(("f4", "f2")),
)
def test_the_fusion_inputs_launch_like_their_kernel(size: tuple[int, int, int, int], kind: str) -> None:
    batch, count, *pixels = size
    features = np.zeros((batch, 2 * count + 6, *pixels), kind)
    motion, time = np.zeros((batch, 5, *pixels), np.float32), np.zeros(batch, np.float32)
    plugin, attributes = PLUGINS["fusion_inputs"], {"count": count}
    shapes = [array.shape for array in (features, motion, time)]
    kernel = plugin.kernel(shapes, attributes, features.dtype)
    assert tuple(plugin.shape(shapes, attributes)) == (batch, 2 * count + 16, *pixels)
    ((_, defines, function, launch, *arguments),) = launches(fusion_inputs, features, motion, time)
    assert (kernel.entry.function, kernel.launch, kernel.entry.defines) == (function, launch, defines)
    assert list(kernel.integers) == integers_of(tuple(arguments))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 3),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(2, 60), st.integers(2, 60)),
    st.sampled_from(("f4", "f2")),
    st.sampled_from((8, 64)),
    st.booleans(),
)
def test_the_decoder_launches_like_its_kernels(
    batch: int, size: tuple[int, int], target: tuple[int, int], kind: str, channels: int, official: bool
) -> None:
    dtype = np.dtype(kind)
    none = np.zeros(8, dtype), np.zeros(8, np.float32)
    weights = videoinr_decoder.DecoderWeights(channels, official, 2, np.empty(0, dtype), none, none, none)
    mixed, frames = np.zeros((batch, *size, 256), dtype), np.zeros((batch, 2 * size[0], 2 * size[1], 6), dtype)
    prepared = videoinr_decoder.Prepared(mixed, frames)
    axes = [videoinr_decoder.target_axis(np.linspace(0, n, m), n, official) for n, m in zip(size, target, strict=True)]
    time = np.zeros(batch, np.float32)
    calls = launches(videoinr_decoder.decode, prepared, weights, time, *axes)
    assert [call[2] for call in calls] == ["target_features", "target_flows", "target_colours"]
    attributes = {"channels": channels, "frame_upsample": 2, "official_sampling": official}
    for _, defines, name, launch, *arguments in calls:
        plugin, (*inputs, output) = PLUGINS[name], [each for each in arguments if isinstance(each, np.ndarray)]
        shapes = [array.shape for array in inputs]
        if name == "target_colours":
            shapes.insert(list(plugin.inputs).index("size"), (2,))
        assert len(shapes) == len(plugin.inputs)
        kernel = plugin.kernel(shapes, {key: attributes[key] for key in plugin.attributes}, dtype)
        assert (kernel.entry.function, kernel.launch) == (name, launch)
        assert list(kernel.integers) == integers_of(tuple(arguments))
        if name != "target_features":  # it has no attribute official_sampling
            assert kernel.entry.defines == defines
        assert tuple(plugin.shape(shapes, attributes)) == output.shape


def test_too_much_shared_memory_is_refused() -> None:
    shapes = [(1, 4, 5, 256), (1,), (8,), (9,), (8,), (9,), (1,), (1,)]
    with pytest.raises(BackendError, match="bytes of shared memory"):
        PLUGINS["target_features"].kernel(shapes, {"channels": 256}, np.dtype("f4"))


def test_an_unknown_border_is_refused() -> None:
    attributes = {"border": "mirror", "align_corners": True, "grid_limit": 0.0}
    with pytest.raises(BackendError, match="'mirror'"):
        PLUGINS["warp"].kernel([(1, 3, 8, 9), (1, 2, 8, 9)], attributes, np.dtype("f4"))
