"""Files of others are read only if they are regular and not too large, and leftovers only if nobody holds them."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from stvsr.engine.contract.atomic import atomic_path
from stvsr.engine.contract.files import UnfitFileError, read_file
from stvsr.engine.contract.leftovers import Unfinished, remove_leftovers, temporary_path
from stvsr.engine.contract.shortage import describe_shortage


def test_a_regular_file_is_read_through_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link", 5) == b"12345"


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "large", "gone"])
def test_other_files_are_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "large":
            path.write_bytes(b"123456")
    expected = {"gone": FileNotFoundError, "folder": IsADirectoryError}.get(kind, UnfitFileError)
    with pytest.raises(expected):
        read_file(path, 5)


def test_only_unfinished_files_without_an_owner_are_removed(tmp_path: Path) -> None:
    held, left = Unfinished(tmp_path / "held.mp4"), Unfinished(tmp_path / "left.mp4")
    folder = Unfinished(tmp_path / "folder", is_folder=True)
    (folder.path / "inside").touch()
    others = [tmp_path / ".left.part.mp4", tmp_path / "left.0123456789abcdef.part", tmp_path / "mine.mp4"]
    others.append(temporary_path(tmp_path / "moment.json"))
    for path in others:
        path.touch()
    left.release()
    folder.release()
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {held.path, *others}
    held.release()
    held.release()
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == set(others)


def test_files_that_are_created_are_never_removed_by_others(tmp_path: Path) -> None:
    """A file is locked before it has the name by which others would remove it."""
    stop = threading.Event()

    def remove() -> None:
        while not stop.is_set():
            remove_leftovers(tmp_path)

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for number in range(300):
            unfinished = Unfinished(tmp_path / "out.mp4")
            unfinished.path.rename(tmp_path / f"{number}.mp4")
            unfinished.release()
            with atomic_path(tmp_path / "plan.json") as partial:
                partial.write_text("{}")
    finally:
        stop.set()
        remover.join()
    assert len(list(tmp_path.iterdir())) == 301


def test_the_file_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from stvsr.engine.contract.leftovers import Unfinished\n"
        "unfinished = Unfinished(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "out.mp4")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        process.kill()
        process.wait()
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["n" * 250 + ".mp4", "é" * 125 + ".mkv", "x.mp4", "n" * 255])
def test_the_name_of_an_unfinished_file_is_never_too_long(tmp_path: Path, name: str) -> None:
    unfinished = Unfinished(tmp_path / name)
    assert unfinished.path.suffix == (Path(name).suffix or ".part")
    unfinished.release()
    remove_leftovers(tmp_path)
    assert not unfinished.path.exists()
    with atomic_path(tmp_path / name) as partial:
        partial.touch()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "memory"),
        (OSError(errno.ENOMEM, "x"), "memory"),
        (OSError(errno.EMFILE, "x"), "open"),
        (OSError(errno.ENOSPC, "x"), "disk"),
        (RuntimeError("can't start new thread"), "threads"),
        (RuntimeError("[ONNXRuntimeError] std::bad_alloc"), "memory"),
        (_caused(ValueError("x"), MemoryError()), "memory"),
        (RuntimeError("pthread_create failed"), "threads"),
    ],
)
def test_a_want_is_recognised(error: Exception, word: str) -> None:
    assert word in (describe_shortage(error) or "")


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.ENOENT, "no such file"), RuntimeError("a thread")])
def test_other_errors_are_no_want(error: Exception) -> None:
    assert describe_shortage(error) is None
