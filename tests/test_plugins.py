"""TensorRT's plugins without TensorRT: what they tell it, what they compile, and what a graph becomes with them."""

import re
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import cuda_cpu
import numpy as np
import onnx
import pytest
import tensorrt_stand_in
from compare import assert_close_to_range
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from stvsr.engine import plugins, ptx
from stvsr.engine.bundle import Bundle
from stvsr.engine.errors import BackendError
from stvsr.engine.lowering import to_half
from stvsr.engine.plugin_kernels import PLUGINS, Kernel
from stvsr.engine.plugins import register_plugins, to_plugins
from stvsr.export.exporter import export_bundle
from stvsr.kernels import deform_conv, implicit, module, reference
from stvsr.kernels.deform_conv import DeformConv
from stvsr.kernels.warp import warp
from stvsr.training.networks import NetworkEntry
from stvsr.training.videoinr import VideoINR
from test_implicit_kernel import CASES as DECODER_CASES
from test_implicit_kernel import Case as DecoderCase
from test_lowering import CASES, Case, make_model, relative, run

ARCHITECTURES = ("sm80", "sm86", "sm89", "sm90", "sm100", "sm120")
PAIRS = ("kernel", "stride", "padding", "dilation")
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


def every_kernel() -> list[Any]:
    """Each plugin's kernels, of both types and of each convention."""
    wide, narrow = DeformConv(64, 128, padding=(1, 1), offset_groups=8), DeformConv(64, 64, padding=(1, 1))
    made: dict[str, tuple[str, Kernel]] = {}
    for dtype in (np.dtype("f4"), np.dtype("f2")):
        calls: list[tuple[str, str, Any, dict[str, Any]]] = [
            ("deform_conv2d", "64", shapes_of(narrow, 1, (8, 9)), attributes_of(narrow)),
            ("deform_conv2d", "128", shapes_of(wide, 1, (8, 9)), attributes_of(wide)),
        ]
        for border, align_corners, limit in (("zeros", True, 0.0), ("clamp", False, 1 - 1e-6)):
            attributes = {"border": border, "align_corners": align_corners, "grid_limit": limit}
            calls.append(("warp", border, [(1, 64, 8, 9), (1, 4, 8, 9)], attributes))
        mixed, frames, target = (1, 4, 5, 256), (1, 16, 20, 6), (1, 8, 9, 64)
        rows, columns, flows, any_ = (8,), (9,), (1, 8, 9, 4), (1,)
        calls.append(("target_features", "", [mixed, any_, *(2 * (rows, columns)), any_, any_], {"channels": 64}))
        for official in (False, True):
            attributes = {"channels": 64, "frame_upsample": 4, "official_sampling": official}
            shapes = [mixed, frames, target, any_, rows, columns, any_, any_]
            calls.append(("target_flows", str(official), shapes, attributes))
            shapes = [mixed, frames, target, flows, any_, rows, columns, (2,), any_, any_]
            calls.append(("target_colours", str(official), shapes, attributes))
        for name, what, shapes, attributes in calls:
            made[f"{name}-{what}-{dtype}"] = name, PLUGINS[name].kernel(shapes, attributes, dtype)
    return [pytest.param(*value, id=key) for key, value in made.items()]


def check_ptx(text: str, name: str, kernel: Kernel, architecture: str) -> None:
    """The entry takes pointers to the inputs, 32-bit integers, and a pointer to the output, and nothing else."""
    assert f".target sm_{architecture[2:]}" in text
    ((function, parameters),) = re.findall(r"\.visible \.entry (\w+)\(([^)]*)\)", text)
    assert function == kernel.entry.function
    types = re.findall(r"\.param \.(?:align \d+ )?(\w+)", parameters)
    assert types == [*["u64"] * len(PLUGINS[name].inputs), *["u32"] * len(kernel.integers), "u64"]


@pytest.fixture
def nvcc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile by nvcc, and not by CuPy; where it is missing, the test is skipped."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed: plugins are not compiled")
    monkeypatch.setitem(sys.modules, "cupy", None)
    ptx.compile_ptx.cache_clear()


