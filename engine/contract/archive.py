"""Archives of bundles: zip files that `stvsr pack` writes and `stvsr install` unpacks for this user."""

import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from .atomic import scratch_folder
from .bundle import MANIFEST, Bundle, copy_bundle, installed_folder, new_bundle
from .errors import BundleError, RequestError
from .shortage import describe_shortage

_MEMBER = re.compile(r"([\w\-][\w\-.]*)/([\w\-][\w\-.]*)")  # bundle, file
_LARGEST_BYTES = 4 << 30  # of all files together, unpacked
_TIME = (1980, 1, 1, 0, 0, 0)  # of every file, so that equal bundles make equal archives


def pack(bundles: Sequence[Bundle], path: str | Path, overwrite: bool = False) -> Path:
    """Write bundles, without their engines, to an archive, and return its path.

    The file appears complete or not at all. Raises RequestError if it exists and may not be overwritten, or if two
    bundles have the same name.
    """
    path = Path(path)
    names = [bundle.folder.name for bundle in bundles]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RequestError(f"Two bundles are named '{min(twice)}': pack them in two archives.")
    if path.exists() and not overwrite:
        raise RequestError(f"{path} exists already; name another file or pass --overwrite.")
    with scratch_folder(path) as folder:
        partial = folder / path.name
        with zipfile.ZipFile(partial, "w") as archive:
            for bundle in bundles:
                copied = folder / bundle.folder.name
                copied.mkdir()
                plain = copy_bundle(bundle, copied, engines=False)
                for file in [MANIFEST, *(graph.file for graph in plain.manifest.graphs)]:
                    member = zipfile.ZipInfo(f"{bundle.folder.name}/{file}", _TIME)
                    archive.writestr(member, (copied / file).read_bytes(), zipfile.ZIP_DEFLATED)
        partial.replace(path)
    return path


def install(path: str | Path, overwrite: bool = False) -> list[Bundle]:
    """Unpack the bundles of an archive to the folder of installed bundles, and return them.

    Every bundle is checked before the first one is installed. Raises BundleError if the file is no archive of bundles,
    and RequestError if a bundle of that name is installed already and may not be overwritten.
    """
    folder = installed_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder / "install") as temporary:
        unpacked = unpack(Path(path), temporary)
        installed = []
        for bundle in unpacked:
            target = folder / bundle.folder.name
            if target.exists() and not overwrite:
                raise RequestError(f"'{target.name}' is installed already: pass --overwrite to replace it.")
        for bundle in unpacked:
            target = folder / bundle.folder.name
            with new_bundle(target, overwrite) as partial:
                copy_bundle(bundle, partial)
            installed.append(Bundle.load(target))
    return installed


def unpack(path: Path, folder: Path) -> list[Bundle]:
    """Unpack an archive to an empty folder, and load its bundles.

    Raises BundleError if it is no archive of bundles, or if there is no room for them.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if sum(member.file_size for member in members) > _LARGEST_BYTES:
                raise BundleError(f"{path} unpacks to more than {_LARGEST_BYTES >> 30} GiB: choose another archive.")
            for member in members:
                match = _MEMBER.fullmatch(member.filename)
                if match is None or (match[2] != MANIFEST and not match[2].endswith(".onnx")):
                    raise BundleError(
                        f"{path} contains '{member.filename}', which is no part of a bundle: pack the bundles with"
                        " 'stvsr pack'."
                    )
                (folder / match[1]).mkdir(exist_ok=True)
                (folder / match[1] / match[2]).write_bytes(archive.read(member))
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        if (shortage := describe_shortage(error)) is not None:
            raise BundleError(f"{path} cannot be unpacked. {shortage}") from error
        reason = getattr(error, "strerror", None) or str(error)
        raise BundleError(f"{path} cannot be read as an archive of bundles ({reason}): download it again.") from error
    bundles = [Bundle.load(part) for part in sorted(folder.iterdir())]
    if not bundles:
        raise BundleError(f"{path} contains no bundle: choose another archive.")
    return bundles
