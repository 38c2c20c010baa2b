"""TensorRT's plugins without TensorRT: how their kernels are launched, what they compute, how they are registered."""

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from stvsr.engine.backends.tensorrt.plugins import graph as plugins
from stvsr.engine.backends.tensorrt.plugins import ptx
from stvsr.engine.backends.tensorrt.plugins.graph import register_plugins
from stvsr.engine.backends.tensorrt.plugins.kernels import PLUGINS, Kernel
from stvsr.engine.contract.errors import BackendError
from stvsr.kernels import deform_conv, reference
from stvsr.kernels import launcher as module
from stvsr.kernels import videoinr_decoder as implicit
from stvsr.kernels.deform_conv import DeformConv
from stvsr.kernels.warp import warp
from test_videoinr_decoder import CASES as DECODER_CASES
from test_videoinr_decoder import Case as DecoderCase

from tests.support import cuda_cpu, tensorrt_stand_in
from tests.support.compare import assert_close_to_range

NO_TYPE = {"FP32": np.float32, "INT32": np.int32}


def attributes_of(conv: DeformConv) -> dict[str, Any]:
    return {name: getattr(conv, name) for name in PLUGINS["deform_conv2d"].attributes}


def packed_as_in_the_graph(conv: DeformConv, weight: np.ndarray) -> np.ndarray:
    return conv.pack(weight.astype(np.float32)).astype(weight.dtype)