@pytest.mark.usefixtures("nvcc")
@pytest.mark.parametrize(("name", "kernel"), [each for each in every_kernel() if str(each.id).endswith("float16")])
def test_every_kernel_compiles_to_ptx(name: str, kernel: Kernel) -> None:
    check_ptx(ptx.compile_ptx(kernel.entry, "sm80"), name, kernel, "sm80")


@pytest.mark.slow
@pytest.mark.usefixtures("nvcc")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("name", "kernel"), every_kernel())
def test_every_kernel_compiles_to_ptx_for_every_architecture(name: str, kernel: Kernel, architecture: str) -> None:
    check_ptx(ptx.compile_ptx(kernel.entry, architecture), name, kernel, architecture)


def test_cupy_compiles_where_it_is_installed() -> None:
    pytest.importorskip("cupy", reason="CuPy is not installed: NVRTC is not tried")
    ptx.compile_ptx.cache_clear()
    for parameter in every_kernel():
        name, kernel = parameter.values
        check_ptx(ptx.compile_ptx(kernel.entry, "sm89"), name, kernel, "sm89")


def some_kernel() -> Kernel:
    attributes = {"border": "zeros", "align_corners": True, "grid_limit": 0.0}
    return PLUGINS["warp"].kernel([(1, 3, 8, 9), (1, 2, 8, 9)], attributes, np.dtype("f4"))


@pytest.mark.usefixtures("nvcc")
def test_a_kernel_is_compiled_once_for_each_target() -> None:
    with patch.object(ptx, "_by_nvcc", side_effect=lambda *_: "ptx") as compiled:
        for target in ("sm80", "sm80", "sm90"):
            ptx.compile_ptx(some_kernel().entry, target)
        assert compiled.call_count == 2


@pytest.mark.usefixtures("nvcc")
def test_a_kernel_that_does_not_compile_is_told_of() -> None:
    broken = some_kernel().entry._replace(source="#error is it broken")
    with pytest.raises(BackendError, match=r"warp_planes cannot be compiled for compute_80 \(.*is it broken"):
        ptx.compile_ptx(broken, "sm80")
    with pytest.raises(BackendError, match="for compute_12"):
        ptx.compile_ptx(some_kernel().entry, "sm12")
    with pytest.raises(BackendError, match="'ampere'"):
        ptx.compile_ptx(some_kernel().entry, "ampere")


def test_without_a_compiler_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    ptx.compile_ptx.cache_clear()
    with pytest.raises(BackendError, match=r"stvsr\[cuda\]"):
        ptx.compile_ptx(some_kernel().entry, "sm80")


