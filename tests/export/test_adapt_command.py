"""Adaptation as its user meets it: a clip and a bundle in, a bundle with other weights or an upscaled video out."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stvsr.engine.contract.bundle import Bundle
from stvsr.engine.contract.weights import read_weights
from stvsr.export.exporter import export_bundle
from stvsr.training.networks.registry import configured, find_network
from test_cli import assert_one_clear_error, stvsr
from test_pipeline import make_video, pan

from tests.support.procedural import filled
from tests.support.toy import write_toy


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes."""
    frames = [*pan(12, (48, 64)), *(1 - frame for frame in pan(10, (48, 64)))]
    return make_video(tmp_path_factory.mktemp("clips") / "clip.mp4", frames)


def bundle_of(name: str, folder: Path, seed: int = 0, gain: float = 0.3, **changes: str) -> Path:
    """A small network that is not trained, but enlarges: its last layers add little to an interpolation."""
    entry = configured(find_network(name), changes)
    torch.manual_seed(seed)
    return export_bundle(entry, filled(entry.build(entry.config), gain=gain, offset_gain=1.0), folder / name)


@pytest.fixture(scope="module")
def spatial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of("adavsr-spatial-s", tmp_path_factory.mktemp("bundles"))


def weights_of(bundle: Bundle) -> dict[str, np.ndarray]:
    return {
        name: value
        for graph in bundle.manifest.graphs
        for name, value in read_weights(bundle.path(graph.role).read_bytes()).items()
    }


