"""Rewrites VideoINR's decoder as its three plugins; standard operators compute what they read."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .....kernels import videoinr_decoder
from ..onnx_graph import GraphWriter, copy_message, import_onnx
from .kernels import NAMESPACE, NODE_ATTRIBUTES, PLUGINS

if TYPE_CHECKING:
    from onnx import ModelProto

_INPUTS = {"features", "time", "y", "x"}
_SIRENS = ("feat_imnet.", "flow_imnet.", "encode_imnet.")
_FRAME_CHANNELS = 6  # the two frames, which are the last channels of the features
_LAST = 2**31 - 1  # the end of a Slice that reaches to the end


def is_videoinr_decoder(model: "ModelProto") -> bool:
    """Return whether a graph is VideoINR's decoder, by the names of its inputs and weights."""
    names = {initializer.name for initializer in model.graph.initializer}
    return {value.name for value in model.graph.input} == _INPUTS and all(
        any(name.startswith(siren) for name in names) for siren in _SIRENS
    )


def decoder_to_plugins(model: "ModelProto", config: Mapping[str, Any]) -> "ModelProto":
    """Return the decoder with all of its nodes replaced; inputs, outputs and weights keep their names and shapes.

    `config` has VideoINR's `official_sampling` and `frame_upsample`.
    """
    onnx = import_onnx()
    changed = copy_message(model)
    graph = changed.graph
    state = [initializer for initializer in model.graph.initializer if initializer.name.startswith(_SIRENS)]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(state)
    writer = GraphWriter(graph)
    weights = _PackedWeights(writer, {tensor.name: tuple(tensor.dims) for tensor in state}, config)
    rows, columns = (
        _write_axis(writer, name, axis, config["official_sampling"]) for name, axis in (("y", 2), ("x", 3))
    )

    constant, factor = writer.constant, config["frame_upsample"]
    mixed = writer("MatMul", writer("Transpose", "features", perm=(0, 2, 3, 1)), weights.read("mix"))
    frames = writer("Slice", "features", constant((-_FRAME_CHANNELS,)), constant((_LAST,)), constant((1,)))
    if factor > 1:
        scales = constant((1, 1, factor, factor), np.float32)
        modes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        frames = writer("Resize", frames, "", scales, **modes)
    frames = writer("Transpose", frames, perm=(0, 2, 3, 1))

    def plugin(name: str, *inputs: str, output: str = "") -> str:
        values = {"channels": weights.channels, **config}
        attributes = {key: int(values[key]) for key in PLUGINS[name].attributes}
        result = writer(name, *inputs, *weights.siren(name), output=output, **NODE_ATTRIBUTES, **attributes)
        if not output:  # shape inference does not know the plugin
            graph.value_info.append(onnx.helper.make_tensor_value_info(result, onnx.TensorProto.FLOAT, [None] * 4))
        return result

    nearest = (rows["nearest"], columns["nearest"], rows["relative"], columns["relative"])
    target = plugin("target_features", mixed, "time", *nearest)
    flows = plugin("target_flows", mixed, frames, target, "time", "y", "x")
    size = writer("Concat", rows["size"], columns["size"], axis=0)
    positions = (rows["index"], columns["index"], size)
    plugin("target_colours", mixed, frames, target, flows, "time", *positions, output=graph.output[0].name)
    writer.finish()
    changed.opset_import.append(onnx.helper.make_opsetid(NAMESPACE, 1))
    return changed


class _PackedWeights:
    """The arrays of `videoinr_decoder.pack`, gathered in the graph from the weights that it stores."""

    def __init__(self, writer: GraphWriter, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> None:
        # Packs the indices of the elements, counted from 1 over all weights; index 0 reads a zero.
        numbered, first = {}, 1
        flat = [writer.constant((0,), np.float32)]
        for name, shape in shapes.items():
            count = int(np.prod(shape))
            numbered[name] = np.arange(first, first + count, dtype=np.float64).reshape(shape)
            first += count
            flat.append(writer("Reshape", name, writer.constant((-1,))))
        conventions = {key: config[key] for key in ("official_sampling", "frame_upsample")}
        self._indices = videoinr_decoder.pack(numbered, np.float64, **conventions)
        self._elements = writer("Concat", *flat, axis=0)
        self._writer = writer
        self.channels = self._indices.nf

    def read(self, name: str) -> str:
        """Return the packed array of this name."""
        return self._gather(getattr(self._indices, name))

    def siren(self, plugin: str) -> tuple[str, str]:
        """Return the weights and the biases of a plugin's SIREN."""
        weights, biases = getattr(self._indices, plugin.removeprefix("target_"))
        return self._gather(weights), self._gather(biases)

    def _gather(self, indices: np.ndarray) -> str:
        return self._writer("Gather", self._elements, self._writer.constant(indices), axis=0)


def _write_axis(writer: GraphWriter, position: str, axis: int, official_sampling: bool) -> dict[str, str]:
    """Write `videoinr_decoder.target_axis` step by step, and return its fields but for `position`.

    `position` is a graph input, `axis` that of the features.
    """
    to_float = import_onnx().TensorProto.FLOAT

    def number(value: float) -> str:
        return writer.constant((value,), np.float32)

    def length(name: str, axis: int) -> str:
        return writer("Cast", writer("Shape", name, start=axis, end=axis + 1), to=to_float)

    n_in, n_out = length("features", axis), length(position, 0)
    ends = [writer("Gather", position, writer.constant((index,)), axis=0) for index in (0, -1)]
    spacing = writer("Div", writer("Sub", ends[1], ends[0]), writer("Sub", n_out, number(1)))
    index = writer("Sub", writer("Div", writer("Add", position, number(0.5)), spacing), number(0.5))
    size = writer("Div", n_in, spacing)
    if official_sampling:
        whole = writer("Round", size)
        is_whole = writer("Less", writer("Abs", writer("Sub", size, whole)), number(videoinr_decoder.WHOLE_TOLERANCE))
        pixel = writer("Div", number(1), writer("Where", is_whole, whole, size))
        moved = writer("Mul", writer("Mul", number(2), pixel), writer("Round", index))
        grid = writer("Add", writer("Sub", pixel, number(1)), moved)
        on_input = writer("Mul", writer("Add", grid, number(1)), n_in)
        sampled = writer("Div", writer("Sub", on_input, number(1)), number(2))
    else:
        sampled = writer("Sub", position, number(float(videoinr_decoder.TIE_BIAS)))
    last = writer("Sub", n_in, number(1))
    nearest = writer("Min", writer("Max", writer("Round", sampled), number(0)), last)
    relative = writer("Mul", writer("Sub", position, nearest), number(2))
    nearest = writer("Cast", nearest, to=import_onnx().TensorProto.INT32)
    return {"nearest": nearest, "relative": relative, "index": index, "size": size}
