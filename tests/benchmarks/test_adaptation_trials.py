"""Trials of the adaptation benchmark: lines that are measured once, trained weights, crops and scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stvsr.engine.contract.errors import AdaptationError
from stvsr.training.clips import read_clip

from benchmarks.adaptation.goals import latest
from benchmarks.adaptation.table import table
from benchmarks.adaptation.trials import Lines, load_trained, middle_crop, motion_px, read_lines, scores
from tests.support.adaptation_runs import save_edvr
from tests.support.paths import SAMPLE


def moving_waves(speed: float, frames: int = 5) -> np.ndarray:
    """Return waves that move to the right by `speed` pixels a frame, (N, 64, 96, 3)."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(64), np.arange(96), indexing="ij")
    position = x - speed * t
    waves = 128 + 40 * np.sin(0.2 * position) * np.cos(0.3 * y) + 40 * np.sin(0.07 * position + 0.15 * y)
    return np.repeat(waves[..., None], 3, 3).round().astype(np.uint8)


def test_trial_is_measured_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, Any]:
        calls.append(1)
        return {"gain_db": 0.25}

    for _ in range(2):  # another process reads the lines of the file
        lines = Lines(tmp_path, "command")
        for steps in (1, 1, 2):
            lines.measure_once("part", {"steps": steps, "size": [2, 3]}, measure)
    assert len(calls) == 2
    recorded = read_lines(tmp_path)
    assert [line["trial"]["steps"] for line in recorded] == [1, 2]
    assert all(line["gain_db"] == 0.25 and line["command"] == "command" for line in recorded)
    assert {"hardware", "versions", "date", "threads"} <= recorded[0].keys()


def test_untimed_trial_has_no_seconds_and_is_measured_again_by_a_timed_run(tmp_path: Path) -> None:
    for untimed in (True, True, False, False, True):
        lines = Lines(tmp_path, "command", untimed)
        lines.measure_once("part", {"steps": 1}, lambda: {"gain_db": 1.0, "seconds": 2.0})
    busy, quiet = read_lines(tmp_path)
    assert "seconds" not in busy
    assert busy["untimed"]
    assert quiet["seconds"] == 2.0
    assert latest([busy, quiet], "part") == [quiet]


def test_failed_adaptation_is_a_line_with_its_error(tmp_path: Path) -> None:
    def measure() -> dict[str, Any]:
        raise AdaptationError("The clip is too small.")

    lines = Lines(tmp_path, "command")
    lines.measure_once("self-supervised", {"network": "edvr-s", "case": "bicubic", "clip": "a"}, measure)
    assert read_lines(tmp_path)[0]["failed"] == "The clip is too small."
    assert latest(lines.all, "self-supervised") == []
    assert "- self-supervised, a: failed, The clip is too small." in table(lines.all)


def test_missing_weights_are_recorded_once_and_measured_when_they_exist(tmp_path: Path) -> None:
    for _ in range(2):
        Lines(tmp_path, "command").record_missing("part", "edvr-s", tmp_path / "edvr-s/weights.pt")
    lines = Lines(tmp_path, "command")
    assert [line["missing"] for line in lines.all] == ["edvr-s/weights.pt"]
    lines.measure_once("part", {"network": "edvr-s"}, lambda: {"gain_db": 1.0})
    assert read_lines(tmp_path)[-1]["gain_db"] == 1.0


def test_trained_weights_have_their_digest_and_their_training(tmp_path: Path) -> None:
    save_edvr(tmp_path / "edvr-s", seed=0, step=7)
    torch.save({"schedule": {"steps": 9}}, tmp_path / "edvr-s/last.pt")
    save_edvr(tmp_path / "other", seed=1, step=7)
    trained, other = (load_trained("edvr-s", tmp_path / name / "weights.pt") for name in ("edvr-s", "other"))
    assert trained is not None
    assert other is not None
    assert trained.training == {"step": 7, "schedule": {"steps": 9}}
    assert trained.sha256 != other.sha256
    assert not trained.network.training
    assert load_trained("edvr-s", tmp_path / "none/weights.pt") is None


def test_crop_is_around_the_middle_of_a_clip(tmp_path: Path) -> None:
    whole = np.stack(list(read_clip(SAMPLE)))
    n, h, w, _ = whole.shape
    crop = middle_crop(SAMPLE, tmp_path, 4, (64, 96))
    t, y, x = (n - 4) // 2, (h - 64) // 2, (w - 96) // 2
    assert np.array_equal(crop, whole[t : t + 4, y : y + 64, x : x + 96])
    assert middle_crop(SAMPLE, tmp_path, 2 * n, (64, 96)).shape == (n, 64, 96, 3)


def test_scores_measure_pictures_and_their_motion() -> None:
    true = moving_waves(1.5)
    assert scores(true, true) == {"psnr_y_db": 100.0, "tof_px": 0.0}
    brighter = scores(true + 10, true)
    assert brighter["psnr_y_db"] == pytest.approx(20 * np.log10(255 / (10 * 219 / 255)), abs=1e-3)
    assert brighter["tof_px"] < 0.02
    still = scores(np.repeat(true[:1], len(true), 0), true)
    assert still["tof_px"] == pytest.approx(1.5, abs=0.2)
    assert motion_px(true) == pytest.approx(1.5, abs=0.2)
