"""From an exported graph to one that engines take: deformable convolution in standard operators, and half precision.

Both passes return a new model, and inputs, outputs and weights keep their names.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from ...contract.errors import BackendError
from .plugins.kernels import PLUGINS

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

LOWERING = 1  # an engine of another number was built from other operators: raise it when a pass changes

# Graph inputs that are coordinates or times, in every bundle.
COORDINATES = frozenset({"time", "y", "x"})

# Inputs of plugins that are exact, (plugin, place), and the plugins whose result is float32 whatever they read.
_EXACT = {(p.name, place) for p in PLUGINS.values() for place, kind in enumerate(p.inputs.values()) if kind == "FP32"}
_FLOAT32_RESULTS = {plugin.name for plugin in PLUGINS.values() if plugin.output[1] == "FP32"}

# Products with weights: what they give is as precise as they compute, and what they read is features.
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", *(PLUGINS.keys() - {"warp"})})
_ANY_TYPE = frozenset({"Cast", "Shape", "Size"})  # they read every type alike
_FLOAT32_INPUTS = {("Resize", 2), *_EXACT}  # of float32 by their operator's definition: (operator, place)
_HALF_RANGE = (float(np.finfo(np.float16).tiny), float(np.finfo(np.float16).max))


def lower(model: "ModelProto") -> "ModelProto":
    """Replace every `DeformConv` by one sampling of all taps and one matrix product.

    Weights stay in their shape under their name. Raises BackendError where onnx is missing, or where the weights of a
    `DeformConv` are not stored in the graph.
    """
    import_onnx()
    lowered = copied(model)
    graph = lowered.graph
    opset = max((o.version for o in lowered.opset_import if o.domain in ("", "ai.onnx")), default=0)
    mode = "linear" if opset >= 20 else "bilinear"
    shapes = {initializer.name: tuple(initializer.dims) for initializer in graph.initializer}
    writer = GraphWriter(graph)
    for node in model.graph.node:
        if node.op_type == "DeformConv":
            _deform_conv(writer, node, shapes, mode)
        else:
            writer.nodes.append(node)
    writer.finish()
    return lowered


def to_half(model: "ModelProto", coordinates: Collection[str] = COORDINATES) -> "ModelProto":
    """Compute in half precision all but coordinates: positions, offsets, flows, grids, sizes and times.

    `coordinates` names the graph inputs of that kind. Float32 is what follows from them until it mixes with features,
    and what the grids of `GridSample` and integer indices are made of, in both directions up to and with the nearest
    product with weights. `GridSample` itself is float32, and so is an operator that reads a number which half precision
    does not hold. The graph's inputs and outputs stay float32. Weights keep the precision in which they are read, and
    a refit takes each in that: float16, but float32 for the products that give or take coordinates. Raises
    BackendError for a graph with branches or loops.
    """
    onnx = import_onnx()
    float32, float16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    half = onnx.shape_inference.infer_shapes(model)
    graph = half.graph
    nodes = list(model.graph.node)
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for n in nodes for a in n.attribute):
        raise BackendError("The graph has branches or loops, which have no half precision: compile it at fp32.")
    floats = _float_values(graph)
    del graph.value_info[:]
    wide = _float32_nodes(graph, floats, coordinates)

    def read_type(index: int, place: int) -> int | None:
        """Type in which a node reads an input that was float32; None: in any."""
        operator = nodes[index].op_type
        if operator in _ANY_TYPE or nodes[index].input[place] not in floats:
            return None
        return float32 if index in wide or (operator, place) in _FLOAT32_INPUTS else float16

    read: dict[str, set[int | None]] = {}
    for index, node in enumerate(nodes):
        for place, name in enumerate(node.input):
            read.setdefault(name, set()).add(read_type(index, place))
    types = dict.fromkeys(floats, float32)  # in which each value is there
    for weight in graph.initializer:
        if read.get(weight.name) == {float16}:
            values = onnx.numpy_helper.to_array(weight).clip(-_HALF_RANGE[1], _HALF_RANGE[1])
            weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), weight.name))
            types[weight.name] = float16

    writer = GraphWriter(graph)
    outputs = {value.name for value in graph.output}
    casts: dict[tuple[str, int], str] = {}  # the same value in the other type
    for index, original in enumerate(nodes):
        node = copied(original)
        for place, name in enumerate(original.input):
            wanted = read_type(index, place)
            if wanted is None or wanted == types[name]:
                continue
            if (name, wanted) not in casts:
                casts[name, wanted] = writer("Cast", name, to=wanted)
            node.input[place] = casts[name, wanted]
        made = float32 if index in wide or node.op_type in _FLOAT32_RESULTS else float16
        if node.op_type == "Cast" and node.output[0] in floats:
            next(a for a in node.attribute if a.name == "to").i = made
        writer.nodes.append(node)
        for place, name in enumerate(original.output):
            if made == float16 and name in outputs & floats:
                casts[name, made] = node.output[place] = writer.name(f"{name}_half")
                writer("Cast", node.output[place], output=name, to=float32)
            elif name in floats:
                types[name] = made
    writer.finish()
    return half


def import_onnx() -> Any:
    """Return the module onnx, with its helpers; BackendError where it is not installed."""
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
        import onnx.shape_inference
    except ImportError as error:
        raise BackendError(
            'Engines are built with onnx, which is not installed: pip install "stvsr[tensorrt-rtx]".'
        ) from error
    return onnx


class GraphWriter:
    """Writes a graph's nodes anew, with values and constants under names that the graph does not have."""

    def __init__(self, graph: "GraphProto") -> None:
        self._onnx = import_onnx()
        self._graph = graph
        self._taken = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
        self._taken.update(name for node in graph.node for name in (*node.input, *node.output))
        self._count: dict[str, int] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.nodes: list[NodeProto] = []

    def name(self, stem: str) -> str:
        """Return the stem, or the stem with the first number that makes it new."""
        name = stem
        while name in self._taken:
            self._count[stem] = self._count.get(stem, 0) + 1
            name = f"{stem}_{self._count[stem]}"
        self._taken.add(name)
        return name

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Store a constant once and return its name."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.name("constant")
            self._graph.initializer.append(self._onnx.numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def __call__(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node and return the name of its result."""
        output = output or self.name(operator.lower())
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, [output], **attributes))
        return output

    def finish(self) -> None:
        """Put the nodes into the graph."""
        del self._graph.node[:]
        self._graph.node.extend(self.nodes)


def copied(message: Any) -> Any:
    """Return a copy of a message of protobuf."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _deform_conv(writer: GraphWriter, node: "NodeProto", shapes: dict[str, tuple[int, ...]], mode: str) -> None:
    """Write one `DeformConv`: the positions of all taps, their samples, and the product with the weights."""
    onnx = import_onnx()
    constant = writer.constant
    x, weight, offset, bias, mask = (*node.input, "", "")[:5]
    check_stored(node, shapes)
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    offset_groups, groups = given.get("offset_group", 1), given.get("group", 1)
    strides, dilations = given.get("strides", (1, 1)), given.get("dilations", (1, 1))
    before = given.get("pads", (0, 0, 0, 0))[:2]
    out_channels, group_channels, kernel_h, kernel_w = shapes[weight]
    channels, taps = group_channels * groups, kernel_h * kernel_w

    size = writer("Shape", offset, start=2, end=4)  # Hout, Wout
    # (B * G, K, 2, Hout, Wout), rows before columns
    moves = writer("Reshape", offset, writer("Concat", constant((-1, taps, 2)), size, axis=0))
    tap = np.arange(taps)
    normal = []
    for axis, index in ((0, tap // kernel_w), (1, tap % kernel_w)):
        count = writer("Squeeze", writer("Shape", offset, start=2 + axis, end=3 + axis))
        length = writer("Cast", writer("Shape", x, start=2 + axis, end=3 + axis), to=onnx.TensorProto.FLOAT)
        step = writer("Cast", writer("Range", constant(0), count, constant(1)), to=onnx.TensorProto.FLOAT)
        if axis == 0:
            step = writer("Unsqueeze", step, constant((1,)))
        # Twice the position plus 1, in pixels of x, over their number, minus 1: corners are not aligned, so that
        # features of one row or column are well defined.
        start = (2 * (index * dilations[axis] - before[axis]) + 1).reshape(taps, 1, 1)
        place = writer(
            "Add",
            writer("Mul", step, constant(2 * strides[axis], np.float32)),
            constant(start, np.float32),
        )  # (K, Hout, 1) or (K, 1, Wout)
        move = writer("Gather", moves, constant(axis), axis=2)
        position = writer("Add", writer("Mul", move, constant(2, np.float32)), place)
        normal.append(writer("Sub", writer("Div", position, length), constant(1, np.float32)))
    row, column = (writer("Unsqueeze", value, constant((-1,))) for value in normal)
    places = writer("Mul", size, constant((taps, 1)))  # K * Hout, Wout
    grid = writer(
        "Reshape",
        writer("Concat", column, row, axis=-1),
        writer("Concat", constant((-1,)), places, constant((2,)), axis=0),
    )
    features = writer("Reshape", x, constant((-1, channels // offset_groups, 0, 0)))
    # (B * G, C / G, K * Hout, Wout)
    samples = writer("GridSample", features, grid, mode=mode, padding_mode="zeros", align_corners=0)
    if mask:
        weighed = writer("Concat", constant((-1, 1)), places, axis=0)
        samples = writer("Mul", samples, writer("Reshape", mask, weighed))

    batch = writer("Shape", x, start=0, end=1)
    split = (groups,) if groups > 1 else ()
    rows = constant((*split, group_channels * taps, -1))
    columns = writer("Reshape", samples, writer("Concat", batch, rows, axis=0))
    matrix = writer("Reshape", weight, constant((*split, out_channels // groups, group_channels * taps)))
    product = writer("MatMul", matrix, columns)
    shape = writer("Concat", batch, constant((out_channels,)), size, axis=0)
    output = node.output[0]
    if bias:
        result = writer("Reshape", product, shape)
        writer("Add", result, writer("Reshape", bias, constant((-1, 1, 1))), output=output)
    else:
        writer("Reshape", product, shape, output=output)


def check_stored(node: "NodeProto", shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise BackendError where the graph does not hold the weights of a `DeformConv`."""
    if node.input[1] not in shapes:
        raise BackendError(
            f"The weights of the deformable convolution '{node.name or node.output[0]}' are not stored in its graph,"
            " and engines take stored ones: export the bundle again."
        )


def _float_values(graph: "GraphProto") -> set[str]:
    """Names of a graph's float32 values; its shapes have been inferred."""
    onnx = import_onnx()
    values = (*graph.input, *graph.value_info, *graph.output)
    floats = {v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return floats | {i.name for i in graph.initializer if i.data_type == onnx.TensorProto.FLOAT}


def _float32_nodes(graph: "GraphProto", floats: set[str], coordinates: Collection[str]) -> set[int]:
    """Find the nodes that compute in float32, by their places in the graph."""
    nodes = list(graph.node)
    makers = {name: index for index, node in enumerate(nodes) for name in node.output}
    held = {initializer.name: initializer for initializer in graph.initializer}
    constants = set(held)  # values that come of constants, whatever their shape
    places = {value.name for value in graph.input if value.name in coordinates}  # coordinates, and nothing but them
    wide: set[int] = set()
    exact: list[str] = []  # values that are to be as they are in float32
    for index, node in enumerate(nodes):
        reads = [name for name in node.input if name in floats]
        gives = [name for name in node.output if name in floats]
        if node.op_type == "Constant" or (reads and constants.issuperset(reads)):
            constants.update(node.output)
        elif all(name in places or name in constants for name in reads):  # none: sizes and indices become floats
            wide.add(index)
            places.update(gives if node.op_type not in _PRODUCTS else ())
        if node.op_type == "GridSample":
            wide.add(index)
            exact.append(node.input[1])
        elif node.op_type in PLUGINS:
            exact += [name for place, name in enumerate(node.input) if (node.op_type, place) in _EXACT]
        elif node.op_type == "Cast" and not gives:
            exact += reads
        if not reads or any(not _held_by_half(held[name]) for name in reads if name in held):
            wide.add(index)

    seen: set[int] = set()
    while exact:
        index = makers.get(exact.pop(), -1)
        if index < 0 or index in seen or nodes[index].op_type in _FLOAT32_RESULTS:
            continue
        seen.add(index)
        node = nodes[index]
        if any(name in floats for name in node.output):
            wide.add(index)
            exact += [name for name in node.input if name in floats and node.op_type not in _PRODUCTS]
    for index in reversed(range(len(nodes))):  # what comes of constants comes in the type in which it is read
        if index in wide:
            wide.update(makers[name] for name in nodes[index].input if name in constants and name in makers)
    return wide


def _held_by_half(initializer: Any) -> bool:
    """Whether half precision holds a number that is a constant of the graph; weights, which are many, may round."""
    onnx = import_onnx()
    if initializer.data_type != onnx.TensorProto.FLOAT or int(np.prod(tuple(initializer.dims))) != 1:
        return True
    size = abs(float(onnx.numpy_helper.to_array(initializer).reshape(())))
    return size == 0 or bool(np.isinf(size)) or _HALF_RANGE[0] <= size <= _HALF_RANGE[1]
