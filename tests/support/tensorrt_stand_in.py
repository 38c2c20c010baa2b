"""A stand-in for TensorRT's compiled module, under its own Python source of `tensorrt.plugin`, which is not changed."""

import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

DataType = Enum("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8 FP8 BF16 INT64 INT4 FP4")
TensorFormat = Enum("TensorFormat", "LINEAR CHW2 HWC8 HWC")
DimensionOperation = Enum("DimensionOperation", "SUM PROD MAX MIN SUB EQUAL LESS FLOOR_DIV CEIL_DIV")
PluginFieldType = Enum("PluginFieldType", "FLOAT16 FLOAT32 FLOAT64 INT8 INT16 INT32 CHAR DIMS UNKNOWN INT64")
PluginArgType = Enum("PluginArgType", "INT")
PluginArgDataType = Enum("PluginArgDataType", "INT8 INT16 INT32")
TensorRTPhase = Enum("TensorRTPhase", "BUILD RUNTIME")
QuickPluginCreationRequest = Enum("QuickPluginCreationRequest", "UNKNOWN PREFER_JIT PREFER_AOT STRICT_JIT STRICT_AOT")
NumpyType = type[np.generic]
NUMPY_TYPES: dict[DataType, NumpyType] = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT32: np.int32,
}

_OPERATIONS: dict[Any, Callable[[int, int], int]] = {
    DimensionOperation.SUM: lambda a, b: a + b,
    DimensionOperation.PROD: lambda a, b: a * b,
    DimensionOperation.MAX: max,
    DimensionOperation.MIN: min,
    DimensionOperation.SUB: lambda a, b: a - b,
    DimensionOperation.FLOOR_DIV: lambda a, b: math.trunc(a / b),
    DimensionOperation.CEIL_DIV: lambda a, b: math.ceil(a / b),
}


class IDimensionExpr:
    """A size of a tensor: TensorRT knows it when an engine runs, the stand-in from the start."""

    def __init__(self, value: int, constant: bool = False) -> None:
        self.value, self.constant = value, constant

    def is_constant(self) -> bool:
        return self.constant

    def get_constant_value(self) -> int:
        assert self.constant
        return self.value


class IExprBuilder:
    def constant(self, value: int) -> IDimensionExpr:
        return IDimensionExpr(value, constant=True)

    def operation(self, operation: Any, a: IDimensionExpr, b: IDimensionExpr) -> IDimensionExpr:
        return IDimensionExpr(_OPERATIONS[operation](a.value, b.value))


class Logger:
    WARNING = 2

    def log(self, severity: int, message: str) -> None:
        pass


class PluginField:
    def __init__(self, name: str, data: Any, type: Any = PluginFieldType.UNKNOWN) -> None:
        self.name, self.data, self.type = name, np.asarray(data), type


class Dims(tuple):
    MAX_DIMS = 8


class PluginTensorDesc:
    dims: tuple[int, ...] = ()
    type, format, scale = DataType.FLOAT, TensorFormat.LINEAR, 1.0


class DynamicPluginTensorDesc:
    def __init__(self, dims: Sequence[int], type: DataType) -> None:
        self.desc = PluginTensorDesc()
        self.desc.dims, self.desc.type = tuple(dims), type


class Registry:
    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> None:
        key = (creator.name, creator.plugin_version, namespace)
        assert key not in self.creators
        self.creators[key] = creator

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators[name, version, namespace]


_BASES = (
    "IPluginV3 IPluginV3QuickCore IPluginV3QuickBuild IPluginV3QuickAOTBuild IPluginV3QuickRuntime"
    " IPluginCreatorV3Quick ISymExpr ITensor"
)


