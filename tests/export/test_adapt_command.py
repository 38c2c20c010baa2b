"""`stvsr adapt` and `stvsr upscale --adapt`: adapted bundles, upscaled videos, and refused options."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stvsr import BackendError, Bundle, RequestError
from stvsr.engine.contract.bundle import find_bundle
from stvsr.engine.contract.weights import read_weights
from stvsr.export.adapter import BundleAdapter, Options
from stvsr.export.exporter import export_bundle
from stvsr.training.adapt.protocol import Budget
from stvsr.training.networks.registry import configured, find_network
from stvsr.training.resize import downscale

from tests.support.commands import assert_one_clear_error, run_inside, stvsr
from tests.support.media import make_video, pan
from tests.support.procedural import filled
from tests.support.toy import write_toy


def export_small(name: str, folder: Path, gain: float = 0.3, **changes: str) -> Path:
    """Export a network that was not trained but enlarges: its last layers add little to an interpolation."""
    entry = configured(find_network(name), changes)
    torch.manual_seed(0)
    return export_bundle(entry, filled(entry.build(entry.config), gain=gain, offset_gain=1.0), folder / name)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of two scenes, with 12 and 10 frames of 64x48 pixels."""
    frames = [*pan(12, (48, 64)), *(1 - frame for frame in pan(10, (48, 64)))]
    return make_video(tmp_path_factory.mktemp("clips") / "clip.mp4", frames)