def shapes_of(conv: DeformConv, batch: int, size: tuple[int, int]) -> list[tuple[int, ...]]:
    out, maps = conv.out_size(*size), conv.offset_groups * conv.taps
    weight = np.zeros((conv.out_channels, conv.in_channels // conv.groups, *conv.kernel), np.float32)
    packed = conv.pack(weight).shape
    x = (batch, conv.in_channels, *size)
    return [x, packed, (batch, 2 * maps, *out), (batch, maps, *out), (conv.out_channels,)]


def launches(function: Any, *arguments: Any, **options: Any) -> list[tuple[Any, ...]]:
    """Call a function of `stvsr.kernels` and note its launches instead of making them."""
    made: list[tuple[Any, ...]] = []
    with patch.object(module, "launch", lambda *launch: made.append(launch)):
        function(*arguments, **options)
    return made


def integers_of(arguments: tuple[Any, ...]) -> list[int]:
    return [int(argument) for argument in arguments if isinstance(argument, np.int32)]


def run_kernel(kernel: Kernel, folder: Path, inputs: list[np.ndarray], output: np.ndarray) -> np.ndarray:
    """Launch a plugin's kernel on the CPU with the arguments that an engine passes."""
    source = folder / "plugin.cu"
    source.write_text(kernel.entry.source)
    library = cuda_cpu.compile(source, kernel.entry.defines)
    output.reshape(-1).view(np.uint8)[...] = 0xFF  # NaN
    integers = [np.int32(value) for value in kernel.integers]
    cuda_cpu.launch(library, kernel.entry.function, *kernel.launch, *inputs, *integers, output)
    return output


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
def test_deform_conv_is_launched_as_the_kernel_is(
    conv: DeformConv, batch: int, height: int, width: int, kind: str
) -> None:
    shapes = shapes_of(conv, batch, (height, width))
    plugin, dtype = PLUGINS["deform_conv2d"], np.dtype(kind)
    kernel = plugin.kernel(shapes, attributes_of(conv), dtype)
    out = (batch, conv.out_channels, *conv.out_size(height, width))
    assert tuple(plugin.shape(shapes, attributes_of(conv))) == out
    x, offset, mask = (
        np.zeros(shape, each) for shape, each in ((shapes[0], dtype), (shapes[2], "f4"), (shapes[3], "f4"))
    )
    weight = np.zeros((conv.out_channels, conv.in_channels // conv.groups, *conv.kernel), dtype)
    ((_, defines, function, launch, *arguments),) = launches(conv, x, offset, mask, conv.pack(weight))
    assert (kernel.entry.function, list(kernel.integers)) == (function, integers_of(tuple(arguments)))
    assert kernel.launch.grid[0] == launch.grid[0]
    assert kernel.launch.grid[2] == launch.grid[2]
    assert kernel.launch.block == launch.block
    assert kernel.launch.shared_bytes == launch.shared_bytes
    # Rows of blocks are those of the weight as it is packed, and all of them.
    assert kernel.launch.grid[1] * int(dict(kernel.entry.defines)["ROWS"]) == shapes[1][2]
    assert kernel.entry.defines in deform_conv.VARIANTS
    if conv.pack(weight).shape == shapes[1]:
        assert (kernel.launch, kernel.entry.defines) == (launch, defines)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(2, 70), st.integers(2, 70)),
    st.integers(1, 3),
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from(("f4", "f2")),
)
def test_warp_is_launched_as_the_kernel_is(
    size: tuple[int, int, int, int], count: int, height: int, width: int, kind: str
) -> None:
    features, flows = np.zeros(size, kind), np.zeros((size[0], 2 * count, height, width), np.float32)
    plugin, attributes = PLUGINS["warp"], {"border": "clamp", "align_corners": False, "grid_limit": 0.9}
    kernel = plugin.kernel([features.shape, flows.shape], attributes, features.dtype)
    assert tuple(plugin.shape([features.shape, flows.shape], attributes)) == (
        size[0],
        count * size[1],
        height,
        width,
    )
    ((_, defines, function, launch, *arguments),) = launches(warp, features, flows, "clamp")
    chunk, clamped = integers_of(tuple(arguments))[-2:]
    assert (kernel.entry.function, kernel.launch, kernel.entry.defines) == (function, launch, defines)
    assert [*kernel.integers, chunk, clamped] == integers_of(tuple(arguments))
    assert f"chunk = {chunk}, clamped = {clamped};" in kernel.entry.source


class Decoder:
    """The plugins' inputs and attributes for a case of the implicit decoder."""

    def __init__(self, made: DecoderCase, dtype: Any) -> None:
        conventions = {"official_sampling": made.official, "frame_upsample": made.factor}
        self.weights = weights = implicit.pack(made.state, dtype, **conventions)
        self.encoded = encoded = implicit.prepare(made.features.astype(dtype), weights)
        self.time, (self.rows, self.columns) = made.time, made.axes
        rows, columns = self.rows, self.columns
        self.attributes = {"channels": weights.nf, **conventions}
        self.inputs = {
            "target_features": (
                *(encoded.mixed, made.time, rows.nearest, columns.nearest, rows.way, columns.way),
                *weights.features,
            ),
            "target_flows": (
                *(encoded.mixed, encoded.frames, "target_features", made.time, rows.position, columns.position),
                *weights.flows,
            ),
            "target_colours": (
                *(encoded.mixed, encoded.frames, "target_features", "target_flows", made.time),
                *(rows.index, columns.index, np.float32([rows.size, columns.size]), *weights.colours),
            ),
        }

    def decode(self, folder: Path) -> np.ndarray:
        results: dict[str, np.ndarray] = {}
        dtype = self.weights.mix.dtype
        for name, inputs in self.inputs.items():
            arrays = [results[each] if isinstance(each, str) else each for each in inputs]
            attributes = {key: self.attributes[key] for key in PLUGINS[name].attributes}
            shapes = [array.shape for array in arrays]
            kernel = PLUGINS[name].kernel(shapes, attributes, dtype)
            shape = tuple(PLUGINS[name].shape(shapes, attributes))
            place = folder / name
            place.mkdir()
            made = np.empty(shape, np.float32 if PLUGINS[name].output[1] == "FP32" else dtype)
            results[name] = run_kernel(kernel, place, arrays, made)
        return results["target_colours"]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 3),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(2, 60), st.integers(2, 60)),
    st.sampled_from(("f4", "f2")),
    st.sampled_from((8, 64)),
    st.booleans(),
)
def test_the_decoder_is_launched_as_its_kernels_are(
    batch: int, size: tuple[int, int], target: tuple[int, int], kind: str, channels: int, official: bool
) -> None:
    dtype = np.dtype(kind)
    none = np.zeros(8, dtype), np.zeros(8, np.float32)
    weights = implicit.DecoderWeights(channels, official, 2, np.empty(0, dtype), none, none, none)
    mixed, frames = np.zeros((batch, *size, 256), dtype), np.zeros((batch, 2 * size[0], 2 * size[1], 6), dtype)
    axes = [implicit.target_axis(np.linspace(0, n, m), n, official) for n, m in zip(size, target, strict=True)]
    time = np.zeros(batch, np.float32)
    made = launches(implicit.decode, implicit.Prepared(mixed, frames), weights, time, *axes)
    assert [launch[2] for launch in made] == ["target_features", "target_flows", "target_colours"]
    attributes = {"channels": channels, "frame_upsample": 2, "official_sampling": official}
    for _, defines, name, launch, *arguments in made:
        plugin, (*inputs, output) = PLUGINS[name], [each for each in arguments if isinstance(each, np.ndarray)]
        shapes = [array.shape for array in inputs]
        if name == "target_colours":
            shapes.insert(list(plugin.inputs).index("size"), (2,))
        assert len(shapes) == len(plugin.inputs)
        kernel = plugin.kernel(shapes, {key: attributes[key] for key in plugin.attributes}, dtype)
        assert (kernel.entry.function, kernel.launch) == (name, launch)
        assert list(kernel.integers) == integers_of(tuple(arguments))
        if name != "target_features":  # which knows no convention
            assert kernel.entry.defines == defines
        assert tuple(plugin.shape(shapes, attributes)) == output.shape


