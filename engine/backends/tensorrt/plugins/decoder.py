"""VideoINR's decoder as a graph of its three kernels' plugins, with what is prepared for them in standard operators."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .....kernels import videoinr_decoder as implicit
from ..lowering import GraphWriter, copied, import_onnx
from .kernels import NAMESPACE, PLUGINS

if TYPE_CHECKING:
    from onnx import ModelProto

_INPUTS = {"features", "time", "y", "x"}
_SIRENS = ("feat_imnet.", "flow_imnet.", "encode_imnet.")
_FRAME_CHANNELS = 6


def is_implicit_decoder(model: "ModelProto") -> bool:
    """Whether a graph is VideoINR's decoder, by the names of its weights and inputs."""
    names = {initializer.name for initializer in model.graph.initializer}
    return {value.name for value in model.graph.input} == _INPUTS and all(
        any(name.startswith(siren) for name in names) for siren in _SIRENS
    )


def decoder_to_plugins(model: "ModelProto", config: Mapping[str, Any]) -> "ModelProto":
    """Replace all of the decoder's nodes; weights stay in their shape under their name, as do inputs and outputs.

    `config` has VideoINR's `official_sampling` and `frame_upsample`.
    """
    onnx = import_onnx()
    changed = copied(model)
    graph = changed.graph
    state = [initializer for initializer in model.graph.initializer if initializer.name.startswith(_SIRENS)]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(state)
    writer = GraphWriter(graph)
    weights = _Weights(writer, {held.name: tuple(held.dims) for held in state}, config)
    rows, columns = (_axis(writer, name, axis, config["official_sampling"]) for name, axis in (("y", 2), ("x", 3)))

    constant, factor = writer.constant, config["frame_upsample"]
    mixed = writer("MatMul", writer("Transpose", "features", perm=(0, 2, 3, 1)), weights.read("mix"))
    frames = writer("Slice", "features", constant((-_FRAME_CHANNELS,)), constant((2**31 - 1,)), constant((1,)))
    if factor > 1:
        scales = constant((1, 1, factor, factor), np.float32)
        modes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        frames = writer("Resize", frames, "", scales, **modes)
    frames = writer("Transpose", frames, perm=(0, 2, 3, 1))

    def run(name: str, *inputs: str, output: str = "") -> str:
        known = {"channels": weights.channels, **config}
        given = {key: int(known[key]) for key in PLUGINS[name].attributes}
        place = {"domain": NAMESPACE, "plugin_namespace": NAMESPACE, "plugin_version": "1"}
        made = writer(name, *inputs, *weights.siren(name), output=output, **place, **given)
        if not output:  # no inference knows a plugin
            graph.value_info.append(onnx.helper.make_tensor_value_info(made, onnx.TensorProto.FLOAT, [None] * 4))
        return made

    near = (rows["nearest"], columns["nearest"], rows["way"], columns["way"])
    target = run("target_features", mixed, "time", *near)
    flows = run("target_flows", mixed, frames, target, "time", "y", "x")
    size = writer("Concat", rows["size"], columns["size"], axis=0)
    places = (rows["index"], columns["index"], size)
    run("target_colours", mixed, frames, target, flows, "time", *places, output=graph.output[0].name)
    writer.finish()
    changed.opset_import.append(onnx.helper.make_opsetid(NAMESPACE, 1))
    return changed


class _Weights:
    """What `implicit.pack` makes of the weights, taken from them in the graph."""

    def __init__(self, writer: GraphWriter, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> None:
        # Elements are counted from 1 over all weights, and packed instead of them; 0 is a zero.
        counted, first = {}, 1
        flat = [writer.constant((0,), np.float32)]
        for name, shape in shapes.items():
            count = int(np.prod(shape))
            counted[name] = np.arange(first, first + count, dtype=np.float64).reshape(shape)
            first += count
            flat.append(writer("Reshape", name, writer.constant((-1,))))
        conventions = {key: config[key] for key in ("official_sampling", "frame_upsample")}
        self._places = implicit.pack(counted, np.float64, **conventions)
        self._elements = writer("Concat", *flat, axis=0)
        self._writer = writer
        self.channels = self._places.nf

    def read(self, name: str) -> str:
        """Return the packed array of this name."""
        return self._gathered(getattr(self._places, name))

    def siren(self, plugin: str) -> tuple[str, str]:
        """Return weights and biases of a plugin's SIREN."""
        weights, biases = getattr(self._places, plugin.removeprefix("target_"))
        return self._gathered(weights), self._gathered(biases)

    def _gathered(self, places: np.ndarray) -> str:
        return self._writer("Gather", self._elements, self._writer.constant(places), axis=0)


def _axis(writer: GraphWriter, position: str, axis: int, official_sampling: bool) -> dict[str, str]:
    """What `implicit.target_axis` computes, step by step; `position` is a graph input, `axis` that of the features."""
    to_float = import_onnx().TensorProto.FLOAT

    def number(value: float) -> str:
        return writer.constant((value,), np.float32)

    def float_length(name: str, start: int) -> str:
        return writer("Cast", writer("Shape", name, start=start, end=start + 1), to=to_float)

    n_in, n_out = float_length("features", axis), float_length(position, 0)
    ends = [writer("Gather", position, writer.constant((place,)), axis=0) for place in (0, -1)]
    spacing = writer("Div", writer("Sub", ends[1], ends[0]), writer("Sub", n_out, number(1)))
    index = writer("Sub", writer("Div", writer("Add", position, number(0.5)), spacing), number(0.5))
    size = writer("Div", n_in, spacing)
    if official_sampling:
        whole = writer("Round", size)
        is_whole = writer("Less", writer("Abs", writer("Sub", size, whole)), number(implicit.WHOLE))
        pixel = writer("Div", number(1), writer("Where", is_whole, whole, size))
        moved = writer("Mul", writer("Mul", number(2), pixel), writer("Round", index))
        grid = writer("Add", writer("Sub", pixel, number(1)), moved)
        on_input = writer("Mul", writer("Add", grid, number(1)), n_in)
        wanted = writer("Div", writer("Sub", on_input, number(1)), number(2))
    else:
        wanted = writer("Sub", position, number(float(implicit.TIE_BIAS)))
    last = writer("Sub", n_in, number(1))
    nearest = writer("Min", writer("Max", writer("Round", wanted), number(0)), last)
    way = writer("Mul", writer("Sub", position, nearest), number(2))
    nearest = writer("Cast", nearest, to=import_onnx().TensorProto.INT32)
    return {"nearest": nearest, "way": way, "index": index, "size": size}
