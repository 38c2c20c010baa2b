"""From a trained network to a bundle: trace, tidy, check against PyTorch, publish."""

import copy
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from ..engine.bundle import MANIFEST, graph_entry, write_manifest
from ..engine.errors import ExportError, RequestError
from ..engine.manifest import (
    Architecture,
    ContinuousSpace,
    ContinuousTime,
    Graph,
    Manifest,
    Role,
    SizeConstraint,
    TensorSpec,
    Window,
)
from ..engine.session import open_session
from ..training.networks import NetworkEntry
from ..training.ops import target_coordinates
from .translations import onnx_translations

OPSET = 20
TOLERANCE = 1e-4  # largest difference between the graphs and the network, of the [0, 1] range
_TRACED = (7, 9)  # rows and columns of a traced frame, in the network's size multiple
_TRACED_TARGET_PX = (101, 151)
_CHECKED = (((5, 8), (0.0, 0.375), 4.0), ((10, 6), (1.0, 0.5), 2.3))  # untraced: (rows, columns), times, scale


class _Graph(nn.Module):
    """One role of a network as a module of its own, so that a graph holds only the weights it uses."""

    def __init__(self, network: nn.Module, role: Role) -> None:
        super().__init__()
        self.network = network
        self.role = role

    def forward(self, *inputs: Tensor) -> Any:
        network: Any = self.network
        if self.role == "encoder":
            return network.encode(*inputs)
        *features, time, y, x = inputs
        return network.decode(*features, time=time, y=y, x=x)


