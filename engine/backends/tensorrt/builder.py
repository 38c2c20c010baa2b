"""Builds engines from lowered graphs, by TensorRT or TensorRT-RTX.

Networks are strongly typed: an engine computes in the types of its graph. Float32 is rounded to TF32 only at that
precision.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ...contract.axes import axis_range
from ...contract.errors import BackendError
from ...contract.manifest import EngineSpec, Graph
from ..cache_folder import read_cached, write_cached
from .library import TITLES, check_target, get_logger, last_error, load_library
from .tensors import check_network

_building = threading.Lock()  # builds share a logger, and each reports its own errors


def build_engine(model: bytes, graph: Graph, spec: EngineSpec, other_targets: Sequence[str] = ()) -> bytes:
    """Build an engine of a lowered graph, serialized as ONNX, for the target of `spec` and for `other_targets`.

    Its inputs and outputs are those of `graph`. Raises BackendError if the library is missing, cannot parse the graph
    or cannot build for a target; BundleError if inputs or outputs differ from the manifest's.
    """
    trt = load_library(spec.library)
    targets = (spec.target, *other_targets)
    for target in targets:
        check_target(target, spec.library)
    with _building:
        return _build(trt, model, graph, spec, targets)


def _build(trt: ModuleType, model: bytes, graph: Graph, spec: EngineSpec, targets: Sequence[str]) -> bytes:
    title = f"{TITLES[spec.library]} {trt.__version__}"
    logger = get_logger(trt)
    logger.errors.clear()
    builder = trt.Builder(logger)
    if builder is None:
        raise BackendError(f"{TITLES[spec.library]} cannot start ({last_error(logger)}): check the driver.")
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        reason = _parser_errors(parser) or last_error(logger)
        raise BackendError(
            f"{title} cannot parse the graph {graph.file} ({reason}): export the bundle again, or use --backend ort."
        )
    check_network(network, trt, graph)
    config = builder.create_builder_config()
    if spec.precision == "tf32":
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if spec.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if spec.library == "tensorrt-rtx":
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), index)
    profile = builder.create_optimization_profile()
    for tensor in graph.inputs:
        ranges = [axis_range(axis, spec.shapes) for axis in tensor.axes]
        profile.set_shape(tensor.name, *([sizes[bound] for sizes in ranges] for bound in range(3)))
    config.add_optimization_profile(profile)
    with timing_cache(trt, config, spec):
        engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BackendError(
            f"{title} cannot build {graph.file} for {', '.join(targets)} ({last_error(logger)}): use smaller shapes,"
            " another precision or --backend ort."
        )
    return bytes(engine)


@contextmanager
def timing_cache(trt: ModuleType, config: Any, spec: EngineSpec) -> Iterator[None]:
    """Give a build what earlier builds for this GPU measured, and keep what it measures.

    TensorRT ignores measurements of another GPU. TensorRT-RTX, which builds without a GPU, measures nothing.
    """
    if spec.library != "tensorrt":
        yield
        return
    file = f"{spec.library}-{trt.__version__}-{spec.target}"
    stored = read_cached("timing", file)
    config.set_timing_cache(config.create_timing_cache(stored), ignore_mismatch=False)
    yield
    if measured := config.get_timing_cache():
        write_cached("timing", file, bytes(measured.serialize()))


def _parser_errors(parser: Any) -> str:
    """Return the operators that a parser refused and its reasons, one for each operator."""
    reasons: dict[str, str] = {}
    for error in map(parser.get_error, range(parser.num_errors)):
        reason = " ".join(str(error.desc()).split())
        reasons.setdefault(error.node_operator(), f"{error.node_operator()} '{error.node_name()}': {reason}")
    return "; ".join(reasons.values())
