"""The registration of plugins with TensorRT's own Python source, over a stand-in for its compiled module."""

import shutil
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from stvsr import BackendError
from stvsr.engine.backends.tensorrt.plugins import ptx, registration
from stvsr.engine.backends.tensorrt.plugins.kernels import PLUGINS
from stvsr.engine.backends.tensorrt.plugins.registration import register_plugins
from stvsr.kernels.deform_conv import DeformConv

from tests.support import tensorrt_stand_in
from tests.support.plugin_kernels import FIXED_TYPES, deform_conv_attributes, deform_conv_shapes


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """TensorRT's Python source over a stand-in, on a machine with an sm80; PTX is not compiled."""
    trt = tensorrt_stand_in.install(monkeypatch)
    monkeypatch.setattr(registration, "local_target", lambda: "sm80")
    monkeypatch.setattr(registration, "find_compiler", lambda: None)
    monkeypatch.setattr(registration, "compile_ptx", lambda entry, target: f"{entry.function} {target}")
    return trt


def test_plugins_are_registered_once(trt: Any) -> None:
    register_plugins()
    register_plugins()
    creators = trt.get_plugin_registry().creators
    assert set(creators) == {(name, "1", "stvsr") for name in PLUGINS}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_tensorrt_builds_plugins_as_described(trt: Any, dtype: type) -> None:
    register_plugins()
    conv = DeformConv(24, 70, (3, 1), (2, 1), (1, 0), offset_groups=3)
    official = {"channels": 8, "frame_upsample": 2, "official_sampling": True}
    mixed, frames, target, flows = (2, 4, 5, 256), (2, 8, 10, 6), (2, 7, 9, 8), (2, 7, 9, 4)
    axes = (7,), (9,)
    for name, attributes, shapes in (
        ("deform_conv2d", deform_conv_attributes(conv), deform_conv_shapes(conv, 2, (11, 17))),
        ("warp", {"border": "clamp", "align_corners": False, "grid_limit": 0.5}, [(2, 37, 8, 9), (2, 4, 6, 71)]),
        ("fusion_inputs", {"count": 4}, [(2, 14, 8, 9), (2, 5, 8, 9), (2,)]),
        ("target_features", {"channels": 8}, [mixed, (2,), *axes, *axes, (50,), (60,)]),
        ("target_flows", official, [mixed, frames, target, (2,), *axes, (50,), (60,)]),
        ("target_colours", official, [mixed, frames, target, flows, (2,), *axes, (2,), (50,), (60,)]),
    ):
        plugin = PLUGINS[name]
        types = [FIXED_TYPES.get(kind, dtype) for kind in plugin.inputs.values()]
        built = tensorrt_stand_in.build(trt, name, attributes, shapes, types)
        kernel = plugin.kernel(shapes, attributes, np.dtype(dtype))
        assert built == (
            tuple(plugin.shape(shapes, attributes)),
            FIXED_TYPES.get(plugin.output[1], dtype),
            kernel.entry.function,
            f"{kernel.entry.function} sm80",
            [*kernel.launch.grid, *kernel.launch.block, kernel.launch.shared_bytes],
            list(kernel.integers),
        )


def test_plugins_are_not_compiled_without_a_device(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    register_plugins()
    monkeypatch.setattr(registration, "local_target", lambda: None)
    attributes = {"border": "zeros", "align_corners": True, "grid_limit": 0.0}
    with pytest.raises(BackendError, match="GPU of this machine"):
        tensorrt_stand_in.build(trt, "warp", attributes, [(1, 3, 8, 9), (1, 2, 8, 9)], [np.float32] * 2)


def test_plugins_are_not_registered_without_a_compiler(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(registration, "find_compiler", ptx.find_compiler)
    with pytest.raises(BackendError, match="CuPy or nvcc"):
        register_plugins()
    assert not trt.get_plugin_registry().creators


def test_a_missing_tensorrt_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r"stvsr\[tensorrt\]"):
        register_plugins()


def test_a_tensorrt_without_plugins_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    old: Any = ModuleType("tensorrt")
    old.__version__ = "10.0"
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", None)
    with pytest.raises(BackendError, match="no Python plugins"):
        register_plugins()
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", ModuleType("tensorrt.plugin"))
    with pytest.raises(BackendError, match=r"10\.0 has no ahead-of-time plugins"):
        register_plugins()
