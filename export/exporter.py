"""From a trained network to a bundle: trace, tidy, check against PyTorch, publish."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes import common as common_passes
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules import common as rules
from torch import Tensor, nn
from torch.export import Dim

from ..engine.backends.session import open_session
from ..engine.contract.bundle import graph_entry, new_bundle, write_manifest
from ..engine.contract.errors import ExportError
from ..engine.contract.manifest import (
    Architecture,
    ContinuousTime,
    FixedFactors,
    Graph,
    Manifest,
    Role,
    SizeConstraint,
    TensorSpec,
)
from ..training.networks.base import Network
from ..training.networks.ops import target_coordinates
from ..training.networks.registry import NetworkEntry
from .translations import onnx_translations

OPSET = 20
TOLERANCE = 1e-4  # largest difference between the graphs and the network, of the [0, 1] range
_LEAST_PX = 8  # rows and columns are traced and checked in steps of so many pixels, or of the network's multiple
_TRACED = (7, 11)  # rows and columns of a traced frame, in these steps
_TRACED_TARGET_PX = (101, 151)
_TRACED_FRAMES = 5  # of a network that takes any number
_CHECKED = (((2, 3), (0.0, 0.375), 4.0), ((4, 3), (1.0, 0.5), 2.3))  # untraced: (rows, columns), times, scale

_PREFIX = "network."  # of weights' names while a graph is made
_REWRITES = [
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.materialize_reshape_shape_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.reshape_reshape_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
]

Axes = tuple[str | int, ...]  # a fixed size, or a name, which may have a factor: "4*height", "width/2"


@dataclass(frozen=True)
class _Trace:
    """One graph to be traced: example inputs in order, and the axes of everything that goes in and out."""

    role: Role
    inputs: dict[str, Tensor]
    axes: dict[str, Axes]
    outputs: dict[str, Axes]


class _Graph(nn.Module):
    """One role of a network as a module of its own, so that a graph holds only the weights it uses."""

    def __init__(self, network: nn.Module, role: Role) -> None:
        super().__init__()
        self.network = network
        self.role = role

    def forward(self, *inputs: Tensor) -> Any:
        network: Any = self.network
        if self.role == "network":
            return network(*inputs)
        if self.role == "encoder":
            return network.encode(*inputs)
        *features, time, y, x = inputs
        return network.decode(*features, time=time, y=y, x=x)


def export_bundle(
    entry: NetworkEntry,
    network: Network,
    folder: Path,
    training: dict[str, Any] | None = None,
    scores: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the bundle of a network of the list to ``folder`` and returns it.

    The folder appears only when every graph has agreed with the network, in ONNX Runtime, at two sizes that were not
    traced. Raises ``ExportError`` when one does not, ``RequestError`` when the folder is there already.
    """
    with new_bundle(folder, overwrite) as partial:
        network = network.cpu().eval()
        graphs = tuple(_write_graph(network, trace, partial) for trace in _traces(network))
        parity = check_bundle(network, partial)
        write_manifest(partial, _manifest(entry, network, graphs, {"parity": parity, **(training or {})}, scores or {}))
    return folder


def check_bundle(network: Network, folder: Path) -> dict[str, float]:
    """Runs the graphs of ``folder`` beside the network, at sizes that were not traced.

    Returns the largest difference between them, and the network's own error in float32, that is against float64.
    Raises ``ExportError`` when the difference is above ``TOLERANCE``, or above twice the own error where that is more:
    sines of large arguments magnify rounding, and two right programs then differ as well.
    """
    precise = copy.deepcopy(network).double()
    difference = error = 0.0
    with ExitStack() as opened:
        sessions = {
            path.stem: opened.enter_context(open_session(path, device="cpu")) for path in sorted(folder.glob("*.onnx"))
        }
        for steps, times, scale in _CHECKED:
            h, w = (n * _step(network) for n in steps)
            inputs = _inputs(network, len(times), h, w, frames=4)
            if "network" in sessions:
                found = sessions["network"].run({name: value.numpy() for name, value in inputs.items()})["upscaled"]
            else:
                inputs |= {"time": torch.tensor(times)}
                inputs |= {"y": target_coordinates(h, round(h * scale)), "x": target_coordinates(w, round(w * scale))}
                features = sessions["encoder"].run({"frames": inputs["frames"].numpy()})
                at = {name: inputs[name].numpy() for name in ("time", "y", "x")}
                found = sessions["decoder"].run({**features, **at})["frame"]
            expected = computed(network, inputs)
            if not (np.isfinite(expected).all() and np.isfinite(found).all()):
                raise ExportError(
                    f"{type(network).__name__} computes values that are not finite numbers: check its weights; nothing"
                    " was written."
                )
            error = max(error, float(np.abs(expected - computed(precise, inputs)).max()))
            difference = max(difference, float(np.abs(found - expected).max()))
    if not difference <= max(TOLERANCE, 2 * error):
        raise ExportError(
            f"The exported graphs differ from {type(network).__name__} in PyTorch by {difference:.2e}, above the"
            f" {TOLERANCE:.0e} that is allowed: nothing was written."
        )
    return {"difference": difference, "float32_error": error}


