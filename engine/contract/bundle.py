"""Bundles: a folder with `manifest.json` and ONNX graphs, everything that a host needs to run one network.

A bundle is read once, checked against the files beside its manifest and frozen. C++ hosts read the same files.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from .atomic import atomic_path, new_folder
from .errors import BundleError, RequestError
from .files import read_file
from .graph_file import compare_tensors, read_interface
from .manifest import FORMAT, Graph, Manifest, Role, TensorSpec

MANIFEST = "manifest.json"
LARGEST_MANIFEST, LARGEST_GRAPH = 16 << 20, 2 << 30  # bytes; protobuf allows no larger graph
MODELS = Path(__file__).parents[1] / "models"  # the bundles that the package ships


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest is valid and whose graph files match it.

    `fingerprint` is the sha256 of the manifest without its engines. The manifest contains the sha256 of every graph, so
    the fingerprint identifies the whole bundle, compiled or not.
    """

    folder: Path
    manifest: Manifest
    fingerprint: str

    @classmethod
    def load(cls, folder: str | Path) -> "Bundle":
        """Read the bundle in `folder` and check its manifest and graphs; engine files are not checked.

        Raises BundleError if the manifest is missing or invalid, or if a graph is missing, has changed, declares other
        inputs or outputs than the manifest, or keeps weights in another file.
        """
        folder = Path(folder)
        path = folder / MANIFEST
        try:
            text = read_file(path, LARGEST_MANIFEST)
        except OSError as error:
            raise BundleError(
                f"{folder} is no bundle: {MANIFEST} cannot be read there ({error.strerror}); name a bundle's folder."
            ) from error
        manifest = parse_manifest(text, path)
        for graph in manifest.graphs:
            _check_graph(folder / graph.file, graph, *manifest.tensors_of(graph.role))
        if manifest.engines:
            text = _serialize(manifest.model_copy(update={"engines": ()}))
        return cls(folder, manifest, hashlib.sha256(text).hexdigest())

    def graph(self, role: Role) -> Graph:
        """Return the graph with this role; raises BundleError if the bundle has none."""
        for graph in self.manifest.graphs:
            if graph.role == role:
                return graph
        raise BundleError(f"{self.folder / MANIFEST} names no graph '{role}': use another bundle.")

    def path(self, role: Role) -> Path:
        """Return the file of the graph with this role; raises BundleError if the bundle has none."""
        return self.folder / self.graph(role).file


def parse_manifest(text: bytes, path: Path) -> Manifest:
    """Return the manifest in a JSON text; `path` is its file, for messages. Raises BundleError if it is invalid."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{path} is not valid JSON ({error}); restore the file or export the bundle again."
        ) from error
    version = raw.get("format") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise BundleError(f"{path} is of format {version}, and this stvsr reads up to {FORMAT}: update stvsr.")
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        raise BundleError(
            f"{path} is not a manifest of format {FORMAT}: {field + ': ' if field else ''}{problem};"
            " export the bundle again."
        ) from error


def _check_graph(path: Path, graph: Graph, inputs: set[str], outputs: set[str]) -> None:
    """Raise BundleError unless the file of a graph can be read, is what its manifest states, and has these tensors."""
    try:
        content = read_file(path, LARGEST_GRAPH)
    except OSError as error:
        raise BundleError(
            f"{path} is named by its manifest and cannot be read ({error.strerror}); restore the file."
        ) from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != graph.sha256:
        raise BundleError(
            f"{path} has changed since its manifest was written (sha256 {actual[:12]}..., expected"
            f" {graph.sha256[:12]}...); restore the file or export the bundle again."
        )
    try:
        interface = read_interface(content)
        compare_tensors("input", graph.inputs, interface.inputs, inputs)
        compare_tensors("output", graph.outputs, interface.outputs, outputs)
    except BundleError as error:
        raise BundleError(f"{path} {error}; export the bundle again, or use another one.") from error


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def graph_entry(path: Path, role: Role, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Graph:
    """Return the manifest's entry for a graph file that lies in the bundle's folder."""
    return Graph(role=role, file=path.name, sha256=file_sha256(path), inputs=inputs, outputs=outputs)


def _serialize(manifest: Manifest) -> bytes:
    """Return the JSON text of a manifest; `engines` and `precisions` are left out if they are empty."""
    exclude = {name for name in ("engines", "precisions") if not getattr(manifest, name)}
    return (manifest.model_dump_json(indent=2, exclude=exclude) + "\n").encode()


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write `manifest.json` to `folder` and return its path; no reader sees a part of it."""
    path = folder / MANIFEST
    with atomic_path(path) as partial:
        partial.write_bytes(_serialize(manifest))
    return path


