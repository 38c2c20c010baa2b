"""Graphs that are wrong, each in a way, in the place of the toy's encoder."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.support.toy import FRAMES

_F = TensorProto.FLOAT
_node = helper.make_node


def _graph(
    nodes: list[Any],
    *,
    inputs: list[Any] | None = None,
    outputs: list[Any] | None = None,
    weights: list[Any] | None = None,
    domains: tuple[str, ...] = (),
) -> bytes:
    takes = inputs or [helper.make_tensor_value_info("frames", _F, FRAMES)]
    gives = outputs or [helper.make_tensor_value_info("features", _F, FRAMES)]
    made = helper.make_graph(nodes, "graph", takes, gives, weights or [])
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(domain, 1) for domain in domains)]
    content: bytes = helper.make_model(made, opset_imports=opsets, ir_version=10).SerializeToString()
    return content


def external_graph(location: str, offset: int = 0) -> bytes:
    """Return an encoder that adds to its frames what lies in a file beside it, or elsewhere."""
    weight = TensorProto(name="w", data_type=_F, dims=[1, 2, 3, 1, 1])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", "24")):
        weight.external_data.add(key=key, value=value)
    return _graph([_node("Add", ["frames", "w"], ["features"])], weights=[weight])


def wrong_graphs() -> dict[str, bytes]:
    """Return the graphs by name."""
    identity = [_node("Identity", ["frames"], ["features"])]
    fixed = (1, 2, 3, 8, 8)
    other = helper.make_tensor_value_info("other", _F, FRAMES)
    x = helper.make_tensor_value_info("x", _F, FRAMES)
    int8 = helper.make_tensor_value_info("frames", TensorProto.INT8, FRAMES)
    small = [helper.make_tensor_value_info(name, _F, fixed) for name in ("frames", "features")]
    shapeless = [helper.make_tensor_value_info("features", _F, None)]
    sizes = numpy_helper.from_array(np.array([1, 2, 3, 2**20, 2**20]), "s")
    one = numpy_helper.from_array(np.array([1], np.float32), "one")
    huge = [
        _node("Expand", ["one", "s"], ["big"]),
        _node("ReduceMean", ["big"], ["mean"], keepdims=0),
        _node("Add", ["frames", "mean"], ["features"]),
    ]
    negative_log = [_node("Neg", ["frames"], ["m"]), _node("Log", ["m"], ["features"])]
    return {
        "renamed_output": _graph([_node("Identity", ["frames"], ["other"])], outputs=[other]),
        "renamed_input": _graph([_node("Identity", ["x"], ["features"])], inputs=[x]),
        "int_input": _graph([_node("Cast", ["frames"], ["features"], to=_F)], inputs=[int8]),
        "fixed_size": _graph(identity, inputs=small[:1], outputs=small[1:]),
        "bad_shape": _graph([_node("ReduceMean", ["frames"], ["features"], keepdims=0)], outputs=shapeless),
        "lies_about_shape": _graph([_node("ReduceMean", ["frames"], ["features"], keepdims=0)]),
        "unknown_op": _graph([_node("Evil", ["frames"], ["features"], domain="ai.evil")], domains=("ai.evil",)),
        "huge_alloc": _graph(huge, weights=[sizes, one]),
        "nan": _graph(negative_log),
        "endless": _loop(None),
        "nearly_endless": _loop(2**62),
    }


def _loop(rounds: int | None) -> bytes:
    """Return a graph that copies its frames again and again, without a largest number of rounds if it is None."""
    body = helper.make_graph(
        [_node("Identity", ["c"], ["c2"]), _node("Identity", ["v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, ()),
            helper.make_tensor_value_info("c", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("v", _F, FRAMES),
        ],
        [helper.make_tensor_value_info("c2", TensorProto.BOOL, ()), helper.make_tensor_value_info("v2", _F, FRAMES)],
    )
    weights = [numpy_helper.from_array(np.array(True), "yes"), numpy_helper.from_array(np.array(rounds or 0), "n")]
    first = "" if rounds is None else "n"
    return _graph([_node("Loop", [first, "yes", "frames"], ["features"], body=body)], weights=weights)


def write_external(folder: Path, name: str) -> None:
    """Write the weights that `external_graph` reads."""
    (folder / name).write_bytes(np.array([0.1] * 6, np.float32).tobytes())
