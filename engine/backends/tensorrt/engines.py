"""Engines of a bundle: written beside its graphs, or kept in a cache and built when they are first wanted."""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from ...contract.axes import Shapes, free_axes
from ...contract.bundle import Bundle, file_sha256, write_manifest
from ...contract.errors import BackendError, RequestError
from ...contract.manifest import ContinuousSpace, Engine, Library, Manifest, Precision, Recipe, Role
from .builder import build_engine, check_target, load_library
from .lowering import COORDINATES, LOWERING, import_onnx, lower, to_half
from .plugins.graph import register_plugins, to_plugins

TARGETS = ("sm80", "sm89", "sm120")

# Input pixels that engines are built for unless told: frames of up to 640x360 go through a network whole, upright ones
# too, and larger ones in tiles.
_USUAL_PX = {"height": 360, "width": 640}
_LARGEST_PX = 640
_LEAST_TARGET_PX = 2
_USUAL_SCALE = 4
_RECORD, _ENGINE = "engine.json", "network.engine"  # of an entry of the cache
_ATTEMPTS = 5  # to give an entry its name while other processes do the same


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
    """Build an engine of every graph for every target; once all are built, write them and record them in the manifest.

    TensorRT-RTX puts the engines of all targets into one file, in the time of one. Files that engines built before lose
    to these are removed.
    `shapes` says (smallest, usual, largest) of free axes, in frames or pixels; the others are those of
    `default_shapes`. `refit` lets weights be replaced in open engines; `plugins` puts stvsr's own kernels into them,
    which TensorRT alone takes. Raises RequestError for shapes that the bundle does not take, BackendError where the
    library is missing or cannot build.
    """
    if plugins and library != "tensorrt":
        raise BackendError("TensorRT-RTX takes no plugins: use --library tensorrt, or compile without them.")
    graphs, each_target = bundle.manifest.graphs, dict.fromkeys(targets)
    every = _checked(shapes or {}, bundle.manifest)
    recipes = [[_recipe(bundle, g.role, precision, every, t, library, refit) for t in each_target] for g in graphs]
    engines = []
    with _unfinished(bundle.folder) as folder:
        for first, *others in recipes:
            first = first.model_copy(update={"plugins": plugins})
            file = f"{first.role}.{library}.{'-'.join(each_target)}.{precision}.engine"
            built = _build(bundle, first, _lowered(bundle, first), folder / file, [other.target for other in others])
            for target in each_target:
                engines.append(built.model_copy(update={"target": target}))
                if on_built:
                    on_built(engines[-1])
        for file in {engine.file for engine in engines}:
            (folder / file).replace(bundle.folder / file)
        manifest = Bundle.load(bundle.folder).manifest  # as another process may have left it meanwhile
        made = set(map(_served, engines))
        kept = [engine for engine in manifest.engines if _served(engine) not in made]
        write_manifest(bundle.folder, manifest.model_copy(update={"engines": (*kept, *engines)}))
        for file in {engine.file for engine in manifest.engines} - {engine.file for engine in (*kept, *engines)}:
            (bundle.folder / file).unlink(missing_ok=True)
    return engines


