"""Bundles without weights for every kind of window: ONNX graphs for Python, and engines for the fake library of C++."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper
from stvsr.engine.contract.bundle import graph_entry, write_manifest
from stvsr.engine.contract.manifest import (
    FORMAT,
    Architecture,
    ContinuousTime,
    Engine,
    FixedFactors,
    Manifest,
    SizeConstraint,
)

from tests.support.toy import (
    DECODER_CONSTANTS,
    Axes,
    Constants,
    pair_decoders,
    save_graph,
    specs,
)

SHAPES = {"batch": (1, 1, 1), "frames": (2, 4, 32), "height": (4, 8, 32), "width": (4, 8, 32)}
SHAPES |= {"target_height": (2, 16, 96), "target_width": (2, 16, 96), "factor_y": (1, 2, 8), "factor_x": (1, 2, 8)}
TARGET, LIBRARY = "sm89", "tensorrt-rtx"


def mix_nodes() -> list[Any]:
    """Return nodes from `frames` to `mixed`: add an eighth of the right neighbour and a sixteenth of the one below.

    Neighbours wrap around the edges, so that errors in the padding change the output. Every network starts with this.
    """
    nodes = []
    for name, axis, weight in (("right", "columns", "eighth"), ("below", "rows", "sixteenth")):
        nodes += [
            helper.make_node("Slice", ["frames", "one", "end", axis], [f"{name}_rest"]),
            helper.make_node("Slice", ["frames", "zero", "one", axis], [f"{name}_first"]),
            helper.make_node(
                "Concat", [f"{name}_rest", f"{name}_first"], [f"{name}_rolled"], axis=4 if name == "right" else 3
            ),
            helper.make_node("Mul", [f"{name}_rolled", weight], [name]),
        ]
    nodes.append(helper.make_node("Add", ["frames", "right"], ["more"]))
    nodes.append(helper.make_node("Add", ["more", "below"], ["mixed"]))
    return nodes


CONSTANTS: Constants = {
    "zero": np.array([0]),
    "one": np.array([1]),
    "end": np.array([1 << 30]),
    "less": np.array([-1]),
    "time_axis": np.array([1]),
    "pair_axis": np.array([2]),
    "rows": np.array([3]),
    "columns": np.array([4]),
    "eighth": np.float32(0.125),
    "sixteenth": np.float32(0.0625),
}


def lerp_nodes(first: str, second: str, weight: str, result: str) -> list[Any]:
    """Return nodes for result = first + (second - first) * weight."""
    return [
        helper.make_node("Sub", [second, first], [f"{result}_change"]),
        helper.make_node("Mul", [f"{result}_change", weight], [f"{result}_part"]),
        helper.make_node("Add", [first, f"{result}_part"], [result]),
    ]


def network_nodes(kind: str, frames: int, timed: bool) -> tuple[list[Any], Constants]:
    """Return the nodes from `mixed` to `small`, the frames before upscaling, and their constants."""
    indices = {f"number{i}": np.array([i]) for i in range(frames + 1)}
    if kind == "run":
        nodes, parts = [], []
        weight = "half"
        if timed:
            nodes.append(helper.make_node("Reshape", ["time", "as_frames"], ["time_of_frames"]))
            weight = "time_of_frames"
        for i in range(frames):
            nodes.append(helper.make_node("Gather", ["mixed", f"number{i}"], [f"frame{i}"], axis=1))
        for i in range(frames - 1):
            nodes += lerp_nodes(f"frame{i}", f"frame{i + 1}", weight, f"between{i}")
            parts += [f"frame{i}", f"between{i}"]
        nodes.append(helper.make_node("Concat", [*parts, f"frame{frames - 1}"], ["small"], axis=1))
        return nodes, {**indices, "half": np.float32(0.5), "as_frames": np.array([-1, 1, 1, 1, 1])}
    if kind == "doubled":
        nodes = [
            helper.make_node("Slice", ["mixed", "zero", "one", "time_axis"], ["head"]),
            helper.make_node("Slice", ["mixed", "zero", "less", "time_axis"], ["all_but_last"]),
            helper.make_node("Concat", ["head", "all_but_last"], ["before"], axis=1),
            helper.make_node("Slice", ["mixed", "one", "end", "time_axis"], ["all_but_first"]),
            helper.make_node("Slice", ["mixed", "less", "end", "time_axis"], ["tail"]),
            helper.make_node("Concat", ["all_but_first", "tail"], ["after"], axis=1),
            *lerp_nodes("mixed", "before", "quarter", "first"),
            *lerp_nodes("mixed", "after", "quarter", "second"),
            helper.make_node("Unsqueeze", ["first", "pair_axis"], ["first_alone"]),
            helper.make_node("Unsqueeze", ["second", "pair_axis"], ["second_alone"]),
            helper.make_node("Concat", ["first_alone", "second_alone"], ["pairs"], axis=2),
            helper.make_node("Shape", ["mixed"], ["planes"], start=2, end=5),
            helper.make_node("Shape", ["mixed"], ["windows"], start=0, end=1),
            helper.make_node("Concat", ["windows", "less", "planes"], ["flat"], axis=0),
            helper.make_node("Reshape", ["pairs", "flat"], ["small"]),
        ]
        return nodes, {"quarter": np.float32(0.25)}
    constants: dict[str, np.ndarray | np.float32] = dict(indices)
    nodes, total = [], ""
    for i in range(frames):
        nodes.append(helper.make_node("Gather", ["mixed", f"number{i}"], [f"frame{i}"], axis=1))
        nodes.append(helper.make_node("Mul", [f"frame{i}", f"weight{i}"], [f"part{i}"]))
        if total:
            nodes.append(helper.make_node("Add", [total, f"part{i}"], [f"sum{i}"]))
        total = f"sum{i}" if total else f"part{i}"
        constants[f"weight{i}"] = np.float32((i + 1) * 0.0625)
    nodes.append(helper.make_node("Identity", [total], ["small"]))
    return nodes, constants


def engine_text(kind: str, scale: int, inputs: dict[str, Axes], outputs: dict[str, Axes]) -> str:
    """Return an engine of the fake inference library; tests/cpp/fake_inference.cpp describes the format."""

    def sizes(axes: Axes, bound: int | None) -> str:
        """Format the axes; `bound` is the index in SHAPES of a free axis's size, and None stands for -1."""
        free = (-1 if bound is None else SHAPES[axis.split("*")[-1]][bound] for axis in axes if isinstance(axis, str))
        return " ".join(str(next(free) if isinstance(axis, str) else axis) for axis in axes)

    lines = [f"input {n} float {sizes(a, None)} min {sizes(a, 0)} max {sizes(a, 2)}" for n, a in inputs.items()]
    lines += [f"output {n} float {sizes(a, None)}" for n, a in outputs.items()]
    return "\n".join([*lines, f"compute {kind} {scale}"]) + "\n"