def test_without_a_compiler_plugins_are_not_registered(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(plugins, "find_compiler", ptx.find_compiler)
    with pytest.raises(BackendError, match="CuPy or nvcc"):
        register_plugins()
    assert not trt.get_plugin_registry().creators


def test_where_cupy_has_no_nvrtc_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> None:
        raise RuntimeError("no libnvrtc.so.13\nanywhere")

    cupy: Any = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(nvrtc=SimpleNamespace(createProgram=missing), get_cuda_path=lambda: None)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    ptx.compile_ptx.cache_clear()
    with pytest.raises(BackendError, match=r"no libnvrtc.so.13 anywhere\): pip install"):
        ptx.compile_ptx(some_kernel().entry, "sm80")


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


class PluginNode(OpRun):
    """The plugin of the deformable convolution, by the oracle; it takes the types that the kernel does."""

    op_domain = "stvsr"

    def _run(self, x, weight, offset, mask, bias, **attributes):
        assert attributes.pop("plugin_namespace") == "stvsr"
        assert attributes.pop("plugin_version") == "1"
        assert set(attributes) == set(PLUGINS["deform_conv2d"].attributes)
        conv = DeformConv(**{key: tuple(v) if key in PAIRS else v for key, v in attributes.items()})
        assert weight.dtype == bias.dtype == x.dtype
        assert offset.dtype == mask.dtype == np.float32
        shape = (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel)
        places = conv.pack(np.arange(1, np.prod(shape) + 1, dtype=np.float64).reshape(shape)).astype(int)
        assert weight.shape == places.shape
        assert not weight[places == 0].any()
        plain = np.empty(np.prod(shape), weight.dtype)
        plain[places[places > 0] - 1] = weight[places > 0]
        where = (conv.stride, conv.padding, conv.dilation, conv.groups, conv.offset_groups)
        made = reference.deform_conv(x, offset, mask, plain.reshape(shape), bias, *where)
        return (made.astype(x.dtype),)


PluginNode.__name__ = "deform_conv2d"


def kernel_node(name: str) -> type[OpRun]:
    """A plugin by its kernel on the CPU."""

    def _run(self, *inputs: np.ndarray, **attributes: Any) -> tuple[np.ndarray]:
        plugin, dtype = PLUGINS[name], inputs[0].dtype
        assert [array.dtype for array in inputs] == [NO_TYPE.get(kind, dtype) for kind in plugin.inputs.values()]
        given = {key: attributes[key] for key in plugin.attributes}
        shapes = [array.shape for array in inputs]
        output = np.empty(tuple(plugin.shape(shapes, given)), NO_TYPE.get(plugin.output[1], dtype))
        with tempfile.TemporaryDirectory() as folder:
            arrays = [np.ascontiguousarray(array) for array in inputs]
            return (run_kernel(plugin.kernel(shapes, given, dtype), Path(folder), arrays, output),)

    return type(name, (OpRun,), {"op_domain": "stvsr", "_run": _run})


NODES = [PluginNode, *(kernel_node(name) for name in PLUGINS if name.startswith("target_"))]


def evaluate(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    return ReferenceEvaluator(model, new_ops=NODES).run(None, inputs)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_graph_with_plugins_computes_the_same(case: Case) -> None:
    model, inputs = case.model()
    changed = to_plugins(model)
    nodes = {node.op_type: node for node in changed.graph.node}
    assert "DeformConv" not in nodes
    assert nodes["deform_conv2d"].domain == "stvsr"
    assert (changed.graph.input, changed.graph.output) == (model.graph.input, model.graph.output)
    held = {initializer.name: initializer for initializer in changed.graph.initializer}
    assert all(held[initializer.name] == initializer for initializer in model.graph.initializer)
    [expected], [found] = run(model, inputs), evaluate(changed, inputs)
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_half_precision_the_plugins_offsets_and_masks_are_exact(case: Case) -> None:
    model, inputs = case.model()
    half = to_half(to_plugins(model), {"offset"})
    held = {initializer.name: initializer for initializer in half.graph.initializer}
    assert all(held[name].data_type == onnx.TensorProto.FLOAT16 for name in ("weight", "bias") if name in held)
    node = next(node for node in half.graph.node if node.op_type == "deform_conv2d")
    assert node.input[2] == "offset"
    assert not case.mask or node.input[3] == "mask"
    assert relative(evaluate(half, inputs)[0], run(model, inputs)[0]) < 2e-3


def test_in_half_precision_what_makes_offsets_stays_in_float32_and_what_follows_does_not() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["features"]),
        helper.make_node("Conv", ["features", "motion"], ["raw"]),
        helper.make_node("Split", ["raw"], ["offset", "logits"], axis=1, num_outputs=2),
        helper.make_node("Slice", ["logits", "zero", "one", "axis"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["mask"]),
        helper.make_node("DeformConv", ["features", "weight", "offset", "", "mask"], ["aligned"]),
        helper.make_node("Relu", ["aligned"], ["positive"]),
        helper.make_node("Conv", ["positive", "last"], ["y"]),
    ]
    weights = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in (("first", (4, 3)), ("motion", (4, 4)), ("weight", (5, 4)), ("last", (2, 5)))
    }
    constants = {
        **{name: value[..., None, None] for name, value in weights.items()},
        "zero": np.array([0]),
        "one": np.array([1]),
        "axis": np.array([1]),
    }
    inputs = {"image": rng.standard_normal((1, 3, 6, 9)).astype(np.float32)}
    model = make_model(nodes, inputs, {"y": 4}, constants)
    half = to_half(to_plugins(model))
    types = {initializer.name: initializer.data_type for initializer in half.graph.initializer}
    short = onnx.TensorProto.FLOAT16
    assert types["motion"] == onnx.TensorProto.FLOAT
    assert [types[name] for name in ("first", "weight", "last")] == [short] * 3
    assert relative(evaluate(half, inputs)[0], run(model, inputs)[0]) < 5e-3


