"""Clips of photographs: windows where the boxes say, deterministic, and a folder that is whole or not there."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError, RequestError
from stvsr.training.clips import find_clips, read_clip
from stvsr.training.photo_clips import SIZE, render, write_clips


def photograph(height: int, width: int) -> np.ndarray:
    """Return red that rises with x, green that rises with y, and noise in blue."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 256, (height, width))
    return np.stack([x * 255 // width, y * 255 // height, noise], 2).astype(np.uint8)


def test_a_frame_shows_its_box() -> None:
    height, width = 800, 1300
    box = (30.25, 101.5, 30.25 + 1.5 * SIZE[0], 101.5 + 1.5 * SIZE[1])
    frame = render(photograph(height, width), box)
    assert frame.shape == (*SIZE, 3)
    x = (101.5 + (np.arange(SIZE[1]) + 0.5) * 1.5 - 0.5) * 255 / width
    y = (30.25 + (np.arange(SIZE[0]) + 0.5) * 1.5 - 0.5) * 255 / height
    assert np.abs(frame[:, :, 0] + 0.5 - x[None]).max() <= 1
    assert np.abs(frame[:, :, 1] + 0.5 - y[:, None]).max() <= 1
    assert frame[:, :, 2].std() < 0.7 * photograph(height, width)[:, :, 2].std()  # antialiased


def test_photographs_become_clips_that_training_reads(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "large.png"), photograph(640, 1120)[:, :, ::-1])
    cv2.imwrite(str(photos / "small.png"), photograph(300, 400)[:, :, ::-1])
    assert write_clips(photos, tmp_path / "out", windows=1, frames=3) == 1
    (clip,) = find_clips(tmp_path / "out")
    frames = list(read_clip(clip))
    assert [frame.shape for frame in frames] == [(*SIZE, 3)] * 3
    assert not np.array_equal(frames[0], frames[1])
    assert write_clips(photos, tmp_path / "out", windows=1, frames=3, overwrite=True) == 1
    assert np.array_equal(next(read_clip(clip)), frames[0])


def test_photographs_of_one_name_have_clips_of_their_own(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("a/one.png", "b/one.png", "c/._one.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(photos / name), photograph(640, 1120)[:, :, ::-1])
    assert write_clips(photos, tmp_path / "out", windows=1, frames=2) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_one.png-0", "b_one.png-0"]


def test_no_clips_are_an_error(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "small.png"), photograph(300, 400))
    with pytest.raises(MediaError, match="clearly larger than 979x551 pixels"):
        write_clips(tmp_path, tmp_path / "out")
    for windows, frames in ((0, 5), (3, 1)):
        with pytest.raises(RequestError, match="at least 1 of 2"):
            write_clips(tmp_path, tmp_path / "out", windows, frames)
    assert not (tmp_path / "out").exists()


def test_what_is_no_photograph_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(MediaError, match="has no photograph"):
        write_clips(photos, tmp_path / "out")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    with pytest.raises(MediaError, match=r"broken\.jpg cannot be decoded"):
        write_clips(photos, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]
