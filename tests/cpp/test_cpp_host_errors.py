"""Errors of the C++ host: one line on standard error, exit status 1, and nothing on standard output."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr.engine.contract.manifest import FlowInput

from tests.support.cpp_host import Programs, edit_manifest, error_of, random_clip, run
from tests.support.toy_windows import WINDOWS, engine_entry, write_toy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", "6"), "Invalid value '6' for --size: expected a width and a height such as 320x180."),
        (("--size", "0x4"), "Invalid value '0x4' for --size"),
        (("--size", "6x4x2"), "Invalid value '6x4x2' for --size"),
        (("--size", "-6x4"), "Invalid value '-6x4' for --size"),
        (("--size", "6x70000"), "Invalid value '6x70000' for --size"),
        (("--format", "yuv420p"), "Invalid value 'yuv420p' for --format: expected rgb24 or rgb48le."),
        (("--precision", "int8"), "Invalid value 'int8' for --precision: expected fp32, tf32 or fp16."),
        (("--scale", "0"), "Invalid value '0' for --scale: expected a number above 0, and at most 65536."),
        (("--scale", "nan"), "Invalid value 'nan' for --scale"),
        (("--scale", "inf"), "Invalid value 'inf' for --scale"),
        (("--scale", "2x"), "Invalid value '2x' for --scale"),
        (("--scale", "9"), "upscales by x1 to x8 and cannot turn 6x4 into 54x36: choose another scale or size."),
        (("--scale", "0.5"), "upscales by x1 to x8 and cannot turn 6x4 into 3x2"),
        (("--factor", "0"), "Invalid value '0' for --factor: expected an integer from 1 to 65536."),
        (("--factor", "1.5"), "Invalid value '1.5' for --factor"),
        (("--device", "-1"), "Invalid value '-1' for --device: expected the index of a GPU, from 0."),
        (("--device", "1"), "CUDA device 1 does not exist (1 available): choose another device."),
        (("--device",), "The option --device needs a value."),
        (("--fast",), "Unknown option --fast: see stvsr-upscale --help."),
        (("more",), "Unexpected argument 'more' after the bundle '"),
    ],
)
def test_invalid_options_are_refused(
    programs: Programs, toys: dict[str, Path], options: tuple[str, ...], message: str
) -> None:
    assert message in error_of(programs, toys["pair"] / "engines", *options)


def test_missing_arguments_are_reported(programs: Programs) -> None:
    assert run(programs.upscale).stderr == b"The argument BUNDLE is missing: see stvsr-upscale --help.\n"
    assert run(programs.upscale, "bundle").stderr == b"The option --size is missing: see stvsr-upscale --help.\n"


def test_help_is_printed_on_standard_output(programs: Programs) -> None:
    done = run(programs.upscale, "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"stvsr-upscale BUNDLE --size 320x180")


def test_unsupported_time_factors_are_refused(programs: Programs, toys: dict[str, Path]) -> None:
    for kind, factor, supported in (("run 4", 3, 2), ("run 4", 4, 2), ("replicate 3", 2, 1), ("doubled 4+2", 4, 2)):
        error = error_of(programs, toys[kind] / "engines", "--factor", factor)
        assert f"supports the time factors x{supported}: choose one of them, or another bundle." in error
    error = error_of(programs, toys["doubled 4+2"] / "engines", "--factor", 1)
    assert error == "Bundle 'toy-doubled' doubles the frame rate: use --factor 2, or another bundle.\n"


@pytest.mark.parametrize("coarse", [1, 2])
def test_back_projection_is_refused(programs: Programs, toys: dict[str, Path], tmp_path: Path, coarse: int) -> None:
    """A `coarse` of 1 back-projects in time."""
    bundle = Path(shutil.copytree(toys["doubled 4+2"] / "engines", tmp_path / "bundle"))
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["window"]["coarse"] = coarse
    manifest["space"] = {"kind": "fixed", "factors": [1]}
    path.write_text(json.dumps(manifest))
    message = "The frames of bundle 'toy-doubled' are back-projected, which the C++ upscaler does not do"
    assert error_of(programs, bundle).startswith(message)


def test_controls_in_names_are_shown_as_escapes(programs: Programs, tmp_path: Path) -> None:
    name = "a\x1b[31mb\x7fc\u009b\u0085\u00e9\u00a0d"
    error = error_of(programs, tmp_path / name)
    assert "a\\x1b[31mb\\x7fc\\x9b\\x85\u00e9\u00a0d" in error


def test_truncated_input_is_reported(programs: Programs, toys: dict[str, Path]) -> None:
    frames = random_clip(4, (4, 6), "rgb24").tobytes()
    arguments = (toys["pair"] / "engines", "--size", "6x4")
    done = run(programs.upscale, *arguments, data=frames[:-62])
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "Standard input ends after 10 of the 72 bytes of frame 3: check that --size and --format describe the input.\n"
    )
    assert "ends after 71 of the 72 bytes of frame 0" in error_of(programs, arguments[0], data=frames[:71])
    error = error_of(programs, arguments[0], data=b"")
    assert error == "Standard input is empty: check the command that writes to it.\n"


def test_io_errors_are_reported(programs: Programs, toys: dict[str, Path], tmp_path: Path) -> None:
    arguments = [str(programs.upscale), str(toys["pair"] / "engines"), "--size", "6x4"]
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        done = subprocess.run(arguments, stdin=folder, capture_output=True)
    finally:
        os.close(folder)
    assert done.stderr == b"Cannot read standard input: check the command that writes to it.\n"
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    frames = random_clip(2, (4, 6), "rgb24").tobytes()
    with open("/dev/full", "wb") as full:
        done = subprocess.run(arguments, input=frames, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == b"Cannot write to standard output: check that its destination has space, and run again.\n"


def test_sizes_outside_the_range_of_the_engine_are_refused(programs: Programs, toys: dict[str, Path]) -> None:
    wide = random_clip(1, (6, 41), "rgb24").tobytes()
    error = error_of(programs, toys["replicate 3"] / "engines", "--size", "41x6", data=wide)
    assert "takes 'frames' of shape (1, 3, 3, 4 to 32, 4 to 32), not (1, 3, 3, 8, 44): use other sizes" in error
    assert "compile the bundle with --shapes that include them." in error
    square = random_clip(1, (16, 16), "rgb24").tobytes()
    error = error_of(programs, toys["pair"] / "engines", "--size", "16x16", "--scale", 8, data=square)
    assert "takes 'y' of shape (2 to 96), not (128): use other sizes" in error


def test_missing_devices_memory_libraries_and_engines_are_reported(programs: Programs, toys: dict[str, Path]) -> None:
    bundle = toys["pair"] / "engines"
    error = error_of(programs, bundle, FAKE_CUDA_DEVICES="0")
    assert error.startswith("CUDA cannot count the devices (no CUDA-capable device is detected): check that the driver")
    error = error_of(programs, bundle, FAKE_CUDA_BYTES="4000")
    assert " bytes (out of memory): use smaller frames, or free memory." in error
    error = error_of(programs, bundle, FAKE_INFERENCE_REFUSES="1")
    assert error == "tensorrt-rtx cannot start (the fake does not start): check the driver.\n"
    error = error_of(programs, bundle, FAKE_CUDA_CAPABILITY="120")
    assert "lists no encoder engine for tensorrt-rtx fp32 sm120 (available: tensorrt-rtx fp32 sm89)" in error
    assert f"'stvsr compile {bundle} --precision fp32 --target sm120 --library tensorrt-rtx'.\n" in error


def replace_engine(toy: Path, *changes: tuple[str, str]) -> None:
    """Change the text of the engine, and its SHA-256 in the manifest."""
    path = toy / "engines/network.tensorrt-rtx.sm89.fp32.engine"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    edit_manifest(toy, lambda m: m["engines"][0].update(sha256=hashlib.sha256(text.encode()).hexdigest()))


def test_missing_and_changed_engines_are_reported(programs: Programs, toy: Path) -> None:
    bundle = toy / "engines"
    engine = bundle / "network.tensorrt-rtx.sm89.fp32.engine"
    error = error_of(programs, bundle, "--precision", "fp16")
    assert "lists no network engine for tensorrt-rtx fp16 sm89 (available: tensorrt-rtx fp32 sm89)" in error
    text = engine.read_text()
    engine.write_text(text + " ")
    error = error_of(programs, bundle)
    assert f"{engine} has changed since its manifest was written (sha256 " in error
    assert "restore the file or compile the bundle again." in error
    engine.unlink()
    assert f"Cannot read {engine}, which the manifest lists (No such file" in error_of(programs, bundle)
    engine.mkdir()
    assert ", which the manifest lists (Is a directory)" in error_of(programs, bundle)
    edit_manifest(toy, lambda m: m["graphs"][0].update(sha256="0" * 64))
    error = error_of(programs, bundle)
    assert f"{engine} was built from a different graph than network.onnx: compile the bundle again with 'stvsr" in error
    edit_manifest(toy, lambda m: m["engines"].clear())
    assert "lists no network engine for tensorrt-rtx fp32 sm89 (available: none)" in error_of(programs, bundle)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("compute", "nonsense", " (the fake cannot parse the engine): it was built with tensorrt-rtx 1.7.0; use that"),
        ("compute sliding", "compute refuse", "Cannot allocate the working memory of the engine"),
        ("compute sliding", "compute fail", "cannot run (the fake fails): compile the bundle again."),
        ("input frames", "input pictures", "has no input 'frames' float32 (batch, 3, 3, height, width), which"),
        ("output upscaled", "output larger", "has no output 'upscaled' float32 (batch, 1, 3, 2*height, 2*width)"),
        (
            "input frames float",
            "input frames half",
            "has the input 'frames' float16 (?, 3, 3, ?, ?) instead of 'frames'",
        ),
        ("-1 3 3 -1 -1 min", "-1 5 3 -1 -1 min", "has the input 'frames' float32 (?, 5, 3, ?, ?) instead of 'frames'"),
        ("-1 3 3 -1 -1 min", "-1 3 3 8 -1 min", "has the input 'frames' float32 (?, 3, 3, 8, ?) instead of 'frames'"),
        ("-1 1 3 -1 -1", "-1 1 3 -1", "has the output 'upscaled' float32 (?, 1, 3, ?) instead of 'upscaled'"),
        ("compute", "output more float 1\ncompute", "has 3 inputs and outputs, but the manifest lists 2: compile"),
        ("sliding 2", "sliding 3", "computes the output 'upscaled' of shape (1, 1, 3, 12, 24) instead of (1, 1, 3, 8,"),
    ],
)
def test_engines_that_differ_from_the_manifest_are_refused(
    programs: Programs, toy: Path, old: str, new: str, message: str
) -> None:
    replace_engine(toy, (old, new))
    assert message in error_of(programs, toy / "engines")


def test_wrong_factors_and_axes_in_the_manifest_are_refused(programs: Programs, toy: Path) -> None:
    edit_manifest(toy, lambda m: m.update(space={"kind": "fixed", "factors": [3]}))
    error = error_of(programs, toy / "engines")
    assert (
        "computes a tensor of shape (1, 1, 3, 8, 16) from frames of 8x4, which does not contain the expected frame of"
        " 24x12: export and compile it again."
    ) in error
    edit_manifest(toy, lambda m: m.update(space={"kind": "fixed", "factors": [2]}))
    edit_manifest(toy, lambda m: m["graphs"][0]["outputs"][0].update(axes=["batch", 1, 3, "2*lines", "2*width"]))
    assert "The axis 'lines' of 'upscaled' is not an axis of any input: export" in error_of(programs, toy / "engines")
    edit_manifest(toy, lambda m: m["graphs"][0]["inputs"][0].update(axes=["batch", 3, 3, "0*height", "width"]))
    assert "The axis '0*height' of 'frames' is neither a name nor a scaled name" in error_of(programs, toy / "engines")


FLOW = FlowInput(name="flow", pairs=((1, 0), (1, 2)), method="dis")


def test_networks_with_flow_run_in_a_session_only(programs: Programs, tmp_path: Path) -> None:
    folder = write_toy(tmp_path / "toy", WINDOWS["replicate 3"], scale=1)
    text = (folder / "engines/network.tensorrt-rtx.sm89.fp32.engine").read_text()
    flow = "input flow float -1 2 2 -1 -1 min 1 2 2 4 4 max 1 2 2 32 32\n"

    def add_flow(manifest: dict[str, Any]) -> None:
        (graph,) = manifest["graphs"]
        graph["inputs"].append({"name": "flow", "dtype": "float32", "axes": ["batch", 2, 2, "height", "width"]})
        manifest["flows"] = [FLOW.model_dump(mode="json")]
        manifest["engines"] = [engine_entry(folder / "engines", graph, flow + text.replace("sliding", "flow"))]

    edit_manifest(folder, add_flow)
    error = error_of(programs, folder / "engines")
    assert error.startswith(
        "Bundle 'toy-sliding' takes optical flow, which the C++ upscaler does not compute: use another bundle"
    )

    rng = np.random.default_rng(1)
    frames, flows = rng.random((1, 3, 3, 4, 8), np.float32), rng.random((1, 2, 2, 4, 8), np.float32)
    names = ("frames=1x3x3x4x8", "flow=1x2x2x4x8")
    arguments = ("session", folder / "engines")
    done = run(programs.host, *arguments, *names, data=frames.tobytes() + flows.tobytes())
    mixed = frames + np.roll(frames, -1, 4) * np.float32(0.125) + np.roll(frames, -1, 3) * np.float32(0.0625)
    expected = sum(mixed[0, i] * np.float32((i + 1) / 16) for i in range(3)) + flows[0, 0, 0]
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.float32).reshape(3, 4, 8), expected)
    assert done.stderr.decode().endswith(" has the shape (1, 1, 3, 4, 8): pass a tensor of that shape.\n")

    done = run(programs.host, *arguments, names[0], data=frames.tobytes())
    assert b"The input 'flow' float32 (batch, 2, 2, height, width) of " in done.stderr
    done = run(programs.host, *arguments, *names, "more=1", data=frames.tobytes() + flows.tobytes() + b"1234")
    assert b" takes 2 inputs, but 3 were passed: remove the others.\n" in done.stderr
    done = run(programs.host, *arguments, names[0], "flow=1x2x2x4x7", data=frames.tobytes() + flows.tobytes())
    message = b"The axis 'width' is 8 in 'frames', but 'width' of 'flow' is 7: pass inputs whose sizes agree.\n"
    assert message in done.stderr
    done = run(programs.host, *arguments, names[0], "flow=1x2x2x4", data=frames.tobytes() + flows.tobytes())
    assert b"takes 'flow' of shape (1, 2, 2, 4 to 32, 4 to 32), not (1, 2, 2, 4): use other sizes" in done.stderr
