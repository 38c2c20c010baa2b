"""Engines of a bundle: written beside its graphs, or kept in a cache and built when they are first wanted."""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .bundle import Bundle, file_sha256
from .errors import BackendError, RequestError
from .lowering import COORDINATES, LOWERING, import_onnx, lower, to_half
from .manifest import ContinuousSpace, Manifest, Role
from .tensorrt import Library, Shapes, build_engine, check_target, free_axes, load_library

Precision = Literal["fp32", "fp16"]
TARGETS = ("sm80", "sm89", "sm120")

# Input pixels that engines are built for unless told: frames of up to 640x360 go through a network whole, upright ones
# too, and larger ones in tiles.
_USUAL_PX = {"height": 360, "width": 640}
_LARGEST_PX = 640
_LEAST_TARGET_PX = 2
_USUAL_SCALE = 4
_RECORD, _ENGINE = "engine.json", "network.engine"  # of an entry of the cache
_ATTEMPTS = 5  # to give an entry its name while other processes do the same


class Recipe(BaseModel):
    """All that an engine is built from and for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    role: Role
    graph_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    precision: Precision
    shapes: dict[str, tuple[int, int, int]]  # smallest, usual and largest size of each free axis
    target: str = Field(pattern=r"^sm\d+$")  # compute capability
    library: Library
    version: str  # of the library
    lowering: int  # of the passes between graph and engine


class Engine(Recipe):
    """An engine's file, beside the graphs."""

    file: str = Field(pattern=r"^[\w\-][\w\-.]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def compile_bundle(
    bundle: Bundle,
    *,
    precision: Precision = "fp32",
    shapes: Shapes | None = None,
    targets: Sequence[str] = TARGETS,
    library: Library = "tensorrt-rtx",
    on_built: Callable[[Engine], None] | None = None,
) -> list[Engine]:
    """Build an engine of every graph for every target and write them beside the graphs once all are built.

    `shapes` says (smallest, usual, largest) of free axes, in frames or pixels; the others are those of
    `default_shapes`. Raises RequestError for shapes that the bundle does not take, BackendError where the library is
    missing or cannot build.
    """
    graphs, each_target = bundle.manifest.graphs, dict.fromkeys(targets)
    recipes = [_recipe(bundle, g.role, precision, shapes, target, library) for g in graphs for target in each_target]
    models: dict[Role, bytes] = {}
    engines = []
    with _unfinished(bundle.folder) as folder:
        for recipe in recipes:
            if recipe.role not in models:
                models[recipe.role] = _lowered(bundle, recipe)
            file = f"{recipe.role}.{library}.{recipe.target}.{precision}.engine"
            engines.append(_build(bundle, recipe, models[recipe.role], folder / file))
            if on_built:
                on_built(engines[-1])
        for engine in engines:
            (folder / engine.file).replace(bundle.folder / engine.file)
    return engines


def find_engine(
    bundle: Bundle,
    role: Role,
    *,
    target: str,
    precision: Precision = "fp32",
    shapes: Shapes | None = None,
    library: Library = "tensorrt-rtx",
    compiled: Iterable[Engine] = (),
    say: Callable[[str], None] | None = None,
) -> Path:
    """Return an engine's file: one of `compiled` beside the graphs, one of the cache, or else a new one there.

    An engine that is damaged or belongs to something else is not used, and `say` is told so in a sentence. Raises what
    `compile_bundle` raises; a failed build leaves nothing.
    """
    recipe = _recipe(bundle, role, precision, shapes, target, library)
    for engine in compiled:
        if (engine.role, engine.target, engine.precision, engine.library) == (role, target, precision, library):
            path = bundle.folder / engine.file
            problem = _problem(engine, path, recipe)
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
        shapes["frames"] = (2, frames, frames)
    padded = manifest.size.padded
    for name, usual in _USUAL_PX.items():
        low, high = padded(1), padded(_LARGEST_PX)
        shapes[name] = (low, padded(usual), high)
        if isinstance(manifest.space, ContinuousSpace):
            most = int(manifest.space.maximum * high)
            shapes[f"target_{name}"] = (_LEAST_TARGET_PX, min(_USUAL_SCALE * padded(usual), most), most)
    return shapes


def _recipe(
    bundle: Bundle, role: Role, precision: Precision, shapes: Shapes | None, target: str, library: Library
) -> Recipe:
    if precision not in get_args(Precision):
        raise BackendError(f"There is no precision '{precision}': use {' or '.join(get_args(Precision))}.")
    version = load_library(library).__version__
    check_target(target, library)
    graph = bundle.graph(role)
    every = _checked(shapes or {}, bundle.manifest)
    needed = sorted(free_axes(graph))
    for name in needed:
        if name not in every:
            raise RequestError(f"The axis '{name}' of {graph.file} has no sizes: give its smallest, usual and largest.")
    return Recipe(
        role=role,
        graph_sha256=graph.sha256,
        precision=precision,
        shapes={name: every[name] for name in needed},
        target=target,
        library=library,
        version=version,
        lowering=LOWERING,
    )


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
    model = lower(import_onnx().load(bundle.path(recipe.role)))
    if recipe.precision == "fp16":
        model = to_half(model, COORDINATES | {flow.name for flow in bundle.manifest.flows})
    return bytes(model.SerializeToString())


def _build(bundle: Bundle, recipe: Recipe, model: bytes, path: Path) -> Engine:
    path.write_bytes(build_engine(model, bundle.graph(recipe.role), recipe.shapes, recipe.target, recipe.library))
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
