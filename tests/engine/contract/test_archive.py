"""Archives of bundles: packed, installed by name, and refused if they contain anything else."""

import errno
import zipfile
from pathlib import Path

import pytest
from stvsr import Bundle, BundleError, RequestError
from stvsr.engine.contract.archive import install, pack
from stvsr.engine.contract.bundle import find_bundle, named_bundles, shipped_bundles

from tests.support.toy import write_toy


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of installed bundles."""
    monkeypatch.setenv("STVSR_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def toy(tmp_path: Path) -> Bundle:
    return Bundle.load(write_toy(tmp_path / "toy"))


def test_installed_bundles_are_found_by_name(installed: Path, toy: Bundle, tmp_path: Path) -> None:
    archive = pack([toy], tmp_path / "toys.zip")
    (bundle,) = install(archive)
    assert bundle.folder == installed / "toy"
    assert find_bundle("toy").fingerprint == toy.fingerprint
    assert list(named_bundles()) == [*shipped_bundles(), "toy"]
    assert sorted(path.name for path in installed.iterdir()) == ["toy"], "nothing temporary is left"


def test_equal_bundles_make_equal_archives(toy: Bundle, tmp_path: Path) -> None:
    first, second = (pack([toy], tmp_path / name).read_bytes() for name in ("a.zip", "b.zip"))
    assert first == second


def test_a_shipped_name_stays_that_of_the_shipped_bundle(installed: Path, tmp_path: Path) -> None:
    name, folder = next(iter(shipped_bundles().items()))
    install(pack([Bundle.load(write_toy(tmp_path / name))], tmp_path / "a.zip"))
    assert find_bundle(name).folder == folder


def test_nothing_is_replaced_without_overwrite(installed: Path, toy: Bundle, tmp_path: Path) -> None:
    archive = pack([toy], tmp_path / "a.zip")
    install(archive)
    with pytest.raises(RequestError, match="'toy' is installed already: pass --overwrite"):
        install(archive)
    assert install(archive, overwrite=True)[0].fingerprint == toy.fingerprint
    with pytest.raises(RequestError, match=r"a\.zip exists already"):
        pack([toy], archive)
    with pytest.raises(RequestError, match="Two bundles are named 'toy'"):
        pack([toy, toy], tmp_path / "b.zip")


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("../evil/manifest.json", b"{}", "contains '../evil/manifest.json', which is no part of a bundle"),
        ("/manifest.json", b"{}", "no part of a bundle"),
        ("toy/more/manifest.json", b"{}", "no part of a bundle"),
        ("toy/run.sh", b"", "no part of a bundle"),
        ("toy/manifest.json", b"{}", "is not a manifest"),
        ("toy/network.onnx", b"", "is no bundle"),
    ],
)
def test_anything_but_bundles_is_refused(
    installed: Path, tmp_path: Path, member: str, content: bytes, message: str
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, content)
    with pytest.raises(BundleError, match=message):
        install(tmp_path / "a.zip")
    assert list(installed.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_a_changed_graph_is_refused_and_no_bundle_is_installed(installed: Path, toy: Bundle, tmp_path: Path) -> None:
    other = Bundle.load(write_toy(tmp_path / "other"))
    pack([other, toy], tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as source, zipfile.ZipFile(tmp_path / "b.zip", "w") as target:
        for member in source.infolist():
            changed = member.filename == "toy/encoder.onnx"
            target.writestr(member, b"changed" if changed else source.read(member))
    with pytest.raises(BundleError, match="has changed since its manifest was written"):
        install(tmp_path / "b.zip")
    assert list(installed.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x05\x06" + bytes(18)])
def test_files_without_bundles_are_refused(installed: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BundleError, match=r"a\.zip (cannot be read as an archive of bundles|contains no bundle)"):
        install(tmp_path / "a.zip")


def test_a_missing_archive_is_reported(installed: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file"):
        install(tmp_path / "a.zip")


def test_a_full_disk_is_not_taken_for_a_damaged_archive(
    installed: Path, toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack([toy], tmp_path / "a.zip")

    def fail(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(BundleError, match=r"a\.zip cannot be unpacked\. The disk is full: free some space"):
        install(archive)
