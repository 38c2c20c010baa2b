"""New weights in a bundle's graphs: bytes replaced by name, in place, with neither PyTorch nor onnx.

A graph holds every weight under its name in the network's state dict: as an initializer, and where it is the one slope
of a PReLU, as `alpha` of the `LeakyRelu` nodes of that name (`NAME`, and `NAME_1`, `NAME_2` where it serves several).
A weight of the same shape and type takes as many bytes, so that nothing else in the file moves.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .bundle import Bundle, graph_entry, new_bundle, write_manifest
from .errors import BundleError
from .manifest import Role

Weights = Mapping[str, np.ndarray]

# Fields of the messages in onnx.proto3, and element types of tensors that hold weights.
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_INITIALIZER = 7, 1, 5
_NODE_NAME, _NODE_TYPE, _NODE_ATTRIBUTE = 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_FLOAT = 1, 2
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 4, 8, 9
_TYPES = {1: "<f4", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}
_VARINT, _EIGHT_BYTES, _COUNTED, _FOUR_BYTES = 0, 1, 2, 5  # how a field is stored


@dataclass(frozen=True)
class _Place:
    """Where a graph's bytes hold a weight."""

    start: int
    stop: int
    dtype: str
    shape: tuple[int, ...] | None  # None: a slope, which is one number of any shape


def read_weights(graph: bytes) -> dict[str, np.ndarray]:
    """Return what a graph holds by name: its initializers, and the slopes that are attributes, of shape (1,)."""
    return {
        name: np.frombuffer(
            graph, place.dtype, (place.stop - place.start) // np.dtype(place.dtype).itemsize, place.start
        ).reshape((1,) if place.shape is None else place.shape)
        for name, (place, *_) in _places(graph).items()
    }


def edit_graph(graph: bytes, weights: Weights) -> tuple[bytes, set[str]]:
    """Return the graph with the weights that it has, and their names; it may lack some, which another graph has.

    Raises BundleError for a weight whose shape, or whose kind of number, is not that of the graph's, or that holds what
    is not a number.
    """
    edited = bytearray(graph)
    found = set()
    for name, places in _places(graph).items():
        if name in weights:
            found.add(name)
            for place in places:
                edited[place.start : place.stop] = _stored(name, np.asarray(weights[name]), place)
    return bytes(edited), found


def edit_graphs(bundle: Bundle, weights: Weights) -> dict[Role, bytes]:
    """Return the graphs of a bundle with other weights, for files or for live sessions.

    Raises BundleError for a weight that no graph has, or that does not fit.
    """
    graphs: dict[Role, bytes] = {}
    missing = set(weights)
    for graph in bundle.manifest.graphs:
        graphs[graph.role], found = edit_graph(bundle.path(graph.role).read_bytes(), weights)
        missing -= found
    if missing:
        shown = ", ".join(sorted(missing)[:5]) + (" and others" if len(missing) > 5 else "")
        raise BundleError(
            f"The graphs of {bundle.folder} have no weight {shown}: the weights are of another network than"
            f" '{bundle.manifest.architecture.name}', or of another configuration."
        )
    return graphs


