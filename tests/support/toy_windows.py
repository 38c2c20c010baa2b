"""Bundles without weights, of every kind of window, for Python and for the C++ host on fakes."""

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

from tests.support.toy import Axes, decoder_nodes, save_graph, specs

SHAPES = {"batch": (1, 1, 1), "frames": (2, 4, 32), "height": (4, 8, 32), "width": (4, 8, 32)}
SHAPES |= {"target_height": (2, 16, 96), "target_width": (2, 16, 96)}
TARGET, LIBRARY = "sm89", "tensorrt-rtx"


def mix_nodes() -> list[Any]:
    """Every network first mixes neighbouring pixels around the edges, so that padding shows."""
    nodes = []
    for name, axis, share in (("right", "columns", "eighth"), ("below", "rows", "sixteenth")):
        nodes += [
            helper.make_node("Slice", ["frames", "one", "end", axis], [f"{name}_rest"]),
            helper.make_node("Slice", ["frames", "zero", "one", axis], [f"{name}_first"]),
            helper.make_node(
                "Concat", [f"{name}_rest", f"{name}_first"], [f"{name}_rolled"], axis=4 if name == "right" else 3
            ),
            helper.make_node("Mul", [f"{name}_rolled", share], [name]),
        ]
    nodes.append(helper.make_node("Add", ["frames", "right"], ["more"]))
    nodes.append(helper.make_node("Add", ["more", "below"], ["mixed"]))
    return nodes