def test_weights_that_are_computed_are_refused() -> None:
    model, _ = Case((8, 8)).model()
    model.graph.node.insert(0, helper.make_node("Neg", ["weight"], ["negative"]))
    model.graph.node[1].input[1] = "negative"
    with pytest.raises(BackendError, match="'y' are not stored"):
        to_plugins(model)


def test_a_weight_that_is_replaced_counts() -> None:
    """As a refit does: under its name, in its shape."""
    model, inputs = Case((6, 7)).model()
    changed = to_plugins(model)
    for graph in (model.graph, changed.graph):
        held = next(initializer for initializer in graph.initializer if initializer.name == "weight")
        held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held)[::-1].copy(), "weight"))
    assert relative(evaluate(changed, inputs)[0], run(model, inputs)[0]) < 1e-5


def decoder_inputs(made: DecoderCase) -> dict[str, np.ndarray]:
    return {"features": made.features, "time": made.time, "y": made.y, "x": made.x}


def config_of(made: DecoderCase) -> dict[str, Any]:
    return {"nf": 8, "groups": 2, "official_sampling": made.official, "frame_upsample": made.factor}


def decoder_graph(made: DecoderCase) -> onnx.ModelProto:
    """A graph with the decoder's inputs, output and weights; what it computes is replaced as a whole."""
    nodes = [helper.make_node("Identity", ["features"], ["frame"])]
    return make_model(nodes, decoder_inputs(made), {"frame": 4}, made.state)


@pytest.mark.parametrize("case", ["official", "corrected", "frames as they are", "a part"])
def test_the_decoder_as_plugins_computes_the_same(case: str) -> None:
    made = DecoderCase(**DECODER_CASES[case])
    model = decoder_graph(made)
    changed = to_plugins(model, config_of(made))
    assert {node.op_type for node in changed.graph.node if node.domain} == {
        name for name in PLUGINS if "target" in name
    }
    assert (changed.graph.input, changed.graph.output) == (model.graph.input, model.graph.output)
    held = {initializer.name: initializer for initializer in changed.graph.initializer}
    assert all(held[initializer.name] == initializer for initializer in model.graph.initializer)
    (found,) = evaluate(changed, decoder_inputs(made))
    assert_close_to_range(found, made.expected(np.float64), mean=3e-6, max=1e-4)


def test_the_decoder_as_plugins_in_half_precision() -> None:
    made = DecoderCase()
    half = to_half(to_plugins(decoder_graph(made), config_of(made)))
    (found,) = evaluate(half, decoder_inputs(made))
    truth = made.expected(np.float64)
    plain = np.abs(made.expected(np.float16, rounded=np.float16) - truth)
    error = np.abs(found - truth)
    assert plain.max() > 1e-4
    assert error.mean() <= 2 * plain.mean(), f"mean error {error.mean():.2e}, of plain half {plain.mean():.2e}"
    assert error.max() <= 2 * plain.max(), f"max error {error.max():.2e}, of plain half {plain.max():.2e}"


def test_without_its_config_a_decoder_stays_as_it_is() -> None:
    model = decoder_graph(DecoderCase())
    assert to_plugins(model) == model
    case, _ = CASES[0].model()
    assert to_plugins(case, {"official_sampling": True, "frame_upsample": 4}) == to_plugins(case)


@pytest.mark.slow
def test_an_exported_decoder_as_plugins_computes_the_same(tmp_path: Path) -> None:
    made = DecoderCase()
    entry = NetworkEntry("tiny", VideoINR, made.network.config, "")
    bundle = Bundle.load(export_bundle(entry, made.network, tmp_path / "bundle"))
    model = onnx.load(bundle.path("decoder"))
    changed = to_plugins(model, bundle.manifest.architecture.config)
    [expected], [found] = run(model, decoder_inputs(made)), evaluate(changed, decoder_inputs(made))
    assert_close_to_range(found, expected, mean=3e-6, max=1e-4)
