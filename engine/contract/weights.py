"""Read and replace the weights in a bundle's graphs, by name and in place, without PyTorch or onnx.

A graph stores every weight under its name in the network's state dict: as an initializer, or, for the single slope of a
PReLU, as attribute `alpha` of the `LeakyRelu` nodes of that name (`NAME`, and `NAME_1`, `NAME_2`, ... if several layers
share it). A weight of the same shape and dtype takes as many bytes, so nothing else in the file moves.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .bundle import Bundle, graph_entry, new_bundle, write_manifest
from .errors import BundleError
from .manifest import Manifest, Role
from .protobuf import LENGTH_DELIMITED, read_fields, read_varint

Weights = Mapping[str, np.ndarray]

# Field numbers of the messages in onnx.proto3.
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_INITIALIZER = 7, 1, 5
_NODE_NAME, _NODE_TYPE, _NODE_ATTRIBUTE = 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_FLOAT = 1, 2
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 4, 8, 9
# Element types of tensors that are weights: TensorProto.DataType -> NumPy dtype.
_DTYPES = {1: "<f4", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}


@dataclass(frozen=True)
class _Span:
    """The bytes of a graph that store a weight."""

    start: int
    stop: int
    dtype: str
    shape: tuple[int, ...] | None  # None: a slope, which is one number and fits any shape of size 1


def read_weights(graph: bytes) -> dict[str, np.ndarray]:
    """Return the weights of a serialized graph by name: its initializers, and slopes in attributes with shape (1,).

    The arrays are read-only views of `graph`. Raises BundleError if the graph cannot be parsed.
    """
    return {
        name: np.frombuffer(
            graph, span.dtype, (span.stop - span.start) // np.dtype(span.dtype).itemsize, span.start
        ).reshape((1,) if span.shape is None else span.shape)
        for name, (span, *_) in _weight_spans(graph).items()
    }


def edit_graph(graph: bytes, weights: Weights) -> tuple[bytes, set[str]]:
    """Return a serialized graph with new weights, and the names of the weights that it contains.

    Names that the graph lacks are ignored, as another graph of the bundle may have them. Raises BundleError if a weight
    differs from the graph's in shape or kind of dtype (float or integer), or is not finite in the graph's dtype.
    """
    edited = bytearray(graph)
    replaced = set()
    for name, spans in _weight_spans(graph).items():
        if name in weights:
            replaced.add(name)
            for span in spans:
                edited[span.start : span.stop] = _encode(name, np.asarray(weights[name]), span)
    return bytes(edited), replaced


def edit_graphs(bundle: Bundle, weights: Weights) -> dict[Role, bytes]:
    """Return all graphs of a bundle, serialized, with new weights; for files or for open sessions.

    Raises BundleError if a weight is in none of the graphs, or does not fit (see `edit_graph`).
    """
    graphs: dict[Role, bytes] = {}
    missing = set(weights)
    for graph in bundle.manifest.graphs:
        graphs[graph.role], replaced = edit_graph(bundle.path(graph.role).read_bytes(), weights)
        missing -= replaced
    if missing:
        names = ", ".join(sorted(missing)[:5]) + (" and others" if len(missing) > 5 else "")
        raise BundleError(
            f"The graphs of {bundle.folder} have no weight {names}: use weights of the network"
            f" '{bundle.manifest.architecture.name}' in the configuration of the bundle."
        )
    return graphs


def differing_weights(bundle: Bundle, other: Bundle) -> dict[str, np.ndarray] | None:
    """Return the weights of another bundle that differ from those of a bundle, by name.

    Returns None if the bundles differ in more than weights, so that no refit makes one of the other.
    """
    if _interface(bundle.manifest) != _interface(other.manifest):
        return None
    differing: dict[str, np.ndarray] = {}
    for graph in bundle.manifest.graphs:
        own, wanted = bundle.path(graph.role).read_bytes(), other.path(graph.role).read_bytes()
        before, after = read_weights(own), read_weights(wanted)
        if {name: weight.shape for name, weight in before.items()} != {n: w.shape for n, w in after.items()}:
            return None
        changed = {name: weight for name, weight in after.items() if weight.tobytes() != before[name].tobytes()}
        if edit_graph(own, changed)[0] != wanted:
            return None
        differing |= changed
    return differing


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
    """Write a copy of a bundle with new weights to the folder `out`, and return it.

    Names, order and dtypes stay the same, and so do all weights that `weights` lacks. Engines are not copied. In the
    manifest, `training["adapted"]` becomes the record `adapted` with the parent's fingerprint and, under "before", the
    parent's own record. New weights invalidate the scores, `precisions` and `training["parity"]`: they are dropped, and
    `parity` replaces the latter if it is given. `manifest` contains further fields to replace, such as the window.

    The folder appears complete or not at all. Raises BundleError as `edit_graphs` does, and RequestError if the folder
    exists and may not be overwritten (see `new_bundle`).
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
        precisions = parent.manifest.precisions
        if weights:
            training.pop("parity", None)
            scores, precisions = {}, {}
        if parity is not None:
            training["parity"] = dict(parity)
        training["adapted"] = {"parent": parent.fingerprint, **(adapted or {})}
        if "adapted" in parent.manifest.training:
            training["adapted"]["before"] = parent.manifest.training["adapted"]
        fields = {"training": training, "scores": scores, "precisions": precisions, **(manifest or {})}
        update = {"graphs": tuple(entries), "engines": (), **fields}
        write_manifest(partial, parent.manifest.model_copy(update=update))
    return Bundle.load(out)


