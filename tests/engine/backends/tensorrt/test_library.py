"""The engine libraries: how they are found, the GPUs that they build for, and the names that the engine uses."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import stvsr
from stvsr import BackendError
from stvsr.engine.backends.tensorrt import library as library_module
from stvsr.engine.backends.tensorrt.library import check_target, load_library


@pytest.mark.parametrize("library", ["tensorrt", "tensorrt-rtx"])
def test_a_missing_library_names_its_extra(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=rf'cannot be imported .*pip install "stvsr\[{library}\]"'):
        load_library(library)


def test_tensorrt_builds_only_for_the_gpu_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_module, "local_target", lambda: "sm90")
    with pytest.raises(BackendError, match="only for the GPU of this machine, which is sm90: build for sm89"):
        check_target("sm89", "tensorrt")
    check_target("sm90", "tensorrt")
    monkeypatch.setattr(library_module, "local_target", lambda: None)
    with pytest.raises(BackendError, match="there is no CUDA device"):
        check_target("sm89", "tensorrt")


def test_the_real_library_has_the_names_that_the_engine_uses() -> None:
    """The fake library has what the engine uses, so it cannot tell whether TensorRT-RTX does."""
    try:
        trt: Any = load_library("tensorrt-rtx")
    except BackendError as error:
        pytest.skip(str(error))
    names = {
        "ICudaEngine": "get_tensor_name get_tensor_mode get_tensor_dtype get_tensor_shape num_io_tensors refittable"
        " get_tensor_profile_shape create_runtime_config create_execution_context",
        "IRuntimeConfig": "set_execution_context_allocation_strategy dynamic_shapes_kernel_specialization_strategy"
        " create_runtime_cache set_runtime_cache",
        "IRuntimeCache": "serialize deserialize",
        "IBuilderConfig": "create_timing_cache set_timing_cache get_timing_cache",
        "ITimingCache": "serialize",
        "IExecutionContext": "set_input_shape infer_shapes update_device_memory_size_for_shapes set_device_memory"
        " get_tensor_shape set_tensor_address execute_async_v3 is_stream_capturable",
        "Refitter": "get_all_weights get_weights_prototype set_named_weights get_missing_weights refit_cuda_engine",
        "Runtime": "deserialize_cuda_engine",
        "ExecutionContextAllocationStrategy": "USER_MANAGED",
        "DynamicShapesKernelSpecializationStrategy": "EAGER",
        "Weights": "dtype size",
    }
    for kind, members in names.items():
        for name in members.split():
            assert hasattr(getattr(trt, kind), name), f"{kind}.{name}"
    folder = Path(stvsr.__file__).parent / "engine/backends/tensorrt"
    modules = ("session.py", "loaded_engine.py", "stream_context.py", "tensors.py")
    source = "".join((folder / module).read_text() for module in modules)
    used = set(re.findall(r"(?:engine|context|config|refitter|_runtime|_refitter\(\))\.(\w+)", source))
    known = {name for members in names.values() for name in members.split()}
    assert len(used) > 15
    assert used <= known, used - known
