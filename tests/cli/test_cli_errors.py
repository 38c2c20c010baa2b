"""Every error of the command line is one sentence, with an exit code that is not 0; bugs are tracebacks."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import AsyncMock

import av
import pytest
import torch

from tests.support.commands import assert_one_clear_error, run_inside, stvsr
from tests.support.paths import SAMPLE


@dataclass(frozen=True)
class Files:
    """A clip, a bundle, and files of wrong kinds."""

    folder: Path
    short: Path
    toy: Path
    empty: Path
    sound: Path
    other: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, short: Path, toy: Path) -> Files:
    folder = tmp_path_factory.mktemp("files")
    empty, sound, other = folder / "empty.mp4", folder / "sound.m4a", folder / "existing.mp4"
    empty.touch()
    other.write_text("keep me")
    with av.open(str(SAMPLE)) as source, av.open(str(sound), "w", format="mp4") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return Files(folder, short, toy, empty, sound, other)


@pytest.fixture(autouse=True)
def _nothing_is_left(files: Files) -> Iterator[None]:
    before = sorted(files.folder.iterdir())
    yield
    assert sorted(files.folder.iterdir()) == before
    assert files.other.read_text() == "keep me"


# The placeholders {short}, {toy}, {empty}, {sound}, {other} and {folder} are files of `Files`.
UPSCALE = [
    ("{folder}/missing.mp4", "missing.mp4"),
    ("{empty}", "empty.mp4"),
    ("{sound}", "sound.m4a", "video"),
    ("{short} -m videoinr-xl", "videoinr-xl"),
    ("{short} -m {toy} -s 100", "x1 to x8"),
    ("{short} -m {toy} -o {other}", "existing.mp4", "exists already"),
    ("{short} -m {toy} --backend openvino", "Unknown backend 'openvino'", "ort, tensorrt or remote"),
    ("{short} -m {toy} --backend tensorrt --device cuda:0", "install"),
    ("{short} -m {toy} --backend tensorrt --device cpu", "--device cuda:0"),
    ("{short} -m {toy} --precision fp16 --device cpu", "float32", "--device cuda:0"),
    ("{short} -m {toy} --device cuda:0", "install"),
    ("{short} -m {toy} --device gpu", "Unknown device 'gpu'"),
    ("{short} -m {toy} --backend remote", "--url"),
    ("{short} -m {toy} --backend remote --url host:8000", "'host:8000' is not the address"),
    ("{short} -m {toy} -s 2 --size 9x9", "scale", "size"),
    ("{short} -m {toy} --start 0.1 --end 0.05", "The end 0.05 is not after the start 0.1"),
    ("{short} {other} -m {toy} -o -", "- is a pipe", "a folder"),
    ("{short} -m {toy} --size big", "'big' is not a size"),
    ("{short} -m {toy} --fps fast", "'fast' is not a frame rate"),
    ("{short} -m {toy} -e slow", "'slow' is not an option"),
    ("{short} -m {toy} --codec libx999", "libx999"),
]
# Options that have no effect in the given combination.
WITHOUT_EFFECT = [
    ("upscale {short} -m {toy} --input-fps 24", "--input-fps", "a video with its own timestamps"),
    ("upscale {short} -m {toy} --adapt-per scene", "--adapt-per", "--adapt: add it"),
    ("upscale {short} -m {toy} --adapt-seconds 3 --teacher x", "--adapt-seconds and --teacher", "--adapt: add it"),
    ("upscale {short} -m {toy} --degradation blur --seed 3", "--degradation and --seed"),
    ("upscale {short} -m {toy} --coarse 0", "--coarse", "--adapt: add it"),
    ("adapt {short} -m edvr-s -o {folder}/b --slowmo 2 --dedup", "Nothing that is learned", "--slowmo and --dedup"),
    ("upscale {short} -m {toy} --library tensorrt", "--library", "--backend tensorrt"),
    ("upscale {short} -m {toy} --backend tensorrt --threads 2", "--threads", "engines"),
    ("upscale {short} -m {toy} --url http://127.0.0.1:1", "--url", "--backend remote"),
    ("upscale {short} -m {toy} --remote-timeout 3", "--remote-timeout", "--backend remote"),
    ("upscale {short} -m {toy} --backend remote --url http://127.0.0.1:1 --threads 2", "--threads", "server"),
    ("upscale {short} -m {toy} --backend remote --url http://127.0.0.1:1 --adapt", "--adapt", "server"),
    ("triton {toy} -o {folder}/repository --target sm89", "--target", "--backend tensorrt"),
    ("upscale {short} -m {toy} --flow dis", "--flow", "takes no optical flow"),
    ("upscale {short} -m edvr-s --flow dos", "Unknown optical flow 'dos'"),
    ("evaluate {toy} {short} --flow dis", "--flow", "takes no optical flow"),
    ("evaluate {toy} {short} --library tensorrt", "--library", "--backend tensorrt"),
    ("compile {toy} --overwrite", "--overwrite", "--output"),
    ("adapt {short} -m edvr-s -o {folder}/b --input-fps 24", "--input-fps"),
    ("adapt {short} -m edvr-s -o {folder}/b --coarse 2", "--coarse", "self-supervised"),
    ("adapt {short} -m edvr-s -o {folder}/b --checkpoint {folder}/c.pt", "--checkpoint", "self-supervised"),
    ("adapt {short} -m edvr-s -o {folder}/b --teacher {toy}", "--teacher", "self-supervised"),
    ("train edvr-s --data {other} --meta steps=2 -o {folder}/run", "--meta", "adavsr-s"),
    ("train edvr-s --data {other} --stage-two-at 2 -o {folder}/run", "--stage-two-at", "x4"),
    ("train dtsr-s --data {short} --compressed 0.5 -o {folder}/../run", "--compressed", "dtsr-s"),
    ("train adavsr-s --data {other} --compressed 0.5 -o {folder}/run", "two networks", "--compressed"),
    ("train adavsr-s --data {other} --stage-two-at 0 -o {folder}/run", "two networks", "--stage-two-at"),
    ("compare {short} {short} --input-fps 24 -o {folder}/page.html", "--input-fps", "none here"),
    ("train adavsr-s --data {other} -c width=8 -o {folder}/run", "two networks", "-c"),
]
OTHERS = [
    ("compile {toy} --shapes 640x360/64x64", "'640x360/64x64' is not a range of shapes"),
    ("compile {toy} --shapes batch=1/2/x", "'batch=1/2/x' is not a range of shapes"),
    ("compile {toy} --library openvino", "openvino"),
    ("compile {toy} -o {toy}", "exists already", "--overwrite"),
    ("compile {toy} -o {folder}/engines --target sm61", ""),
    ("triton nothing -o {folder}/repository", "nothing", "stvsr models"),
    ("triton {toy} -o {toy}", "exists already", "--overwrite"),
    ("triton {toy} -o {toy} --overwrite", "something other than a repository", "not overwritten"),
    ("triton {toy} -o {folder}/repository --backend ort", "Unknown backend 'ort'", "onnxruntime or tensorrt"),
    ("triton {toy} -o {folder}/repository --precision int8", "Unknown precision 'int8'"),
    ("triton {toy} -o {folder}/repository --backend tensorrt", "no engines of TensorRT", "--shapes B=1/4/8"),
    ("info {folder}/missing.mp4", "missing.mp4"),
    ("info fourier", "There is no bundle and no file 'fourier'", "stvsr models"),
    ("evaluate {toy} {folder}/missing.mp4", "missing.mp4"),
    ("evaluate {toy} {empty}", "empty.mp4"),
    ("evaluate {toy} {short} -o {folder}/nowhere/s.json", "nowhere", "create it first"),
    ("evaluate {toy} {short} -o {folder}", "is a folder", "the scores"),
    ("batch {short} -m {toy} -o {folder} --store {other}", "existing.mp4 is a file", "a folder is needed"),
    ("train adavsr-s --data {other} --meta checkpoint_every=0 -o {folder}/run", "'checkpoint_every'", "at least 1"),
    ("train edvr-s --data {other} --lr 0 -o {folder}/run", "learning rate", "above 0"),
    ("export nothing --weights {empty} -o {folder}/b", "nothing", "videoinr-s"),
    ("export videoinr-s --weights {folder}/missing.pt -o {folder}/b", "missing.pt"),
    ("export videoinr-s --weights {empty} -o {folder}/b", "empty.mp4"),
    ("export videoinr-s --untrained --scores {folder}/missing.json -o {folder}/b", "missing.json"),
    ("export videoinr-s --untrained --scores {other} -o {folder}/b", "existing.mp4", "not JSON"),
    ("train videoinr-s --data {folder}/nowhere -o {folder}/../run", "nowhere"),
    ("train edvr-s --data {other} --start {folder}/missing.pt -o {folder}/run", "missing.pt"),
    ("adapt {short} -m edvr-s -o {folder}/b --method guess", "guess", "zero-shot"),
    ("adapt {short} -m edvr-s -o {folder}/b --method zero-shot", "does not serve 'edvr-s'", "self-supervised"),
    ("adapt {short} -m edvr-s -o {folder}/b --adapt-seconds -1", "-1"),
]
CASES = [(f"upscale {case[0]}", *case[1:]) for case in UPSCALE] + WITHOUT_EFFECT + OTHERS


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_an_error_is_one_sentence(
    case: tuple[str, ...], files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line, *words = case
    if "cuda:0" in line and torch.cuda.is_available():
        pytest.skip("this machine has the device")
    done = run_inside(monkeypatch, capsys)(*(part.format(**vars(files)) for part in line.split()))
    assert_one_clear_error(done, *words)


def test_a_process_that_fails_exits_with_1(files: Files) -> None:
    done = stvsr("upscale", files.folder / "missing.mp4")
    assert_one_clear_error(done, "missing.mp4")
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("upscale", "KeyError('x')"),
        ("upscale", "ValueError('x')"),
        ("upscale", "FileNotFoundError(2, 'x')"),
        ("train", "FileNotFoundError(2, 'x')"),
    ],
)
def test_a_bug_is_a_traceback(error: str, command: str, files: Files) -> None:
    """Only StvsrError becomes a sentence: an error inside must show where it happened."""
    patched = {"train": "stvsr.training.trainer.Trainer.fit", "upscale": "stvsr.engine.pipeline.run.find_bundles"}
    arguments = {
        "train": ["train", "dtsr-s", "--data", str(files.short), "-o", str(files.folder.parent / f"run{error[0]}")],
        "upscale": ["upscale", str(files.short), "-m", str(files.toy)],
    }
    code = (
        "import sys\nfrom unittest.mock import patch\nfrom stvsr.cli.app import main\n"
        f"sys.argv = ['stvsr', *{arguments[command]!r}]\n"
        f"with patch({patched[command]!r}, side_effect={error}): main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert error.partition("(")[0] in done.stderr


@pytest.mark.slow
def test_a_port_in_use_is_an_error_and_port_0_is_a_free_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_inside(monkeypatch, capsys)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--port", taken.getsockname()[1], "--store", tmp_path / "store", "--device", "cpu")
    assert done.returncode == 1
    assert "Serving on" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("choose another --port or --host.")

    monkeypatch.setattr("uvicorn.Server.main_loop", AsyncMock())
    done = run("serve", "--port", "0", "--store", tmp_path / "store", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert re.search(r"Serving on http://127\.0\.0\.1:[1-9]\d+, jobs", done.stderr)