CONVOLUTIONS = {
    "a network's": ((7, 9), DeformConv(16, 64, padding=(1, 1), offset_groups=8)),
    "groups": ((5, 11), DeformConv(12, 10, padding=(1, 1), groups=2, offset_groups=3)),
    "rectangular": ((9, 14), DeformConv(20, 7, (1, 5), (2, 3), (0, 2), (1, 2), offset_groups=2)),
    "blocks of 128 rows": ((3, 7), DeformConv(8, 120, padding=(1, 1))),
    "blocks of 64 rows": ((3, 7), DeformConv(8, 131, padding=(1, 1), offset_groups=4)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_deform_conv_computes_with_the_plugins_arguments(name: str, dtype: type, tmp_path: Path) -> None:
    size, conv = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)
    shapes = shapes_of(conv, 2, size)
    weight = rng.normal(0, 0.3, (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel)).astype(dtype)
    x, offset, mask, bias = (rng.normal(0, 1, shapes[place]) for place in (0, 2, 3, 4))
    inputs = [x.astype(dtype), packed_as_in_the_graph(conv, weight), *(a.astype("f4") for a in (offset, mask))]
    inputs.append(bias.astype(dtype))
    kernel = PLUGINS["deform_conv2d"].kernel(shapes, attributes_of(conv), np.dtype(dtype))
    made = run_kernel(kernel, tmp_path, inputs, np.empty((2, conv.out_channels, *conv.out_size(*size)), dtype))
    places = (conv.stride, conv.padding, conv.dilation, conv.groups, conv.offset_groups)
    truth = reference.deform_conv(inputs[0], inputs[2], inputs[3], weight, inputs[4], *places)
    bounds = {"mean": 1e-6, "max": 1e-5} if dtype == np.float32 else {"mean": 3e-4, "max": 3e-3}
    assert_close_to_range(made, truth, **bounds)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("border", ["zeros", "clamp"])
@pytest.mark.parametrize(("align_corners", "limit"), [(True, 0.0), (False, 0.0), (False, 1 - 1e-6), (True, 0.8)])
def test_warp_computes_with_the_plugins_arguments(
    dtype: type, border: Any, align_corners: bool, limit: float, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 19, 7, 13)).astype(dtype)
    flows = rng.normal(0, 3, (2, 4, 6, 35)).astype(np.float32)
    attributes = {"border": border, "align_corners": align_corners, "grid_limit": limit}
    kernel = PLUGINS["warp"].kernel([features.shape, flows.shape], attributes, features.dtype)
    made = run_kernel(kernel, tmp_path, [features, flows], np.empty((2, 38, 6, 35), dtype))
    truth = reference.warp(features, flows, border, align_corners, limit or None)
    assert_allclose(made, truth, rtol=0 if dtype == np.float32 else 1e-3, atol=1e-5)


@pytest.mark.parametrize("case", ["official", "corrected", "frames as they are", "a part"])
def test_the_decoder_computes_with_the_plugins_arguments(case: str, tmp_path: Path) -> None:
    made = DecoderCase(**DECODER_CASES[case])
    assert_close_to_range(Decoder(made, np.float32).decode(tmp_path), made.expected(np.float64), mean=3e-6, max=1e-4)


def test_the_decoder_in_half_precision_is_that_of_the_kernels(tmp_path: Path) -> None:
    made = DecoderCase()
    assert_array_equal(Decoder(made, np.float16).decode(tmp_path), made.decoded(cuda_cpu.on_cpu, np.float16))


