"""Engines from lowered graphs, by TensorRT or TensorRT-RTX: two libraries with one Python API.

Networks are strongly typed: an engine computes in the precisions of its graph, and float32 is never rounded to TF32.
"""

import contextlib
import functools
import importlib
import threading
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ...contract.axes import axis_range
from ...contract.errors import BackendError, BundleError
from ...contract.manifest import Graph, Library, Recipe, TensorSpec
from ..cuda_driver import local_target

# A library is one module or, where its wheels alone are installed, another.
_MODULES: dict[Library, tuple[str, ...]] = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_building = threading.Lock()  # builds share a logger, and each tells of its own errors


def load_library(library: Library) -> ModuleType:
    """Return the module of a library; BackendError says how to get one that is not there."""
    if library not in _MODULES:
        raise BackendError(f"There is no engine library '{library}': use {' or '.join(_MODULES)}.")
    reason: Exception | None = None
    for name in _MODULES[library]:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: the module is there, and its shared library is not
            # The first says most, unless it is merely absent.
            reason = reason if reason and not isinstance(reason, ModuleNotFoundError) else error
    raise BackendError(f'{TITLES[library]} cannot be imported ({reason}): pip install "stvsr[{library}]".') from reason


def installed_library() -> Library:
    """Return the library that can be imported: the data centre's where both can, and TensorRT-RTX where none can."""
    for library in _MODULES:
        with contextlib.suppress(BackendError):
            load_library(library)
            return library
    return "tensorrt-rtx"


def check_target(target: str, library: Library) -> None:
    """Raise BackendError for a compute capability that the library does not build for, here."""
    if library == "tensorrt-rtx":
        known = [name.lower() for name in dir(load_library(library).ComputeCapability) if name.startswith("SM")]
        if target not in known:
            listed = ", ".join(sorted(known, key=lambda name: int(name[2:])))
            raise BackendError(f"TensorRT-RTX does not build for '{target}': use one of {listed}.")
    elif target != (local := local_target()):
        where = f"which is {local}" if local else "and there is no CUDA device"
        raise BackendError(
            f"TensorRT builds for the GPU of this machine alone, {where}: build for {target} on such a machine, or use"
            " --library tensorrt-rtx."
        )


def build_engine(model: bytes, graph: Graph, recipe: Recipe, others: Sequence[str] = ()) -> bytes:
    """Build the engine of a lowered graph, serialized as ONNX, as a recipe says; also for `others` of its targets.

    Its inputs and outputs are those of `graph`. Raises BackendError where the library is missing, cannot parse the
    graph or cannot build for the target; BundleError where inputs or outputs differ from the manifest's.
    """
    trt = load_library(recipe.library)
    targets = (recipe.target, *others)
    for target in targets:
        check_target(target, recipe.library)
    with _building:
        return _build(trt, model, graph, recipe, targets)


def _build(trt: ModuleType, model: bytes, graph: Graph, recipe: Recipe, targets: Sequence[str]) -> bytes:
    library, shapes = recipe.library, recipe.shapes
    logger = logger_of(trt)
    logger.errors.clear()
    builder = trt.Builder(logger)
    if builder is None:
        raise BackendError(f"{TITLES[library]} cannot start ({last_error(logger)}): check the driver.")
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise BackendError(
            f"{TITLES[library]} {trt.__version__} cannot take the graph {graph.file}"
            f" ({_parser_errors(errors) or last_error(logger)}): export the bundle again, or use --backend ort."
        )
    check_tensors(_network_tensors(trt, network), graph, f"The network of {graph.file}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if recipe.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if library == "tensorrt-rtx":
        config.num_compute_capabilities = len(targets)
        for place, target in enumerate(targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), place)
    profile = builder.create_optimization_profile()
    for spec in graph.inputs:
        ranges = [axis_range(axis, shapes) for axis in spec.axes]
        profile.set_shape(spec.name, *([sizes[which] for sizes in ranges] for which in range(3)))
    config.add_optimization_profile(profile)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise BackendError(
            f"{TITLES[library]} {trt.__version__} cannot build {graph.file} for {', '.join(targets)}"
            f" ({last_error(logger)}): use smaller shapes, another precision or --backend ort."
        )
    return bytes(built)


def check_engine(engine: Any, trt: ModuleType, graph: Graph, path: object) -> None:
    """Raise BundleError when an engine that was opened has other inputs or outputs than its graph."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = [
        (
            engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
            _spec(trt, name, engine.get_tensor_dtype(name), engine.get_tensor_shape(name)),
        )
        for name in names
    ]
    check_tensors(found, graph, f"The engine {path}")


def check_tensors(found: Iterable[tuple[bool, TensorSpec]], graph: Graph, what: str) -> None:
    """Compare (whether an input, tensor) with a manifest's graph; a free axis that was found has any name."""
    expected = {(is_input, spec.name): spec for is_input, specs in _sides(graph) for spec in specs}
    given = {(is_input, spec.name): spec for is_input, spec in found}
    for key in sorted(expected.keys() | given.keys(), reverse=True):
        wanted, have = expected.get(key), given.get(key)
        if wanted is None or have is None or have.dtype != wanted.dtype or not _same_axes(have.axes, wanted.axes):
            side = "input" if key[0] else "output"
            raise BundleError(
                f"{what} has the {side} {_told(have, key[1])}, and the manifest says {_told(wanted, key[1])}: export"
                " the bundle again."
            )


def _sides(graph: Graph) -> tuple[tuple[bool, tuple[TensorSpec, ...]], ...]:
    return (True, graph.inputs), (False, graph.outputs)


def _same_axes(found: tuple[str | int, ...], wanted: tuple[str | int, ...]) -> bool:
    return len(found) == len(wanted) and all(
        isinstance(a, str) == isinstance(b, str) and (isinstance(a, str) or a == b)
        for a, b in zip(found, wanted, strict=True)
    )


def _told(spec: TensorSpec | None, name: str) -> str:
    return f"no '{name}'" if spec is None else f"'{name}' {spec.dtype} ({', '.join(map(str, spec.axes))})"


def _network_tensors(trt: ModuleType, network: Any) -> list[tuple[bool, TensorSpec]]:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return [
        (is_input, _spec(trt, tensor.name, tensor.dtype, tensor.shape))
        for is_input, tensors in ((True, inputs), (False, outputs))
        for tensor in tensors
    ]


def _spec(trt: ModuleType, name: str, dtype: Any, shape: Iterable[int]) -> TensorSpec:
    axes = tuple("?" if size < 0 else int(size) for size in shape)
    return TensorSpec(name=name, dtype=np.dtype(trt.nptype(dtype)).name, axes=axes)


@functools.cache
def logger_of(trt: ModuleType) -> Any:
    """Return the one logger of a library: it keeps using the first that it is given, for as long as it is loaded."""

    class Logger(trt.ILogger):  # type: ignore[name-defined]
        """Keeps errors for the sentence that tells of them, and the terminal clean."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(" ".join(message.split()))

    return Logger()


def last_error(logger: Any) -> str:
    """Return what a library said last of what went wrong."""
    return logger.errors[-1] if logger.errors else "it gives no reason"


def _parser_errors(errors: list[Any]) -> str:
    """Which operators failed, and why: once for each operator."""
    told: dict[str, str] = {}
    for error in errors:
        reason = " ".join(str(error.desc()).split())
        told.setdefault(error.node_operator(), f"{error.node_operator()} '{error.node_name()}': {reason}")
    return "; ".join(told.values())
