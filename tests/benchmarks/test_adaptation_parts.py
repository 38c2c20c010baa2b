"""Every part of the adaptation benchmark, at a tiny size."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from stvsr.engine.contract.resize import resized
from stvsr.training.adapt.blur import gaussian_kernel
from stvsr.training.adapt.video_resize import expose
from stvsr.training.adapt.zeroshot import fresh_network
from stvsr.training.clips import read_clip
from stvsr.training.networks.dtsr import DeepTemporalSR

from benchmarks.adaptation import __main__ as adaptation
from benchmarks.adaptation import meta, picture, spatial, temporal
from benchmarks.adaptation.automatic import automatic_rows
from benchmarks.adaptation.meta import curves
from benchmarks.adaptation.selection import selection_rows
from benchmarks.adaptation.trials import read_lines
from tests.support.adaptation_runs import save_adavsr, save_edvr
from tests.support.media import make_video
from tests.support.paths import SAMPLE
from tests.support.small_networks import SMALL_DTSR


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of training runs, as `stvsr train` leaves them."""
    save_edvr(tmp_path / "runs/edvr-s", 0, 5)
    save_edvr(tmp_path / "runs/edvr-m", 1, 6)
    save_adavsr(tmp_path / "runs")
    return tmp_path / "runs"


def measured(part: str, runs: Path, options: str) -> Sequence[dict[str, Any]]:
    """Return the lines of a part on the sample clip, after checking that a second run adds none."""
    out = runs.parent / "out"
    inputs = ["--val", str(SAMPLE), "--runs", str(runs)]
    command = [part, str(out), *inputs, "--frames", "8", "--size", "96x128", *options.split()]
    adaptation.main(command)
    lines = read_lines(out)
    adaptation.main(command)
    assert read_lines(out) == lines
    return [line for line in lines if line["part"] == part]


def test_adaptation_that_decides_by_itself_is_measured_on_both_sides(runs: Path) -> None:
    plain, compressed = measured("automatic", runs, "--inputs bicubic,crf-35 --auto-size 96x128 --adapt-steps 1")
    assert (plain["trial"]["input"], compressed["trial"]["input"]) == ("bicubic", "crf-35")
    assert plain["record"]["degradation"] is None
    assert plain["after"] == plain["before"]
    assert compressed["record"]["degradation"]["parts"] == ["compression"]
    assert compressed["record"]["degradation"]["crf"] == pytest.approx(35, abs=4)
    difference = compressed["learned"]["psnr_y_db"] - compressed["before"]["psnr_y_db"]
    assert compressed["learned_gain_db"] == pytest.approx(difference, abs=2e-4)
    assert compressed["gain_db"] == (compressed["learned_gain_db"] if compressed["record"]["kept"] else 0)
    (row,) = [row for row in automatic_rows([plain, compressed]) if row.startswith("| edvr-s, all inputs")]
    assert row.startswith(f"| edvr-s, all inputs | 2 | 1, {int(compressed['record']['kept'])} |")


@pytest.mark.parametrize("part", ["self-supervised", "distilled"])
def test_networks_that_enlarge_are_measured(part: str, runs: Path) -> None:
    options = "--steps 2 --patch 16 --batch 1 --networks edvr-s,rbpn-s --cases bicubic,estimated,given"
    lines = measured(part, runs, options)
    done = [line for line in lines if not {"missing", "failed"} & line.keys()]
    for line in done:
        assert line["gain_db"] == pytest.approx(line["after"]["psnr_y_db"] - line["before"]["psnr_y_db"], abs=2e-4)
        assert line["after"] != line["before"]
        assert line["trained"]["step"] in (5, 6)
    if part == "self-supervised":
        assert [line["trial"]["case"] for line in done] == ["bicubic", "estimated", "given"]
        assert done[0]["before"]["psnr_y_db"] != done[1]["before"]["psnr_y_db"] == done[2]["before"]["psnr_y_db"]
        assert done[2]["true_widths_px"][0] >= done[2]["true_widths_px"][1] >= 1
        assert done[1]["estimated_widths_px"] == pytest.approx(done[1]["true_widths_px"], abs=0.6)
        assert [line["missing"] for line in lines if "missing" in line] == ["rbpn-s/weights.pt"]
    else:
        student, distilled, teacher = done
        assert student["before"] == distilled["before"] != teacher["before"]
        assert student["after"] != distilled["after"]


def test_time_of_a_large_teacher_is_measured_without_weights(runs: Path) -> None:
    options = "--steps 1 --patch 16 --batch 1 --large toflow-s"
    (line,) = measured("distilled-time", runs, options)
    assert (line["trial"]["network"], line["trial"]["teacher"]) == ("edvr-s", "toflow-s")
    for learner in ("distilled", "teacher"):
        assert 0 < line[f"{learner}_restoring_seconds"] < line[f"{learner}_seconds"]


def test_internal_learning_is_measured_over_steps(runs: Path) -> None:
    options = "--curve 0,1,2 --kernel given --meta-frames 9 --side 64"
    lines = measured("meta", runs, options)
    by_run = curves(lines)
    assert {tuple(curve) for curve in by_run.values()} == {(0, 1, 2)}
    plain, adam, *meta_trained = by_run.values()
    assert [plain, adam] == meta_trained  # both starts have the same weights here
    assert plain[0] == adam[0] != adam[1]
    drawn = ElementTree.parse(runs.parent / "out/adaptation_meta_given.svg")
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))) == 4