def export_bundle(
    entry: NetworkEntry,
    network: nn.Module,
    folder: Path,
    training: dict[str, Any] | None = None,
    scores: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the bundle of a network of the list to ``folder`` and returns it.

    The folder appears only when every graph has agreed with the network, in ONNX Runtime, at two sizes that were not
    traced. Raises ``ExportError`` when one does not, ``RequestError`` when the folder is there already.
    """
    if folder.exists() and not overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"{folder} exists already; name another folder or pass --overwrite.")
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"{folder} holds something else than a bundle, and is not overwritten; name another folder.")
    network = network.cpu().eval()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        partial = Path(temporary) / "bundle"
        partial.mkdir()
        graphs = tuple(_write_graph(network, role, partial) for role in ("encoder", "decoder"))
        parity = check_bundle(network, partial)
        write_manifest(partial, _manifest(entry, network, graphs, {"parity": parity, **(training or {})}, scores or {}))
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    return folder


def check_bundle(network: nn.Module, folder: Path) -> dict[str, float]:
    """Runs both graphs of ``folder`` beside the network, at sizes that were not traced.

    Returns the largest difference between them, and the network's own error in float32, that is against float64.
    Raises ``ExportError`` when the difference is above ``TOLERANCE``, or above twice the own error where that is more:
    sines of large arguments magnify rounding, and two right programs then differ as well.
    """
    multiple: int = network.size_multiple  # type: ignore[assignment]
    precise = copy.deepcopy(network).double()
    difference = error = 0.0
    with (
        open_session(folder / "encoder.onnx", device="cpu") as encoder,
        open_session(folder / "decoder.onnx", device="cpu") as decoder,
    ):
        for multiples, times, scale in _CHECKED:
            h, w = (n * multiple for n in multiples)
            frames, time = _smooth_frames(len(times), h, w), torch.tensor(times)
            y, x = target_coordinates(h, round(h * scale)), target_coordinates(w, round(w * scale))
            expected = _decoded(network, frames, time, y, x)
            error = max(error, float(np.abs(expected - _decoded(precise, frames, time, y, x)).max()))
            features = encoder.run({"frames": frames.numpy()})
            at = {"time": time.numpy(), "y": y.numpy(), "x": x.numpy()}
            difference = max(difference, float(np.abs(decoder.run({**features, **at})["frame"] - expected).max()))
    if not difference <= max(TOLERANCE, 2 * error):
        raise ExportError(
            f"The exported graphs differ from {type(network).__name__} in PyTorch by {difference:.2e}, above the"
            f" {TOLERANCE:.0e} that is allowed: nothing was written."
        )
    return {"difference": difference, "float32_error": error}


def _decoded(network: nn.Module, *inputs: Tensor) -> np.ndarray:
    """What a network makes of frames, time, y and x in its own precision."""
    net: Any = network
    frames, time, y, x = (value.to(next(net.parameters()).dtype) for value in inputs)
    with torch.no_grad():
        return net.decode(*net.encode(frames), time=time, y=y, x=x).numpy()


def _smooth_frames(batch: int, h: int, w: int) -> Tensor:
    """Frames with edges and motion rather than noise. -> (B, 2, 3, h, w) in [0, 1]"""
    generator = torch.Generator().manual_seed(h * w)
    coarse = torch.rand(batch * 2, 3, h // 4 + 1, w // 4 + 1, generator=generator)
    return nn.functional.interpolate(coarse, size=(h, w), mode="bilinear").unflatten(0, (batch, 2))


def _manifest(
    entry: NetworkEntry, network: Any, graphs: tuple[Graph, ...], training: dict[str, Any], scores: dict[str, Any]
) -> Manifest:
    return Manifest(
        format=1,
        name=entry.name,
        architecture=Architecture(name=entry.name, config=asdict(network.config)),
        graphs=graphs,
        window=Window(kind="pair", frames=2),
        space=ContinuousSpace(minimum=entry.scales[0], maximum=entry.scales[1]),
        time=ContinuousTime(),
        value_range=(0.0, 1.0),
        channel_order="RGB",
        size=SizeConstraint(minimum=_least(network) * network.size_multiple, multiple_of=network.size_multiple),
        halo_px=entry.halo_px,
        training=training,
        scores=scores,
        licence=entry.licence,
    )


def _least(network: Any) -> int:
    """Smallest axis in size multiples; one that may be 1 would be traced as a constant."""
    return max(2, -(-network.size_minimum // network.size_multiple))


def _write_graph(network: Any, role: Role, folder: Path) -> Graph:
    """Traces one role with every free axis dynamic, and writes it with readable names."""
    m = network.size_multiple
    height, width = (n * m for n in _TRACED)
    frames = torch.rand(2, 2, 3, height, width)
    with torch.no_grad():
        features = network.encode(frames)
    shrink = [height // f.shape[-2] for f in features]  # how many input pixels one of a feature's spans
    planes = [{"batch": 0, f"height/{k}".removesuffix("/1"): 2, f"width/{k}".removesuffix("/1"): 3} for k in shrink]
    if role == "encoder":
        inputs: tuple[Tensor, ...] = (frames,)
        axes = {"frames": {"batch": 0, "height": 3, "width": 4}}
        outputs = dict(zip(network.feature_names, planes, strict=True))
    else:
        y, x = target_coordinates(height, _TRACED_TARGET_PX[0]), target_coordinates(width, _TRACED_TARGET_PX[1])
        inputs = (*features, torch.tensor([0.25, 0.5]), y, x)
        axes = dict(zip(network.feature_names, planes, strict=True))
        axes |= {"time": {"batch": 0}, "y": {"target_height": 0}, "x": {"target_width": 0}}
        outputs = {"frame": {"batch": 0, "target_height": 2, "target_width": 3}}
    free = {
        "batch": Dim("batch", min=1, max=1 << 10),
        "target_height": Dim("target_height", min=2, max=1 << 20),
        "target_width": Dim("target_width", min=2, max=1 << 20),
    }
    for name in ("height", "width"):
        steps = Dim(f"{name}_steps", min=_least(network), max=1 << 14)
        free |= {f"{name}/{k}".removesuffix("/1"): (m // k) * steps if m > k else steps for k in {1, *shrink}}
    shapes = tuple({axis: free[name] for name, axis in named.items()} for named in axes.values())
    with _quiet():
        program = torch.onnx.export(
            _Graph(network, role),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=(shapes,),
            input_names=list(axes),
            output_names=list(outputs),
            custom_translation_table=onnx_translations(),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _tidy(model, axes | outputs, network.state_dict())
    onnx.checker.check_model(model)
    path = folder / f"{role}.onnx"
    onnx.save_model(model, path)
    return graph_entry(path, role, _specs(model.graph.input), _specs(model.graph.output))


def _tidy(model: onnx.ModelProto, axes: dict[str, dict[str, int]], state: dict[str, Tensor]) -> None:
    """Names initializers after the state dict and axes after what they are; drops the tracer's notes (source paths).

    A weight that was folded to its transpose is named ``KEY.T``.
    """
    graph = model.graph
    renamed = {i.name: i.name.removeprefix("network.") for i in graph.initializer}
    transposed = {key: value.numpy().T for key, value in state.items() if value.ndim == 2}
    for initializer in graph.initializer:
        if renamed[initializer.name] in state or len(initializer.dims) != 2:
            continue
        folded = onnx.numpy_helper.to_array(initializer)
        for key, value in transposed.items():
            if np.array_equal(folded, value):
                renamed[initializer.name] = f"{key}.T"
    for initializer in graph.initializer:
        initializer.name = renamed[initializer.name]
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
        for name, axis in axes[value.name].items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
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
