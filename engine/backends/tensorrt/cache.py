"""The cache of engines: a folder for each specification, with an engine and its record.

Entries appear whole or not at all. Processes may share the cache: each builds in a folder of its own, and renames it.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from ...contract.atomic import scratch_folder
from ...contract.bundle import file_sha256
from ...contract.errors import BackendError
from ...contract.manifest import Engine, EngineSpec
from ..cache_folder import cache_folder
from .shapes import covers

ENGINES = "engines"  # folder of the cache
RECORD_FILE, ENGINE_FILE = "engine.json", "network.engine"
_ATTEMPTS = 5  # to publish an entry while other processes publish the same one


def entry_folder(spec: EngineSpec) -> Path:
    """Return the folder of the entry for a specification, whether or not it exists."""
    text = json.dumps(spec.model_dump(), sort_keys=True)
    return cache_folder(ENGINES) / f"{spec.role}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def engine_mismatch(engine: Engine, path: Path, spec: EngineSpec) -> str | None:
    """Return why a recorded engine, whose file is `path`, does not fit a specification, or None if it does.

    The result is a predicate, as in "was built from another graph". An engine may take more sizes than the
    specification, and may be refittable where it need not be.
    """
    if engine.graph_sha256 != spec.graph_sha256:
        return "was built from another graph"
    if (engine.library, engine.version) != (spec.library, spec.version):
        return f"was built by {engine.library} {engine.version}, but {spec.library} {spec.version} is installed,"
    if engine.lowering != spec.lowering:
        return "was built by another version of stvsr"
    if (engine.role, engine.target, engine.precision) != (spec.role, spec.target, spec.precision):
        return f"is the {engine.role} for {engine.target} in {engine.precision}"
    if spec.refit and not engine.refit:
        return "was built without --refit"
    if not covers(engine.shapes, spec.shapes):
        return "takes other sizes"
    try:
        return None if file_sha256(path) == engine.sha256 else "is damaged"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def entry_mismatch(entry: Path, spec: EngineSpec) -> str | None:
    """Return why the entry of the cache does not fit a specification, as a predicate, or None if it does."""
    try:
        engine = Engine.model_validate_json((entry / RECORD_FILE).read_bytes())
    except OSError as error:
        return f"has no record ({error.strerror})"
    except ValidationError:
        return "has a damaged record"
    return engine_mismatch(engine, entry / ENGINE_FILE, spec)


def publish(folder: Path, entry: Path, spec: EngineSpec) -> None:
    """Rename a complete folder to an entry of the cache, replacing one that does not fit.

    An entry that another process published meanwhile stays. Raises BackendError if others keep replacing it.
    """
    for attempt in range(_ATTEMPTS):
        try:
            folder.rename(entry)  # fails if the entry is a folder with files
            return
        except OSError:
            if not entry.exists() and attempt:
                raise
            if entry.exists() and entry_mismatch(entry, spec) is None:
                return
            with suppress(FileNotFoundError):  # another process moved it away
                entry.rename(folder.with_name(f"replaced{attempt}"))
    raise BackendError(f"Other processes replace {entry} again and again: delete it and run again.")


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """Make a temporary folder in `parent`, for files that are renamed when they are complete.

    Raises BackendError if the file system refuses anything in the `with` block.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(parent / ENGINES) as folder:
            yield folder
    except OSError as error:
        raise BackendError(
            f"Engines cannot be written to {parent} ({error.strerror or error}): free disk space, or make the folder"
            " writable. STVSR_CACHE names another folder for the cache."
        ) from error
