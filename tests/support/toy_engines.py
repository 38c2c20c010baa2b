"""Sizes and bundles for tests that compile engines of the toy of `toy`."""

from pathlib import Path

import numpy as np
from onnx import helper
from stvsr import Bundle
from stvsr.engine.contract.bundle import file_sha256, write_manifest

from tests.support.toy import save_graph, write_toy

# (smallest, usual, largest) of each free axis.
SHAPES = {"B": (1, 1, 2), "h": (16, 24, 64), "w": (16, 40, 80), "H": (2, 96, 256), "W": (2, 160, 320)}


def files_in(folder: Path) -> list[str]:
    """Return the relative paths of all files in a folder, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write_unbuildable_toy(folder: Path) -> Bundle:
    """Write a toy whose decoder has an operator that engine libraries lack."""
    toy = Bundle.load(write_toy(folder))
    graph = toy.graph("decoder")
    inputs = {spec.name: spec.axes for spec in graph.inputs}
    nodes = [
        helper.make_node("Det", ["features"], ["det"]),
        helper.make_node("Shape", ["y"], ["h"]),
        helper.make_node("Shape", ["x"], ["w"]),
        helper.make_node("Shape", ["time"], ["b"]),
        helper.make_node("Concat", ["b", "three", "h", "w"], ["shape"], axis=0),
        helper.make_node("ReduceSum", ["det"], ["sum"], keepdims=0),
        helper.make_node("Expand", ["sum", "shape"], ["frame"]),
    ]
    save_graph(toy.path("decoder"), nodes, inputs, {"frame": ("B", 3, "H", "W")}, three=np.array([3]))
    changed = graph.model_copy(update={"sha256": file_sha256(toy.path("decoder"))})
    write_manifest(folder, toy.manifest.model_copy(update={"graphs": (toy.graph("encoder"), changed)}))
    return Bundle.load(folder)