def test_a_bundle_adapts_to_a_clip(clip: Path, spatial: Path, tmp_path: Path) -> None:
    """Graphs and names are the parent's; weights change where the gate lets them, and the record says so."""
    out = tmp_path / "adapted"
    done = stvsr("adapt", clip, "-m", spatial, "-o", out, "--method", "self-supervised", "--steps", "3", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    parent, adapted = Bundle.load(spatial), Bundle.load(out)
    told = adapted.manifest.training["adapted"]
    assert told["parent"] == parent.fingerprint
    assert {key: told[key] for key in ("kept", "reason", "steps")} == {
        key: record[key] for key in ("kept", "reason", "steps")
    }
    before, after = weights_of(parent), weights_of(adapted)
    assert before.keys() == after.keys()
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert bool(changed) == record["kept"]
    assert [graph.file for graph in adapted.manifest.graphs] == [graph.file for graph in parent.manifest.graphs]
    again = stvsr("adapt", clip, "-m", spatial, "-o", out, "--steps", "1")
    assert_one_clear_error(again, "exists already", "--overwrite")


@pytest.mark.parametrize("per", ["video", "scene"])
def test_a_video_is_upscaled_by_adapted_weights(clip: Path, spatial: Path, tmp_path: Path, per: str) -> None:
    out = tmp_path / "out.mp4"
    words = ("upscale", clip, "-m", spatial, "-o", out, "--adapt", "--adapt-per", per, "--adapt-steps", "2", "--json")
    done = stvsr(*words, "-e", "preset=ultrafast")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["frames_out"] == 22
    assert len(report["adaptation"]) == {"video": 1, "scene": 2}[per]
    assert all(record["reason"].endswith(".") for record in report["adaptation"])
    assert not [path for path in tmp_path.iterdir() if path != out]


def test_ada_vsrs_modules_adapt_as_one(clip: Path, spatial: Path, tmp_path: Path) -> None:
    temporal = bundle_of("adavsr-temporal-s", tmp_path)
    out = tmp_path / "both"
    done = stvsr("adapt", clip, "-m", f"{temporal}+{spatial}", "-o", out, "--steps", "2", "--json")
    assert done.returncode == 0, done.stderr
    for part, parent in (("temporal", temporal), ("spatial", spatial)):
        assert Bundle.load(out / part).manifest.training["adapted"]["parent"] == Bundle.load(parent).fingerprint
    report = stvsr("upscale", clip, "-m", f"{out / 'temporal'}+{out / 'spatial'}", "-o", tmp_path / "o.mp4", "--json")
    assert json.loads(report.stdout)["frames_out"] == 44


def test_a_network_learns_from_scratch_on_small_frames(tmp_path: Path) -> None:
    """What it is told of its frames' size is in the bundle, and the upscaler goes from coarse to fine."""
    clip = make_video(tmp_path / "clip.mp4", pan(40, (72, 96)))
    parent, out = bundle_of("dtsr-s", tmp_path, gain=2.0, width="8"), tmp_path / "learnt"
    done = stvsr("adapt", clip, "-m", parent, "-o", out, "--steps", "2", "--coarse", "2", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["kept"], record["coarse"]) == (True, 2)
    manifest = Bundle.load(out).manifest
    assert manifest.window.model_dump()["coarse"] == manifest.architecture.config["coarse"] == 2
    report = stvsr("upscale", clip, "-m", out, "-t", "4", "-o", tmp_path / "made.mp4", "--json")
    assert json.loads(report.stdout)["frames_out"] == 160


def test_a_clip_that_teaches_nothing_leaves_the_weights(spatial: Path, tmp_path: Path) -> None:
    black = make_video(tmp_path / "black.mp4", [np.zeros((3, 48, 64), np.float32)] * 12)
    done = stvsr("adapt", black, "-m", spatial, "-o", tmp_path / "same", "--steps", "2")
    assert done.returncode == 0
    assert "flat or black" in done.stdout
    assert "original weights" in done.stderr
    before, after = weights_of(Bundle.load(spatial)), weights_of(Bundle.load(tmp_path / "same"))
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_errors_are_one_sentence_each(clip: Path, spatial: Path, tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy")
    cases: list[tuple[tuple[object, ...], tuple[str, ...]]] = [
        (("adapt", clip, "-m", spatial, "-o", tmp_path / "a", "--method", "magic"), ("no method 'magic'", "zero-shot")),
        (("adapt", clip, "-m", spatial, "-o", tmp_path / "a", "--method", "distillation"), ("--teacher",)),
        (("adapt", clip, "-m", spatial, "-o", tmp_path / "a", "--adapt-seconds", "0"), ("seconds",)),
        (("adapt", clip, "-m", toy, "-o", tmp_path / "a"), ("toy",)),
        (("adapt", clip, "-m", spatial, "-o", tmp_path / "a", "--coarse", "3"), ("1, 2, 4", "--coarse")),
        (("adapt", clip, "-m", f"{spatial}+{spatial}", "-o", tmp_path / "a"), ("does not adapt as one",)),
        (("upscale", clip, "-m", spatial, "--adapt-steps", "3"), ("belong to --adapt",)),
        (("upscale", clip, "-m", spatial, "--adapt", "--adapt-per", "frame"), ("--adapt-per scene",)),
    ]
    for arguments, words in cases:
        assert_one_clear_error(stvsr(*arguments), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_without_pytorch_the_extra_is_named(clip: Path, spatial: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from stvsr.cli import main; main()"
    words = ["upscale", str(clip), "-m", str(spatial), "-o", str(tmp_path / "o.mp4"), "--adapt"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'pip install "stvsr[training]"' in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ada_vsr_trains_and_meta_trains(tmp_path: Path) -> None:
    """Both modules by themselves, then both; what comes out is exported, and a run that is over is not done again."""
    data = tmp_path / "clips"
    data.mkdir()
    make_video(data / "one.mp4", pan(20, (192, 192)))
    run = tmp_path / "run"
    words = ("train", "adavsr-s", "--data", data, "-o", run, "--steps", "2", "--batch", "1", "--patch", "16")
    meta = ("--meta", "steps=1", "--meta", "inner_steps=1")
    done = stvsr(*words, *meta)
    assert done.returncode == 0, done.stderr
    for part in ("temporal", "spatial"):
        weights = run / "meta" / f"{part}.pt"
        exported = stvsr("export", f"adavsr-{part}-s", "--weights", weights, "-o", tmp_path / part)
        assert exported.returncode == 0, exported.stderr
    before = (run / "meta" / "last.pt").stat().st_mtime_ns
    assert stvsr(*words, *meta).returncode == 0
    assert (run / "meta" / "last.pt").stat().st_mtime_ns == before
    assert_one_clear_error(stvsr(*words, "--meta", "inner=3"), "no 'inner'", "inner_steps")
