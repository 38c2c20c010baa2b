"""The command line as its user meets it: a process, its exit code, and one clear sentence when something is wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from stvsr.engine.backends.tensorrt.builder import load_library
from stvsr.engine.contract.errors import BackendError

from tests.support.paths import SAMPLE
from tests.support.toy import write_toy


def stvsr(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stvsr", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **environment},
    )


def assert_one_clear_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode not in (0, None), done.stdout
    text = done.stderr.strip()
    assert "Traceback" not in text
    assert text.count("\n") == 0, text
    for word in words:
        assert word in text, text


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Four frames of the sample at 48x32."""
    path = tmp_path_factory.mktemp("short") / "short.mp4"
    with av.open(str(SAMPLE)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number, frame in zip(range(4), source.decode(video=0), strict=False):
            picture = frame.reformat(48, 32, "yuv420p", threads=1)
            picture.pts, picture.time_base = number, Fraction(1, 25)
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    return path


def test_upscale_makes_the_default_output_beside_the_input(short, toy, tmp_path):
    source = Path(shutil.copy(short, tmp_path))
    done = stvsr("upscale", source, "-m", toy, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    made = tmp_path / "short_x4_50fps.mp4"
    assert report["output"] == str(made)
    assert (report["frames_in"], report["frames_out"]) == (4, 8)
    with av.open(str(made)) as video:
        assert [(f.width, f.height) for f in video.decode(video=0)] == [(192, 128)] * 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["short.mp4", "short_x4_50fps.mp4"]


def test_upscale_takes_a_size_a_rate_and_encoder_options(short, toy, tmp_path):
    out = tmp_path / "out.mkv"
    done = stvsr(
        "upscale",
        short,
        "-o",
        out,
        "-m",
        toy,
        "--size",
        "100x60",
        "--fps",
        "60",
        "--codec",
        "libx264",
        "--crf",
        "30",
        "-e",
        "preset=ultrafast",
        "--pix-fmt",
        "yuv444p",
        "--no-progress",
    )
    assert done.returncode == 0, done.stderr
    with av.open(str(out)) as video:
        stream = video.streams.video[0]
        assert (stream.width, stream.height, stream.pix_fmt) == (100, 60, "yuv444p")
        assert len(list(video.decode(stream))) == pytest.approx(4 * 60 / 25, abs=1)


def test_upscale_reads_a_folder_of_pngs(short, toy, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    with av.open(str(short)) as video:
        for number, frame in enumerate(video.decode(video=0)):
            encoder = av.CodecContext.create("png", "w")
            encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "rgb24"
            encoder.time_base = frame.time_base
            rgb = frame.reformat(format="rgb24", threads=1)
            (folder / f"{number}.png").write_bytes(b"".join(map(bytes, [*encoder.encode(rgb), *encoder.encode(None)])))
    done = stvsr("upscale", folder, "-m", toy, "--input-fps", "12")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "frames_x4_24fps.mp4").exists()


def test_errors_are_one_sentence_each(short, toy, tmp_path):
    empty, sound, other = tmp_path / "empty.mp4", tmp_path / "sound.m4a", tmp_path / "there.mp4"
    empty.touch()
    other.write_text("keep me")
    with av.open(str(SAMPLE)) as source, av.open(str(sound), "w", format="mp4") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    cases = [
        (("upscale", tmp_path / "gone.mp4"), ("gone.mp4",)),
        (("upscale", empty), ("empty.mp4",)),
        (("upscale", sound), ("sound.m4a", "video")),
        (("upscale", short, "-m", "videoinr-xl"), ("videoinr-xl",)),
        (("upscale", short, "-m", toy, "-s", "100"), ("x1 to x8",)),
        (("upscale", short, "-m", toy, "-o", other), ("there.mp4", "already")),
        (("upscale", short, "-m", toy, "--backend", "openvino"), ("no backend 'openvino'", "ort, tensorrt")),
        (("upscale", short, "-m", toy, "--backend", "tensorrt", "--device", "cuda:0"), ("install",)),
        (("upscale", short, "-m", toy, "--backend", "tensorrt", "--device", "cpu"), ("--device cuda:0",)),
        (("upscale", short, "-m", toy, "--precision", "fp16", "--device", "cpu"), ("--backend tensorrt",)),
        (("upscale", short, "-m", toy, "--device", "cuda:0"), ("install",)),
        (("compile", toy, "--shapes", "640x360/64x64"), ("'640x360/64x64' is no range of shapes",)),
        (("compile", toy, "--shapes", "batch=1/2/x"), ("'batch=1/2/x' is no range of shapes",)),
        (("compile", toy, "--library", "openvino"), ("no engine library 'openvino'",)),
        (("compile", toy, "-o", toy), ("exists already", "--overwrite")),
        (("compile", toy, "-o", tmp_path / "engines", "--target", "sm61"), ()),
        (("upscale", short, "-m", toy, "--device", "gpu"), ("'gpu' is no device",)),
        (("upscale", short, "-m", toy, "-s", "2", "--size", "9x9"), ("scale", "size")),
        (("upscale", short, "-m", toy, "--size", "big"), ("'big' is no size",)),
        (("upscale", short, "-m", toy, "--fps", "fast"), ("'fast' is no frame rate",)),
        (("upscale", short, "-m", toy, "-e", "slow"), ("'slow' is no option",)),
        (("upscale", short, "-m", toy, "--codec", "libx999"), ("libx999",)),
        (("info", tmp_path / "gone.mp4"), ("gone.mp4",)),
        (("evaluate", toy, tmp_path / "gone.mp4"), ("gone.mp4",)),
        (("export", "nothing", "--weights", empty, "-o", tmp_path / "b"), ("unknown network", "videoinr-s")),
        (("export", "videoinr-s", "--weights", tmp_path / "gone.pt", "-o", tmp_path / "b"), ("gone.pt",)),
        (("export", "videoinr-s", "--weights", empty, "-o", tmp_path / "b"), ("empty.mp4",)),
        (("train", "videoinr-s", "--data", tmp_path / "nowhere", "-o", tmp_path / "run"), ("nowhere",)),
        (("train", "edvr-s", "--data", other, "--start", tmp_path / "gone.pt", "-o", tmp_path / "run"), ("gone.pt",)),
        (("train", "edvr-s", "--data", other, "--meta", "steps=2", "-o", tmp_path / "run"), ("--meta", "adavsr-s")),
        (("train", "adavsr-s", "--data", other, "-c", "width=8", "-o", tmp_path / "run"), ("two networks", "-c")),
    ]
    if _has_cuda():
        cases = [case for case in cases if "cuda:0" not in case[0]]
    for arguments, words in cases:
        assert_one_clear_error(stvsr(*arguments), *words)
    assert other.read_text() == "keep me"
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "engines").exists()


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def test_a_bundle_whose_graph_was_changed_is_refused(short, toy, tmp_path):
    changed = Path(shutil.copytree(toy, tmp_path / "changed"))
    graph = next(changed.glob("*.onnx"))
    graph.write_bytes(graph.read_bytes() + b" ")
    assert_one_clear_error(stvsr("upscale", short, "-m", changed, "-o", tmp_path / "o.mp4"), graph.name, "changed")
    assert not (tmp_path / "o.mp4").exists()


def test_compiled_engines_are_recorded(toy, tmp_path):
    """Of a bundle in which they lie, and of a copy; a bundle is the same with them and without."""
    try:
        load_library("tensorrt-rtx")
    except BackendError as absent:
        pytest.skip(str(absent))
    sizes = ("--shapes", "B=1", "--shapes", "h=16/24/64", "--shapes", "w=16/24/64", "--shapes", "H=2/64/128")
    copy = tmp_path / "copy"
    done = stvsr("compile", toy, "-o", copy, *sizes, "--shapes", "W=2/64/128", "--target", "sm89,sm120", "--json")
    engines = json.loads(done.stdout)
    assert [(engine["role"], engine["target"]) for engine in engines] == [
        (role, target) for role in ("encoder", "decoder") for target in ("sm89", "sm120")
    ]
    assert all((copy / engine["file"]).stat().st_size for engine in engines)
    before, after = (json.loads(stvsr("info", folder, "--json").stdout) for folder in (toy, copy))
    assert (before["engines"], after["engines"]) == ([], engines)
    assert before["fingerprint"] == after["fingerprint"]
    again = stvsr("compile", copy, *sizes, "--shapes", "W=2/64/128", "--target", "sm86", "--precision", "fp16")
    assert "encoder.tensorrt-rtx.sm86.fp16.engine" in again.stdout
    assert len(json.loads(stvsr("info", copy, "--json").stdout)["engines"]) == 6


def test_info_tells_of_a_video_and_of_a_bundle(short, toy):
    video = json.loads(stvsr("info", short, "--json").stdout)
    assert (video["width"], video["height"]) == (48, 32)
    bundle = json.loads(stvsr("info", toy, "--json").stdout)
    assert bundle["space"] == "x1 to x8"
    assert stvsr("info", short).returncode == 0


def test_models_lists_what_is_shipped():
    listed = json.loads(stvsr("models", "--json").stdout)
    assert "videoinr-s" in listed
    assert listed["videoinr-s"]["bytes"] < 8e6


def test_evaluate_prints_and_writes_scores(short, toy, tmp_path):
    out = tmp_path / "scores.json"
    done = stvsr("evaluate", toy, short, "-s", "2", "-o", out)
    assert done.returncode == 0, done.stderr
    scores = json.loads(out.read_text())
    assert scores["protocol"] == {"scale": 2, "factor": 2, "exposure": False}
    assert np.isfinite(scores["mean"]["between"]["stvsr"]["psnr_y_db"])
    assert "bicubic+repeat" in done.stdout


def test_commands_that_need_pytorch_say_so_without_it(short, tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    done = stvsr("train", "videoinr-s", "--data", short, "-o", tmp_path / "run", PYTHONPATH=str(tmp_path))
    assert_one_clear_error(done, "torch", "stvsr[training]")


def test_train_then_export_then_upscale(short, tmp_path):
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


def test_a_chain_of_two_untrained_networks(short, tmp_path):
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
    assert_one_clear_error(wrong, "no 'frames'", "num_frame")
    both = stvsr("export", "edvr-s", "--untrained", "--weights", tmp_path / "w.pt", "-o", tmp_path / "edvr")
    assert_one_clear_error(both, "--weights", "--untrained")


@pytest.mark.parametrize("name", ["stinet-s", "dtsr-s"])
def test_networks_of_every_kind_train(name, short, tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    shutil.copy(SAMPLE, clips)
    run = tmp_path / "run"
    trained = stvsr("train", name, "--data", clips, "-o", run, "--steps", "2", "--patch", "16", "--batch", "1")
    assert trained.returncode == 0, trained.stderr
    assert (run / "weights.pt").is_file()


def test_ctrl_c_leaves_nothing_and_says_so(toy, tmp_path):
    out = tmp_path / "out.mp4"
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from stvsr.cli import main; main()"
    running = subprocess.Popen(
        [sys.executable, "-c", code, "upscale", str(SAMPLE), "-m", str(toy), "-o", str(out)],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.iterdir()) and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    told = running.communicate(timeout=60)[1]
    assert running.returncode == 130
    assert told.strip() == "Interrupted: nothing was written."
    assert list(tmp_path.iterdir()) == []
