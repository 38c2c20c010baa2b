"""Errors of the C++ host: one sentence each, an exit status, and nothing on standard output."""

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

from tests.support.cpp_host import Programs, call, clip, edit, refusal
from tests.support.toy_windows import WINDOWS, engine_entry, write_toy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", "6"), "'6' does not suit --size: give a width and a height, such as 320x180."),
        (("--size", "0x4"), "'0x4' does not suit --size"),
        (("--size", "6x4x2"), "'6x4x2' does not suit --size"),
        (("--size", "-6x4"), "'-6x4' does not suit --size"),
        (("--size", "6x70000"), "'6x70000' does not suit --size"),
        (("--format", "yuv420p"), "'yuv420p' does not suit --format: give rgb24 or rgb48le."),
        (("--precision", "int8"), "'int8' does not suit --precision: give fp32 or fp16."),
        (("--scale", "0"), "'0' does not suit --scale: give a number above 0."),
        (("--scale", "nan"), "'nan' does not suit --scale"),
        (("--scale", "inf"), "'inf' does not suit --scale"),
        (("--scale", "2x"), "'2x' does not suit --scale"),
        (("--scale", "9"), "enlarges x1 to x8: it does not make 54x36 of 6x4; choose another scale or size."),
        (("--scale", "0.5"), "enlarges x1 to x8: it does not make 3x2 of 6x4"),
        (("--factor", "0"), "'0' does not suit --factor: give a whole number from 1 on."),
        (("--factor", "1.5"), "'1.5' does not suit --factor"),
        (("--device", "-1"), "'-1' does not suit --device: give a GPU's number, from 0 on."),
        (("--device", "1"), "There is no CUDA device 1 among 1: choose another."),
        (("--device",), "The option --device has no value: give one."),
        (("--fast",), "There is no option --fast: see stvsr-upscale --help."),
        (("more",), "comes after the bundle"),
    ],
)
def test_bad_options(programs: Programs, toys: dict[str, Path], options: tuple[str, ...], message: str) -> None:
    assert message in refusal(programs, toys["pair"] / "engines", *options)


def test_what_must_be_named(programs: Programs) -> None:
    assert call(programs.upscale).stderr == b"No bundle is named: see stvsr-upscale --help.\n"
    assert call(programs.upscale, "bundle").stderr == b"The size of the frames is missing: give --size.\n"
    told = call(programs.upscale, "--help")
    assert (told.returncode, told.stderr) == (0, b"")
    assert told.stdout.startswith(b"stvsr-upscale BUNDLE --size 320x180")


def test_times_that_the_bundle_does_not_make(programs: Programs, toys: dict[str, Path]) -> None:
    for kind, factor, made in (("run 4", 3, 2), ("run 4", 4, 2), ("replicate 3", 2, 1), ("doubled 4+2", 4, 2)):
        told = refusal(programs, toys[kind] / "engines", "--factor", factor)
        assert f"makes frames in time by x{made}: choose such a factor, or another bundle." in told
    told = refusal(programs, toys["doubled 4+2"] / "engines", "--factor", 1)
    assert told == "Bundle 'toy-doubled' doubles the frames: give --factor 2, or another bundle.\n"