@pytest.fixture(scope="module")
def spatial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_small("adavsr-spatial-s", tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def temporal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_small("adavsr-temporal-s", tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def dtsr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_small("dtsr-s", tmp_path_factory.mktemp("bundles"), gain=2.0, width="8")


def weights_of(bundle: Bundle) -> dict[str, np.ndarray]:
    return {
        name: value
        for graph in bundle.manifest.graphs
        for name, value in read_weights(bundle.path(graph.role).read_bytes()).items()
    }


def test_a_bundle_adapts_to_a_clip(clip: Path, spatial: Path, tmp_path: Path) -> None:
    """The graphs and the names of weights stay those of the parent, and the manifest records the adaptation."""
    out = tmp_path / "adapted"
    options = ("--method", "self-supervised", "--degradation", "plain", "--adapt-steps", "3", "--json")
    done = stvsr("adapt", clip, "-m", spatial, "-o", out, *options)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    parent, adapted = Bundle.load(spatial), Bundle.load(out)
    stored = adapted.manifest.training["adapted"]
    assert stored["parent"] == parent.fingerprint
    assert {key: stored[key] for key in ("kept", "reason", "steps")} == {
        key: record[key] for key in ("kept", "reason", "steps")
    }
    before, after = weights_of(parent), weights_of(adapted)
    assert before.keys() == after.keys()
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert bool(changed) == record["kept"]
    assert [graph.file for graph in adapted.manifest.graphs] == [graph.file for graph in parent.manifest.graphs]
    again = stvsr("adapt", clip, "-m", spatial, "-o", out, "--adapt-steps", "1")
    assert_one_clear_error(again, "exists already", "--overwrite")


@pytest.mark.slow
def test_the_default_network_adapts_in_space_and_time(tmp_path: Path) -> None:
    """Its motion stays as it is, and the record has the kernel and the gain of the frames between."""
    clip, out = make_video(tmp_path / "clip.mp4", pan(12, (64, 96))), tmp_path / "adapted"
    done = stvsr("adapt", clip, "-o", out, "--degradation", "blur", "--adapt-steps", "2", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["method"], record["adapts"], record["steps"]) == ("self-supervised", "all", 2)
    assert "between_gain_db" in record
    kernel = np.array(record["analysis"]["blur"]["kernel"])
    assert kernel.shape == (24, 24)
    assert kernel.sum() == pytest.approx(1, abs=0.01)
    before, after = weights_of(find_bundle("fourier-s")), weights_of(Bundle.load(out))
    changed = {name.split(".")[0] for name in before if not np.array_equal(before[name], after[name])}
    assert changed == ({"fuse", "trunk", "last", "field"} if record["kept"] else set())
    again = stvsr(
        "upscale", clip, "--adapt", "--adapt-steps", "2", "--degradation", "blur", "-t", "2", "-o", tmp_path / "o.mp4"
    )
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("per", "adaptations", "others"),
    [
        pytest.param("video", 1, (), marks=pytest.mark.slow),
        ("scene", 2, ()),
        pytest.param("video", 1, ("--resume",), marks=pytest.mark.slow),
        pytest.param("scene", 2, ("--resume",), marks=pytest.mark.slow),
    ],
)
def test_upscale_adapts_to_the_video_or_to_each_scene(
    clip: Path, spatial: Path, tmp_path: Path, per: str, adaptations: int, others: tuple[str, ...]
) -> None:
    out = tmp_path / "out.mp4"
    adapt = ("--adapt", "--adapt-per", per, "--adapt-steps", "2", *others)
    done = stvsr("upscale", clip, "-m", spatial, "-o", out, *adapt, "--json", "-e", "preset=ultrafast")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["frames_out"] == 22
    assert len(report["adaptation"]) == adaptations
    assert all(record["reason"].endswith(".") for record in report["adaptation"])
    assert not [path for path in tmp_path.iterdir() if path != out]


@pytest.mark.slow
@pytest.mark.parametrize("per", ["scene", "video"])
def test_adapt_and_upscale_have_the_same_result(clip: Path, spatial: Path, tmp_path: Path, per: str) -> None:
    """Equal options give an equal decision and an equal verdict."""
    options = ("--degradation", "blur", "--adapt-steps", "2", "--adapt-per", per, "--json")
    alone = stvsr("adapt", clip, "-m", spatial, "-o", tmp_path / "b", *options)
    assert alone.returncode == 0, alone.stderr
    both = stvsr("upscale", clip, "-m", spatial, "-o", tmp_path / "o.mp4", "--adapt", *options)
    assert both.returncode == 0, both.stderr
    records = json.loads(alone.stdout)
    records = [records] if per == "video" else records
    reported = json.loads(both.stdout)["adaptation"]
    assert len(records) == len(reported) == (1 if per == "video" else 2)
    for record, other in zip(records, reported, strict=True):
        assert record["degradation"]["parts"] == ["blur"]
        assert without_seconds(record) == without_seconds(other)
    bundles = [tmp_path / "b"] if per == "video" else [tmp_path / "b" / str(number) for number in (1, 2)]
    for folder, record in zip(bundles, records, strict=True):
        assert Bundle.load(folder).manifest.training["adapted"]["kept"] == record["kept"]


def without_seconds(record: Any) -> Any:
    """Return a record without the values that are measured by a clock."""
    if not isinstance(record, dict):
        return record
    return {name: without_seconds(value) for name, value in record.items() if not name.endswith("seconds")}


def test_a_clean_clip_has_nothing_to_learn(tmp_path: Path) -> None:
    """One sentence is written at once, and the original weights are used."""
    random = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512)[None, :257])
    frequency[0, 0] = np.inf
    picture = np.fft.irfft2(np.fft.rfft2(random.normal(size=(512, 512))) / frequency**1.45)
    large = np.clip(0.5 + 0.13 * picture / picture.std(), 0, 1)
    small = downscale(np.repeat(large[None, ..., None], 3, 3).astype(np.float32), (128, 128))[0] / 255
    frames = [np.roll(small, shift, 1)[:96, :112].transpose(2, 0, 1).astype(np.float32) for shift in range(8)]
    clip = make_video(tmp_path / "clip.mp4", frames)
    done = stvsr("adapt", clip, "-m", "edvr-s", "-o", tmp_path / "same")
    assert done.returncode == 0, done.stderr
    sentence = "Nothing to learn: the clip has no blur, noise or compression that stands out."
    assert sentence in done.stdout
    assert done.stderr.count(sentence) == 1
    record = Bundle.load(tmp_path / "same").manifest.training["adapted"]
    assert record["kept"] is False
    assert record["analysis"]["compression"]["evidence"] == "quantisers"
    before, after = weights_of(find_bundle("edvr-s")), weights_of(Bundle.load(tmp_path / "same"))
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_both_modules_of_ada_vsr_adapt_as_one_network(
    clip: Path, spatial: Path, temporal: Path, tmp_path: Path
) -> None:
    out = tmp_path / "both"
    done = stvsr("adapt", clip, "-m", f"{temporal}+{spatial}", "-o", out, "--adapt-steps", "2", "--json")
    assert done.returncode == 0, done.stderr
    for part, parent in (("temporal", temporal), ("spatial", spatial)):
        assert Bundle.load(out / part).manifest.training["adapted"]["parent"] == Bundle.load(parent).fingerprint
    report = stvsr("upscale", clip, "-m", f"{out / 'temporal'}+{out / 'spatial'}", "-o", tmp_path / "o.mp4", "--json")
    assert json.loads(report.stdout)["frames_out"] == 44