def _served(engine: Engine) -> tuple[str, ...]:
    """Return what a bundle has one engine for."""
    return engine.role, engine.target, engine.precision, engine.library


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
    say: Callable[[str], None] | None = None,
) -> Path:
    """Return an engine's file: one of those beside the graphs, one of the cache, or else a new one there.

    It takes inputs of `sizes`, where they are given; a new one takes those of `shapes` too, as `compile_bundle` has
    them. An engine that is damaged or belongs to something else is not used, and `say` is told so in a sentence. Raises
    what `compile_bundle` raises; a failed build leaves nothing.
    """
    every = _checked(shapes or {}, bundle.manifest)
    needed = {name: (size, size, size) for name, size in (sizes or {}).items()} or every
    recipe = _recipe(bundle, role, precision, _with_sizes(every, sizes or {}), target, library, refit)
    asked = recipe.model_copy(update={"shapes": {name: needed[name] for name in recipe.shapes}})
    for engine in bundle.manifest.engines:
        if _served(engine) == (role, target, precision, library):
            path = bundle.folder / engine.file
            problem = _problem(engine, path, asked)
            if problem is None:
                return path
            if say:
                say(f"The engine {path} {problem} and is not used: compile the bundle again.")
    entry = cache_folder() / _key(recipe)
    if entry.exists():
        problem = _entry_problem(entry, recipe)
        if problem is None:
            return entry / _ENGINE
        if say:
            say(f"The engine {entry / _ENGINE} {problem} and is built again.")
    with _unfinished(entry.parent) as folder:
        made = folder / "made"
        made.mkdir()
        engine = _build(bundle, recipe, _lowered(bundle, recipe), made / _ENGINE)
        (made / _RECORD).write_text(engine.model_dump_json(indent=2) + "\n", encoding="utf-8")
        _publish(made, entry, recipe)
    return entry / _ENGINE


def cache_folder() -> Path:
    """Return the folder of cached engines: in STVSR_CACHE, or where this system keeps a user's caches."""
    if given := os.environ.get("STVSR_CACHE"):
        return Path(given).expanduser() / "engines"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "stvsr" / "engines"


def default_shapes(manifest: Manifest) -> dict[str, tuple[int, int, int]]:
    """Return (smallest, usual, largest) of every free axis: one window of what is not tiled."""
    shapes = {"batch": (1, 1, 1)}
    if manifest.window.kind == "doubled":
        frames = max(2, manifest.window.frames)
        shapes["frames"] = (2, frames, frames + 2 * manifest.window.overlap)
    padded = manifest.size.padded
    for name, usual in _USUAL_PX.items():
        low, high = padded(1), padded(_LARGEST_PX)
        shapes[name] = (low, padded(usual), high)
        if isinstance(manifest.space, ContinuousSpace):
            most = int(manifest.space.maximum * high)
            shapes[f"target_{name}"] = (_LEAST_TARGET_PX, min(_USUAL_SCALE * padded(usual), most), most)
    return shapes


def _recipe(
    bundle: Bundle, role: Role, precision: Precision, shapes: Shapes, target: str, library: Library, refit: bool
) -> Recipe:
    if precision not in get_args(Precision):
        raise BackendError(f"There is no precision '{precision}': use {' or '.join(get_args(Precision))}.")
    version = load_library(library).__version__
    check_target(target, library)
    graph = bundle.graph(role)
    needed = sorted(free_axes(graph))
    for name in needed:
        if name not in shapes:
            raise RequestError(f"The axis '{name}' of {graph.file} has no sizes: give its smallest, usual and largest.")
    return Recipe(
        role=role,
        graph_sha256=graph.sha256,
        precision=precision,
        shapes={name: shapes[name] for name in needed},
        target=target,
        library=library,
        version=version,
        lowering=LOWERING,
        refit=refit,
    )


def _with_sizes(shapes: Shapes, sizes: Mapping[str, int]) -> dict[str, tuple[int, int, int]]:
    """Return shapes that hold these sizes too; an engine is at its best at a size beyond them."""
    every = dict(shapes)
    for name, size in sizes.items():
        low, usual, high = every.get(name, (size,) * 3)
        every[name] = (min(low, size), usual if low <= size <= high else size, max(high, size))
    return every


def _checked(given: Shapes, manifest: Manifest) -> dict[str, tuple[int, int, int]]:
    """Return the default shapes with the given ones over them."""
    free = set[str]().union(*(free_axes(graph) for graph in manifest.graphs))
    for name, (low, usual, high) in given.items():
        if name not in free:
            raise RequestError(f"The bundle has no free axis '{name}': it has {', '.join(sorted(free))}.")
        if not 1 <= low <= usual <= high:
            raise RequestError(f"The axis '{name}' cannot go from {low} by {usual} to {high}: give sizes that grow.")
        if name in _USUAL_PX and any(manifest.size.padded(size) != size for size in (low, usual, high)):
            raise RequestError(
                f"The axis '{name}' cannot be {low}, {usual} and {high}: use multiples of {manifest.size.multiple_of}"
                f" from {manifest.size.padded(1)} on."
            )
    return {**default_shapes(manifest), **given}


