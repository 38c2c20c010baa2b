"""A model repository for Triton, written from bundles alone: for each model its configuration and its graph."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ...contract.atomic import new_folder
from ...contract.bundle import Bundle, file_sha256, write_manifest
from ...contract.errors import BackendError, BundleError, RequestError
from ...contract.graph_file import compare_tensors, read_interface
from ...contract.manifest import Engine, Graph, Precision
from ..options import listed
from ..tensorrt.half import COORDINATES, graph_to_fp16
from .config import TritonBackend, ensemble_config, graph_config
from .models import FINGERPRINT, PRECISION, VERSION, ServedModel, batch_axis, graph_model, served_models

CONFIG = "config.pbtxt"
DEFAULT_MAX_BATCH = 8


def write_repository(
    bundles: Sequence[Bundle],
    folder: Path,
    *,
    backend: TritonBackend = "onnxruntime",
    precision: Precision | None = None,
    target: str | None = None,
    max_batch: int = DEFAULT_MAX_BATCH,
    overwrite: bool = False,
) -> list[ServedModel]:
    """Write the models of bundles to `folder`, and return them; the folder appears as a whole or not at all.

    With "onnxruntime" the graphs are written, in "fp32", in "tf32" on a GPU, or converted to "fp16"; with "tensorrt"
    the engines of the bundle, of one `precision` and `target` (compute capability, such as "sm89"), which need not be
    named if there is one choice. Up to `max_batch` windows are computed at once where a graph allows it.

    Raises RequestError if the folder exists, unless `overwrite` is set and it holds nothing but such models, if two
    bundles have one name, or for engines that do not serve; BundleError for an engine that is not of
    the bundle's graph.
    """
    if max_batch < 1:
        raise RequestError(f"The largest batch is {max_batch}: give 1 or more.")
    if backend not in get_args(TritonBackend):
        raise BackendError(f"Unknown backend '{backend}': use {listed(get_args(TritonBackend))}.")
    if precision not in (None, *get_args(Precision)):
        raise BackendError(f"Unknown precision '{precision}': use {listed(get_args(Precision))}.")
    if target is not None and backend != "tensorrt":
        raise RequestError("--target has no effect without --backend tensorrt: add it, or leave it out.")
    bundles = list({bundle.fingerprint: bundle for bundle in bundles}.values())
    models = [model for bundle in bundles for model in served_models(bundle.manifest)]
    names = [model.name for model in models]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RequestError(f"Two bundles have models named '{min(twice)}': write a repository for each of them.")
    with new_folder(folder, "a repository of 'stvsr triton'", overwrite, _holds_only_models) as partial:
        for bundle in bundles:
            if backend == "tensorrt":
                _write_engines(bundle, partial, precision, target, max_batch)
            else:
                _write_graphs(bundle, partial, precision or "fp32", max_batch)
    return models


def _holds_only_models(folder: Path) -> bool:
    """Return whether a folder contains models that stvsr wrote, and nothing else."""
    configs = [child / CONFIG for child in folder.iterdir()]
    return all(config.is_file() and FINGERPRINT in config.read_text(errors="replace") for config in configs)


def _write_graphs(bundle: Bundle, folder: Path, precision: Precision, max_batch: int) -> None:
    for graph in bundle.manifest.graphs:
        version = _new_model(bundle, folder, graph, "onnxruntime", precision, max_batch)
        path = version / "model.onnx"
        if precision == "fp16":
            path.write_bytes(
                graph_to_fp16(bundle.path(graph.role), COORDINATES | {flow.name for flow in bundle.manifest.flows})
            )
        else:
            shutil.copyfile(bundle.path(graph.role), path)
        _check_graph(graph, path)
    _write_ensembles(bundle, folder, precision)


def _write_engines(bundle: Bundle, folder: Path, precision: str | None, target: str | None, max_batch: int) -> None:
    engines = _engines(bundle, precision, target, max_batch)
    for engine in engines:
        graph = bundle.graph(engine.role)
        _check_engine(bundle, engine, graph, max_batch)
        version = _new_model(
            bundle, folder, graph, "tensorrt", engine.precision, max_batch, {"stvsr_tensorrt": engine.version}
        )
        shutil.copyfile(bundle.folder / engine.file, version / "model.plan")
    _write_ensembles(bundle, folder, engines[0].precision)


def _new_model(
    bundle: Bundle,
    folder: Path,
    graph: Graph,
    backend: TritonBackend,
    precision: Precision,
    max_batch: int,
    parameters: dict[str, str] | None = None,
) -> Path:
    """Write the configuration of a graph's model, and return the folder of its version, for the graph itself."""
    model = graph_model(bundle.manifest, graph.role)
    parameters = {**_parameters(bundle, precision), **(parameters or {})}
    return _write_model(folder, model, bundle, graph_config(model, backend, precision, max_batch, parameters))