def _interface(manifest: Manifest) -> dict[str, Any]:
    """Return what a manifest states of the graphs besides their weights and what was measured with these."""
    measured = {"name", "engines", "precisions", "training", "scores", "licence"}
    return manifest.model_dump(exclude={**dict.fromkeys(measured, True), "graphs": {"__all__": {"file", "sha256"}}})


def _encode(name: str, weight: np.ndarray, span: _Span) -> bytes:
    """Return the bytes of a weight in the graph's dtype; raises BundleError if it does not fit the span."""
    if (weight.shape != span.shape) if span.shape is not None else weight.size != 1:
        raise BundleError(
            f"The weight {name} has the shape {weight.shape} and should have {span.shape or (1,)}: use weights of the"
            " bundle's own network."
        )
    dtype = np.dtype(span.dtype)
    if weight.dtype.kind != dtype.kind:
        raise BundleError(f"The weight {name} has the dtype {weight.dtype} and should have {dtype}: convert it first.")
    with np.errstate(over="ignore"):
        encoded = weight.astype(dtype)
    if encoded.dtype.kind == "f" and not np.isfinite(encoded).all():
        raise BundleError(
            f"The weight {name} has values that are not finite in {dtype}: adapt again with a lower learning rate."
        )
    return encoded.tobytes()


def _weight_spans(graph: bytes) -> dict[str, list[_Span]]:
    """Return the spans of each weight, in the order of the file; tensors of other types are left out.

    A weight has several spans if it is a slope that several layers share.
    """
    spans: dict[str, list[_Span]] = {}
    try:
        for number, _, start, stop in read_fields(graph, 0, len(graph)):
            if number != _MODEL_GRAPH:
                continue
            for inner, _, first, last in read_fields(graph, start, stop):
                named_span = None
                if inner == _GRAPH_INITIALIZER:
                    named_span = _tensor_span(graph, first, last)
                elif inner == _GRAPH_NODE:
                    named_span = _slope_span(graph, first, last)
                if named_span is not None:
                    name, span = named_span
                    spans.setdefault(name, []).append(span)
    except (IndexError, KeyError, ValueError) as error:
        raise BundleError(f"A graph cannot be read as ONNX ({error}); restore the bundle.") from error
    return spans


def _tensor_span(graph: bytes, start: int, stop: int) -> tuple[str, _Span] | None:
    """Return the name and span of a TensorProto, or None if it is not a weight or stores its data in another way."""
    shape: list[int] = []
    name, dtype, data = "", None, None
    for number, wire, first, last in read_fields(graph, start, stop):
        if number == _TENSOR_DIMS:
            while first < last:  # one dimension, or all of them in a packed field
                size, first = read_varint(graph, first)
                shape.append(size)
        elif number == _TENSOR_TYPE:
            dtype = _DTYPES.get(read_varint(graph, first)[0])
        elif number == _TENSOR_NAME:
            name = graph[first:last].decode()
        elif number == _TENSOR_RAW or (number == _TENSOR_FLOATS and wire == LENGTH_DELIMITED):
            data = first, last
    if dtype is None or data is None:
        return None
    if data[1] - data[0] != np.dtype(dtype).itemsize * int(np.prod(shape)):
        raise ValueError(f"the data of {name} does not match its shape")
    return name, _Span(*data, dtype, tuple(shape))


def _slope_span(graph: bytes, start: int, stop: int) -> tuple[str, _Span] | None:
    """Return the weight's name and the span of `alpha` if a NodeProto is a `LeakyRelu` with that attribute."""
    name, operator, alpha = "", "", None
    for number, _, first, last in read_fields(graph, start, stop):
        if number == _NODE_NAME:
            name = graph[first:last].decode()
        elif number == _NODE_TYPE:
            operator = graph[first:last].decode()
        elif number == _NODE_ATTRIBUTE:
            fields = {inner: (a, b) for inner, _, a, b in read_fields(graph, first, last)}
            if graph[slice(*fields[_ATTRIBUTE_NAME])] == b"alpha" and _ATTRIBUTE_FLOAT in fields:
                alpha = fields[_ATTRIBUTE_FLOAT]
    if operator != "LeakyRelu" or alpha is None:
        return None
    return re.sub(r"(\.weight)_\d+$", r"\1", name), _Span(*alpha, "<f4", None)
