"""The benchmark of adaptation: its lines, scores and tables on made-up figures, and every part at a tiny size."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from stvsr.engine.contract.errors import AdaptationError
from stvsr.training.adapt.blur import gaussian_kernel
from stvsr.training.adapt.video_resize import expose
from stvsr.training.adapt.zeroshot import fresh
from stvsr.training.clips import read_clip
from stvsr.training.networks.adavsr import SpatialModuleConfig, TemporalModuleConfig
from stvsr.training.networks.dtsr import DeepTemporalSR, DeepTemporalSRConfig
from stvsr.training.networks.edvr import EDVR
from stvsr.training.networks.registry import find_network
from test_selfsupervised import small_edvr

from benchmarks.adaptation import __main__ as adaptation
from benchmarks.adaptation import meta as adaptation_meta
from benchmarks.adaptation import spatial as adaptation_space
from benchmarks.adaptation import temporal as adaptation_time
from benchmarks.adaptation.bars import Bar, latest
from benchmarks.adaptation.chart import chart
from benchmarks.adaptation.gate import agreement
from benchmarks.adaptation.meta import curves
from benchmarks.adaptation.table import BEGIN, END, table, write_table
from benchmarks.adaptation.trials import Lines, middle, motion_px, read_lines, scores, trained
from tests.support.paths import SAMPLE

BEE = SAMPLE


def moving(speed: float, frames: int = 5) -> np.ndarray:
    """Waves that move to the right by so many pixels a frame. (N, 64, 96, 3)"""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(64), np.arange(96), indexing="ij")
    place = x - speed * t
    waves = 128 + 40 * np.sin(0.2 * place) * np.cos(0.3 * y) + 40 * np.sin(0.07 * place + 0.15 * y)
    return np.repeat(waves[..., None], 3, 3).round().astype(np.uint8)


def test_a_trial_is_measured_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, Any]:
        calls.append(1)
        return {"gain_db": 0.25}

    for _ in range(2):  # another process finds the lines in the file
        lines = Lines(tmp_path, "command")
        for steps in (1, 1, 2):
            lines.once("part", {"steps": steps, "size": [2, 3]}, measure)
    assert len(calls) == 2
    found = read_lines(tmp_path)
    assert [line["trial"]["steps"] for line in found] == [1, 2]
    assert all(line["gain_db"] == 0.25 and line["command"] == "command" for line in found)
    assert {"hardware", "versions", "date", "threads"} <= found[0].keys()


def test_what_was_measured_on_a_busy_machine_has_no_seconds_and_is_measured_again(tmp_path: Path) -> None:
    for untimed in (True, True, False, False, True):
        Lines(tmp_path, "command", untimed).once("part", {"steps": 1}, lambda: {"gain_db": 1.0, "seconds": 2.0})
    busy, quiet = read_lines(tmp_path)
    assert "seconds" not in busy
    assert busy["untimed"]
    assert quiet["seconds"] == 2.0
    assert latest([busy, quiet], "part") == [quiet]


def test_a_clip_that_cannot_be_adapted_to_is_a_line_that_says_so(tmp_path: Path) -> None:
    def measure() -> dict[str, Any]:
        raise AdaptationError("too small")

    lines = Lines(tmp_path, "command")
    lines.once("self-supervised", {"network": "edvr-s", "case": "bicubic", "clip": "a"}, measure)
    assert read_lines(tmp_path)[0]["failed"] == "too small"
    assert latest(lines.all, "self-supervised") == []
    assert "- self-supervised, a: failed, too small" in table(lines.all)


def test_missing_weights_are_said_once_and_measured_when_they_are_there(tmp_path: Path) -> None:
    for _ in range(2):
        Lines(tmp_path, "command").missing("part", "edvr-s", tmp_path / "edvr-s/weights.pt")
    lines = Lines(tmp_path, "command")
    assert [line["missing"] for line in lines.all] == ["edvr-s/weights.pt"]
    lines.once("part", {"network": "edvr-s"}, lambda: {"gain_db": 1.0})
    assert read_lines(tmp_path)[-1]["gain_db"] == 1.0


def test_weights_come_with_their_digest_and_their_training(tmp_path: Path) -> None:
    save_edvr(tmp_path / "edvr-s", seed=0, step=7)
    torch.save({"schedule": {"steps": 9}}, tmp_path / "edvr-s/last.pt")
    save_edvr(tmp_path / "other", seed=1, step=7)
    found, other = (trained("edvr-s", tmp_path / name / "weights.pt") for name in ("edvr-s", "other"))
    assert found is not None
    assert other is not None
    assert found.told == {"step": 7, "schedule": {"steps": 9}}
    assert found.sha256 != other.sha256
    assert not found.network.training
    assert trained("edvr-s", tmp_path / "none/weights.pt") is None


def test_a_clip_is_cut_around_its_middle(tmp_path: Path) -> None:
    whole = np.stack(list(read_clip(BEE)))
    n, h, w, _ = whole.shape
    cut = middle(BEE, tmp_path, 4, (64, 96))
    t, y, x = (n - 4) // 2, (h - 64) // 2, (w - 96) // 2
    assert np.array_equal(cut, whole[t : t + 4, y : y + 64, x : x + 96])
    assert middle(BEE, tmp_path, 2 * n, (64, 96)).shape == (n, 64, 96, 3)


def test_scores_are_of_pictures_and_of_how_they_move() -> None:
    true = moving(1.5)
    assert scores(true, true) == {"psnr_y_db": 100.0, "tof_px": 0.0}
    brighter = scores(true + 10, true)
    assert brighter["psnr_y_db"] == pytest.approx(20 * np.log10(255 / (10 * 219 / 255)), abs=1e-3)
    assert brighter["tof_px"] < 0.02
    still = scores(np.repeat(true[:1], len(true), 0), true)
    assert still["tof_px"] == pytest.approx(1.5, abs=0.2)
    assert motion_px(true) == pytest.approx(1.5, abs=0.2)


@pytest.mark.parametrize(
    ("bar", "told"),
    [
        (Bar("gain", 0.3, "dB", 0.35), "| gain | above 0.3 dB | +0.350 dB | met |  |"),
        (Bar("gain", 0.3, "dB", 0.05), "| gain | above 0.3 dB | +0.050 dB | missed by 0.250 dB |  |"),
        (Bar("gain", 0.0, "dB", 0.0), "| gain | above 0 dB | +0.000 dB | missed by 0.000 dB |  |"),
        (Bar("time", 2.0, "s", 2.5, True, "4 clips"), "| time | below 2 s | 2.500 s | missed by 0.500 s | 4 clips |"),
        (Bar("time", 2.0, "s", 1.5, True), "| time | below 2 s | 1.500 s | met |  |"),
        (Bar("time", 2.0, "s", None, True), "| time | below 2 s | not measured | | |"),
    ],
)
def test_a_bar_says_by_how_much_it_is_missed(bar: Bar, told: str) -> None:
    assert bar.row == told


def adapted_line(clip: str, before: float, after: float, **trial: Any) -> dict[str, Any]:
    return {
        "part": "self-supervised",
        "trial": {"network": "edvr-s", "case": "bicubic", "clip": clip, "steps": 10, "rate": 1e-4, **trial},
        "before": {"psnr_y_db": before, "tof_px": 0.5},
        "after": {"psnr_y_db": after, "tof_px": 0.4},
        "gain_db": after - before,
        "seconds": 3.0,
        "trained": {"step": 20, "schedule": {"steps": 40}},
    }


def test_the_table_tells_means_over_clips_of_what_was_measured_last() -> None:
    old = [adapted_line("a", 30.0, 25.0, weights="old"), adapted_line("b", 30.0, 25.0, weights="old")]
    new = [adapted_line("a", 30.0, 30.5, weights="new"), adapted_line("b", 20.0, 20.1, weights="new")]
    rows = table([*old, *new]).splitlines()
    assert (
        "| self-supervised, edvr-s: gain | above 0 dB | +0.300 dB | met | 2 clips; trained for 20 steps of 40 |" in rows
    )
    assert any(
        row.startswith("| self-supervised, edvr-s: change of tOF | below 0 px | -0.100 px | met |") for row in rows
    )
    assert any("25.00 to 25.30 | +0.50, +0.10 | 0.500 to 0.400 | 3 |" in row for row in rows)
    assert any(row.startswith("| self-supervised, toflow-s: gain | above 0 dB | not measured |") for row in rows)


def meta_line(start: str, optimizer: str, steps: int, db: float, **changes: Any) -> dict[str, Any]:
    trial = {"start": start, "optimizer": optimizer, "rate": 0.01 if optimizer == "sgd" else 3e-4, "steps": steps}
    return {"part": "meta", "trial": {**trial, "clip": "a", "kernel": "estimated", **changes}, "psnr_y_db": db}


def test_the_meta_trained_start_is_held_against_the_plain_one_by_each_optimizer() -> None:
    lines = [meta_line("meta-trained", "sgd", 10, 20.0, weights="older")]
    lines += [meta_line("plain", "sgd", 10, 25.5), meta_line("plain", "adam", 10, 25.9)]
    lines += [meta_line("plain", "sgd", 100, 26.0)]
    lines += [meta_line("meta-trained", "sgd", 10, 25.8), meta_line("meta-trained", "adam", 10, 26.0)]
    rows = table(lines).splitlines()
    for row in (
        "10 steps of SGD, estimated blur: over the plain start | above 0.2 dB | +0.300 dB | met |",
        "10 steps of SGD, estimated blur: over 100 plain steps | above -0.1 dB | -0.200 dB | missed by 0.100 dB |",
        "10 steps of Adam, estimated blur: over the plain start | above 0.2 dB | +0.100 dB | missed by 0.100 dB |",
        "10 steps of Adam, estimated blur: over 100 plain steps | above -0.1 dB | not measured | |",
    ):
        assert any(row in line for line in rows), row


def test_distillation_is_held_against_the_student_and_the_teacher() -> None:
    lines = []
    for who, after, seconds in (("student", 30.0, 10.0), ("distilled", 30.2, 14.0), ("teacher", 31.0, 28.0)):
        line = adapted_line("a", 29.0, after, learner=who, teacher="edvr-m")
        lines.append({**line, "part": "distilled", "seconds": seconds})
    trial = {"network": "edvr-s", "teacher": "edvr-l", "clip": "a"}
    lines.append({"part": "distilled-time", "trial": trial, "distilled_seconds": 20.0, "teacher_seconds": 80.0})
    rows = table(lines).splitlines()
    assert any("of its own adaptation | below 0.667 | 0.250 | met | 1 clip; edvr-l teaches, un" in row for row in rows)
    assert any("edvr-s: over the student adapted to itself | above 0 dB | +0.200 dB | met |" in row for row in rows)
    assert any("teacher's own adaptation | below 0.667 | 0.500 | met |" in row for row in rows)


def test_tables_go_between_their_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write_table([adapted_line("a", 30.0, 30.5)], readme)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert text.count("+0.500 dB") == 1
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="add both"):
        write_table([], readme)


def test_the_chart_shows_every_point_in_its_place() -> None:
    drawn = ElementTree.fromstring(chart({"a & b": {0: 25.0, 10: 25.6}, "c": {0: 24.9, 10: 26.0, 100: 26.3}}, "t"))
    space = "{http://www.w3.org/2000/svg}"
    first, second = (
        [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
        for line in drawn.iter(f"{space}polyline")
    )
    assert [len(first), len(second)] == [2, 3]
    assert first[0][0] == second[0][0] < first[1][0] == second[1][0] < second[2][0]
    assert second[2][1] < second[1][1] < first[1][1] < first[0][1] < second[0][1]  # up is less
    height = (first[0][1] - first[1][1]) / 0.6
    assert (second[0][1] - second[2][1]) / 1.4 == pytest.approx(height, rel=0.01)
    assert "a & b" in [text.text for text in drawn.iter(f"{space}text")]


def test_curves_are_means_over_clips() -> None:
    lines = [
        meta_line("plain", "sgd", 10, 25.0),
        meta_line("plain", "sgd", 10, 26.0),
        meta_line("plain", "sgd", 0, 24.0),
    ]
    assert curves(lines) == {"plain, SGD 0.01": {0: 24.0, 10: 25.5}}


def test_agreement_counts_what_was_kept_and_helped() -> None:
    right = {"blur": "bicubic", "assumed": "bicubic"}
    records = [
        {**right, "kept": True, "gain_db": 0.2, "true_gain_db": 0.1},
        {**right, "kept": False, "gain_db": -0.2, "true_gain_db": -0.3},
        {**right, "kept": False, "gain_db": -0.1, "true_gain_db": 0.05},
        {**right, "kept": False},  # it did not come to its end
        {"blur": "bicubic", "assumed": "estimated", "kept": True, "gain_db": 1.0, "true_gain_db": -1.0},
    ]
    found = agreement(records)
    assert (found["right or plain"]["agree"], found["right or plain"]["trials"]) == (2, 3)
    assert found["right or plain"]["largest_miss_db"] == 0.05
    assert found["right or plain"]["always_db"] == pytest.approx(-0.05)
    assert found["right or plain"]["kept_db"] == pytest.approx(0.0333, abs=1e-4)
    assert (found["estimated"]["agree"], found["estimated"]["largest_miss_db"]) == (0, 1.0)
    assert "wrong" not in found


def test_the_table_counts_the_last_verdict_of_each_trial() -> None:
    trial = {"network": "edvr-s", "clip": "a", "blur": "bicubic", "assumed": "estimated", "rate": 1e-4, "steps": 15}
    verdicts = [([192, 320], True, -3.0), ("whole", False, -0.5)]
    lines = [
        {"part": "gate", "trial": {**trial, "size": size}, "kept": kept, "gain_db": 0.1, "true_gain_db": gain}
        for size, kept, gain in verdicts
    ]
    assert "| estimated | 1 of 1 | 0.00 | +0.000 | -0.500 | 1 clip |" in table(lines).splitlines()


def test_doubled_videos_are_those_of_each_method() -> None:
    network = fresh(DeepTemporalSR(DeepTemporalSRConfig(width=4)), 0)  # it interpolates
    seen = torch.rand(6, 3, 16, 20, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    cubic, projected, alone, both = adaptation_time.results(network, seen).values()
    torch.testing.assert_close(alone, cubic)
    torch.testing.assert_close(both, projected)
    assert not torch.allclose(cubic, projected)
    torch.testing.assert_close(expose(projected, 2), seen)


def test_the_picture_shows_where_interpolation_errs_most() -> None:
    videos = [np.full((8, 140, 200, 3), level, np.uint8) for level in (10, 20, 20)]
    videos[1][3, 130:, 190:] = 90  # far down and right
    videos[1][0] = 255  # at the clip's end, which is left out
    picture = adaptation_time.beside(videos)
    h, w = adaptation_time._CROP_PX
    gap = adaptation_time._GAP_PX
    assert picture.shape == (h, 3 * w + 2 * gap, 3)
    assert (picture[:, :w] == 10).all()
    assert (picture[-10:, w + gap + w - 10 : w + gap + w] == 90).all()
    assert (picture[:, -w:] == 20).all()


def save_edvr(folder: Path, seed: int, step: int) -> None:
    config = small_edvr().config
    torch.manual_seed(seed)
    network = EDVR(config)
    folder.mkdir(parents=True)
    torch.save({"config": asdict(config), "step": step, "state_dict": network.state_dict()}, folder / "weights.pt")


def save_adavsr(runs: Path) -> None:
    configs = {"temporal": TemporalModuleConfig(width=4, blocks=1), "spatial": SpatialModuleConfig(width=4, blocks=1)}
    for number, (part, config) in enumerate(configs.items()):
        entry = replace(find_network(f"adavsr-{part}-s"), config=config)
        for path in (runs / f"adavsr/{part}/weights.pt", runs / f"adavsr/meta/{part}.pt"):
            torch.manual_seed(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            state = entry.build(config).state_dict()
            torch.save({"config": asdict(config), "step": 3, "meta": {"steps": 3}, "state_dict": state}, path)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    save_edvr(tmp_path / "runs/edvr-s", 0, 5)
    save_edvr(tmp_path / "runs/edvr-m", 1, 6)
    save_adavsr(tmp_path / "runs")
    return tmp_path / "runs"


def measured(part: str, runs: Path, *words: str) -> Sequence[dict[str, Any]]:
    """The lines of a part on the shipped clip; the second time none is added."""
    out = runs.parent / "out"
    command = [part, str(out), "--val", str(BEE), "--runs", str(runs), "--frames", "8", "--size", "96x128", *words]
    adaptation.main(command)
    found = read_lines(out)
    adaptation.main(command)
    assert read_lines(out) == found
    return [line for line in found if line["part"] == part]


@pytest.mark.parametrize("part", ["self-supervised", "distilled"])
def test_networks_that_enlarge_are_measured(part: str, runs: Path) -> None:
    words = [
        "--steps",
        "2",
        "--patch",
        "16",
        "--batch",
        "1",
        "--networks",
        "edvr-s,rbpn-s",
        "--cases",
        "bicubic,estimated,given",
    ]
    lines = measured(part, runs, *words)
    done = [line for line in lines if not {"missing", "failed"} & line.keys()]
    for line in done:
        assert line["gain_db"] == pytest.approx(line["after"]["psnr_y_db"] - line["before"]["psnr_y_db"], abs=2e-4)
        assert line["after"] != line["before"]
        assert line["trained"]["step"] in (5, 6)
    if part == "self-supervised":
        assert [line["trial"]["case"] for line in done] == ["bicubic", "given"]
        assert done[0]["before"]["psnr_y_db"] != done[1]["before"]["psnr_y_db"]
        assert done[1]["true_widths_px"][0] >= done[1]["true_widths_px"][1] >= 1
        assert [line["missing"] for line in lines if "missing" in line] == ["rbpn-s/weights.pt"]
        (failed,) = [line for line in lines if "failed" in line]  # its frames are too small for that
        assert failed["trial"]["case"] == "estimated"
    else:
        student, distilled, teacher = done
        assert student["before"] == distilled["before"] != teacher["before"]
        assert student["after"] != distilled["after"]


def test_the_time_of_a_large_teacher_is_measured_without_weights(runs: Path) -> None:
    words = ["--steps", "1", "--patch", "16", "--batch", "1", "--large", "toflow-s"]
    (line,) = measured("distilled-time", runs, *words)
    assert (line["trial"]["network"], line["trial"]["teacher"]) == ("edvr-s", "toflow-s")
    for who in ("distilled", "teacher"):
        assert 0 < line[f"{who}_restoring_seconds"] < line[f"{who}_seconds"]


def test_internal_learning_is_measured_over_steps(runs: Path) -> None:
    words = ("--curve", "0,1,2", "--kernel", "given", "--meta-frames", "9", "--side", "64")
    lines = measured("meta", runs, *words)
    found = curves(lines)
    assert {tuple(curve) for curve in found.values()} == {(0, 1, 2)}
    plain, adam, *meta_trained = found.values()
    assert [plain, adam] == meta_trained  # of the same weights here
    assert plain[0] == adam[0] != adam[1]
    drawn = ElementTree.parse(runs.parent / "out/adaptation_meta_given.svg")
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))) == 4


@pytest.mark.parametrize("part", ["self-supervised", "meta"])
def test_a_blur_is_estimated_from_whole_frames(part: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def estimate(frames: torch.Tensor, factor: int) -> torch.Tensor:
        seen.append((factor, *frames.shape[1:]))
        return gaussian_kernel((3.5, 1.5), 0.25)

    for module in (adaptation_space, adaptation_meta):
        monkeypatch.setattr(module, "estimate_kernel", estimate)
    words = ["--steps", "1", "--patch", "16", "--networks", "edvr-s", "--cases", "estimated"]
    words += ["--curve", "0,1", "--meta-frames", "9", "--side", "64"]
    lines = measured(part, runs, *words)
    h, w = (34, 60) if part == "self-supervised" else (32, 60)  # of 136 rows; internal learning takes multiples of 16
    assert seen
    assert set(seen) == {(4, 3, h, w)}
    for line in lines:
        assert line["estimated_widths_px"] == pytest.approx([3.5, 1.5], rel=0.01)
        assert line["estimated_angle"] == pytest.approx(0.25, abs=0.01)


def test_zero_shot_learning_is_measured_and_drawn(runs: Path) -> None:
    words = ["--zero-frames", "24", "--zero-steps", "2", "--size", "48x64"]
    (line,) = measured("zero-shot", runs, *words)
    found = {name: result["psnr_y_db"] for name, result in line["results"].items()}
    assert tuple(found) == adaptation_time.METHODS
    assert len(set(found.values())) == 4
    assert (runs.parent / "out" / adaptation_time.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_verdicts_are_measured(runs: Path) -> None:
    lines = measured("gate", runs, "--trials", "2")
    assert [line["trial"]["rate"] for line in lines] == [1e-5, 1e-4]
    for line in lines:
        assert isinstance(line["kept"], bool)
        assert line["true_gain_db"] != 0


def test_new_weights_are_timed(runs: Path) -> None:
    (line,) = measured("reweight", runs, "--reweighted", "adavsr-spatial-s", "--timings", "1")
    assert line["weights"] == pytest.approx(0.52e6, rel=0.02)
    assert 0 < line["bundle_seconds"] <= line["bundle_checked_seconds"]
    assert line["session_seconds"] > 0


def test_the_table_is_written_from_the_lines(runs: Path, tmp_path: Path) -> None:
    out, readme = tmp_path / "out", tmp_path / "README.md"
    out.mkdir()
    (out / "adaptation.jsonl").write_text(json.dumps(adapted_line("a", 30.0, 30.25)) + "\n")
    readme.write_text(f"{BEGIN}\n{END}\n")
    adaptation.main(["table", str(out), "--readme", str(readme)])
    assert "+0.250 dB" in readme.read_text()


def test_clips_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--val"):
        adaptation.main(["gate", str(tmp_path)])
