"""Import an ONNX file from one image to one image: wrap its graph into that of a bundle, and compare both."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto

from ..engine.backends.onnxruntime import OrtSession, quiet_stderr
from ..engine.contract.bundle import LARGEST_GRAPH, Bundle, graph_entry, new_bundle, write_manifest
from ..engine.contract.errors import CheckpointError, ExportError, RequestError, StvsrError
from ..engine.contract.files import check_file
from ..engine.contract.manifest import FixedFactors, SizeConstraint, SlidingWindow
from ..training.networks.base import Network
from ..training.networks.registry import NetworkEntry
from .exporter import make_manifest, tensor_specs
from .halo import measure_tiling
from .image_network import short_reason
from .onnx_wrapping import CHANNELS, OnnxConfig, in_float32, with_free_sizes, with_opset, wrapped_graph
from .parity import TOLERANCE, Example
from .precision import measure_precisions

ONNX = ".onnx"
LAYOUTS, RANGES = ("NCHW", "NHWC"), (1, 255)
HALF_TOLERANCE = 2**-10  # a step of float16 near white: runtimes round at different places
_STEPS = (1, 2, 4, 8, 16, 32, 64)  # sizes are tried as odd multiples of these
_LEAST_PX = 32  # of the sides that are tried
_ALIKE = 0.1  # largest mean difference between an enlarged frame and one whose pixels are repeated
_FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


@dataclass(frozen=True)
class OnnxOptions:
    """Facts about a network that its file lacks; None is found by trial."""

    scale: int | None = None
    range: int | None = None  # the value of white: one of RANGES
    layout: str | None = None  # one of LAYOUTS


class OnnxNetwork(Network):
    """The description of an imported graph; it has no weights and computes nothing in PyTorch."""

    def __init__(self, config: OnnxConfig, step: int) -> None:
        super().__init__()
        self.config = config
        self.window = SlidingWindow(frames=1, padding="replicate")
        self.space = FixedFactors(factors=(config.scale,))
        self.size = SizeConstraint(minimum=min(_LEAST_PX, 8 * step), multiple_of=step)


class _Wrapped(NamedTuple):
    """A graph of a bundle, how it was wrapped, and its difference from the original."""

    model: onnx.ModelProto
    config: OnnxConfig
    batch: str | int  # the axis of its frames: free, or 1
    step: int
    difference: float


def import_onnx(
    original: onnx.ModelProto,
    path: Path,
    folder: Path,
    options: OnnxOptions,
    record: dict[str, Any],
    licence: str,
    halo_px: int | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write a bundle with a graph of `read_onnx` to `folder`, and return notes for the user; `path` is its file.

    Raises RequestError for a graph that does not turn an image into one of the same or a larger size and for options
    that do not fit it, and ExportError if the bundle's graph differs.
    """
    if options.range not in (None, *RANGES):
        raise RequestError(f"There is no range {options.range}: choose 1 or 255, the value of white.")
    if options.layout not in (None, *LAYOUTS):
        raise RequestError(f"There is no layout {options.layout}: choose {' or '.join(LAYOUTS)}.")
    with quiet_stderr():  # ONNX Runtime writes about trials that fail
        wrapped = _wrap_by_trial(original, options, path)
    network = OnnxNetwork(wrapped.config, wrapped.step)
    scale = wrapped.config.scale
    with new_bundle(folder, overwrite) as partial:
        file = partial / "network.onnx"
        onnx.save_model(wrapped.model, file)
        with OrtSession(file) as session:
            if halo_px is None:
                tiling = measure_tiling(
                    lambda frames: session.run({"frames": frames[:1, None]})["upscaled"][:, 0],
                    scale,
                    network.size.multiple_of,
                    network.size.minimum,
                )
                network = OnnxNetwork(wrapped.config, tiling.step_px)
                halo_px = tiling.halo_px
        network.halo_px = halo_px
        graph = wrapped.model.graph
        entry = graph_entry(file, "network", tensor_specs(graph.input), tensor_specs(graph.output))
        training = {"parity": {"difference": wrapped.difference}, **record}
        name = NetworkEntry("onnx", lambda _: network, wrapped.config, path.name, licence=licence)
        manifest = make_manifest(name, network, (entry,), training, {})
        frames = torch.from_numpy(_frames(_sides(wrapped.step), wrapped.batch))[:, None]
        losses = measure_precisions({"network": file}, [Example("network", {"frames": frames})])
        write_manifest(partial, manifest.model_copy(update={"precisions": losses}))
        Bundle.load(partial)
    found = (
        f"The graph enlarges x{scale}, in the layout {wrapped.config.layout} and the range 0 to {wrapped.config.range}"
    )
    notes = [f"{found}."] if None in (options.scale, options.range, options.layout) else []
    if network.halo_px is None:
        notes.append("Its output depends on the whole frame, so that frames are never cut into tiles.")
    return notes


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file and check that it has one image as its input and one as its output.

    Raises CheckpointError for a file that is no ONNX graph, and RequestError for other inputs and outputs.
    """
    try:
        check_file(path.stat(), path, LARGEST_GRAPH)
        model = onnx.load(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): name another file.") from error
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise CheckpointError(f"{path} cannot be read as an ONNX graph ({reason}): download it again.") from error
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for side, values in (("input", inputs), ("output", list(model.graph.output))):
        tensors = [value.type.tensor_type for value in values]
        if len(tensors) != 1 or len(tensors[0].shape.dim) != 4 or tensors[0].elem_type not in _FLOATS:
            shapes = [", ".join(str(d.dim_param or d.dim_value) for d in tensor.shape.dim) for tensor in tensors]
            raise RequestError(
                f"{path} has the {side}s {', '.join(f'({shape})' for shape in shapes) or 'none'}, and a graph with one"
                f" {side} of floating-point numbers and four axes is needed: it is no network from image to image."
            )
    domains = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if domains:
        raise RequestError(f"{path} uses operators of {min(domains)}, which are not standard: export it without them.")
    return model


def _wrap_by_trial(original: onnx.ModelProto, options: OnnxOptions, path: Path) -> _Wrapped:
    """Return the graph of a bundle that runs at the most sizes, for the layout and the range that fit the original."""
    shape = original.graph.input[0].type.tensor_type.shape.dim
    declared = [dim.dim_value if dim.HasField("dim_value") else None for dim in shape]
    layouts = [options.layout] if options.layout else _layouts(declared, path)
    standard = with_opset(in_float32(original))
    reason = ""
    batches: tuple[str | int, ...] = ("batch", 1)
    for layout, batch, step in product(layouts, batches, _STEPS):
        try:
            scale = _found_scale(standard, layout, step, options, path)
            white = options.range or _found_range(standard, layout, step, scale, path)
            model = wrapped_graph(standard, OnnxConfig(scale, white, layout), batch)
            difference = _difference(original, model, OnnxConfig(scale, white, layout), step, declared, batch)
        except _TrialError as error:
            reason = reason or str(error)
            continue
        half = original.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
        allowed = HALF_TOLERANCE if half else TOLERANCE
        if difference > allowed:
            raise ExportError(
                f"The bundle's graph differs from {path} by {difference:.2e}, and at most {allowed:.1e} is allowed:"
                " nothing was written."
            )
        return _Wrapped(model, OnnxConfig(scale, white, layout), batch, step, difference)
    raise RequestError(
        f"{path} does not run as a network from one RGB image of free size to a larger one ({reason}): export it with"
        " free height and width, or pass its --layout."
    )


class _TrialError(Exception):
    """A graph does not run in this way."""


def _layouts(declared: list[int | None], path: Path) -> list[str]:
    """Return the layouts that fit the declared shape of the input."""
    exact = [layout for layout in LAYOUTS if declared[_channel_axis(layout)] == CHANNELS]
    fitting = exact or (list(LAYOUTS) if declared[1:] == [None] * 3 else [])
    if not fitting:
        raise RequestError(
            f"The input of {path} has the shape ({', '.join('free' if n is None else str(n) for n in declared)}),"
            f" without an axis of {CHANNELS} channels: choose a network for RGB images."
        )
    return fitting


def _channel_axis(layout: str) -> int:
    return layout.index("C")


def _run(model: onnx.ModelProto, frames: np.ndarray, layout: str, white: int) -> np.ndarray:
    """Run an original on frames (B, 3, h, w) in [0, 1], and return frames in [0, 1] of the same layout."""
    (source,), (target,) = model.graph.input, model.graph.output
    dtype = _FLOATS[source.type.tensor_type.elem_type]
    array = frames * np.float32(white)
    array = (array.transpose(0, 2, 3, 1) if layout == "NHWC" else array).astype(dtype)
    try:
        with OrtSession(model.SerializeToString()) as session:
            output = np.asarray(session.run({source.name: np.ascontiguousarray(array)})[target.name], np.float32)
    except StvsrError as error:
        raise _TrialError(short_reason(error)) from error
    output = output / np.float32(white)
    return output.transpose(0, 3, 1, 2) if layout == "NHWC" else output


def _found_scale(model: onnx.ModelProto, layout: str, step: int, options: OnnxOptions, path: Path) -> int:
    """Return the factor between the sizes of the output and of the input."""
    h, w = _sides(step)
    output = _run(with_free_sizes(model, layout), _frame(h, w)[:1], layout, options.range or 1)
    _, channels, H, W = output.shape
    if channels != CHANNELS:
        raise RequestError(
            f"{path} makes images of {channels} channels, and frames have {CHANNELS}: choose another one."
        )
    if H % h or W % w or H // h != W // w:
        raise _TrialError(f"it makes {W}x{H} of {w}x{h}")
    if options.scale not in (None, H // h):
        raise RequestError(f"{path} enlarges x{H // h}, and not x{options.scale}: leave --scale out.")
    return H // h


def _found_range(model: onnx.ModelProto, layout: str, step: int, scale: int, path: Path) -> int:
    """Return the first range in which the output is like the input.

    A network for the range of 1 may well accept larger values too, but one for 255 sees almost black frames at 1.
    Raises RequestError if the output is like the input in neither.
    """
    frame = _frame(*_sides(step))[:1]
    larger = frame.repeat(scale, 2).repeat(scale, 3)
    for white in RANGES:
        difference = np.abs(_run(with_free_sizes(model, layout), frame, layout, white) - larger).mean()
        if difference < _ALIKE:  # not so if it is no number
            return white
    raise RequestError(f"Trials do not show whether white is 1 or 255 in {path}: pass --range 1 or --range 255.")


def _difference(
    original: onnx.ModelProto,
    model: onnx.ModelProto,
    config: OnnxConfig,
    step: int,
    declared: list[int | None],
    batch: str | int,
) -> float:
    """Return the largest difference between a bundle's graph and the original, at sizes that both accept."""
    rows, columns = (declared[config.layout.index(axis)] for axis in "HW")
    h, w = _sides(step)
    sizes = [(rows or h, columns or w), (rows or w, columns or 3 * h)]
    largest = 0.0
    with OrtSession(model.SerializeToString()) as session:
        for size in dict.fromkeys(sizes):
            frames = _frames(size, batch)
            expected = np.concatenate([_run(original, frame[None], config.layout, config.range) for frame in frames])
            try:
                actual = np.asarray(session.run({"frames": frames[:, None]})["upscaled"])[:, 0]
            except StvsrError as error:
                raise _TrialError(short_reason(error)) from error
            if actual.shape != expected.shape or not (np.isfinite(expected).all() and np.isfinite(actual).all()):
                raise _TrialError("its values are not finite numbers, or its frames depend on each other")
            largest = max(largest, float(np.abs(actual - expected).max()))
        if rows or columns:  # a size that the original does not accept: the graph must at least run there
            _check_larger(session, (h, w), config.scale)
    return largest


def _check_larger(session: OrtSession, size: tuple[int, int], scale: int) -> None:
    try:
        output = np.asarray(session.run({"frames": _frame(*size)[:1, None]})["upscaled"])
    except StvsrError as error:
        raise _TrialError(short_reason(error)) from error
    if output.shape[-2:] != (size[0] * scale, size[1] * scale):
        raise _TrialError("its size is fixed")


def _sides(step: int) -> tuple[int, int]:
    """Return rows and columns of a trial: odd multiples of `step`, of `_LEAST_PX` and more."""
    count = max(3, -(-_LEAST_PX // step) | 1)
    return count * step, (count + 2) * step


def _frame(h: int, w: int) -> np.ndarray:
    """Return two frames of noise with edges, (2, 3, h, w) in [0.1, 0.9]."""
    coarse = np.random.default_rng(h * w).random((2, 3, h // 4 + 1, w // 4 + 1))
    return (0.1 + 0.8 * coarse.repeat(4, 2).repeat(4, 3)[..., :h, :w]).astype(np.float32)


def _frames(size: tuple[int, int], batch: str | int) -> np.ndarray:
    """Return the frames of `_frame`, or the first one for a graph that takes one at a time."""
    return _frame(*size)[:1] if batch == 1 else _frame(*size)
