"""Checks that the inputs and outputs of a network or an engine are those of its graph in the manifest."""

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np

from ...contract.errors import BundleError
from ...contract.manifest import Graph, TensorSpec


def check_network(network: Any, trt: ModuleType, graph: Graph) -> None:
    """Raise BundleError unless a parsed network has the inputs and outputs of its graph."""
    tensors = [(True, network.get_input(index)) for index in range(network.num_inputs)]
    tensors += [(False, network.get_output(index)) for index in range(network.num_outputs)]
    actual = [(is_input, _spec(trt, tensor.name, tensor.dtype, tensor.shape)) for is_input, tensor in tensors]
    check_tensors(actual, graph, f"The network of {graph.file}")


def check_engine(engine: Any, trt: ModuleType, graph: Graph, path: object) -> None:
    """Raise BundleError unless an open engine has the inputs and outputs of its graph."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    actual = [
        (
            engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
            _spec(trt, name, engine.get_tensor_dtype(name), engine.get_tensor_shape(name)),
        )
        for name in names
    ]
    check_tensors(actual, graph, f"The engine {path}")


def check_tensors(actual: Iterable[tuple[bool, TensorSpec]], graph: Graph, owner: str) -> None:
    """Compare tensors, (is an input, spec), with those of a manifest's graph; names of free axes may differ.

    Raises BundleError at the first difference; `owner` begins its message.
    """
    sides = (True, graph.inputs), (False, graph.outputs)
    expected_specs = {(is_input, spec.name): spec for is_input, specs in sides for spec in specs}
    actual_specs = {(is_input, spec.name): spec for is_input, spec in actual}
    for key in sorted(expected_specs.keys() | actual_specs.keys(), reverse=True):
        expected, found = expected_specs.get(key), actual_specs.get(key)
        if expected is None or found is None or not _same(found, expected):
            side = "input" if key[0] else "output"
            raise BundleError(
                f"{owner} has the {side} {_describe(found, key[1])}, and the manifest has"
                f" {_describe(expected, key[1])}: export the bundle again."
            )


def _same(a: TensorSpec, b: TensorSpec) -> bool:
    return (
        a.dtype == b.dtype
        and len(a.axes) == len(b.axes)
        and all(
            isinstance(one, str) == isinstance(other, str) and (isinstance(one, str) or one == other)
            for one, other in zip(a.axes, b.axes, strict=True)
        )
    )


def _describe(spec: TensorSpec | None, name: str) -> str:
    return f"no '{name}'" if spec is None else f"'{name}' {spec.dtype} ({', '.join(map(str, spec.axes))})"


def _spec(trt: ModuleType, name: str, dtype: Any, shape: Iterable[int]) -> TensorSpec:
    axes = tuple("?" if size < 0 else int(size) for size in shape)
    return TensorSpec(name=name, dtype=np.dtype(trt.nptype(dtype)).name, axes=axes)
