"""`stvsr upscale`, `compile`, `info` and `models`, each run as a process."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
from stvsr import BackendError
from stvsr.engine.backends.tensorrt.library import load_library

from tests.support.commands import assert_one_clear_error, run_inside, stvsr
from tests.support.paths import SAMPLE


def test_the_default_output_lies_beside_the_input(short: Path, toy: Path, tmp_path: Path) -> None:
    source = Path(shutil.copy(short, tmp_path))
    done = stvsr("upscale", source, "-m", toy, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    output = tmp_path / "short_x4_50fps.mp4"
    assert report["output"] == str(output)
    assert (report["frames_in"], report["frames_out"]) == (4, 8)
    with av.open(str(output)) as video:
        assert [(f.width, f.height) for f in video.decode(video=0)] == [(192, 128)] * 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["short.mp4", "short_x4_50fps.mp4"]


def test_a_damaged_bundle_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{}")
    monkeypatch.setenv("STVSR_MODELS", str(tmp_path))
    run = run_inside(monkeypatch, capsys)
    done = run("models")
    assert "fourier-s" in done.stdout
    assert_one_clear_error(done, str(tmp_path / "broken"))
    facts = json.loads(run("models", "--json").stdout)
    assert facts["fourier-s"]["network"] == "fourier-s"
    assert "broken" in facts["broken"]["error"]


def test_upscale_accepts_size_rate_and_encoder_options(short: Path, toy: Path, tmp_path: Path) -> None:
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


def test_upscale_reads_a_folder_of_images(short: Path, toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    with av.open(str(short)) as video:
        for number, frame in enumerate(video.decode(video=0)):
            encoder = av.CodecContext.create("png", "w")
            encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "rgb24"
            assert frame.time_base is not None
            encoder.time_base = frame.time_base
            rgb = frame.reformat(format="rgb24", threads=1)
            (folder / f"{number}.png").write_bytes(b"".join(map(bytes, [*encoder.encode(rgb), *encoder.encode(None)])))
    done = stvsr("upscale", folder, "-m", toy, "--input-fps", "12")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "frames_x4_24fps.mp4").exists()


def test_a_bundle_with_a_changed_graph_is_refused(short: Path, toy: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(toy, tmp_path / "changed"))
    graph = next(changed.glob("*.onnx"))
    graph.write_bytes(graph.read_bytes() + b" ")
    assert_one_clear_error(stvsr("upscale", short, "-m", changed, "-o", tmp_path / "o.mp4"), graph.name, "changed")
    assert not (tmp_path / "o.mp4").exists()


def test_compiled_engines_are_listed_in_the_manifest(toy: Path, tmp_path: Path) -> None:
    """Compile a copy of a bundle, then the copy in place; engines do not change the fingerprint."""
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


def test_info_describes_videos_and_bundles(short: Path, toy: Path) -> None:
    video = json.loads(stvsr("info", short, "--json").stdout)
    assert (video["width"], video["height"]) == (48, 32)
    bundle = json.loads(stvsr("info", toy, "--json").stdout)
    assert bundle["space"] == "x1 to x8"
    assert stvsr("info", short).returncode == 0


def test_info_lists_the_devices_and_why_one_is_not_chosen() -> None:
    listed = json.loads(stvsr("info", "--devices", "--json").stdout)
    assert [entry["chosen"] for entry in listed].count(True) == 1
    assert (listed[-1]["device"], listed[-1]["backend"], listed[-1]["available"]) == ("cpu", "ort", True)
    assert all(entry["available"] == (entry["unavailable"] is None) for entry in listed)
    assert "chosen by --backend auto" in stvsr("info", "--devices").stdout
    for arguments in ((), ("--devices", "clip.mp4")):
        done = stvsr("info", *arguments)
        assert (done.returncode, "Name one thing" in done.stderr) == (1, True)


def test_models_lists_the_shipped_bundles() -> None:
    listed = json.loads(stvsr("models", "--json").stdout)
    assert "videoinr-s" in listed
    assert listed["videoinr-s"]["bytes"] < 8e6


def test_ctrl_c_leaves_nothing_and_prints_a_sentence(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from stvsr.cli.app import main; main()"
    running = subprocess.Popen(
        [sys.executable, "-c", code, "upscale", str(SAMPLE), "-m", str(toy), "-o", str(out)],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.iterdir()) and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    stderr = running.communicate(timeout=60)[1]
    assert running.returncode == 130
    assert stderr.strip() == "Interrupted: nothing was written."
    assert list(tmp_path.iterdir()) == []
