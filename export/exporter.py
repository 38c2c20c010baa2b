"""From a trained network to a bundle: trace the graphs, optimize them, check them against PyTorch, publish them."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import onnx
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.export import Dim

from ..engine.contract.bundle import graph_entry, new_bundle, write_manifest
from ..engine.contract.errors import ExportError, RequestError
from ..engine.contract.manifest import (
    Architecture,
    ContinuousTime,
    FixedFactors,
    Graph,
    Manifest,
    PrecisionLoss,
    Role,
    SizeConstraint,
    TensorSpec,
)
from ..training.checkpoints import first_non_finite
from ..training.networks.base import Network
from ..training.networks.ops import target_coordinates
from ..training.networks.registry import NetworkEntry
from .onnx_passes import Axes, optimize, tidy
from .parity import Example, measure_parity, pair_examples, pixel_phases
from .precision import measure_precisions
from .translations import onnx_translations

OPSET = 20
MIN_STEP_PX = 8  # traced and checked sizes are multiples of this, or of the network's size multiple if that is larger
TRACED_STEPS = (7, 11)  # rows and columns of a traced frame, in steps of `size_step`
TRACED_TARGET_PX = (101, 151)  # rows and columns of a traced target
TRACED_FACTORS = (3, 4)  # rows and columns of a traced integer scale
_AXES = ("height", "width")
TRACED_FRAMES = 5  # in a traced window of a network that takes any number of frames
CHECKED_FRAMES = 4  # the same in a checked window
# Sizes that are checked and not traced: (rows, columns) in steps, times and scale of networks that take any.
CHECKED = (((2, 3), (0.0, 0.375), 4.0), ((4, 3), (1.0, 0.5), 2.3))


def export_bundle(
    entry: NetworkEntry,
    network: Network,
    folder: Path,
    training: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the bundle of a network of the list to `folder`, and return the folder.

    `training` and `scores` are records for the manifest. The folder appears only after every graph has agreed with the
    network, in ONNX Runtime, at two sizes that were not traced.

    Raises ExportError if a graph does not agree or a weight is not a finite number, and RequestError if the folder
    exists and may not be overwritten, or if the bundle format does not support the network's configuration.
    """
    with new_bundle(folder, overwrite) as partial:
        network = network.cpu().eval()
        _check_weights(network)
        graphs = tuple(_write_graph(network, trace, partial) for trace in _traces(network))
        record = {"parity": check_bundle(network, partial), **(training or {})}
        files: dict[Role, Path] = {graph.role: partial / graph.file for graph in graphs}
        manifest = make_manifest(entry, network, graphs, record, dict(scores or {}))
        write_manifest(partial, manifest.model_copy(update={"precisions": measure_losses(network, files)}))
    return folder


def _check_weights(network: Network) -> None:
    """Raise ExportError if a weight is not finite: a trace, which takes from seconds to minutes, cannot show it."""
    if (name := first_non_finite(network.state_dict())) is not None:
        raise ExportError(
            f"{name} of {type(network).__name__} has values that are not finite numbers: check its weights; nothing was"
            " written."
        )


def check_bundle(network: Network, folder: Path) -> dict[str, float]:
    """Compare the graphs in `folder` with their network, at sizes that were not traced.

    Returns the largest difference, and the network's own error in float32, measured against float64. Raises
    ExportError as `measure_parity` does.
    """
    graphs = {role: path for role in get_args(Role) if (path := folder / f"{role}.onnx").exists()}
    return measure_parity(
        network,
        graphs,
        _examples(network, graphs.keys()),
        subject="The exported graphs",
        remedy="nothing was written",
        with_error=True,
    )


def measure_losses(network: Network, graphs: Mapping[Role, Path]) -> dict[Literal["tf32", "fp16"], PrecisionLoss]:
    """Return how much frames of a network's graphs change in each lower precision, at sizes that were not traced."""
    flows = [flow.name for flow in network.flows]
    return measure_precisions(graphs, _examples(network, graphs.keys()), flows)