def test_frames_that_are_to_be_seen_smaller(programs: Programs, toys: dict[str, Path], tmp_path: Path) -> None:
    """With a `coarse` of 1 frames come as the network makes them."""
    bundle = Path(shutil.copytree(toys["doubled 4+2"] / "engines", tmp_path / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    for coarse in (1, 2):
        manifest["window"]["coarse"] = coarse
        (bundle / "manifest.json").write_text(json.dumps(manifest))
        if coarse == 2:
            told = refusal(programs, bundle)
            assert told.startswith("Bundle 'toy-doubled' is to see frames made 2 times smaller, which is not done here")
            continue
        frames = clip(2, (4, 6), "rgb24").tobytes()
        made, plain = (
            call(programs.upscale, folder, "--size", "6x4", data=frames)
            for folder in (bundle, toys["doubled 4+2"] / "engines")
        )
        assert made.returncode == 0, made.stderr
        assert made.stdout == plain.stdout != b""


def test_input_that_is_cut_short(programs: Programs, toys: dict[str, Path]) -> None:
    frames = clip(4, (4, 6), "rgb24").tobytes()
    arguments = (toys["pair"] / "engines", "--size", "6x4")
    done = call(programs.upscale, *arguments, data=frames[:-62])
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "Standard input ends 10 bytes into frame 3, and a frame takes 72: give whole frames of the --size and --format"
        " that were named.\n"
    )
    assert "ends 71 bytes into frame 0" in refusal(programs, arguments[0], data=frames[:71])
    assert refusal(programs, arguments[0], data=b"") == "Standard input holds no frame: see what comes before.\n"


def test_input_and_output_that_fail(programs: Programs, toys: dict[str, Path], tmp_path: Path) -> None:
    arguments = [str(programs.upscale), str(toys["pair"] / "engines"), "--size", "6x4"]
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        done = subprocess.run(arguments, stdin=folder, capture_output=True)
    finally:
        os.close(folder)
    assert done.stderr == b"Standard input cannot be read: see where it comes from.\n"
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(arguments, input=clip(2, (4, 6), "rgb24").tobytes(), stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == b"Standard output takes no more: make room where it goes, and begin anew.\n"


def test_a_frame_that_the_engine_does_not_take(programs: Programs, toys: dict[str, Path]) -> None:
    told = refusal(
        programs, toys["replicate 3"] / "engines", "--size", "41x6", data=clip(1, (6, 41), "rgb24").tobytes()
    )
    assert "takes 'frames' of (1, 3, 3, 4 to 32, 4 to 32), and not of (1, 3, 3, 8, 44): give other sizes" in told
    assert "compile the bundle with --shapes that hold these." in told
    told = refusal(
        programs, toys["pair"] / "engines", "--size", "16x16", "--scale", 8, data=clip(1, (16, 16), "rgb24").tobytes()
    )
    assert "takes 'y' of (2 to 96), and not of (128): give other sizes" in told


def test_what_the_machine_lacks(programs: Programs, toys: dict[str, Path]) -> None:
    bundle = toys["pair"] / "engines"
    told = refusal(programs, bundle, FAKE_CUDA_DEVICES="0")
    assert told.startswith("CUDA cannot find a device (no CUDA-capable device is detected): see that the driver")
    told = refusal(programs, bundle, FAKE_CUDA_BYTES="4000")
    assert " bytes more (out of memory): give smaller frames, or free the device." in told
    told = refusal(programs, bundle, FAKE_INFERENCE_REFUSES="1")
    assert told == "tensorrt-rtx cannot start (the fake does not start): check the driver.\n"
    told = refusal(programs, bundle, FAKE_CUDA_CAPABILITY="120")
    assert "names no engine of the encoder for tensorrt-rtx fp32 sm120 (there is tensorrt-rtx fp32 sm89)" in told
    assert f"'stvsr compile {bundle} --precision fp32 --target sm120 --library tensorrt-rtx'.\n" in told


def replace_engine(toy: Path, *changes: tuple[str, str]) -> None:
    """Change the text of the engine, and its sum in the manifest."""
    path = toy / "engines/network.tensorrt-rtx.sm89.fp32.engine"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    edit(toy, lambda m: m["engines"][0].update(sha256=hashlib.sha256(text.encode()).hexdigest()))


def test_engines_that_do_not_belong(programs: Programs, toy: Path) -> None:
    bundle = toy / "engines"
    engine = bundle / "network.tensorrt-rtx.sm89.fp32.engine"
    told = refusal(programs, bundle, "--precision", "fp16")
    assert "names no engine of the network for tensorrt-rtx fp16 sm89 (there is tensorrt-rtx fp32 sm89)" in told
    text = engine.read_text()
    engine.write_text(text + " ")
    told = refusal(programs, bundle)
    assert f"{engine} has changed since its manifest was written (sha256 " in told
    assert "restore the file or compile the bundle again." in told
    engine.unlink()
    assert f"{engine} is named by its manifest and cannot be read (No such file" in refusal(programs, bundle)
    engine.mkdir()
    assert "cannot be read (Is a directory)" in refusal(programs, bundle)
    edit(toy, lambda m: m["graphs"][0].update(sha256="0" * 64))
    told = refusal(programs, bundle)
    assert f"{engine} was built from another graph than network.onnx: compile the bundle again with 'stvsr" in told
    edit(toy, lambda m: m["engines"].clear())
    assert "names no engine of the network for tensorrt-rtx fp32 sm89 (there is none)" in refusal(programs, bundle)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("compute", "nonsense", "cannot be loaded (the fake knows no such engine): it was built by tensorrt-rtx 1.7.0"),
        ("compute sliding", "compute refuse", "The device cannot hold what"),
        ("compute sliding", "compute fail", "cannot run (the fake fails): compile the bundle again."),
        ("input frames", "input pictures", "has no input 'frames' float32 (batch, 3, 3, height, width), which"),
        ("output upscaled", "output larger", "has no output 'upscaled' float32 (batch, 1, 3, 2*height, 2*width)"),
        ("input frames float", "input frames half", "has the input 'frames' float16 (?, 3, 3, ?, ?), and the manifest"),
        ("-1 3 3 -1 -1 min", "-1 5 3 -1 -1 min", "has the input 'frames' float32 (?, 5, 3, ?, ?), and the manifest"),
        ("-1 3 3 -1 -1 min", "-1 3 3 8 -1 min", "has the input 'frames' float32 (?, 3, 3, 8, ?), and the manifest"),
        ("-1 1 3 -1 -1", "-1 1 3 -1", "has the output 'upscaled' float32 (?, 1, 3, ?), and the manifest says"),
        ("compute", "output more float 1\ncompute", "has 3 inputs and outputs, and the manifest names 2: compile"),
        (
            "sliding 2",
            "sliding 3",
            "has the output 'upscaled' of (1, 1, 3, 12, 24), and the manifest says (1, 1, 3, 8,",
        ),
    ],
)
def test_engines_that_are_not_what_the_manifest_says(
    programs: Programs, toy: Path, old: str, new: str, message: str
) -> None:
    replace_engine(toy, (old, new))
    assert message in refusal(programs, toy / "engines")


