"""Synthetic clips: the same for a seed, covered with leaves, moving as the camera does, and kept without loss."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from stvsr.training import dead_leaves
from stvsr.training.clips import read_clip
from stvsr.training.dead_leaves import render_clip, synthetic_clips
from stvsr.training.run import TrainingRun

SIZE = (160, 96)


@pytest.fixture(autouse=True)
def _few_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_leaves, "_LEAVES", 150)
    monkeypatch.setattr(dead_leaves, "SIZE", SIZE)


def test_a_clip_depends_on_its_seed_alone() -> None:
    clip = render_clip(3, 2, SIZE)
    assert clip.shape == (2, 96, 160, 3)
    np.testing.assert_array_equal(render_clip(3, 2, SIZE), clip)
    assert np.abs(render_clip(4, 2, SIZE).astype(int) - clip).mean() > 10


def test_leaves_have_sharp_edges_everywhere() -> None:
    frame = render_clip(1, 1, SIZE)[0].astype(int)
    steps = np.abs(np.diff(frame, axis=1)).max(-1)
    for block in (steps[:48, :80], steps[:48, 80:], steps[48:, :80], steps[48:, 80:]):
        assert (block > 25).mean() > 0.05
    assert (steps < 4).mean() > 0.3, "leaves are smooth inside"


def test_leaves_move_with_the_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without movements of their own, and at one depth, the frames are translations of each other."""
    for name in ("_TURN", "_ZOOM", "_OWN_SHIFT_PX", "_OWN_TURN"):
        monkeypatch.setattr(dead_leaves, name, 0.0)
    monkeypatch.setattr(dead_leaves, "_SHIFT_PX", 30.0)
    random = np.random.default_rng(0)
    camera = dead_leaves._Camera.draw(random, SIZE)
    leaf = dead_leaves._Leaf.draw(random, SIZE)
    at = [camera.transform(leaf.depth, time) @ [*leaf.centre, 1] for time in (0.0, 1.0)]
    np.testing.assert_allclose(at[1] - at[0], leaf.depth * camera.shift, rtol=1e-4)

    first, second = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in render_clip(2, 2, SIZE))
    (x, y), _ = cv2.phaseCorrelate(first.astype(np.float32), second.astype(np.float32))
    expected = dead_leaves._Camera.draw(np.random.default_rng((0x1EAF, 2)), SIZE).shift
    assert np.hypot(*expected) > 1
    assert np.dot((x, y), expected) > 0.3 * np.dot(expected, expected)


def test_clips_are_made_once_and_without_loss(tmp_path: Path) -> None:
    paths = synthetic_clips(tmp_path / "synthetic", 2)
    np.testing.assert_array_equal(np.stack(list(read_clip(paths[1]))), render_clip(1, size=SIZE))
    stamps = [path.stat().st_mtime_ns for path in paths]
    again = synthetic_clips(tmp_path / "synthetic", 3)
    assert again[:2] == paths
    assert [path.stat().st_mtime_ns for path in paths] == stamps
    assert synthetic_clips(tmp_path / "none", 0) == []
    assert not (tmp_path / "none").exists()


def test_a_run_trains_on_them_besides(tmp_path: Path) -> None:
    (own,) = synthetic_clips(tmp_path / "own", 1)
    run = TrainingRun(own, tmp_path / "run", synthetic=2)
    assert run.clip_files() == [own, *synthetic_clips(run.cache_folder / "synthetic", 2)]
