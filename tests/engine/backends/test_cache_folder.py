"""The cache of files that save time: where it is, and that a run goes on without it."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from stvsr.engine.backends import cuda
from stvsr.engine.backends.cache_folder import cache_folder, read_cached, writable_folder, write_cached


def test_the_cache_is_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path))
    assert cache_folder("engines") == tmp_path / "engines"
    monkeypatch.delenv("STVSR_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("engines") == tmp_path / "stvsr" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("engines") == Path.home() / ".cache" / "stvsr" / "engines"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert cache_folder("engines") == tmp_path / "stvsr" / "engines"


def test_a_file_is_whole_or_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path / "cache"))
    assert read_cached("timing", "a") == b""
    write_cached("timing", "a", b"one")
    write_cached("timing", "a", b"two")
    assert read_cached("timing", "a") == b"two"

    def full(source: str, target: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    write_cached("timing", "a", b"three")
    assert read_cached("timing", "a") == b"two"
    assert [file.name for file in (tmp_path / "cache" / "timing").iterdir()] == ["a"]


def test_a_cache_that_cannot_be_written_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path / "file"))
    assert writable_folder("timing") is None
    write_cached("timing", "a", b"one")
    assert read_cached("timing", "a") == b""


@pytest.mark.parametrize("writable", [True, False])
def test_compiled_kernels_are_kept_in_the_cache(
    writable: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """CuPy reads its environment when it compiles the first kernel."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path / "cache" if writable else tmp_path / "file"))
    for name in ("CUPY_CACHE_DIR", "CUPY_CACHE_IN_MEMORY"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "cupy", ModuleType("cupy"))
    cuda.import_cupy.cache_clear()
    cuda.import_cupy()
    cuda.import_cupy.cache_clear()
    if writable:
        assert os.environ["CUPY_CACHE_DIR"] == str(tmp_path / "cache" / "kernels")
        assert (tmp_path / "cache" / "kernels").is_dir()
    else:
        assert os.environ["CUPY_CACHE_IN_MEMORY"] == "1"
    assert "CUPY_CACHE_DIR" in os.environ or not writable


def test_a_folder_that_the_user_chose_for_kernels_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "cupy", ModuleType("cupy"))
    cuda.import_cupy.cache_clear()
    cuda.import_cupy()
    cuda.import_cupy.cache_clear()
    assert os.environ["CUPY_CACHE_DIR"] == str(tmp_path)