def _write_ensembles(bundle: Bundle, folder: Path, precision: Precision) -> None:
    for model in served_models(bundle.manifest):
        if len(model.graphs) > 1:
            steps = [graph_model(bundle.manifest, graph.role) for graph in model.graphs]
            _write_model(folder, model, bundle, ensemble_config(model, steps, _parameters(bundle, precision)))


def _write_model(folder: Path, model: ServedModel, bundle: Bundle, config: str) -> Path:
    """Write a model's folder: its configuration, and the bundle's manifest in the folder of its version.

    The manifest describes the network to whoever finds the folder, and keeps the version's folder of an ensemble, which
    Triton needs, from being empty: empty folders are lost in archives and object stores.
    """
    version = folder / model.name / VERSION
    version.mkdir(parents=True)
    (folder / model.name / CONFIG).write_text(config, encoding="utf-8")
    write_manifest(version, bundle.manifest.model_copy(update={"engines": ()}))
    return version


def _parameters(bundle: Bundle, precision: Precision) -> dict[str, str]:
    return {FINGERPRINT: bundle.fingerprint, PRECISION: precision}


def _check_graph(graph: Graph, path: Path) -> None:
    """Raise BundleError unless a graph that was written has the inputs and outputs of its manifest."""
    try:
        interface = read_interface(path.read_bytes())
        for side, stated in (("input", graph.inputs), ("output", graph.outputs)):
            declared = interface.inputs if side == "input" else interface.outputs
            compare_tensors(side, stated, declared, {spec.name for spec in stated})
    except BundleError as error:
        raise BundleError(f"The model of {graph.file} {error}; export the bundle again.") from error


def _engines(bundle: Bundle, precision: str | None, target: str | None, max_batch: int) -> list[Engine]:
    """Return an engine for each graph, all of one precision and target. Raises RequestError without a single choice."""
    found: dict[tuple[str, str], list[Engine]] = {}
    for engine in bundle.manifest.engines:
        if engine.library == "tensorrt" and precision in (None, engine.precision) and target in (None, engine.target):
            found.setdefault((engine.precision, engine.target), []).append(engine)
    complete = {key: engines for key, engines in found.items() if len(engines) == len(bundle.manifest.graphs)}
    if not complete:
        kind = " ".join(filter(None, (precision, target)))
        raise RequestError(
            f"{bundle.folder} has no engines of TensorRT{kind and f' for {kind}'}, which Triton runs: on the server's"
            f" kind of GPU, run '{_compile_command(bundle, precision, max_batch)}'."
        )
    if len(complete) > 1:
        choices = " or ".join(f"--precision {key[0]} --target {key[1]}" for key in sorted(complete))
        raise RequestError(f"{bundle.folder} has engines of several kinds: choose by {choices}.")
    return next(iter(complete.values()))


def _check_engine(bundle: Bundle, engine: Engine, graph: Graph, max_batch: int) -> None:
    """Raise an error for an engine that is stale, damaged, or built for fewer windows at once."""
    path = bundle.folder / engine.file
    again = f"compile the bundle again by '{_compile_command(bundle, engine.precision, max_batch)}'"
    if engine.graph_sha256 != graph.sha256:
        raise BundleError(f"The engine {path} was built from another graph: {again}.")
    try:
        sha256 = file_sha256(path)
    except OSError as error:
        raise BundleError(f"The engine {path} cannot be read ({error.strerror}): {again}.") from error
    if sha256 != engine.sha256:
        raise BundleError(f"The engine {path} is damaged: {again}.")
    smallest, _, largest = engine.shapes.get(batch_axis(graph) or "", (1, max_batch, max_batch))
    if smallest > 1 or largest < max_batch:
        raise RequestError(
            f"The engine {path} takes {smallest} to {largest} windows at once, and Triton would join up to {max_batch}:"
            f" {again}, or pass --max-batch {largest}."
        )


def _compile_command(bundle: Bundle, precision: str | None, max_batch: int) -> str:
    axis = next(filter(None, map(batch_axis, bundle.manifest.graphs)), None)
    shapes = f" --shapes {axis}=1/{max(1, max_batch // 2)}/{max_batch}" if axis and max_batch > 1 else ""
    chosen = f" --precision {precision}" if precision else ""
    return f"stvsr compile {bundle.folder} --library tensorrt{chosen}{shapes}"