def test_without_a_compiler_plugins_are_not_registered(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(plugins, "find_compiler", ptx.find_compiler)
    with pytest.raises(BackendError, match="CuPy or nvcc"):
        register_plugins()
    assert not trt.get_plugin_registry().creators


def test_what_a_plugin_cannot_have_is_refused() -> None:
    shapes = [(1, 4, 5, 256), (1,), (8,), (9,), (8,), (9,), (1,), (1,)]
    with pytest.raises(BackendError, match="bytes of shared memory"):
        PLUGINS["target_features"].kernel(shapes, {"channels": 256}, np.dtype("f4"))
    attributes = {"border": "mirror", "align_corners": True, "grid_limit": 0.0}
    with pytest.raises(BackendError, match="'mirror'"):
        PLUGINS["warp"].kernel([(1, 3, 8, 9), (1, 2, 8, 9)], attributes, np.dtype("f4"))


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """TensorRT's Python source over a stand-in, on a machine with an sm80; PTX is not compiled."""
    module_ = tensorrt_stand_in.install(monkeypatch)
    monkeypatch.setattr(plugins, "local_target", lambda: "sm80")
    monkeypatch.setattr(plugins, "find_compiler", lambda: None)
    monkeypatch.setattr(plugins, "compile_ptx", lambda entry, target: f"{entry.function} {target}")
    return module_


def test_registering_twice_is_registering_once(trt: Any) -> None:
    register_plugins()
    register_plugins()
    creators = trt.get_plugin_registry().creators
    assert set(creators) == {(name, "1", "stvsr") for name in PLUGINS}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_tensorrt_takes_a_plugin_as_it_is_described(trt: Any, dtype: type) -> None:
    register_plugins()
    conv = DeformConv(24, 70, (3, 1), (2, 1), (1, 0), offset_groups=3)
    official = {"channels": 8, "frame_upsample": 2, "official_sampling": True}
    mixed, frames, target, flows = (2, 4, 5, 256), (2, 8, 10, 6), (2, 7, 9, 8), (2, 7, 9, 4)
    axes = (7,), (9,)
    for name, attributes, shapes in (
        ("deform_conv2d", attributes_of(conv), shapes_of(conv, 2, (11, 17))),
        ("warp", {"border": "clamp", "align_corners": False, "grid_limit": 0.5}, [(2, 37, 8, 9), (2, 4, 6, 71)]),
        ("target_features", {"channels": 8}, [mixed, (2,), *axes, *axes, (50,), (60,)]),
        ("target_flows", official, [mixed, frames, target, (2,), *axes, (50,), (60,)]),
        ("target_colours", official, [mixed, frames, target, flows, (2,), *axes, (2,), (50,), (60,)]),
    ):
        plugin = PLUGINS[name]
        types = [NO_TYPE.get(kind, dtype) for kind in plugin.inputs.values()]
        built = tensorrt_stand_in.build(trt, name, attributes, shapes, types)
        kernel = plugin.kernel(shapes, attributes, np.dtype(dtype))
        assert built == (
            tuple(plugin.shape(shapes, attributes)),
            NO_TYPE.get(plugin.output[1], dtype),
            kernel.entry.function,
            f"{kernel.entry.function} sm80",
            [*kernel.launch.grid, *kernel.launch.block, kernel.launch.shared_bytes],
            list(kernel.integers),
        )


def test_without_a_device_a_plugin_is_not_compiled(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    register_plugins()
    monkeypatch.setattr(plugins, "local_target", lambda: None)
    attributes = {"border": "zeros", "align_corners": True, "grid_limit": 0.0}
    with pytest.raises(BackendError, match="GPU of this machine"):
        tensorrt_stand_in.build(trt, "warp", attributes, [(1, 3, 8, 9), (1, 2, 8, 9)], [np.float32] * 2)


def test_without_tensorrt_or_its_plugins_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r"stvsr\[tensorrt\]"):
        register_plugins()
    old: Any = ModuleType("tensorrt")
    old.__version__ = "10.0"
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", None)
    with pytest.raises(BackendError, match="no Python plugins"):
        register_plugins()
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", ModuleType("tensorrt.plugin"))
    with pytest.raises(BackendError, match=r"10\.0 has no ahead-of-time plugins"):
        register_plugins()
