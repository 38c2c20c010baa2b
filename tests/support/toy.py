"""A bundle without weights: its encoder copies frames, and its decoder blends in time and samples bilinearly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from stvsr.engine.contract.bundle import graph_entry, write_manifest
from stvsr.engine.contract.manifest import (
    FORMAT,
    Architecture,
    ContinuousSpace,
    ContinuousTime,
    Manifest,
    PairWindow,
    SizeConstraint,
    TensorSpec,
)

Axes = tuple[str | int, ...]
Constants = Mapping[str, np.ndarray | np.float32]
FRAMES: Axes = ("B", 2, 3, "h", "w")
DECODER_CONSTANTS: Constants = {
    "zero": np.array(0),
    "one": np.array(1),
    "step": np.array([1]),
    "nought": np.array(0, np.float32),
    "column": np.array([-1, 1, 1, 1]),
    "as_rows": np.array([-1, 1]),
    "as_columns": np.array([-1]),
    "as_pixel_rows": np.array([-1, 1, 1]),
    "pixel_axes": np.array([3, 5]),
    "eighth": np.float32(0.125),
    "sixteenth": np.float32(0.0625),
}


def save_graph(
    path: Path, nodes: list[Any], inputs: dict[str, Axes], outputs: dict[str, Axes], **constants: Any
) -> None:
    """Write a graph of float32 tensors to a file; `constants` are its initializers."""
    graph_inputs, graph_outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes) for name, axes in side.items()]
        for side in (inputs, outputs)
    )
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, graph_inputs, graph_outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def specs(tensors: dict[str, Axes]) -> tuple[TensorSpec, ...]:
    """Return the manifest's entries of float32 tensors."""
    return tuple(TensorSpec(name=name, dtype="float32", axes=axes) for name, axes in tensors.items())


def blur_nodes(halo_px: int) -> list[Any]:
    """Return nodes for a mean over (2 * halo_px + 1)^2 pixels, so that a tile's border affects `halo_px` pixels."""
    side = 2 * halo_px + 1
    return [
        helper.make_node("Shape", ["frames"], ["hw"], start=3, end=5),
        helper.make_node("Concat", ["one_by_all", "hw"], ["flat"], axis=0),
        helper.make_node("Reshape", ["frames", "flat"], ["planes"]),
        helper.make_node("Pad", ["planes", "pads"], ["padded"], mode="edge"),
        helper.make_node("AveragePool", ["padded"], ["pooled"], kernel_shape=[side, side]),
        helper.make_node("Shape", ["frames"], ["shape"]),
        helper.make_node("Reshape", ["pooled", "shape"], ["features"]),
    ]


def blend_nodes() -> list[Any]:
    """Return nodes that blend the pair in time, from `features` to `blended`."""
    return [
        helper.make_node("Gather", ["features", "zero"], ["first"], axis=1),
        helper.make_node("Gather", ["features", "one"], ["second"], axis=1),
        helper.make_node("Sub", ["second", "first"], ["change"]),
        helper.make_node("Reshape", ["time", "column"], ["time_of_pair"]),
        helper.make_node("Mul", ["change", "time_of_pair"], ["part"]),
        helper.make_node("Add", ["first", "part"], ["blended"]),
    ]


def integer_decoder_nodes() -> list[Any]:
    """Return nodes that repeat each pixel of `blended` and add to it an eighth of y and a sixteenth of x."""
    return [
        helper.make_node("Reshape", ["y", "as_pixel_rows"], ["y_of_pixel"]),
        helper.make_node("Reshape", ["x", "as_columns"], ["x_of_pixel"]),
        helper.make_node("Mul", ["y_of_pixel", "eighth"], ["y_part"]),
        helper.make_node("Mul", ["x_of_pixel", "sixteenth"], ["x_part"]),
        helper.make_node("Unsqueeze", ["blended", "pixel_axes"], ["pixels"]),
        helper.make_node("Add", ["pixels", "y_part"], ["with_y"]),
        helper.make_node("Add", ["with_y", "x_part"], ["with_both"]),
        helper.make_node("Shape", ["blended"], ["planes"], start=0, end=2),
        helper.make_node("Shape", ["blended"], ["size"], start=2, end=4),
        helper.make_node("Shape", ["y"], ["factor_y"]),
        helper.make_node("Shape", ["x"], ["factor_x"]),
        helper.make_node("Concat", ["factor_y", "factor_x"], ["factors"], axis=0),
        helper.make_node("Mul", ["size", "factors"], ["target"]),
        helper.make_node("Concat", ["planes", "target"], ["shape"], axis=0),
        helper.make_node("Reshape", ["with_both", "shape"], ["frame"]),
    ]


