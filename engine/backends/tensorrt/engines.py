"""The engines of a bundle: compiled beside its graphs, or built on first use and kept in a cache."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from ...contract.atomic import locked
from ...contract.axes import Shapes, free_axes
from ...contract.bundle import MANIFEST, Bundle, file_sha256, write_manifest
from ...contract.errors import BackendError, RequestError
from ...contract.manifest import Engine, EngineSpec, Library, Precision, Role
from ..options import listed
from .builder import build_engine
from .cache import ENGINE_FILE, RECORD_FILE, engine_mismatch, entry_folder, entry_mismatch, publish, staging_folder
from .half import COORDINATES, to_fp16
from .library import check_target, load_library
from .lowering import LOWERING_VERSION, lower_deform_conv
from .onnx_graph import import_onnx
from .plugins.graph import to_plugins
from .plugins.registration import register_plugins
from .shapes import complete_shapes, extend_shapes

TARGETS = ("sm80", "sm89", "sm120")


def compile_bundle(
    bundle: Bundle,
    *,
    precision: Precision = "fp32",
    shapes: Shapes | None = None,
    targets: Sequence[str] = TARGETS,
    library: Library = "tensorrt-rtx",
    refit: bool = False,
    plugins: bool = False,
    on_built: Callable[[Engine], None] | None = None,
) -> list[Engine]:
    """Build an engine of every graph for every target, write the files into the bundle and record them in its manifest.

    Nothing is written before all engines are built. TensorRT-RTX puts the engines of all targets into one file, in the
    time of one build. Files of engines that the new ones replace are deleted.

    `shapes` are (smallest, usual, largest) sizes of free axes, in frames or pixels; the other axes have those of
    `default_shapes`. `refit` allows weights to be replaced in open engines. `plugins` puts stvsr's own kernels into the
    engines, which only TensorRT supports. `on_built` is called with each engine.

    Raises RequestError for shapes that the bundle does not take, BackendError if the library is missing or cannot
    build.
    """
    if plugins and library != "tensorrt":
        raise BackendError("TensorRT-RTX has no plugins: use --library tensorrt, or compile without --plugins.")
    targets = tuple(dict.fromkeys(targets))
    complete = complete_shapes(shapes or {}, bundle.manifest)
    specs_by_graph = [
        [_engine_spec(bundle, graph.role, precision, complete, target, library, refit) for target in targets]
        for graph in bundle.manifest.graphs
    ]
    engines = []
    with staging_folder(bundle.folder) as folder:
        for first, *others in specs_by_graph:
            spec = first.model_copy(update={"plugins": plugins})
            file = f"{spec.role}.{library}.{'-'.join(targets)}.{precision}.engine"
            built = _build(bundle, spec, folder / file, [other.target for other in others])
            for target in targets:
                engines.append(built.model_copy(update={"target": target}))
                if on_built:
                    on_built(engines[-1])
        for file in {engine.file for engine in engines}:
            (folder / file).replace(bundle.folder / file)
        with locked(bundle.folder / MANIFEST):
            manifest = Bundle.load(bundle.folder).manifest  # another process may have changed it meanwhile
            replaced = set(map(_identity, engines))
            kept = [engine for engine in manifest.engines if _identity(engine) not in replaced]
            write_manifest(bundle.folder, manifest.model_copy(update={"engines": (*kept, *engines)}))
        for file in {engine.file for engine in manifest.engines} - {engine.file for engine in (*kept, *engines)}:
            (bundle.folder / file).unlink(missing_ok=True)
    return engines


def find_engine(
    bundle: Bundle,
    role: Role,
    *,
    target: str,
    precision: Precision = "fp32",
    shapes: Shapes | None = None,
    sizes: Mapping[str, int] | None = None,
    library: Library = "tensorrt-rtx",
    refit: bool = False,
    warn: Callable[[str], None] | None = None,
) -> Path:
    """Return the file of an engine: from the bundle, from the cache, or newly built into the cache.

    The engine takes inputs of `sizes`, if given. A new one also takes those of `shapes`, which are completed as in
    `compile_bundle`. Engines that are damaged or do not fit are not used, and `warn` is called with a sentence about
    each. Raises what `compile_bundle` raises; a failed build leaves nothing in the cache.
    """
    complete = complete_shapes(shapes or {}, bundle.manifest)
    needed = {name: (size, size, size) for name, size in (sizes or {}).items()} or complete
    spec = _engine_spec(bundle, role, precision, extend_shapes(complete, sizes or {}), target, library, refit)
    needed_spec = spec.model_copy(update={"shapes": {name: needed[name] for name in spec.shapes}})
    for engine in bundle.manifest.engines:
        if _identity(engine) == (role, target, precision, library):
            path = bundle.folder / engine.file
            mismatch = engine_mismatch(engine, path, needed_spec)
            if mismatch is None:
                return path
            if warn:
                warn(f"The engine {path} {mismatch} and is not used: compile the bundle again.")
    entry = entry_folder(spec)
    if entry.exists():
        mismatch = entry_mismatch(entry, spec)
        if mismatch is None:
            return entry / ENGINE_FILE
        if warn:
            warn(f"The engine {entry / ENGINE_FILE} {mismatch} and is built again.")
    with staging_folder(entry.parent) as folder:
        new = folder / "new"
        new.mkdir()
        engine = _build(bundle, spec, new / ENGINE_FILE)
        (new / RECORD_FILE).write_text(engine.model_dump_json(indent=2) + "\n", encoding="utf-8")
        publish(new, entry, spec)
    return entry / ENGINE_FILE


def _identity(engine: Engine) -> tuple[str, ...]:
    """Return the fields that tell the engines of a bundle apart: it has one engine for each combination."""
    return engine.role, engine.target, engine.precision, engine.library


def _engine_spec(
    bundle: Bundle, role: Role, precision: Precision, shapes: Shapes, target: str, library: Library, refit: bool
) -> EngineSpec:
    if precision not in get_args(Precision):
        raise BackendError(f"Unknown precision '{precision}': use {listed(get_args(Precision))}.")
    version = load_library(library).__version__
    check_target(target, library)
    graph = bundle.graph(role)
    axes = sorted(free_axes(graph))
    for name in axes:
        if name not in shapes:
            raise RequestError(f"The axis '{name}' of {graph.file} has no sizes: give its smallest, usual and largest.")
    return EngineSpec(
        role=role,
        graph_sha256=graph.sha256,
        precision=precision,
        shapes={name: shapes[name] for name in axes},
        target=target,
        library=library,
        version=version,
        lowering=LOWERING_VERSION,
        refit=refit,
    )


def _build(bundle: Bundle, spec: EngineSpec, path: Path, other_targets: Sequence[str] = ()) -> Engine:
    """Build an engine, write it to `path` and return its record."""
    path.write_bytes(build_engine(_lowered_graph(bundle, spec), bundle.graph(spec.role), spec, other_targets))
    return Engine(**spec.model_dump(), file=path.name, sha256=file_sha256(path))


def _lowered_graph(bundle: Bundle, spec: EngineSpec) -> bytes:
    """Return a graph in the operators and types that the engine needs, serialized as ONNX."""
    model = import_onnx().load(bundle.path(spec.role))
    if spec.plugins:
        register_plugins()
        model = to_plugins(model, bundle.manifest.architecture.config)
    else:
        model = lower_deform_conv(model)
    if spec.precision == "fp16":
        model = to_fp16(model, COORDINATES | {flow.name for flow in bundle.manifest.flows})
    return bytes(model.SerializeToString())