def new_bundle(folder: str | Path, overwrite: bool = False) -> AbstractContextManager[Path]:
    """Return a context with a temporary folder for the files of a bundle, renamed to `folder` if the block succeeds.

    If the block raises, the temporary folder is deleted and `folder` stays as it was. Raises RequestError if `folder`
    exists and is not empty, unless `overwrite` is set and it is a bundle or contains only bundles.
    """
    return new_folder(Path(folder), "a bundle", overwrite, _contains_only_bundles)


def _contains_only_bundles(folder: Path) -> bool:
    """Return whether a folder is a bundle, or contains the bundles of a chain and no other files."""
    bundles = [folder] if (folder / MANIFEST).exists() else folder.iterdir()
    return all((bundle / MANIFEST).is_file() for bundle in bundles)


def copy_bundle(bundle: Bundle, folder: Path, engines: bool = True) -> Bundle:
    """Copy a bundle's graphs, and its engines unless `engines` is false, to an empty folder, and load the copy."""
    manifest = bundle.manifest if engines else bundle.manifest.model_copy(update={"engines": ()})
    for file in (part.file for parts in (manifest.graphs, manifest.engines) for part in parts):
        try:
            shutil.copyfile(bundle.folder / file, folder / file)
        except FileNotFoundError as error:
            raise BundleError(
                f"{bundle.folder / file} is named by its manifest and is missing; restore the file, or compile the"
                " bundle again."
            ) from error
    write_manifest(folder, manifest)
    return Bundle.load(folder)


def shipped_bundles() -> dict[str, Path]:
    """Return the folders of the bundles inside the package, by name."""
    return _bundles_in(MODELS)


def installed_folder() -> Path:
    """Return the folder of installed bundles: STVSR_MODELS, else where this system keeps a user's data."""
    if folder := os.environ.get("STVSR_MODELS"):
        return Path(folder).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "stvsr" / "models"


def named_bundles() -> dict[str, Path]:
    """Return the folders of the bundles that have a name: the shipped ones, then the installed ones."""
    shipped = shipped_bundles()
    return shipped | {name: path for name, path in _bundles_in(installed_folder()).items() if name not in shipped}


def find_bundle(name_or_path: str | Path) -> Bundle:
    """Load a shipped or installed bundle by its name, or the one in a folder. Raises BundleError if there is none."""
    named = named_bundles()
    if str(name_or_path) in named:
        return Bundle.load(named[str(name_or_path)])
    if Path(name_or_path).is_dir():
        return Bundle.load(name_or_path)
    known = ", ".join(named) or "none"
    raise BundleError(f"There is no bundle '{name_or_path}': name one of 'stvsr models' ({known}) or a folder.")


def _bundles_in(folder: Path) -> dict[str, Path]:
    # Listing is faster than a pattern, and every request of a server asks.
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    return {name: folder / name for name in names if os.path.isfile(f"{folder}/{name}/{MANIFEST}")}


def find_bundles(names: str | Path) -> tuple[Bundle, ...]:
    """Load one bundle, or the two of a chain that is written as TEMPORAL+SPATIAL."""
    return tuple(find_bundle(name) for name in _parts(names))


def is_bundle(names: str | Path) -> bool:
    """Return whether a text names a bundle, or the two of a chain: shipped, installed, or folders."""
    named = named_bundles()
    return all(part in named or (Path(part) / MANIFEST).is_file() for part in _parts(names))


def short_names(models: Sequence[str]) -> dict[str, str]:
    """Return bundles and chains by short names: the last parts of their paths, or whole paths where those are the same.

    Raises RequestError for one that is given twice.
    """
    if len(set(models)) < len(models):
        raise RequestError("A bundle is named twice: name each once.")
    short = ["+".join(Path(part).name or part for part in _parts(model)) for model in models]
    return dict(zip(short if len(set(short)) == len(short) else models, models, strict=True))


def _parts(names: str | Path) -> list[str]:
    """Return the names of one bundle, or of the two of a chain."""
    first, plus, second = str(names).partition("+")
    return [first, second] if plus and str(names) not in named_bundles() and not Path(names).is_dir() else [str(names)]