def _examples(network: Network, roles: Set[Role]) -> list[Example]:
    """Return inputs of sizes that were not traced."""
    examples = []
    for steps, times, scale in CHECKED:
        h, w = (n * size_step(network) for n in steps)
        inputs = _example_inputs(network, len(times), h, w, CHECKED_FRAMES)
        if network.window.kind != "pair":
            examples.append(Example("network", inputs))
            continue
        inputs["time"] = torch.tensor(times)
        examples += pair_examples(inputs, roles, scale, (int(scale), int(scale) + 1))
    if network.window.frames == 1:  # may pad inside itself: sizes that are not multiples of its own windows
        step, off = size_step(network), network.size.multiple_of
        inputs = _example_inputs(network, 1, 3 * step + off, 4 * step - off, CHECKED_FRAMES)
        examples.append(Example("network", inputs))
    return examples


def size_step(network: Network) -> int:
    """Return the unit of traced and checked sizes, in pixels: two of it are enough for the network."""
    least_px = max(MIN_STEP_PX, -(-network.size.minimum // 2))
    return -(-least_px // network.size.multiple_of) * network.size.multiple_of


@dataclass(frozen=True)
class _Trace:
    """One graph to trace: example inputs in order, and the axes of all inputs and outputs."""

    role: Role
    inputs: dict[str, Tensor]
    axes: dict[str, Axes]
    outputs: dict[str, Axes]


class _RoleModule(nn.Module):
    """One role of a network as a module, so that a graph contains only the weights it uses.

    The name of its attribute `network` is the `WEIGHT_PREFIX` of the traced weights.
    """

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
        if self.role == "refiner":
            return network.refine(*inputs)
        decode = network.decode_integer if self.role == "integer_decoder" else network.decode
        if network.refined_names:
            return decode(*inputs)
        *features, time, y, x = inputs
        return decode(*features, time=time, y=y, x=x)


def _traces(network: Network) -> tuple[_Trace, ...]:
    """Return the graphs of a network with example inputs."""
    height, width = (n * size_step(network) for n in TRACED_STEPS)
    inputs = _example_inputs(network, 2, height, width, TRACED_FRAMES)
    axes: dict[str, Axes] = {
        name: ("batch", *value.shape[1:-2], "height", "width") if value.ndim > 1 else ("batch",)
        for name, value in inputs.items()
    }
    if network.window.kind != "pair":
        count = network.window.frames
        outputs: dict[str, str | int] = {"run": 2 * count - 1, "sliding": 1, "doubled": "2*frames"}
        if network.window.kind == "doubled":
            axes["frames"] = ("batch", "frames", *axes["frames"][2:])
        assert isinstance(network.space, FixedFactors)
        scale = network.space.factors[0]
        size = ("height", "width") if scale == 1 else (f"{scale}*height", f"{scale}*width")
        return (_Trace("network", inputs, axes, {"upscaled": ("batch", outputs[network.window.kind], 3, *size)}),)
    return _pair_traces(network, inputs, axes)


def _pair_traces(network: Network, inputs: dict[str, Tensor], axes: dict[str, Axes]) -> tuple[_Trace, ...]:
    """Return the graphs of the network of a pair, for the example inputs of its encoder."""
    net: Any = network
    height, width = inputs["frames"].shape[-2:]

    def map_axes(maps: Mapping[str, Tensor]) -> dict[str, Axes]:
        return {
            name: ("batch", m.shape[1], *(f"{axis}/{height // m.shape[2]}".removesuffix("/1") for axis in _AXES))
            for name, m in maps.items()
        }

    with torch.no_grad():
        maps = dict(zip(network.feature_names, net.encode(inputs["frames"]), strict=True))
    traces = [_Trace("encoder", inputs, axes, map_axes(maps))]
    maps_axes = map_axes(maps) | {"time": ("batch",)}
    maps |= {"time": torch.tensor([0.25, 0.5])}
    if network.refined_names:
        with torch.no_grad():
            refined = dict(zip(network.refined_names, net.refine(*maps.values()), strict=True))
        traces.append(_Trace("refiner", maps, maps_axes, map_axes(refined)))
        maps, maps_axes = refined, map_axes(refined)
    target: dict[str, Tensor] = {
        "y": target_coordinates(height, TRACED_TARGET_PX[0]),
        "x": target_coordinates(width, TRACED_TARGET_PX[1]),
    }
    target_axes: dict[str, Axes] = {"y": ("target_height",), "x": ("target_width",)}
    frame: dict[str, Axes] = {"frame": ("batch", 3, "target_height", "target_width")}
    traces.append(_Trace("decoder", maps | target, maps_axes | target_axes, frame))
    if not hasattr(net, "decode_integer"):
        return tuple(traces)
    factor_axes: dict[str, Axes] = {"y": ("factor_y",), "x": ("factor_x",)}
    phases = pixel_phases(*TRACED_FACTORS)
    enlarged: dict[str, Axes] = {"frame": ("batch", 3, "factor_y*height", "factor_x*width")}
    return (*traces, _Trace("integer_decoder", maps | phases, maps_axes | factor_axes, enlarged))


def _example_inputs(network: Network, batch: int, h: int, w: int, frames: int) -> dict[str, Tensor]:
    """Return inputs of a network's only or first graph; `frames` counts for networks that take any number of them."""
    count = frames if network.window.kind == "doubled" else network.window.frames
    inputs = {"frames": _smooth_noise(batch, count * 3, h, w).unflatten(1, (count, 3))}
    for flow in network.flows:
        pixels = 4 * _smooth_noise(batch, len(flow.pairs) * 2, h, w) - 2
        inputs[flow.name] = pixels.unflatten(1, (len(flow.pairs), 2))
    if network.window.kind != "pair" and isinstance(network.time, ContinuousTime):
        inputs["time"] = torch.linspace(0.25, 0.625, batch)
    return inputs


def _smooth_noise(batch: int, channels: int, h: int, w: int) -> Tensor:
    """Return noise, (B, C, h, w) in [0, 1], with edges and motion of a few pixels, as in pictures."""
    generator = torch.Generator().manual_seed(h * w)
    coarse = torch.rand(batch, channels, h // 4 + 1, w // 4 + 1, generator=generator)
    return nn.functional.interpolate(coarse, size=(h, w), mode="bilinear")


def _write_graph(network: Network, trace: _Trace, folder: Path) -> Graph:
    """Trace one role with every free axis dynamic, and write its optimized graph with readable names."""
    with _quiet():
        program = torch.onnx.export(
            _RoleModule(network, trace.role),
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
        optimize(program.model)
    model = program.model_proto
    tidy(model, trace.axes | trace.outputs)
    onnx.checker.check_model(model)
    path = folder / f"{trace.role}.onnx"
    onnx.save_model(model, path)
    return graph_entry(path, trace.role, tensor_specs(model.graph.input), tensor_specs(model.graph.output))


def _free_axes(network: Network, axes: Mapping[str, Axes]) -> tuple[dict[int, Any], ...]:
    """Return the free dimensions of each input of a graph, by their index."""
    m, least = network.size.multiple_of, _least_steps(network)
    free: dict[str, Any] = {
        "batch": Dim("batch", min=1, max=1 << 10),
        "frames": Dim("frames", min=2, max=1 << 10),
        "factor_y": Dim("factor_y", min=2, max=1 << 6),
        "factor_x": Dim("factor_x", min=2, max=1 << 6),
        "target_height": Dim("target_height", min=2, max=1 << 20),
        "target_width": Dim("target_width", min=2, max=1 << 20),
    }
    for name in ("height", "width"):
        steps = Dim(f"{name}_steps", min=least, max=1 << 14)
        for divisor in (1, 2, 4, 8, 16):
            if m % divisor == 0:
                free[f"{name}/{divisor}".removesuffix("/1")] = (m // divisor) * steps if m > divisor else steps
    return tuple(
        {index: free[axis] for index, axis in enumerate(names) if isinstance(axis, str)} for names in axes.values()
    )


def _least_steps(network: Network) -> int:
    """Return the smallest rows and columns in size multiples; an axis that may be 1 would be traced as a constant."""
    return max(2, -(-network.size.minimum // network.size.multiple_of))


def tensor_specs(values: Any) -> tuple[TensorSpec, ...]:
    """Return the manifest's description of a graph's inputs or outputs."""
    return tuple(
        TensorSpec(
            name=value.name,
            dtype=onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            axes=tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim),
        )
        for value in values
    )


def make_manifest(
    entry: NetworkEntry, network: Network, graphs: tuple[Graph, ...], training: dict[str, Any], scores: dict[str, Any]
) -> Manifest:
    """Return the manifest of a network's graphs. Raises RequestError if the bundle format does not support it."""
    multiple = network.size.multiple_of
    try:
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
            size=SizeConstraint(minimum=_least_steps(network) * multiple, multiple_of=multiple),
            halo_px=network.halo_px,
            training=training,
            scores=scores,
            licence=entry.licence,
        )
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ").rstrip(".")
        raise RequestError(
            f"A bundle cannot contain {entry.name} with {network.config} ({reason}): choose other values."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its notes about missing operator libraries off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