CONSTANTS = {
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


def lerp(first: str, second: str, share: str, result: str) -> list[Any]:
    return [
        helper.make_node("Sub", [second, first], [f"{result}_change"]),
        helper.make_node("Mul", [f"{result}_change", share], [f"{result}_part"]),
        helper.make_node("Add", [first, f"{result}_part"], [result]),
    ]


def network_nodes(kind: str, frames: int, timed: bool) -> tuple[list[Any], dict[str, Any]]:
    """Nodes from `mixed` to `small`, and their constants."""
    single = {f"number{i}": np.array([i]) for i in range(frames + 1)}
    if kind == "run":
        nodes, parts = [], []
        moment = "half"
        if timed:
            nodes.append(helper.make_node("Reshape", ["time", "as_frames"], ["moment"]))
            moment = "moment"
        for i in range(frames):
            nodes.append(helper.make_node("Gather", ["mixed", f"number{i}"], [f"frame{i}"], axis=1))
        for i in range(frames - 1):
            nodes += lerp(f"frame{i}", f"frame{i + 1}", moment, f"between{i}")
            parts += [f"frame{i}", f"between{i}"]
        nodes.append(helper.make_node("Concat", [*parts, f"frame{frames - 1}"], ["small"], axis=1))
        return nodes, {**single, "half": np.float32(0.5), "as_frames": np.array([-1, 1, 1, 1, 1])}
    if kind == "doubled":
        nodes = [
            helper.make_node("Slice", ["mixed", "zero", "one", "time_axis"], ["head"]),
            helper.make_node("Slice", ["mixed", "zero", "less", "time_axis"], ["all_but_last"]),
            helper.make_node("Concat", ["head", "all_but_last"], ["before"], axis=1),
            helper.make_node("Slice", ["mixed", "one", "end", "time_axis"], ["all_but_first"]),
            helper.make_node("Slice", ["mixed", "less", "end", "time_axis"], ["tail"]),
            helper.make_node("Concat", ["all_but_first", "tail"], ["after"], axis=1),
            *lerp("mixed", "before", "quarter", "first"),
            *lerp("mixed", "after", "quarter", "second"),
            helper.make_node("Unsqueeze", ["first", "pair_axis"], ["first_alone"]),
            helper.make_node("Unsqueeze", ["second", "pair_axis"], ["second_alone"]),
            helper.make_node("Concat", ["first_alone", "second_alone"], ["pairs"], axis=2),
            helper.make_node("Shape", ["mixed"], ["planes"], start=2, end=5),
            helper.make_node("Concat", ["one", "less", "planes"], ["flat"], axis=0),
            helper.make_node("Reshape", ["pairs", "flat"], ["small"]),
        ]
        return nodes, {"quarter": np.float32(0.25)}
    nodes, constants, total = [], dict(single), ""
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
    """What the fake inference library takes for an engine."""

    def sizes(axes: Axes, which: int | None) -> str:
        free = (-1 if which is None else SHAPES[axis.split("*")[-1]][which] for axis in axes if isinstance(axis, str))
        return " ".join(str(next(free) if isinstance(axis, str) else axis) for axis in axes)

    lines = [f"input {n} float {sizes(a, None)} min {sizes(a, 0)} max {sizes(a, 2)}" for n, a in inputs.items()]
    lines += [f"output {n} float {sizes(a, None)}" for n, a in outputs.items()]
    return "\n".join([*lines, f"compute {kind} {scale}"]) + "\n"


def engine_entry(folder: Path, graph: dict[str, Any], text: str, **changes: Any) -> dict[str, Any]:
    """Write an engine beside the manifest and return what the manifest says of it."""
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
    return Engine.model_validate_json(json.dumps(entry)).model_dump(mode="json")  # as Python writes it


def write_engines(folder: Path, python: Path, texts: dict[str, str]) -> Path:
    """Write the bundle for the C++ host: the manifest and the engines, and no graph."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((python / "manifest.json").read_text())
    manifest["engines"] = [engine_entry(folder, graph, texts[graph["role"]]) for graph in manifest["graphs"]]
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))
    return folder


def write_toy(folder: Path, window: dict[str, Any], *, scale: int = 2, timed: bool = False, **changes: Any) -> Path:
    """Write `folder`/graphs for Python and `folder`/engines for C++, of one toy network; return `folder`."""
    python = folder / "graphs"
    python.mkdir(parents=True)
    kind = window["kind"]
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
        graphs = {
            "encoder": (mix_nodes(), {"frames": frames}, {"features": frames}),
            "decoder": (
                decoder_nodes(),
                {"features": frames, "time": ("batch",), "y": ("target_height",), "x": ("target_width",)},
                {"frame": ("batch", 3, "target_height", "target_width")},
            ),
        }
        graphs["encoder"][0].append(helper.make_node("Identity", ["mixed"], ["features"]))
        constants = {
            "encoder": CONSTANTS,
            "decoder": {
                "zero": np.array(0), "one": np.array(1), "step": np.array([1]), "nought": np.array(0, np.float32),
                "column": np.array([-1, 1, 1, 1]), "as_rows": np.array([-1, 1]), "as_columns": np.array([-1]),
            },
        }  # fmt: skip
        texts = {"encoder": engine_text("identity", 1, *graphs["encoder"][1:])}
        texts["decoder"] = engine_text("bilinear", 1, *graphs["decoder"][1:])
        base |= {"space": {"kind": "continuous", "minimum": 1.0, "maximum": 8.0}, "time": ContinuousTime()}
    else:
        count = window["frames"]
        results = {"run": 2 * count - 1, "sliding": 1, "doubled": "2*frames"}[kind]
        inputs: dict[str, Axes] = {"frames": ("batch", "frames" if kind == "doubled" else count, 3, "height", "width")}
        if timed:
            inputs["time"] = ("batch",)
        outputs: dict[str, Axes] = {"upscaled": ("batch", results, 3, f"{scale}*height", f"{scale}*width")}
        nodes, own = network_nodes(kind, count, timed)
        enlarge = helper.make_node(
            "Resize", ["small", "", "scales"], ["upscaled"], mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        graphs = {"network": ([*mix_nodes(), *nodes, enlarge], inputs, outputs)}
        scales = np.array([1, 1, 1, scale, scale], np.float32)
        constants = {"network": {**CONSTANTS, **own, "scales": scales}}
        texts = {"network": engine_text(kind, scale, inputs, outputs)}
        factor = FixedFactors(factors=(1 if kind == "sliding" else 2,))
        base |= {"space": FixedFactors(factors=(scale,)), "time": ContinuousTime() if timed else factor}
    entries = []
    for role, (nodes, inputs, outputs) in graphs.items():
        save_graph(python / f"{role}.onnx", nodes, inputs, outputs, **constants[role])
        entries.append(graph_entry(python / f"{role}.onnx", role, specs(inputs), specs(outputs)))  # type: ignore[arg-type]
    write_manifest(python, Manifest.model_validate({**base, "graphs": tuple(entries), **changes}))
    write_engines(folder / "engines", python, texts)
    return folder


PAIR = {"kind": "pair", "frames": 2}
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


def own_factor(kind: str) -> int:
    return 1 if WINDOWS[kind]["kind"] == "sliding" else 2
