"""Folders of files, on this machine and in stores of objects."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from stvsr import BackendError, RequestError
from stvsr.engine.media.folders import Folder, is_remote, open_folder, split_address

from tests.support.objects import object_store

pytest.importorskip("fsspec", reason="fsspec is not installed")


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    work = tmp_path / "work"
    if request.param == "local":
        yield open_folder(tmp_path / "folder", work)
    elif request.param == "memory":
        yield open_folder(f"memory://{secrets.token_hex(4)}/folder", work)
    else:
        with object_store(monkeypatch) as bucket:
            yield open_folder(f"{bucket}/a/folder/", work)


def test_files_are_written_read_and_listed(folder: Folder, tmp_path: Path) -> None:
    assert folder.names() == []
    assert not folder.exists("a.json")
    folder.create()
    folder.create()
    folder.write("a.json", b"first")
    folder.write("a.json", b"second")
    assert folder.exists("a.json")
    assert folder.read("a.json") == b"second"
    content = os.urandom(100_000)
    folder.path("b.mkv").write_bytes(content)
    folder.keep("b.mkv")
    (tmp_path / "source").write_bytes(content[:10])
    folder.put(tmp_path / "source", "c.mkv")
    assert folder.names() == ["a.json", "b.mkv", "c.mkv"]
    assert folder.fetch("b.mkv") == folder.path("b.mkv")
    assert folder.fetch("b.mkv").read_bytes() == content
    assert folder.fetch("c.mkv").read_bytes() == content[:10]
    folder.remove()
    assert folder.names() == []
    folder.remove()


def test_a_file_that_is_missing_is_not_found(folder: Folder) -> None:
    folder.create()
    with pytest.raises(FileNotFoundError):
        folder.read("none")
    with pytest.raises(FileNotFoundError):
        folder.fetch("none")


@pytest.mark.slow
def test_a_bucket_that_is_missing_is_an_error_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with object_store(monkeypatch):
        folder = open_folder("s3://others/folder", tmp_path)
        folder.create()
        with pytest.raises(FileNotFoundError) as error:
            folder.write("a.json", b"content")
        assert error.value.strerror == "The specified bucket does not exist"


def test_addresses_and_paths(tmp_path: Path) -> None:
    assert is_remote("s3://bucket/clip.mp4")
    assert not any(map(is_remote, ("clip.mp4", "s3:/bucket", "://x", "C:\\clip.mp4", "s3://", None, Path("s3://x"))))
    assert split_address("s3://bucket/a/clip.mp4") == ("s3://bucket/a", "clip.mp4")
    assert split_address("out/clip.mp4") == (Path("out").absolute(), "clip.mp4")
    for address in ("s3://bucket", "s3://bucket/"):
        with pytest.raises(RequestError, match="names no file"):
            split_address(address)
    with pytest.raises(RequestError, match="nothing://x cannot be opened"):
        open_folder("nothing://x", tmp_path)


def test_packages_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(BackendError, match=r'pip install "stvsr\[s3\]"'):
        open_folder("s3://bucket/folder", tmp_path)