def install(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Install and return a module `tensorrt` whose `plugin` is TensorRT's own source.

    Skips the test if that source is not installed.
    """
    spec = importlib.util.find_spec("tensorrt_bindings")  # works without the shared library
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("TensorRT's Python source is not installed: pip install --no-deps tensorrt-cu13-bindings")
    folder = Path(next(iter(spec.submodule_search_locations)))
    if not (folder / "plugin" / "_tensor.py").is_file():
        pytest.skip(f"{folder} has no tensorrt.plugin")
    trt: Any = ModuleType("tensorrt")
    trt.__path__, trt.__version__ = [str(folder)], "stand-in"
    vars(trt).update({name: value for name, value in globals().items() if isinstance(value, type)})
    vars(trt).update({name: type(name, (), {}) for name in _BASES.split()})
    trt.PluginFieldCollection = list
    trt.DimsExprs = lambda count: [None] * count
    trt.float32, trt.float16, trt.int32 = DataType.FLOAT, DataType.HALF, DataType.INT32
    trt.nptype = NUMPY_TYPES.__getitem__
    registry = Registry()
    trt.get_plugin_registry = lambda: registry
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorrt"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    for name in ("plugin", *(f"plugin.{path.stem}" for path in (folder / "plugin").glob("_*.py"))):
        # Registers the submodules for removal after the test, together with the module that imports them.
        monkeypatch.setitem(sys.modules, f"tensorrt.{name}", None)
        monkeypatch.delitem(sys.modules, f"tensorrt.{name}")
    return trt


class SymExprSetter(dict):
    nbSymExprs = 0  # noqa: N815


class LaunchParams:
    """The launch parameters of a kernel in an engine, as numbers."""

    names = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared_mem")

    def numbers(self) -> list[int]:
        return [getattr(self, name).expr.value for name in self.names]


def build(
    trt: Any, name: str, attributes: dict[str, Any], shapes: Sequence[tuple[int, ...]], dtypes: Sequence[Any]
) -> tuple[tuple[int, ...], NumpyType, str, str, list[int], list[int]]:
    """Take a plugin through the steps of an engine's build, with fields as the ONNX parser passes them.

    Returns (shape of the output, its NumPy type, kernel name, PTX, launch parameters, integers).
    """
    fields = []
    for key, value in attributes.items():
        if isinstance(value, str):
            fields.append(trt.PluginField(key, np.frombuffer(value.encode(), np.int8), PluginFieldType.CHAR))
        else:
            dtype, kind = (
                (np.float32, PluginFieldType.FLOAT32) if isinstance(value, float) else (np.int32, PluginFieldType.INT32)
            )
            fields.append(trt.PluginField(key, np.atleast_1d(np.asarray(value, dtype)), kind))
    creator = trt.get_plugin_registry().get_creator(name, "1", "stvsr")
    plugin = creator.create_plugin(name, "stvsr", fields, TensorRTPhase.BUILD, QuickPluginCreationRequest.UNKNOWN)
    types = [next(kind for kind, numpy_type in NUMPY_TYPES.items() if numpy_type == dtype) for dtype in dtypes]
    (output_type,) = plugin.get_output_data_types(types, [len(shape) for shape in shapes])
    sizes = [[IDimensionExpr(size) for size in shape] for shape in shapes]
    builder = IExprBuilder()
    (output,) = plugin.get_output_shapes(sizes, [], builder)
    output_shape = tuple(size.value for size in output)
    tensors = [DynamicPluginTensorDesc([-1] * len(shape), kind) for shape, kind in zip(shapes, types, strict=True)]
    tensors.append(DynamicPluginTensorDesc([-1] * len(output_shape), output_type))
    combinations = plugin.get_supported_format_combinations(tensors, len(shapes))
    offered = [
        [each.type for each in combinations[i : i + len(tensors)]] for i in range(0, len(combinations), len(tensors))
    ]
    assert [tensor.desc.type for tensor in tensors] in offered
    plugin.set_tactic(0)
    launch, integers = LaunchParams(), SymExprSetter()
    plugin.get_launch_params(sizes, tensors, len(shapes), launch, integers, builder)
    descriptions = [tensor.desc for tensor in tensors]
    kernel, ptx = plugin.get_kernel(descriptions[:-1], descriptions[-1:])
    values = [integers[i].expr.value for i in range(integers.nbSymExprs)]
    return output_shape, NUMPY_TYPES[output_type], kernel, ptx.decode(), launch.numbers(), values