def decoder_nodes() -> list[Any]:
    """Return nodes that sample rows and columns of `blended` bilinearly, clamped at the borders."""
    nodes = []
    for name, axis, source, result in (("y", 2, "blended", "rows"), ("x", 3, "rows", "frame")):
        weight_shape = "as_rows" if axis == 2 else "as_columns"
        nodes += [
            helper.make_node("Shape", [source], [f"{name}_size"], start=axis, end=axis + 1),
            helper.make_node("Sub", [f"{name}_size", "step"], [f"{name}_last"]),
            helper.make_node("Cast", [f"{name}_last"], [f"{name}_end"], to=TensorProto.FLOAT),
            helper.make_node("Max", [name, "nought"], [f"{name}_low"]),
            helper.make_node("Min", [f"{name}_low", f"{name}_end"], [f"{name}_in"]),
            helper.make_node("Floor", [f"{name}_in"], [f"{name}_floor"]),
            helper.make_node("Sub", [f"{name}_in", f"{name}_floor"], [f"{name}_fraction"]),
            helper.make_node("Reshape", [f"{name}_fraction", weight_shape], [f"{name}_weight"]),
            helper.make_node("Cast", [f"{name}_floor"], [f"{name}_before"], to=TensorProto.INT64),
            helper.make_node("Add", [f"{name}_before", "step"], [f"{name}_next"]),
            helper.make_node("Min", [f"{name}_next", f"{name}_last"], [f"{name}_after"]),
            helper.make_node("Gather", [source, f"{name}_before"], [f"{name}_a"], axis=axis),
            helper.make_node("Gather", [source, f"{name}_after"], [f"{name}_b"], axis=axis),
            helper.make_node("Sub", [f"{name}_b", f"{name}_a"], [f"{name}_rise"]),
            helper.make_node("Mul", [f"{name}_rise", f"{name}_weight"], [f"{name}_gain"]),
            helper.make_node("Add", [f"{name}_a", f"{name}_gain"], [result]),
        ]
    return nodes


def pair_decoders(
    features: dict[str, Axes], blended: Axes, frame: Axes, enlarged: Axes, *, integer: bool, refined: bool
) -> dict[str, tuple[list[Any], dict[str, Axes], dict[str, Axes]]]:
    """Return nodes, inputs and outputs of the graphs of a pair but for the encoder, by their roles.

    The axes are those of the features and the time, of the blended frame, and of the outputs of both decoders.
    `refined` blends in a graph of its own.
    """
    maps, blend = ({"blended": blended}, []) if refined else (features, blend_nodes())
    targets: dict[str, Axes] = {"y": frame[2:3], "x": frame[3:]}
    graphs = {"decoder": ([*blend, *decoder_nodes()], maps | targets, {"frame": frame})}
    if refined:
        graphs = {"refiner": (blend_nodes(), features, {"blended": blended}), **graphs}
    if integer:
        phases: dict[str, Axes] = {"y": ("factor_y",), "x": ("factor_x",)}
        graphs["integer_decoder"] = ([*blend, *integer_decoder_nodes()], maps | phases, {"frame": enlarged})
    return graphs


def write_toy(folder: Path, *, blur_px: int = 0, integer: bool = False, refined: bool = False, **changes: Any) -> Path:
    """Write the bundle to `folder` and return it.

    `blur_px` is the radius of a blur in the encoder, which gives it a receptive field; `integer` adds a decoder for
    integer factors, which adds the phases of pixels; `refined` blends in a graph of its own; `changes` are fields of
    the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoder_in, encoder_out = {"frames": FRAMES}, {"features": FRAMES}
    if blur_px:
        constants = {"pads": np.array([0, 0, blur_px, blur_px] * 2), "one_by_all": np.array([1, -1])}
        save_graph(folder / "encoder.onnx", blur_nodes(blur_px), encoder_in, encoder_out, **constants)
    else:
        save_graph(
            folder / "encoder.onnx", [helper.make_node("Identity", ["frames"], ["features"])], encoder_in, encoder_out
        )
    graphs = [graph_entry(folder / "encoder.onnx", "encoder", specs(encoder_in), specs(encoder_out))]
    decoders = pair_decoders(
        {"features": FRAMES, "time": ("B",)},
        ("B", 3, "h", "w"),
        ("B", 3, "H", "W"),
        ("B", 3, "factor_y*h", "factor_x*w"),
        integer=integer,
        refined=refined,
    )
    for role, (nodes, inputs, outputs) in decoders.items():
        path = folder / f"{role}.onnx"
        save_graph(path, nodes, inputs, outputs, **DECODER_CONSTANTS)
        graphs.append(graph_entry(path, role, specs(inputs), specs(outputs)))  # type: ignore[arg-type]
    fields: dict[str, Any] = {
        "format": FORMAT,
        "name": "toy",
        "architecture": Architecture(name="toy", config={}),
        "graphs": tuple(graphs),
        "window": PairWindow(kind="pair", frames=2),
        "space": ContinuousSpace(minimum=1.0, maximum=8.0),
        "time": ContinuousTime(),
        "value_range": (0.0, 1.0),
        "channel_order": "RGB",
        "size": SizeConstraint(minimum=16, multiple_of=8),
        "halo_px": max(1, blur_px + 1),
        "training": {},
        "scores": {},
        "licence": "Apache-2.0",
    }
    write_manifest(folder, Manifest(**{**fields, **changes}))
    return folder


def blend_and_sample(first: np.ndarray, second: np.ndarray, time: float, size: tuple[int, int]) -> np.ndarray:
    """Compute the output of the toy without blur in NumPy: two frames (3, h, w) -> (3, H, W), all in [0, 1]."""
    source = first + (second - first) * np.float32(time)
    for axis, target in ((1, size[0]), (2, size[1])):
        length = source.shape[axis]
        position = ((np.arange(target) + 0.5) * length / target - 0.5).astype(np.float32).clip(0, length - 1)
        before = np.floor(position).astype(int)
        fraction = np.expand_dims(position - before.astype(np.float32), 1 if axis == 1 else 0)
        low, high = source.take(before, axis), source.take(np.minimum(before + 1, length - 1), axis)
        source = low + (high - low) * fraction
    return source
