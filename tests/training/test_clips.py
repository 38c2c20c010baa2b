"""Clips on disk: found, decoded, cached, and refused with an error that names the clip."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.training.clips import cached_clip, find_clips, read_clip

from tests.support.media import write_images
from tests.support.paths import SAMPLE


def test_a_clip_is_decoded_once_and_then_mapped(tmp_path: Path) -> None:
    first = cached_clip(SAMPLE, tmp_path)
    (file,) = tmp_path.iterdir()
    stamp = file.stat().st_mtime_ns
    again = cached_clip(SAMPLE, tmp_path)
    assert isinstance(again, np.memmap)
    assert file.stat().st_mtime_ns == stamp
    assert np.array_equal(first[3], again[3])
    assert np.array_equal(next(read_clip(SAMPLE)), again[0])


def test_two_runs_may_decode_one_clip_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_while_another_run_writes(path: Path) -> Iterator[np.ndarray]:
        monkeypatch.setattr("stvsr.training.clips.read_clip", read_clip)
        cached_clip(path, tmp_path)
        return read_clip(path)

    monkeypatch.setattr("stvsr.training.clips.read_clip", read_while_another_run_writes)
    decoded = cached_clip(SAMPLE, tmp_path)
    assert np.array_equal(decoded[0], next(read_clip(SAMPLE)))
    assert len(list(tmp_path.iterdir())) == 1


def test_folders_are_searched(tmp_path: Path) -> None:
    assert find_clips(SAMPLE.parent) == [SAMPLE]
    assert find_clips(SAMPLE, SAMPLE.parent) == [SAMPLE, SAMPLE]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "._a.mp4").touch()  # beside every file that a Mac copies to another file system
    (tmp_path / ".a.mp4.stvsr").mkdir()
    (tmp_path / ".a.mp4.stvsr" / "0.mkv").touch()
    assert find_clips(tmp_path) == [tmp_path / "a.mp4"]


def test_a_missing_clip_and_an_empty_folder_are_media_errors(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=f"The folder {tmp_path} contains no clip"):
        find_clips(tmp_path)
    with pytest.raises(MediaError, match=r"gone\.mp4 does not exist"):
        find_clips(tmp_path / "gone.mp4")
    with pytest.raises(MediaError, match=r"gone\.mp4 cannot be read"):
        cached_clip(tmp_path / "gone.mp4", tmp_path)


@pytest.mark.parametrize("damage", ["cut short", "not a video", "damaged frame"])
def test_a_damaged_clip_is_a_media_error_that_names_it(tmp_path: Path, damage: str) -> None:
    path, content = tmp_path / "damaged.mp4", bytearray(SAMPLE.read_bytes())
    if damage == "cut short":
        content = content[: len(content) // 2]
    elif damage == "not a video":
        content = bytearray(b"not a video")
    else:
        with av.open(str(SAMPLE)) as container:
            packet = [packet for packet in container.demux(video=0) if packet.size][20]
        assert packet.pos is not None
        content[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"damaged\.mp4 cannot be decoded \(.+\): copy it again"):
        list(read_clip(path))
    cache = tmp_path / "cache"
    with pytest.raises(MediaError, match=r"damaged\.mp4"):
        cached_clip(path, cache)
    assert not cache.exists()


def test_a_folder_of_images_is_a_clip(tmp_path: Path) -> None:
    frames = list(read_clip(SAMPLE))[:11]
    folder = write_images(tmp_path / "clips" / "frames", frames)
    assert find_clips(tmp_path / "clips") == find_clips(folder) == [folder]
    assert np.array_equal(np.stack(list(read_clip(folder))), np.stack(frames))
    assert np.array_equal(cached_clip(folder, tmp_path / "cache"), np.stack(frames))
    (folder / "frame10.png").unlink()
    assert len(cached_clip(folder, tmp_path / "cache")) == 10
