"""`stvsr train`, `export` and `evaluate`, each run as a process."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import assert_one_clear_error, stvsr
from tests.support.paths import SAMPLE


def test_evaluate_prints_and_writes_scores(short: Path, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    done = stvsr("evaluate", toy, short, "-s", "2", "-o", out)
    assert done.returncode == 0, done.stderr
    scores = json.loads(out.read_text())
    assert scores["protocol"] == {"scale": 2, "factor": 2, "exposure": False, "crf": None}
    assert np.isfinite(scores["mean"]["between"]["stvsr"]["psnr_y_db"])
    assert "bicubic+repeat" in done.stdout


def test_a_command_without_pytorch_names_the_extra(short: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    done = stvsr("train", "videoinr-s", "--data", short, "-o", tmp_path / "run", PYTHONPATH=str(tmp_path))
    assert_one_clear_error(done, "torch", "stvsr[training]")


def test_an_import_without_pytorch_names_its_extra(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    done = stvsr("import", tmp_path / "x.pth", "-o", tmp_path / "y", PYTHONPATH=str(tmp_path))
    assert_one_clear_error(done, "torch", "stvsr[import]")


@pytest.mark.slow
def test_a_trained_network_is_exported_and_upscales(short: Path, tmp_path: Path) -> None:
    run, bundle, clips = tmp_path / "run", tmp_path / "bundle", tmp_path / "clips"
    clips.mkdir()
    shutil.copy(SAMPLE, clips)
    trained = stvsr("train", "videoinr-s", "--data", clips, "-o", run, "--steps", "2", "--patch", "16", "--batch", "1")
    assert trained.returncode == 0, trained.stderr
    exported = stvsr("export", "videoinr-s", "--weights", run / "weights.pt", "-o", bundle)
    assert exported.returncode == 0, exported.stderr
    done = stvsr("upscale", short, "-m", bundle, "-o", tmp_path / "out.mp4", "-s", "1.5")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.mp4").exists()


@pytest.mark.slow
def test_a_chain_of_two_untrained_networks_upscales(short: Path, tmp_path: Path) -> None:
    for name in ("adavsr-temporal-s", "adavsr-spatial-s"):
        done = stvsr("export", name, "--untrained", "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
    chain = f"{tmp_path / 'adavsr-temporal-s'}+{tmp_path / 'adavsr-spatial-s'}"
    done = stvsr("upscale", short, "-m", chain, "-t", "4", "-o", tmp_path / "out.mp4", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["frames_out"], report["size_out"]) == (16, [192, 128])
    assert report["bundle"] == "adavsr-temporal-s+adavsr-spatial-s"
    assert "random weights" in report["warnings"][0]
    refused = stvsr("upscale", short, "-m", tmp_path / "adavsr-spatial-s", "-t", "2", "-o", tmp_path / "no.mp4")
    assert_one_clear_error(refused, "makes no frames in time", "TEMPORAL+SPATIAL")
    wrong = stvsr("export", "edvr-s", "--untrained", "-c", "frames=7", "-o", tmp_path / "edvr")
    assert_one_clear_error(wrong, "no field 'frames'", "num_frame")
    both = stvsr("export", "edvr-s", "--untrained", "--weights", tmp_path / "w.pt", "-o", tmp_path / "edvr")
    assert_one_clear_error(both, "--weights", "--untrained")


@pytest.mark.parametrize("name", [pytest.param("stinet-s", marks=pytest.mark.slow), "dtsr-s"])
def test_every_kind_of_network_trains(name: str, short: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    shutil.copy(SAMPLE, clips)
    run = tmp_path / "run"
    trained = stvsr("train", name, "--data", clips, "-o", run, "--steps", "2", "--patch", "16", "--batch", "1")
    assert trained.returncode == 0, trained.stderr
    assert (run / "weights.pt").is_file()
