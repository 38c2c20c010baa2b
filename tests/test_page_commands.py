"""Every `stvsr` command of the pages runs, in the order of its page, on small inputs of the names that it has there."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from stvsr import BackendError
from stvsr.cli.terminal import read_pairs
from stvsr.engine.backends.tensorrt.library import load_library
from stvsr.training.networks.registry import configured, find_network
from stvsr.training.networks.rife import RIFE, RIFEConfig

from tests.support.commands import run_inside
from tests.support.image_networks import build, save_weights
from tests.support.media import make_folder, make_video, pan
from tests.support.onnx_models import make_model
from tests.support.pages import PAGES, ROOT, stvsr_commands
from tests.support.ports import unused_port

COMMANDS = {page.relative_to(ROOT): found for page in PAGES if (found := stvsr_commands(page))}
# Words of commands that need what this test does not have, and why.
SKIPPED = {
    "--backend remote": "needs an inference server: tests/engine/backends/remote",
    "--backend tensorrt": "needs a GPU",
    "--executor ray": "needs a Ray cluster and S3: tests/engine/pipeline/test_ray_executor.py",
    "--library tensorrt --plugins": "needs TensorRT for data centres, which comes from its vendor's index",
}
# Options that shorten a command that has such words, at its end.
SHORTER = {
    "train": "--steps 2 --batch 1 --patch 32 --workers 0 --no-progress",
    "train fourier-s": "--steps 2 --stage-two-at 1 --batch 1 --patch 32 --motion-patch 0 --workers 0 --no-progress",
    "train adavsr": "--steps 2 --batch 1 --patch 32 --workers 0 --no-progress --meta steps=1 --meta inner_steps=1",
    "benchmark": "--budget 12 --no-progress",
    "adapt": "--adapt-steps 1",
    "--adapt": "--adapt-steps 1",
}
_OUTPUTS = ("-o", "--page", "--preview", "--checkpoint")  # options that name what a command writes
_VIDEOS, _WEIGHTS = (".mp4", ".mkv"), (".pth", ".pt", ".pkl", ".safetensors", ".onnx")


def is_long(page: Path) -> bool:
    """Return whether commands of a page train, or export large networks, which takes minutes each."""
    return any(arguments[0] in ("train", "export", "adapt") for arguments in COMMANDS[page])


def reason_to_skip(arguments: Sequence[str]) -> str | None:
    line = " ".join(arguments)
    if (reason := next((reason for words, reason in SKIPPED.items() if words in line), None)) is not None:
        return reason
    if arguments[0] == "import" and arguments[1].endswith((".pth", ".safetensors")):
        try:
            import spandrel  # noqa: F401
        except (ImportError, RuntimeError) as absent:
            return f"needs spandrel ({absent})"
    if arguments[0] == "compile":
        try:
            load_library("tensorrt-rtx")
        except BackendError as error:
            return str(error)
    return None


def shortened(arguments: Sequence[str]) -> list[str]:
    line = " ".join(arguments)
    found = [words for words in SHORTER if line.startswith(words) or (words[0] == "-" and words in arguments)]
    return [*arguments, *(SHORTER[max(found, key=len)].split() if found else [])]


def write_inputs(arguments: Sequence[str], folder: Path) -> None:
    """Write the files that a command reads and that no earlier one has written."""
    outputs = {arguments[i + 1] for i, word in enumerate(arguments) if word in _OUTPUTS}
    for name in set(arguments) - outputs:
        path = folder / name
        if path.suffix in _VIDEOS:
            path.parent.mkdir(parents=True, exist_ok=True)
            if "--start" in arguments:  # a part of a long video, of a frame a second
                make_video(path, pan(96, (24, 32)), range(0, 96 * 24, 24))
            else:
                make_video(path, pan(2, (144, 256)) if "1080p" in arguments else pan(4, (48, 64)))
        elif name == "frames/":
            make_folder(path)
        elif name.startswith("clips"):
            path.mkdir(parents=True, exist_ok=True)
            for letter in "ab":
                make_video(path / f"{letter}.mp4", pan(14, (176, 192)) if name == "clips/train" else pan(4, (64, 96)))
        elif path.suffix in _WEIGHTS and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_weights(arguments, path)


def write_weights(arguments: Sequence[str], path: Path) -> None:
    """Write random weights of the network that a command is about."""
    if path.suffix == ".onnx":  # (B, H, W, 3) in 0 to 255, four times as large
        scales = {"scales": np.array([1, 4, 4, 1], np.float32)}
        node = helper.make_node("Resize", ["input", "", "scales"], ["output"], mode="linear")
        onnx.save(make_model([node], {"input": np.zeros((1, 8, 8, 3), np.float32)}, {"output": 4}, scales), path)
    elif path.suffix == ".pkl":
        torch.save(RIFE(RIFEConfig("4.0")).state_dict(), path)
    elif arguments[0] == "import":
        save_weights(build("ESRGAN"), path)
    else:
        name = path.parent.name if "--start" in arguments else arguments[1]  # runs/NETWORK/weights.pt
        changes = [arguments[i + 1] for i, word in enumerate(arguments) if word == "-c" and "--start" not in arguments]
        entry = configured(find_network(name), read_pairs(changes))
        torch.save(entry.build(entry.config).state_dict(), path)


def run_server(arguments: Sequence[str], folder: Path) -> None:
    """Start a server, and end it as soon as it says where it is."""
    command = [sys.executable, "-m", "stvsr", *arguments, "--port", str(unused_port()), "--device", "cpu"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        lines = []
        for line in server.stdout:
            lines.append(line)
            if "http://127.0.0.1:" in line:
                server.send_signal(signal.SIGTERM)
        assert server.wait() in (0, 128 + signal.SIGTERM), lines
        assert any("http://127.0.0.1:" in line for line in lines), lines


@pytest.fixture(scope="module")
def exports() -> dict[str, Path]:
    """Bundles by the line that has exported them: several pages export the same one, which takes minutes."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.long if is_long(page) else (), id=str(page)) for page in COMMANDS]
)
def test_commands_run(
    page: Path,
    tmp_path: Path,
    exports: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    inside = run_inside(monkeypatch, capsys)
    skipped: dict[str, str] = {}
    missing: dict[str, str] = {}  # outputs of commands that were skipped
    for arguments in COMMANDS[page]:
        line = " ".join(arguments)
        parts = {part for argument in arguments for part in argument.split("+")}
        of_input = next((reason for output, reason in missing.items() if output in parts), None)
        if (reason := reason_to_skip(arguments) or of_input) is not None:
            skipped[line] = reason
            if "-o" in arguments:
                missing[arguments[arguments.index("-o") + 1]] = reason
            continue
        if line in exports:
            shutil.copytree(exports[line], tmp_path / arguments[-1], dirs_exist_ok=True)
            continue
        write_inputs(arguments, tmp_path)
        if arguments[0] == "serve":
            run_server(arguments, tmp_path)
        elif "-" in arguments:
            video = make_video(tmp_path / "in.mkv", pan(3)).read_bytes()
            done = subprocess.run([sys.executable, "-m", "stvsr", *arguments], input=video, capture_output=True)
            assert done.returncode == 0, f"{line}\n{done.stderr.decode()}"
            assert done.stdout.startswith(b"YUV4MPEG2"), line
        else:
            again = ["--overwrite"] if arguments[0] in ("upscale", "export", "import", "compare", "evaluate") else []
            again = [] if "--resume" in arguments or "--overwrite" in arguments else again
            inside_done = inside(*shortened(arguments), *again)
            assert inside_done.returncode == 0, f"{line}\n{inside_done.stderr}"
        if arguments[0] == "export" and "--weights" not in arguments:
            exports[line] = tmp_path / arguments[-1]
    if len(skipped) == len(COMMANDS[page]):
        pytest.skip("; ".join(f"{line}: {reason}" for line, reason in skipped.items()))


def test_what_is_skipped_is_on_a_page() -> None:
    lines = [" ".join(arguments) for found in COMMANDS.values() for arguments in found]
    for words in (*SKIPPED, *SHORTER):
        assert any(words in line for line in lines), f"no page has a command with '{words}'"
