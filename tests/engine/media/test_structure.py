"""A GIF with a hole, and raw video that ends within a frame, are refused; what is whole is read."""

import random
from pathlib import Path

import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.reader import open_reader
from stvsr.engine.media.structure import check_structure

from tests.support.mutations import mutate_bytes
from tests.torture.clips import BASES, write_clip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("clips")
    bases = {name: BASES[name] for name in ("gif", "y4m")}
    return {name: write_clip(folder / b.file, b.codec, b.pix_fmt, b.options).read_bytes() for name, b in bases.items()}


@pytest.mark.parametrize("name", ["gif", "y4m"])
def test_whole_files_are_read(clips: dict[str, bytes], tmp_path: Path, name: str) -> None:
    path = tmp_path / f"clip.{name}"
    path.write_bytes(clips[name])
    with open_reader(path) as reader:
        assert len(list(reader)) == 8


@pytest.mark.parametrize("name", ["gif", "y4m"])
@pytest.mark.parametrize("damage", ["hole", "cut"])
def test_a_hole_and_a_cut_are_reported(clips: dict[str, bytes], tmp_path: Path, name: str, damage: str) -> None:
    path, middle = tmp_path / f"clip.{name}", len(clips[name]) // 2
    rest = b"" if damage == "cut" else clips[name][middle + len(clips[name]) // 10 :]
    path.write_bytes(clips[name][:middle] + rest)
    with pytest.raises(MediaError, match="is damaged"):
        open_reader(path)


@pytest.mark.parametrize(("name", "container"), [("gif", "gif"), ("y4m", "yuv4mpegpipe")])
def test_any_change_is_read_or_reported(clips: dict[str, bytes], tmp_path: Path, name: str, container: str) -> None:
    rng, path, reported = random.Random(1), tmp_path / f"clip.{name}", 0
    for _ in range(300):
        path.write_bytes(mutate_bytes(clips[name], rng))
        try:
            check_structure(path, container)
        except MediaError:
            reported += 1
    assert 0 < reported < 300