def engine_entry(folder: Path, graph: dict[str, Any], text: str, **changes: Any) -> dict[str, Any]:
    """Write an engine beside the manifest and return its entry in the manifest; `changes` are fields of the entry."""
    entry = {
        "role": graph["role"],
        "graph_sha256": graph["sha256"],
        "precision": "fp32",
        "shapes": {name: list(sizes) for name, sizes in SHAPES.items()},
        "target": TARGET,
        "library": LIBRARY,
        "version": "1.7.0",
        "lowering": 1,
        **changes,
    }
    file = f"{entry['role']}.{entry['library']}.{entry['target']}.{entry['precision']}.engine"
    (folder / file).write_text(text)
    entry |= {"file": file, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    # A round trip through the model gives the fields as `write_manifest` writes them.
    return Engine.model_validate_json(json.dumps(entry)).model_dump(mode="json")


def write_engines(folder: Path, graphs_folder: Path, texts: dict[str, str]) -> None:
    """Write the bundle of the C++ host: the manifest and the engines, but no graph."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((graphs_folder / "manifest.json").read_text())
    manifest["engines"] = [engine_entry(folder, graph, texts[graph["role"]]) for graph in manifest["graphs"]]
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))


def write_toy(
    folder: Path,
    window: dict[str, Any],
    *,
    scale: int = 2,
    timed: bool = False,
    integer: bool = False,
    refined: bool = False,
    **changes: Any,
) -> Path:
    """Write the bundles of one toy network to `folder`/graphs for Python and `folder`/engines for C++; return `folder`.

    `timed` gives a run of frames a time as input; `integer` gives a pair a decoder for integer factors, and
    `refined` a graph of its own that blends; `changes` are fields of the manifest.
    """
    graphs_folder = folder / "graphs"
    graphs_folder.mkdir(parents=True)
    kind = window["kind"]
    graphs: dict[str, tuple[list[Any], dict[str, Axes], dict[str, Axes]]]
    constants: dict[str, Constants]
    base: dict[str, Any] = {
        "format": FORMAT,
        "name": f"toy-{kind}",
        "architecture": Architecture(name="toy", config={"é": [1.5, None]}),
        "window": window,
        "value_range": (0.0, 1.0),
        "channel_order": "RGB",
        "size": SizeConstraint(minimum=4, multiple_of=4),
        "halo_px": None,
        "training": {"steps": 1, "nested": {"a": [1, 2, {"b": True}]}},
        "scores": {},
        "licence": "none",
    }
    if kind == "pair":
        frames: Axes = ("batch", 2, 3, "height", "width")
        decoders = pair_decoders(
            {"features": frames, "time": ("batch",)},
            ("batch", 3, "height", "width"),
            ("batch", 3, "target_height", "target_width"),
            ("batch", 3, "factor_y*height", "factor_x*width"),
            integer=integer,
            refined=refined,
        )
        encode = [*mix_nodes(), helper.make_node("Identity", ["mixed"], ["features"])]
        graphs = {"encoder": (encode, {"frames": frames}, {"features": frames}), **decoders}
        constants = {role: CONSTANTS if role == "encoder" else DECODER_CONSTANTS for role in graphs}
        kinds = {"encoder": "identity", "refiner": "blend", "decoder": "bilinear", "integer_decoder": "phases"}
        texts = {role: engine_text(kinds[role], 1, *graph[1:]) for role, graph in graphs.items()}
        base |= {"space": {"kind": "continuous", "minimum": 1.0, "maximum": 8.0}, "time": ContinuousTime()}
    else:
        count = window["frames"]
        output_frames = {"run": 2 * count - 1, "sliding": 1, "doubled": "2*frames"}[kind]
        inputs: dict[str, Axes] = {"frames": ("batch", "frames" if kind == "doubled" else count, 3, "height", "width")}
        if timed:
            inputs["time"] = ("batch",)
        outputs: dict[str, Axes] = {"upscaled": ("batch", output_frames, 3, f"{scale}*height", f"{scale}*width")}
        nodes, own_constants = network_nodes(kind, count, timed)
        enlarge = helper.make_node(
            "Resize", ["small", "", "scales"], ["upscaled"], mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        graphs = {"network": ([*mix_nodes(), *nodes, enlarge], inputs, outputs)}
        scales = np.array([1, 1, 1, scale, scale], np.float32)
        constants = {"network": {**CONSTANTS, **own_constants, "scales": scales}}
        texts = {"network": engine_text(kind, scale, inputs, outputs)}
        factor = FixedFactors(factors=(1 if kind == "sliding" else 2,))
        base |= {"space": FixedFactors(factors=(scale,)), "time": ContinuousTime() if timed else factor}
    entries = []
    for role, (nodes, inputs, outputs) in graphs.items():
        save_graph(graphs_folder / f"{role}.onnx", nodes, inputs, outputs, **constants[role])
        entries.append(graph_entry(graphs_folder / f"{role}.onnx", role, specs(inputs), specs(outputs)))  # type: ignore[arg-type]
    write_manifest(graphs_folder, Manifest.model_validate({**base, "graphs": tuple(entries), **changes}))
    write_engines(folder / "engines", graphs_folder, texts)
    return folder


PAIR: dict[str, Any] = {"kind": "pair", "frames": 2}
WINDOWS: dict[str, dict[str, Any]] = {
    "pair": PAIR,
    "run 2": {"kind": "run", "frames": 2},
    "run 4": {"kind": "run", "frames": 4},
    "sliding 1": {"kind": "sliding", "frames": 1, "padding": "replicate"},
    "replicate 3": {"kind": "sliding", "frames": 3, "padding": "replicate"},
    "reflection 5": {"kind": "sliding", "frames": 5, "padding": "reflection"},
    "circle 5": {"kind": "sliding", "frames": 5, "padding": "reflection_circle"},
    "doubled 4+2": {"kind": "doubled", "frames": 4, "overlap": 2},
    "doubled 2+1": {"kind": "doubled", "frames": 2, "overlap": 1},
}


def time_factor(kind: str) -> int:
    """Return the time factor that a window of this kind supports."""
    return 1 if WINDOWS[kind]["kind"] == "sliding" else 2