@pytest.mark.parametrize("part", ["self-supervised", "meta"])
def test_blur_is_estimated_from_whole_frames(part: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def estimate(frames: torch.Tensor, factor: int) -> torch.Tensor:
        shapes.append((factor, *frames.shape[1:]))
        return gaussian_kernel((3.5, 1.5), 0.25)

    for module in (spatial, meta):
        monkeypatch.setattr(module, "estimate_kernel", estimate)
    options = "--steps 1 --patch 16 --networks edvr-s --cases estimated --curve 0,1 --meta-frames 9 --side 64"
    lines = measured(part, runs, options)
    h, w = (34, 60) if part == "self-supervised" else (32, 60)  # of 136 rows; internal learning takes multiples of 16
    assert shapes
    assert set(shapes) == {(4, 3, h, w)}
    for line in lines:
        assert line["estimated_widths_px"] == pytest.approx([3.5, 1.5], rel=0.01)
        assert line["estimated_angle"] == pytest.approx(0.25, abs=0.01)


def test_zero_shot_learning_is_measured_and_drawn(runs: Path) -> None:
    (line,) = measured("zero-shot", runs, "--zero-frames 24 --zero-steps 2 --size 48x64")
    decibels = {name: result["psnr_y_db"] for name, result in line["results"].items()}
    assert tuple(decibels) == temporal.METHODS
    assert len(set(decibels.values())) == 4
    assert (runs.parent / "out" / temporal.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_videos_are_doubled_by_each_method() -> None:
    network = fresh_network(DeepTemporalSR(SMALL_DTSR), 0)  # it interpolates
    exposures = torch.rand(6, 3, 16, 20, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    cubic, projected, alone, both = temporal.double_by_each_method(network, exposures).values()
    torch.testing.assert_close(alone, cubic)
    torch.testing.assert_close(both, projected)
    assert not torch.allclose(cubic, projected)
    torch.testing.assert_close(expose(projected, 2), exposures)


def test_picture_shows_the_largest_error_of_interpolation() -> None:
    videos = [np.full((8, 140, 200, 3), level, np.uint8) for level in (10, 20, 20)]
    videos[1][3, 130:, 190:] = 90  # at the bottom right
    videos[1][0] = 255  # at the end of the clip, which is left out
    drawn = temporal.crops_side_by_side(videos, temporal.error_of(videos[1], videos[2]))
    h, w = temporal._CROP_PX
    gap = temporal.GAP_PX
    assert drawn.shape == (h, 3 * w + 2 * gap, 3)
    assert (drawn[:, :w] == 10).all()
    assert (drawn[-10:, w + gap + w - 10 : w + gap + w] == 90).all()
    assert (drawn[:, -w:] == 20).all()


def test_verdicts_are_measured(runs: Path) -> None:
    lines = measured("gate", runs, "--trials 2")
    assert [line["trial"]["rate"] for line in lines] == [1e-5, 1e-4]
    for line in lines:
        assert isinstance(line["kept"], bool)
        assert line["true_gain_db"] != 0


@pytest.mark.slow
def test_new_weights_are_timed(runs: Path) -> None:
    (line,) = measured("reweight", runs, "--reweighted adavsr-spatial-s --timings 1")
    assert line["weights"] == pytest.approx(0.52e6, rel=0.02)
    assert 0 < line["bundle_seconds"] <= line["bundle_checked_seconds"]
    assert line["session_seconds"] > 0


def test_parts_refuse_to_run_without_clips(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--val"):
        adaptation.main(["gate", str(tmp_path)])


@pytest.mark.slow
def test_weights_that_learn_quickly_are_compared(runs: Path) -> None:
    # Four times smaller, the sample itself is too small for the crops from which the network learns.
    frames = [resized(frame.transpose(2, 0, 1) / 255, (272, 480)).clip(0, 1) for frame in islice(read_clip(SAMPLE), 7)]
    large = make_video(runs.parent / "large.mp4", frames)
    options = f"--val {large} --bundle fourier-s --inputs blur-3.0x1.5 --adapt-steps 1 --rates last=0.001 --frames 4"
    lines = measured("selection", runs, f"{options} --size 192x256")
    assert [line["trial"]["adapts"] for line in lines] == ["all", "scales", "last", "low-rank"]
    assert [line["trial"]["rate"] for line in lines][2] == 0.001
    parameters = [line["parameters"] for line in lines]
    assert parameters[0] > parameters[3] > parameters[1]
    assert all(line["gains"]["psnr_y_db"] != 0 != line["gains"]["between_psnr_y_db"] for line in lines)
    assert len(selection_rows(lines)) == 2 + len(lines)


def test_kernels_are_drawn_beside_a_row() -> None:
    row = np.full((40, 60, 3), 100, np.uint8)
    drawn = picture.beside(row, [gaussian_kernel((3.0, 1.0), 0.0), gaussian_kernel((1.0, 3.0), 0.0)])
    side = (40 - temporal.GAP_PX) // 2
    assert drawn.shape == (40, 60 + temporal.GAP_PX + side, 3)
    wide, tall = drawn[:side, -side:, 0].astype(int), drawn[-side:, -side:, 0].astype(int)
    assert wide.max() == tall.max() == 255
    assert (wide > 100).any(0).sum() > (wide > 100).any(1).sum()
    assert (tall > 100).any(1).sum() > (tall > 100).any(0).sum()
