"""The kernels of all plugins compile to PTX for every architecture, with nvcc or with CuPy."""

import re
import shutil
import sys
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from stvsr import BackendError
from stvsr.engine.backends.tensorrt.plugins import ptx
from stvsr.engine.backends.tensorrt.plugins.kernels import PLUGINS, Kernel
from stvsr.kernels.deform_conv import DeformConv

from tests.support.plugin_kernels import deform_conv_attributes, deform_conv_shapes

ARCHITECTURES = ("sm80", "sm86", "sm89", "sm90", "sm100", "sm120")


def every_kernel() -> list[Any]:
    """Return (plugin, kernel) of every plugin, in both types and all conventions."""
    wide, narrow = DeformConv(64, 128, padding=(1, 1), offset_groups=8), DeformConv(64, 64, padding=(1, 1))
    kernels: dict[str, tuple[str, Kernel]] = {}
    for dtype in (np.dtype("f4"), np.dtype("f2")):
        calls: list[tuple[str, str, Any, dict[str, Any]]] = [
            ("deform_conv2d", "64", deform_conv_shapes(narrow, 1, (8, 9)), deform_conv_attributes(narrow)),
            ("deform_conv2d", "128", deform_conv_shapes(wide, 1, (8, 9)), deform_conv_attributes(wide)),
        ]
        for border, align_corners, limit in (("zeros", True, 0.0), ("clamp", False, 1 - 1e-6)):
            attributes = {"border": border, "align_corners": align_corners, "grid_limit": limit}
            calls.append(("warp", border, [(1, 64, 8, 9), (1, 4, 8, 9)], attributes))
        calls.append(("fusion_inputs", "", [(1, 70, 8, 9), (1, 5, 8, 9), (1,)], {"count": 32}))
        mixed, frames, target = (1, 4, 5, 256), (1, 16, 20, 6), (1, 8, 9, 64)
        rows, columns, flows, any_ = (8,), (9,), (1, 8, 9, 4), (1,)
        calls.append(("target_features", "", [mixed, any_, *(2 * (rows, columns)), any_, any_], {"channels": 64}))
        for official in (False, True):
            attributes = {"channels": 64, "frame_upsample": 4, "official_sampling": official}
            shapes = [mixed, frames, target, any_, rows, columns, any_, any_]
            calls.append(("target_flows", str(official), shapes, attributes))
            shapes = [mixed, frames, target, flows, any_, rows, columns, (2,), any_, any_]
            calls.append(("target_colours", str(official), shapes, attributes))
        for name, variant, shapes, attributes in calls:
            kernels[f"{name}-{variant}-{dtype}"] = name, PLUGINS[name].kernel(shapes, attributes, dtype)
    return [pytest.param(*value, id=key) for key, value in kernels.items()]


def check_ptx(text: str, name: str, kernel: Kernel, architecture: str) -> None:
    """Fail unless the entry takes pointers to the inputs, 32-bit integers and a pointer to the output in this order."""
    assert f".target sm_{architecture[2:]}" in text
    ((function, parameters),) = re.findall(r"\.visible \.entry (\w+)\(([^)]*)\)", text)
    assert function == kernel.entry.function
    types = re.findall(r"\.param \.(?:align \d+ )?(\w+)", parameters)
    assert types == [*["u64"] * len(PLUGINS[name].inputs), *["u32"] * len(kernel.integers), "u64"]


@pytest.fixture
def nvcc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile with nvcc instead of CuPy; skips the test if nvcc is not installed."""
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


def test_cupy_compiles_if_it_is_installed() -> None:
    pytest.importorskip("cupy", reason="CuPy is not installed: NVRTC is not tried")
    ptx.compile_ptx.cache_clear()
    for parameter in every_kernel():
        name, kernel = parameter.values
        check_ptx(ptx.compile_ptx(kernel.entry, "sm89"), name, kernel, "sm89")


def warp_kernel() -> Kernel:
    attributes = {"border": "zeros", "align_corners": True, "grid_limit": 0.0}
    return PLUGINS["warp"].kernel([(1, 3, 8, 9), (1, 2, 8, 9)], attributes, np.dtype("f4"))


@pytest.mark.usefixtures("nvcc")
def test_a_kernel_is_compiled_once_for_each_target() -> None:
    with patch.object(ptx, "_compile_with_nvcc", side_effect=lambda *_: "ptx") as compiled:
        for target in ("sm80", "sm80", "sm90"):
            ptx.compile_ptx(warp_kernel().entry, target)
        assert compiled.call_count == 2


@pytest.mark.usefixtures("nvcc")
def test_compile_errors_are_reported() -> None:
    broken = warp_kernel().entry._replace(source="#error is it broken")
    with pytest.raises(BackendError, match=r"warp_planes cannot be compiled for compute_80 \(.*is it broken"):
        ptx.compile_ptx(broken, "sm80")
    with pytest.raises(BackendError, match="for compute_12"):
        ptx.compile_ptx(warp_kernel().entry, "sm12")
    with pytest.raises(BackendError, match="'ampere'"):
        ptx.compile_ptx(warp_kernel().entry, "ampere")


def test_a_missing_compiler_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    ptx.compile_ptx.cache_clear()
    with pytest.raises(BackendError, match=r"stvsr\[cuda\]"):
        ptx.compile_ptx(warp_kernel().entry, "sm80")


def test_a_missing_nvrtc_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> None:
        raise RuntimeError("no libnvrtc.so.13\nanywhere")

    cupy: Any = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(nvrtc=SimpleNamespace(createProgram=missing), get_cuda_path=lambda: None)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    ptx.compile_ptx.cache_clear()
    with pytest.raises(BackendError, match=r"no libnvrtc.so.13 anywhere\): pip install"):
        ptx.compile_ptx(warp_kernel().entry, "sm80")