def _lowered(bundle: Bundle, recipe: Recipe) -> bytes:
    """Return a graph as the library takes it, serialized as ONNX."""
    model = import_onnx().load(bundle.path(recipe.role))
    if recipe.plugins:
        register_plugins()
        model = to_plugins(model, bundle.manifest.architecture.config)
    else:
        model = lower(model)
    if recipe.precision == "fp16":
        model = to_half(model, COORDINATES | {flow.name for flow in bundle.manifest.flows})
    return bytes(model.SerializeToString())


def _build(bundle: Bundle, recipe: Recipe, model: bytes, path: Path, others: Sequence[str] = ()) -> Engine:
    path.write_bytes(build_engine(model, bundle.graph(recipe.role), recipe, others))
    return Engine(**recipe.model_dump(), file=path.name, sha256=file_sha256(path))


def _key(recipe: Recipe) -> str:
    text = json.dumps(recipe.model_dump(), sort_keys=True)
    return f"{recipe.role}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _problem(engine: Engine, path: Path, recipe: Recipe) -> str | None:
    """Say why an engine is not what is asked for, or None."""
    if engine.graph_sha256 != recipe.graph_sha256:
        return "was built from another graph"
    if (engine.library, engine.version) != (recipe.library, recipe.version):
        return f"was built by {engine.library} {engine.version}, where {recipe.library} {recipe.version} is installed,"
    if engine.lowering != recipe.lowering:
        return "was built by another version of stvsr"
    if (engine.role, engine.target, engine.precision) != (recipe.role, recipe.target, recipe.precision):
        return f"is the {engine.role} for {engine.target} in {engine.precision}"
    if recipe.refit and not engine.refit:
        return "keeps its weights"
    if not _covers(engine.shapes, recipe.shapes):
        return "takes other sizes"
    try:
        return None if file_sha256(path) == engine.sha256 else "is damaged"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _covers(shapes: Shapes, wanted: Shapes) -> bool:
    return shapes.keys() == wanted.keys() and all(
        shapes[name][0] <= wanted[name][0] and wanted[name][2] <= shapes[name][2] for name in wanted
    )


def _entry_problem(entry: Path, recipe: Recipe) -> str | None:
    try:
        engine = Engine.model_validate_json((entry / _RECORD).read_bytes())
    except OSError as error:
        return f"has no record ({error.strerror})"
    except ValidationError:
        return "has a damaged record"
    return _problem(engine, entry / _ENGINE, recipe)


def _publish(made: Path, entry: Path, recipe: Recipe) -> None:
    """Give a new entry its name, over one that is no good; one that another process has made meanwhile stays."""
    for attempt in range(_ATTEMPTS):
        try:
            made.rename(entry)  # refused where a folder is that holds anything
            return
        except OSError:
            if not entry.exists() and attempt:
                raise
            if entry.exists() and _entry_problem(entry, recipe) is None:
                return
            with suppress(FileNotFoundError):  # another process has moved it away
                entry.rename(made.with_name(f"replaced{attempt}"))
    raise BackendError(f"{entry} is replaced by other processes again and again: delete it and run again.")


@contextmanager
def _unfinished(parent: Path) -> Iterator[Path]:
    """Give a folder beside the results, which goes with all that is in it, and tell of what the system refuses."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".engines.", dir=parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise BackendError(
            f"Engines cannot be written to {parent} ({error.strerror or error}): make room or allow it; STVSR_CACHE"
            " names another folder for the cache."
        ) from error
