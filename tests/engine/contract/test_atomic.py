"""Files that appear as a whole or not at all."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stvsr.engine.contract.atomic import atomic_path, locked, scratch_folder
from stvsr.engine.contract.leftovers import Unfinished


def test_a_failed_write_leaves_the_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_text("old")

    def fail() -> None:
        with atomic_path(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("weights.pt", "old")]


def test_a_write_replaces_the_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    for text in ("old", "new"):
        with atomic_path(path) as partial:
            partial.write_text(text)
    assert [(file.name, file.read_text()) for file in path.parent.iterdir()] == [("weights.pt", "new")]


def test_many_can_write_one_file_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"

    def write(number: int) -> None:
        with atomic_path(path, sync=True) as partial:
            partial.write_text(f"{number}" * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(set(path.read_text())) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_scratch_folder_is_deleted_and_so_is_that_of_a_killed_process(tmp_path: Path) -> None:
    left = tmp_path / ".engines.0123456789abcdef.part"
    (left / "new").mkdir(parents=True)
    others = Unfinished(tmp_path / "engines", is_folder=True)
    with scratch_folder(tmp_path / "engines") as folder:
        (folder / "new").mkdir()
        assert set(tmp_path.iterdir()) == {folder, others.path}
    assert list(tmp_path.iterdir()) == [others.path]
    others.release()


def test_changes_of_a_locked_file_come_one_after_another(tmp_path: Path) -> None:
    """Each block reads the file and replaces it, so that a block beside it would lose its change."""
    path = tmp_path / "numbers.txt"
    path.write_text("")

    def add(number: int) -> None:
        with locked(path):
            text = path.read_text()
            time.sleep(0.001)
            with atomic_path(path) as partial:
                partial.write_text(f"{text}{number} ")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert sorted(map(int, path.read_text().split())) == list(range(40))


def test_a_lock_is_released_by_an_error(tmp_path: Path) -> None:
    path = tmp_path / "numbers.txt"
    path.touch()
    for _ in range(2):
        with pytest.raises(RuntimeError), locked(path):
            raise RuntimeError
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none"):
        pass
