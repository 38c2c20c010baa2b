"""A bundle's graphs are compared with its manifest when it is loaded, and may not read other files or run forever."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from stvsr.engine.contract.bundle import Bundle
from stvsr.engine.contract.errors import BundleError
from stvsr.engine.contract.graph_file import read_interface

from tests.support.toy import FRAMES, write_toy

_node = helper.make_node


def _external() -> TensorProto:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="weights.bin")
    return weight


def _branch(node: Any, weights: list[Any]) -> Any:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, FRAMES)
    return helper.make_graph([node], "branch", [], [output], weights)


def _model(nodes: list[Any], weights: list[Any] | None = None, **tensors: Any) -> bytes:
    inputs = [helper.make_tensor_value_info("frames", TensorProto.FLOAT, tensors.get("takes", FRAMES))]
    outputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, tensors.get("gives", FRAMES))]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights or [])
    content: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    return content


def _replace_encoder(folder: Path, content: bytes) -> None:
    (folder / "encoder.onnx").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["graphs"][0]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


_IDENTITY = [_node("Identity", ["frames"], ["features"])]
_ADD = [_node("Add", ["frames", "w"], ["features"])]
_INNER = [_node("If", ["c"], ["features"], then_branch=_branch(_node("Identity", ["w"], ["y"]), [_external()]))]
_LOOP = [_node("Loop", ["", "c"], ["features"], body=_branch(_node("Identity", ["frames"], ["y"]), []))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_model(_ADD, [_external()]), "keeps weights in another file"),
        (_model([_node("Constant", [], ["features"], value=_external())]), "keeps weights in another file"),
        (_model(_INNER), "keeps weights in another file"),
        (_model(_LOOP), "a loop without a largest number of rounds"),
        (_model(_IDENTITY, takes=(1, 2, 3, 8, 8)), r"'frames' of \(1, 2, 3, 8, 8\)"),
        (_model(_IDENTITY, gives=("B", 2, 3)), r"'features' of \(free, 2, 3\)"),
        (_model(_IDENTITY, gives=None), "'features' of no shape"),
        (_model(_IDENTITY)[:-3], "cannot be read as an ONNX graph"),
        (b"", "cannot be read as an ONNX graph"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "cannot be read as an ONNX graph"),
    ],
)
def test_a_graph_that_breaks_the_promise_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    folder = write_toy(tmp_path / "toy")
    _replace_encoder(folder, content)
    with pytest.raises(BundleError, match=message) as refused:
        Bundle.load(folder)
    assert str(refused.value).startswith(str(folder / "encoder.onnx"))
    assert str(refused.value).endswith(".")


def test_graphs_inside_each_other_are_read_to_a_depth() -> None:
    content = b""
    for _ in range(100):  # a graph in an attribute of a node of a graph, by hand: onnx cannot make one so deep
        for field in (6, 5, 1):
            content = bytes([field << 3 | 2]) + _varint(len(content)) + content
    with pytest.raises(BundleError, match="deep"):
        read_interface(b"\x3a" + _varint(len(content)) + content)


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def test_tensors_of_another_role_are_refused(tmp_path: Path) -> None:
    folder = write_toy(tmp_path / "toy")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["graphs"][1]["inputs"] = manifest["graphs"][1]["inputs"][:-1]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="should have the inputs features, time, x, y"):
        Bundle.load(folder)


@given(st.data())
def test_changed_bytes_give_an_interface_or_a_sentence(data: st.DataObject) -> None:
    content = bytearray(_model(_ADD, [onnx.numpy_helper.from_array(onnx.numpy_helper.np.ones(1, "f4"), "w")]))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BundleError):
        read_interface(bytes(content[: data.draw(st.integers(0, len(content)))]))


@given(st.binary(max_size=200))
def test_random_bytes_give_an_interface_or_a_sentence(content: bytes) -> None:
    with suppress(BundleError):
        read_interface(content)