@pytest.mark.slow
def test_a_network_learns_from_scratch_on_small_frames(dtsr: Path, tmp_path: Path) -> None:
    """The bundle records how small, and the upscaler works from coarse to fine."""
    clip, out = make_video(tmp_path / "clip.mp4", pan(40, (72, 96))), tmp_path / "adapted"
    done = stvsr("adapt", clip, "-m", dtsr, "-o", out, "--adapt-steps", "2", "--coarse", "2", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["kept"], record["coarse"]) == (True, 2)
    manifest = Bundle.load(out).manifest
    assert manifest.window.model_dump()["coarse"] == manifest.architecture.config["coarse"] == 2
    report = stvsr("upscale", clip, "-m", out, "-t", "4", "-o", tmp_path / "out.mp4", "--json")
    assert json.loads(report.stdout)["frames_out"] == 160


def test_a_black_clip_leaves_the_weights_unchanged(spatial: Path, tmp_path: Path) -> None:
    black = make_video(tmp_path / "black.mp4", [np.zeros((3, 48, 64), np.float32)] * 12)
    done = stvsr("adapt", black, "-m", spatial, "-o", tmp_path / "same", "--adapt-steps", "2")
    assert done.returncode == 0
    assert "flat or black" in done.stdout
    assert "original weights" in done.stderr
    before, after = weights_of(Bundle.load(spatial)), weights_of(Bundle.load(tmp_path / "same"))
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_errors_are_one_sentence_and_leave_no_files(
    clip: Path,
    spatial: Path,
    dtsr: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inside = run_inside(monkeypatch, capsys)
    toy, out = write_toy(tmp_path / "toy"), tmp_path / "out"
    cases: list[tuple[tuple[object, ...], tuple[str, ...]]] = [
        (("adapt", clip, "-m", spatial, "-o", out, "--method", "magic"), ("Unknown method 'magic'", "zero-shot")),
        (("adapt", clip, "-m", spatial, "-o", out, "--method", "distillation"), ("--teacher",)),
        (("adapt", clip, "-m", spatial, "-o", out, "--adapt-seconds", "0"), ("seconds",)),
        (("adapt", clip, "-m", toy, "-o", out), ("toy",)),
        (("adapt", clip, "-m", dtsr, "-o", out, "--coarse", "3"), ("1, 2, 4", "--coarse")),
        (("adapt", clip, "-m", f"{spatial}+{spatial}", "-o", out), ("does not adapt as one",)),
        (("upscale", clip, "-m", spatial, "--adapt-steps", "3"), ("--adapt-steps", "no effect without --adapt")),
        (("upscale", clip, "-m", spatial, "--adapt", "--adapt-per", "frame"), ("'frame' of --adapt-per", "scene")),
        (
            ("upscale", clip, "-m", spatial, "--adapt", "--coarse", "2", "--pix-fmt", "yuv420p"),
            ("--coarse has no effect on the method",),
        ),
    ]
    for arguments, words in cases:
        assert_one_clear_error(inside(*arguments), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


@pytest.mark.parametrize(
    ("bundle", "options", "message"),
    [
        ("spatial", {"coarse": 2}, "--coarse has no effect on the method internal"),
        ("spatial", {"checkpoint": Path("run.pt")}, "--checkpoint has no effect on the method internal"),
        ("spatial", {"teacher": True}, "--teacher has no effect on the method internal"),
        ("spatial", {"teacher": True, "method": "self-supervised"}, "--teacher has no effect on .* self-supervised"),
        ("spatial", {"coarse": 2, "method": "self-supervised"}, "--coarse has no effect on .* self-supervised"),
        ("dtsr", {"degradation": "blur"}, "--degradation has no effect on the method zero-shot"),
        (
            "spatial",
            {"degradation": "blur+fog"},
            "Unknown degradation 'fog': use auto, plain, or blur",
        ),
        ("spatial", {"degradation": "blur+noise"}, "Internal learning undoes a blur only"),
        ("dtsr", {"teacher": True}, "--teacher has no effect on the method zero-shot"),
        (
            "spatial",
            {"method": "zero-shot"},
            "not serve 'adavsr-spatial-s': use internal, self-supervised or dist",
        ),
    ],
)
def test_options_that_a_method_does_not_use_are_refused(
    bundle: str, options: dict[str, Any], message: str, request: pytest.FixtureRequest
) -> None:
    network = Bundle.load(request.getfixturevalue(bundle))
    if "teacher" in options:
        options = {**options, "teacher": network}
    with pytest.raises(RequestError, match=message):
        BundleAdapter([network], Options(Budget(steps=1), **options))


@pytest.mark.parametrize("method", ["self-supervised", "distillation"])
def test_methods_for_one_bundle_refuse_both_modules_of_ada_vsr(spatial: Path, temporal: Path, method: str) -> None:
    bundles = [Bundle.load(temporal), Bundle.load(spatial)]
    message = rf"The method {method} does not serve 'adavsr-temporal-s\+adavsr-spatial-s': use internal\."
    with pytest.raises(RequestError, match=message):
        BundleAdapter(bundles, Options(Budget(steps=1), method=method, teacher=bundles[1]))


def test_a_missing_pytorch_names_the_extra(clip: Path, spatial: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from stvsr.cli.app import main; main()"
    arguments = ["upscale", str(clip), "-m", str(spatial), "-o", str(tmp_path / "o.mp4"), "--adapt"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'pip install "stvsr[training]"' in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ada_vsr_trains_and_meta_trains(tmp_path: Path) -> None:
    """Both modules train alone and then together; their weights export, and a completed run is not repeated."""
    data = tmp_path / "clips"
    data.mkdir()
    make_video(data / "one.mp4", pan(20, (192, 192)))
    run = tmp_path / "run"
    train = ("train", "adavsr-s", "--data", data, "-o", run, "--steps", "2", "--batch", "1", "--patch", "16")
    meta = ("--meta", "steps=1", "--meta", "inner_steps=1")
    done = stvsr(*train, *meta)
    assert done.returncode == 0, done.stderr
    for part in ("temporal", "spatial"):
        weights = run / "meta" / f"{part}.pt"
        exported = stvsr("export", f"adavsr-{part}-s", "--weights", weights, "-o", tmp_path / part)
        assert exported.returncode == 0, exported.stderr
    before = (run / "meta" / "last.pt").stat().st_mtime_ns
    assert stvsr(*train, *meta).returncode == 0
    assert (run / "meta" / "last.pt").stat().st_mtime_ns == before
    assert_one_clear_error(stvsr(*train, "--meta", "inner=3"), "no field 'inner'", "inner_steps")


def test_a_device_that_pytorch_cannot_use_is_refused(spatial: Path) -> None:
    with pytest.raises(BackendError, match="PyTorch cannot use the device 'cuda:99'"):
        BundleAdapter([Bundle.load(spatial)], Options(Budget(steps=1), device="cuda:99"))


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "degradation"), [("edvr-s", "plain"), ("spatial", "auto"), ("dtsr", "auto")])
def test_a_gpu_learns_what_the_cpu_learns(
    name: str, degradation: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device that PyTorch can use")
    bundle = find_bundle(name) if name == "edvr-s" else Bundle.load(request.getfixturevalue(name))
    frames = np.stack([frame.astype(np.float32) for frame in pan(20, (48, 64))])
    losses = []
    for device in ("cpu", "cuda:0"):
        adapter = BundleAdapter([bundle], Options(Budget(steps=3), degradation=degradation, device=device))
        _, verdict = adapter.adapt(frames, tmp_path / device)
        assert verdict.adapted is not None, verdict.reason
        losses.append(verdict.adapted.record.losses)
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