def test_graphs_that_do_not_make_what_the_manifest_says(programs: Programs, toy: Path) -> None:
    edit(toy, lambda m: m.update(space={"kind": "fixed", "factors": [3]}))
    told = refusal(programs, toy / "engines")
    assert "gives (1, 1, 3, 8, 16) of frames of 8x4, which holds no 24x12: export and compile it again." in told
    edit(toy, lambda m: m.update(space={"kind": "fixed", "factors": [2]}))
    edit(toy, lambda m: m["graphs"][0]["outputs"][0].update(axes=["batch", 1, 3, "2*lines", "2*width"]))
    assert "The axis 'lines' of 'upscaled' is an axis of no input: export" in refusal(programs, toy / "engines")
    edit(toy, lambda m: m["graphs"][0]["inputs"][0].update(axes=["batch", 3, 3, "0*height", "width"]))
    assert "The axis '0*height' of 'frames' is neither a name nor" in refusal(programs, toy / "engines")


FLOW = FlowInput(name="flow", pairs=((1, 0), (1, 2)), method="dis")


def test_networks_that_take_flow_are_for_hosts_that_have_one(programs: Programs, tmp_path: Path) -> None:
    folder = write_toy(tmp_path / "toy", WINDOWS["replicate 3"], scale=1)
    text = (folder / "engines/network.tensorrt-rtx.sm89.fp32.engine").read_text()
    flow = "input flow float -1 2 2 -1 -1 min 1 2 2 4 4 max 1 2 2 32 32\n"

    def add(manifest: dict[str, Any]) -> None:
        (graph,) = manifest["graphs"]
        graph["inputs"].append({"name": "flow", "dtype": "float32", "axes": ["batch", 2, 2, "height", "width"]})
        manifest["flows"] = [FLOW.model_dump(mode="json")]
        manifest["engines"] = [engine_entry(folder / "engines", graph, flow + text.replace("sliding", "flow"))]

    edit(folder, add)
    told = refusal(programs, folder / "engines")
    assert told.startswith("Bundle 'toy-sliding' takes optical flow, which is not computed here: use another bundle")

    rng = np.random.default_rng(1)
    frames, flows = rng.random((1, 3, 3, 4, 8), np.float32), rng.random((1, 2, 2, 4, 8), np.float32)
    names = ("frames=1x3x3x4x8", "flow=1x2x2x4x8")
    arguments = ("session", folder / "engines")
    done = call(programs.host, *arguments, *names, data=frames.tobytes() + flows.tobytes())
    mixed = frames + np.roll(frames, -1, 4) * np.float32(0.125) + np.roll(frames, -1, 3) * np.float32(0.0625)
    expected = sum(mixed[0, i] * np.float32((i + 1) / 16) for i in range(3)) + flows[0, 0, 0]
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.float32).reshape(3, 4, 8), expected)
    assert done.stderr.decode().endswith(" is (1, 1, 3, 4, 8): give memory of that shape.\n")

    done = call(programs.host, *arguments, names[0], data=frames.tobytes())
    assert b"The input 'flow' float32 (batch, 2, 2, height, width) of " in done.stderr
    done = call(programs.host, *arguments, *names, "more=1", data=frames.tobytes() + flows.tobytes() + b"1234")
    assert b"3 inputs were given to " in done.stderr
    done = call(programs.host, *arguments, names[0], "flow=1x2x2x4x7", data=frames.tobytes() + flows.tobytes())
    assert b"The axis 'width' is 8 by 'frames', and 'width' of 'flow' is 7: give inputs of one size.\n" in done.stderr
    done = call(programs.host, *arguments, names[0], "flow=1x2x2x4", data=frames.tobytes() + flows.tobytes())
    assert b"takes 'flow' of (1, 2, 2, 4 to 32, 4 to 32), and not of (1, 2, 2, 4): give other sizes" in done.stderr