def replace_weights(
    bundle: Bundle | str | Path,
    weights: Weights,
    out: str | Path,
    adapted: Mapping[str, Any] | None = None,
    *,
    parity: Mapping[str, float] | None = None,
    manifest: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle that is another one with other weights, by name, and return it.

    Names, order and types stay, and so does every weight that is not named. The manifest's `training` gets the record
    `adapted` with the parent's fingerprint; scores and parity were of other weights and go, unless `parity` is given.
    Fields of `manifest` take the places of the parent's: how a network with these weights is fed.
    The folder appears as a whole or not at all. Raises BundleError as `edit_graphs`, and RequestError where the folder
    is there already.
    """
    parent = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    graphs = edit_graphs(parent, weights)
    with new_bundle(out, overwrite) as partial:
        entries = []
        for graph in parent.manifest.graphs:
            path = partial / graph.file
            path.write_bytes(graphs[graph.role])
            entries.append(graph_entry(path, graph.role, graph.inputs, graph.outputs))
        training, scores = dict(parent.manifest.training), parent.manifest.scores
        if weights:
            training.pop("parity", None)
            scores = {}
        if parity is not None:
            training["parity"] = dict(parity)
        training["adapted"] = {"parent": parent.fingerprint, **(adapted or {})}
        if "adapted" in parent.manifest.training:
            training["adapted"]["before"] = parent.manifest.training["adapted"]
        update = {"graphs": tuple(entries), "engines": (), "training": training, "scores": scores, **(manifest or {})}
        write_manifest(partial, parent.manifest.model_copy(update=update))
    return Bundle.load(out)


def _stored(name: str, weight: np.ndarray, place: _Place) -> bytes:
    """A weight's bytes as the graph has them."""
    if (weight.shape != place.shape) if place.shape is not None else weight.size != 1:
        raise BundleError(
            f"The weight {name} is {weight.shape} and should be {place.shape or (1,)}: adapt the bundle's own network."
        )
    dtype = np.dtype(place.dtype)
    if weight.dtype.kind != dtype.kind:
        raise BundleError(f"The weight {name} is of {weight.dtype} and should be of {dtype}: convert it first.")
    with np.errstate(over="ignore"):
        stored = weight.astype(dtype)
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        raise BundleError(f"The weight {name} has values that are no {dtype}: adapt again with a lower learning rate.")
    return stored.tobytes()


def _places(graph: bytes) -> dict[str, list[_Place]]:
    """Where each weight lies, in the order of the file; those of other types are left out."""
    places: dict[str, list[_Place]] = {}
    try:
        for number, _, start, stop in _fields(graph, 0, len(graph)):
            if number != _MODEL_GRAPH:
                continue
            for inner, _, first, last in _fields(graph, start, stop):
                named = None
                if inner == _GRAPH_INITIALIZER:
                    named = _tensor(graph, first, last)
                elif inner == _GRAPH_NODE:
                    named = _slope(graph, first, last)
                if named is not None:
                    places.setdefault(named[0], []).append(named[1])
    except (IndexError, ValueError, struct.error) as error:
        raise BundleError(f"A graph cannot be read as ONNX ({error}); restore the bundle.") from error
    return places


def _tensor(graph: bytes, start: int, stop: int) -> tuple[str, _Place] | None:
    shape: list[int] = []
    name, dtype, data = "", None, None
    for number, wire, first, last in _fields(graph, start, stop):
        if number == _TENSOR_DIMS:
            while first < last:  # one of them, or several that are packed
                size, first = _varint(graph, first)
                shape.append(size)
        elif number == _TENSOR_TYPE:
            dtype = _TYPES.get(_varint(graph, first)[0])
        elif number == _TENSOR_NAME:
            name = graph[first:last].decode()
        elif number == _TENSOR_RAW or (number == _TENSOR_FLOATS and wire == _COUNTED):
            data = first, last
    if dtype is None or data is None:
        return None
    if data[1] - data[0] != np.dtype(dtype).itemsize * int(np.prod(shape)):
        raise ValueError(f"{name} does not have the bytes that its shape asks for")
    return name, _Place(*data, dtype, tuple(shape))


def _slope(graph: bytes, start: int, stop: int) -> tuple[str, _Place] | None:
    name, kind, place = "", "", None
    for number, _, first, last in _fields(graph, start, stop):
        if number == _NODE_NAME:
            name = graph[first:last].decode()
        elif number == _NODE_TYPE:
            kind = graph[first:last].decode()
        elif number == _NODE_ATTRIBUTE:
            fields = {inner: (a, b) for inner, _, a, b in _fields(graph, first, last)}
            if graph[slice(*fields[_ATTRIBUTE_NAME])] == b"alpha" and _ATTRIBUTE_FLOAT in fields:
                place = fields[_ATTRIBUTE_FLOAT]
    if kind != "LeakyRelu" or place is None:
        return None
    return re.sub(r"(\.weight)_\d+$", r"\1", name), _Place(*place, "<f4", None)


def _fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a protobuf message: number, how it is stored, and where its value starts and stops."""
    while start < stop:
        tag, start = _varint(data, start)
        wire = tag & 7
        if wire == _VARINT:
            end = _varint(data, start)[1]
        elif wire == _COUNTED:
            length, start = _varint(data, start)
            end = start + length
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            end = start + (8 if wire == _EIGHT_BYTES else 4)
        else:
            raise ValueError(f"no field is stored as {wire}")
        if end > stop:
            raise ValueError("it ends too soon")
        yield tag >> 3, wire, start, end
        start = end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits in each byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
