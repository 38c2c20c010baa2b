"""The bundle: a folder with `manifest.json` and its graphs, all that a host needs to run one network.

A bundle is read once, checked against the files beside its manifest and frozen. C++ hosts read the same files.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from .errors import BundleError, RequestError
from .manifest import FORMAT, Graph, Manifest, Role, TensorSpec

MANIFEST = "manifest.json"
MODELS = Path(__file__).parents[1] / "models"  # the bundles that the package ships


@dataclass(frozen=True)
class Bundle:
    """A bundle whose graphs were found beside its manifest and are the ones it names."""

    folder: Path
    manifest: Manifest
    fingerprint: (
        str  # sha256 of manifest.json without its engines; it holds the graphs' sums: it names the whole bundle
    )

    @classmethod
    def load(cls, folder: str | Path) -> "Bundle":
        """Read and check the bundle in `folder`."""
        folder = Path(folder)
        path = folder / MANIFEST
        try:
            text = path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{folder} is no bundle: {MANIFEST} cannot be read there ({error.strerror}); name a bundle's folder."
            ) from error
        manifest = _parse(text, path)
        for graph in manifest.graphs:
            _verify(folder / graph.file, graph.sha256)
        if manifest.engines:
            text = _text(manifest.model_copy(update={"engines": ()}))
        return cls(folder, manifest, hashlib.sha256(text).hexdigest())

    def graph(self, role: Role) -> Graph:
        """Return the graph with this role."""
        for graph in self.manifest.graphs:
            if graph.role == role:
                return graph
        raise BundleError(f"{self.folder / MANIFEST} names no graph '{role}': it cannot be run as a pair of frames.")

    def path(self, role: Role) -> Path:
        """Return the file of the graph with this role."""
        return self.folder / self.graph(role).file


def _parse(text: bytes, path: Path) -> Manifest:
    try:
        raw = json.loads(text)
    except ValueError as error:
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
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise BundleError(
            f"{path} is not a manifest of format {FORMAT}: {where + ': ' if where else ''}{what};"
            " export the bundle again."
        ) from error


def _verify(path: Path, sha256: str) -> None:
    try:
        found = file_sha256(path)
    except OSError as error:
        raise BundleError(
            f"{path} is named by its manifest and cannot be read ({error.strerror}); restore the file."
        ) from error
    if found != sha256:
        raise BundleError(
            f"{path} has changed since its manifest was written (sha256 {found[:12]}..., expected {sha256[:12]}...);"
            " restore the file or export the bundle again."
        )


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def graph_entry(path: Path, role: Role, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Graph:
    """Describe a graph that lies in its bundle's folder; a session on it knows its inputs and outputs."""
    return Graph(role=role, file=path.name, sha256=file_sha256(path), inputs=inputs, outputs=outputs)


def _text(manifest: Manifest) -> bytes:
    without = None if manifest.engines else {"engines"}
    return (manifest.model_dump_json(indent=2, exclude=without) + "\n").encode()


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write `manifest.json` beside the graphs, by one rename: no reader sees half of it."""
    path = folder / MANIFEST
    partial = path.with_suffix(".json.partial")
    partial.write_bytes(_text(manifest))
    partial.replace(path)
    return path


@contextmanager
def new_bundle(folder: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty folder to write a bundle to: it takes its name when all went well, and is gone when not.

    What is there already stays until then, and where it is no bundle, for good. Raises RequestError where it may not
    be replaced.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not overwrite:
            raise RequestError(f"{folder} exists already; name another folder or pass --overwrite.")
        if not (folder.is_dir() and _holds_bundles(folder)):
            raise RequestError(
                f"{folder} holds something else than a bundle, and is not overwritten; name another folder."
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as unfinished:
        made, replaced = Path(unfinished) / folder.name, Path(unfinished) / "replaced"
        made.mkdir()
        yield made
        if folder.exists():
            folder.rename(replaced)
        try:
            made.rename(folder)
        except OSError:
            with suppress(OSError):
                replaced.rename(folder)
            raise


def _holds_bundles(folder: Path) -> bool:
    """Whether it is a bundle, or holds the parts of a chain and nothing else."""
    return all((part / MANIFEST).is_file() for part in ([folder] if (folder / MANIFEST).exists() else folder.iterdir()))


def copy_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """Copy a bundle's graphs and engines to an empty folder, and load it there."""
    for file in (part.file for parts in (bundle.manifest.graphs, bundle.manifest.engines) for part in parts):
        shutil.copyfile(bundle.folder / file, folder / file)
    write_manifest(folder, bundle.manifest)
    return Bundle.load(folder)


def shipped_bundles() -> dict[str, Path]:
    """Return the bundles inside the package: name -> folder."""
    return {path.parent.name: path.parent for path in sorted(MODELS.glob(f"*/{MANIFEST}"))}


def find_bundle(name_or_path: str | Path) -> Bundle:
    """Load a shipped bundle by its name, or the bundle in a folder."""
    shipped = shipped_bundles()
    if str(name_or_path) in shipped:
        return Bundle.load(shipped[str(name_or_path)])
    if Path(name_or_path).is_dir():
        return Bundle.load(name_or_path)
    known = ", ".join(shipped) or "none"
    raise BundleError(f"There is no bundle '{name_or_path}': name a shipped one ({known}) or the folder of another.")


def find_bundles(names: str | Path) -> tuple[Bundle, ...]:
    """Load one bundle, or the two of a chain, TEMPORAL+SPATIAL."""
    first, plus, second = str(names).partition("+")
    if not plus or str(names) in shipped_bundles() or Path(names).is_dir():
        return (find_bundle(names),)
    return find_bundle(first), find_bundle(second)