def computed(network: Network, inputs: dict[str, Tensor]) -> np.ndarray:
    """What a network makes of its inputs in its own precision."""
    net: Any = network
    dtype = next(net.parameters()).dtype
    frames, *others = (value.to(dtype) for value in inputs.values())
    with torch.no_grad():
        if network.window.kind != "pair":
            return net(frames, *others).numpy()
        time, y, x = others
        return net.decode(*net.encode(frames), time=time, y=y, x=x).numpy()


def _inputs(network: Network, batch: int, h: int, w: int, frames: int) -> dict[str, Tensor]:
    """What a network's only or first graph takes; ``frames`` is for those that take any number."""
    count = frames if network.window.kind == "doubled" else network.window.frames
    inputs = {"frames": _smooth(batch, count * 3, h, w).unflatten(1, (count, 3))}
    for flow in network.flows:
        pixels = 4 * _smooth(batch, len(flow.pairs) * 2, h, w) - 2
        inputs[flow.name] = pixels.unflatten(1, (len(flow.pairs), 2))
    if network.window.kind != "pair" and isinstance(network.time, ContinuousTime):
        inputs["time"] = torch.linspace(0.25, 0.625, batch)
    return inputs


def _smooth(batch: int, channels: int, h: int, w: int) -> Tensor:
    """Edges and motion rather than noise. -> (B, C, h, w) in [0, 1]"""
    generator = torch.Generator().manual_seed(h * w)
    coarse = torch.rand(batch, channels, h // 4 + 1, w // 4 + 1, generator=generator)
    return nn.functional.interpolate(coarse, size=(h, w), mode="bilinear")


def _manifest(
    entry: NetworkEntry, network: Network, graphs: tuple[Graph, ...], training: dict[str, Any], scores: dict[str, Any]
) -> Manifest:
    multiple = network.size.multiple_of
    return Manifest(
        format=1,
        name=entry.name,
        architecture=Architecture(name=entry.name, config=asdict(network.config)),
        graphs=graphs,
        window=network.window,
        flows=network.flows,
        space=network.space,
        time=network.time,
        value_range=(0.0, 1.0),
        channel_order="RGB",
        size=SizeConstraint(minimum=_least(network) * multiple, multiple_of=multiple),
        halo_px=network.halo_px,
        training=training,
        scores=scores,
        licence=entry.licence,
    )


def _least(network: Network) -> int:
    """Smallest axis in size multiples; one that may be 1 would be traced as a constant."""
    return max(2, -(-network.size.minimum // network.size.multiple_of))


def _step(network: Network) -> int:
    """Pixels between the sizes that are traced and checked."""
    return -(-_LEAST_PX // network.size.multiple_of) * network.size.multiple_of


def _traces(network: Network) -> tuple[_Trace, ...]:
    """The graphs of a network, with examples of what goes in."""
    height, width = (n * _step(network) for n in _TRACED)
    inputs = _inputs(network, 2, height, width, _TRACED_FRAMES)
    axes: dict[str, Axes] = {
        name: ("batch", *value.shape[1:-2], "height", "width") if value.ndim > 1 else ("batch",)
        for name, value in inputs.items()
    }
    if network.window.kind != "pair":
        count = network.window.frames
        results: dict[str, str | int] = {"run": 2 * count - 1, "sliding": 1, "doubled": "2*frames"}
        if network.window.kind == "doubled":
            axes["frames"] = ("batch", "frames", *axes["frames"][2:])
        assert isinstance(network.space, FixedFactors)
        scale = network.space.factors[0]
        size = ("height", "width") if scale == 1 else (f"{scale}*height", f"{scale}*width")
        return (_Trace("network", inputs, axes, {"upscaled": ("batch", results[network.window.kind], 3, *size)}),)
    net: Any = network
    with torch.no_grad():
        features = dict(zip(net.feature_names, net.encode(inputs["frames"]), strict=True))
    planes: dict[str, Axes] = {
        name: (
            "batch",
            f.shape[1],
            *(f"{axis}/{height // f.shape[2]}".removesuffix("/1") for axis in ("height", "width")),
        )
        for name, f in features.items()
    }
    y, x = target_coordinates(height, _TRACED_TARGET_PX[0]), target_coordinates(width, _TRACED_TARGET_PX[1])
    target: dict[str, Axes] = {"time": ("batch",), "y": ("target_height",), "x": ("target_width",)}
    at = {"time": torch.tensor([0.25, 0.5]), "y": y, "x": x}
    frame: Axes = ("batch", 3, "target_height", "target_width")
    return (
        _Trace("encoder", inputs, axes, planes),
        _Trace("decoder", {**features, **at}, {**planes, **target}, {"frame": frame}),
    )


def _free_axes(network: Network, axes: dict[str, Axes]) -> tuple[dict[int, Any], ...]:
    """The dimensions that a graph leaves free, for each of its inputs."""
    m, least = network.size.multiple_of, _least(network)
    free: dict[str, Any] = {
        "batch": Dim("batch", min=1, max=1 << 10),
        "frames": Dim("frames", min=2, max=1 << 10),
        "target_height": Dim("target_height", min=2, max=1 << 20),
        "target_width": Dim("target_width", min=2, max=1 << 20),
    }
    for name in ("height", "width"):
        steps = Dim(f"{name}_steps", min=least, max=1 << 14)
        for part in (1, 2, 4, 8, 16):
            if m % part == 0:
                free[f"{name}/{part}".removesuffix("/1")] = (m // part) * steps if m > part else steps
    return tuple(
        {place: free[axis] for place, axis in enumerate(named) if isinstance(axis, str)} for named in axes.values()
    )


def _write_graph(network: Network, trace: _Trace, folder: Path) -> Graph:
    """Traces one role with every free axis dynamic, and writes it with readable names."""
    with _quiet():
        program = torch.onnx.export(
            _Graph(network, trace.role),
            tuple(trace.inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=(_free_axes(network, trace.axes),),
            input_names=list(trace.inputs),
            output_names=list(trace.outputs),
            custom_translation_table=onnx_translations(),
            optimize=False,
            verbose=False,
        )
        assert program is not None
        _optimize(program.model)
    model = program.model_proto
    _tidy(model, trace.axes | trace.outputs)
    onnx.checker.check_model(model)
    path = folder / f"{trace.role}.onnx"
    onnx.save_model(model, path)
    return graph_entry(path, trace.role, _specs(model.graph.input), _specs(model.graph.output))


def _optimize(model: ir.Model) -> None:
    """Folds what depends on no weight, and drops what does nothing; every weight stays as the network has it.

    The exporter's own pass would merge weights that are equal by chance, drop biases that are zero, and fold a batch
    normalization into its convolution: a host that replaces weights by name could not find them then.
    """
    common_passes.InlinePass()(model)
    _lean_on_attributes(model)
    for _ in range(2):
        fold_constants_ir(model, onnx_shape_inference=True, should_fold=_folds)
        rewrite(model, _REWRITES)
        common_passes.RemoveUnusedNodesPass()(model)
    for tidying in (
        common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        _merge_constants,
        common_passes.CommonSubexpressionEliminationPass(),
        common_passes.IdentityEliminationPass(),
        common_passes.RemoveUnusedNodesPass(),
        common_passes.RemoveUnusedFunctionsPass(),
        common_passes.RemoveUnusedOpsetsPass(),
        common_passes.OutputFixPass(),
        common_passes.NameFixPass(),
    ):
        tidying(model)


def _lean_on_attributes(model: ir.Model) -> None:
    """Makes a PReLU of one slope a LeakyRelu, which runtimes fuse into convolutions; the node has the weight's name."""
    for node in list(model.graph):
        if node.op_type != "PRelu":
            continue
        slope = node.inputs[1]
        producer = slope.producer() if slope is not None else None
        if producer is not None and producer.op_type == "Reshape":
            slope = producer.inputs[0]
        if slope is None or slope.const_value is None or slope.const_value.size != 1:
            continue
        assert slope.name is not None
        alpha = ir.AttrFloat32("alpha", float(slope.const_value.numpy().ravel()[0]))
        leaky = ir.Node("", "LeakyRelu", [node.inputs[0]], [alpha], name=slope.name)
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [leaky], node.outputs, leaky.outputs)


def _merge_constants(model: ir.Model) -> None:
    """Stores constants that are equal once."""
    seen: dict[tuple[Any, ...], ir.Value] = {}
    for name, value in list(model.graph.initializers.items()):
        if name.startswith(_PREFIX) or value.const_value is None:
            continue
        array = value.const_value.numpy()
        first = seen.setdefault((array.dtype.str, array.shape, array.tobytes()), value)
        if first is not value:
            value.replace_all_uses_with(first)
            del model.graph.initializers[name]


def _folds(node: ir.Node) -> bool | None:
    """Says no to a node that reads a weight, and leaves the others to the folding's own rules."""
    reads_weight = any(value is not None and (value.name or "").startswith(_PREFIX) for value in node.inputs)
    return False if reads_weight else None


def _tidy(model: onnx.ModelProto, axes: dict[str, Axes]) -> None:
    """Names weights after the state dict and axes after what they are; drops the tracer's notes (source paths)."""
    graph = model.graph
    for initializer in graph.initializer:
        initializer.name = initializer.name.removeprefix(_PREFIX)
    for node in graph.node:
        node.name = node.name.removeprefix(_PREFIX)
        node.input[:] = [name.removeprefix(_PREFIX) for name in node.input]
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
        for dimension, axis in zip(value.type.tensor_type.shape.dim, axes[value.name], strict=True):
            if isinstance(axis, str):
                dimension.dim_param = axis
    del graph.value_info[:], graph.metadata_props[:], model.metadata_props[:]
    graph.name, graph.doc_string, model.doc_string = "stvsr", "", ""


def _specs(values: Any) -> tuple[TensorSpec, ...]:
    """Inputs or outputs of a graph, as a manifest says them."""
    return tuple(
        TensorSpec(
            name=value.name,
            dtype=onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            axes=tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim),
        )
        for value in values
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress and its notes on operators of absent libraries off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
