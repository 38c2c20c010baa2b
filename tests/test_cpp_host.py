"""The C++ host, on fakes of CUDA and of the inference library: bit for bit what the Python upscaler makes."""

import hashlib
import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stvsr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import helper
from stvsr.engine.bundle import graph_entry, write_manifest
from stvsr.engine.manifest import (
    FORMAT,
    Architecture,
    ContinuousTime,
    Engine,
    FixedFactors,
    FlowInput,
    Manifest,
    SizeConstraint,
)
from stvsr.engine.upscaler import Upscaler
from stvsr.engine.windows import InputFrame, one_scene
from toy import Axes, decoder_nodes, save_graph, specs

HERE = Path(__file__).parent
SOURCE = Path(stvsr.__file__).parent / "engine/cpp"
FAKES = HERE / "cpp"
CMAKE, COMPILER = shutil.which("cmake"), shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
GENERATOR = ("-G", "Ninja") if shutil.which("ninja") else ()

SHAPES = {"batch": (1, 1, 1), "frames": (2, 4, 32), "height": (4, 8, 32), "width": (4, 8, 32)}
SHAPES |= {"target_height": (2, 16, 96), "target_width": (2, 16, 96)}
TARGET, LIBRARY = "sm89", "tensorrt-rtx"


def toolkit_include() -> Path | None:
    """The folder of the CUDA toolkit's headers."""
    roots = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    if nvcc := shutil.which("nvcc"):
        roots.append(os.fspath(Path(nvcc).resolve().parent.parent))
    roots += map(os.fspath, Path("/usr/local").glob("cuda-*"))
    return next((Path(r) / "include" for r in roots if r and (Path(r) / "include/cuda_runtime_api.h").is_file()), None)


def shell(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done


@dataclass
class Programs:
    upscale: Path
    host: Path
    probe: Path
    root: Path


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """The programs, built anew: a build that was kept would hold links into a checkout that may be gone."""
    if CMAKE is None or COMPILER is None:
        pytest.skip("no CMake or no C++ compiler: the C++ host is not built")
    root = tmp_path_factory.mktemp("cpp_host")
    build(root, CMAKE, COMPILER)
    return Programs(root / "installed/bin/stvsr-upscale", root / "hosts/host", root / "hosts/probe", root)


def build(root: Path, cmake: str, compiler: str) -> None:
    """Build the library with sanitizers on the fakes, install it, and build hosts on what was installed."""
    cuda, sdk = root / "cuda", root / "sdk"
    for folder in (cuda, sdk):
        (folder / "lib").mkdir(parents=True)
    (cuda / "include").symlink_to(toolkit_include() or FAKES / "cuda")
    (sdk / "include").symlink_to(FAKES / "sdk")
    fake = [compiler, "-std=c++17", "-fPIC", "-shared", "-ffp-contract=off", *SANITIZERS, *WARNINGS]
    fake += [f"-isystem{cuda / 'include'}", f"-I{sdk / 'include'}"]
    shell(*fake, FAKES / "fake_cuda.cpp", "-o", cuda / "lib/libcudart.so")
    shell(*fake, FAKES / "fake_inference.cpp", cuda / "lib/libcudart.so", "-o", sdk / "lib/libtensorrt_rtx.so")
    # Without optimisation the build takes a quarter of the time.
    configure = [cmake, *GENERATOR, "-DCMAKE_BUILD_TYPE=None"]
    configure += [f"-DCMAKE_CXX_COMPILER={compiler}", f"-DCMAKE_INSTALL_PREFIX={root / 'installed'}"]
    configure += [f"-DCMAKE_CXX_FLAGS={' '.join((*SANITIZERS, *WARNINGS))}"]
    shell(*configure, f"-DTENSORRT_ROOT={sdk}", f"-DCUDAToolkit_ROOT={cuda}", "-S", SOURCE, "-B", root / "library")
    shell(cmake, "--build", root / "library", "--parallel", "2", "--target", "install")
    hosts = [f"-DCMAKE_PREFIX_PATH={root / 'installed'}", f"-DSTVSR_SOURCE={SOURCE}"]
    shell(*configure, *hosts, "-S", FAKES, "-B", root / "hosts")
    shell(cmake, "--build", root / "hosts", "--parallel", "2")


# Toys: every network first mixes neighbouring pixels around the edges, so that padding shows.


def mix_nodes() -> list[Any]:
    nodes = []
    for name, axis, share in (("right", "columns", "eighth"), ("below", "rows", "sixteenth")):
        nodes += [
            helper.make_node("Slice", ["frames", "one", "end", axis], [f"{name}_rest"]),
            helper.make_node("Slice", ["frames", "zero", "one", axis], [f"{name}_first"]),
            helper.make_node(
                "Concat", [f"{name}_rest", f"{name}_first"], [f"{name}_rolled"], axis=4 if name == "right" else 3
            ),
            helper.make_node("Mul", [f"{name}_rolled", share], [name]),
        ]
    nodes.append(helper.make_node("Add", ["frames", "right"], ["more"]))
    nodes.append(helper.make_node("Add", ["more", "below"], ["mixed"]))
    return nodes


CONSTANTS = {
    "zero": np.array([0]),
    "one": np.array([1]),
    "end": np.array([1 << 30]),
    "less": np.array([-1]),
    "time_axis": np.array([1]),
    "pair_axis": np.array([2]),
    "rows": np.array([3]),
    "columns": np.array([4]),
    "eighth": np.float32(0.125),
    "sixteenth": np.float32(0.0625),
}


def lerp(first: str, second: str, share: str, result: str) -> list[Any]:
    return [
        helper.make_node("Sub", [second, first], [f"{result}_change"]),
        helper.make_node("Mul", [f"{result}_change", share], [f"{result}_part"]),
        helper.make_node("Add", [first, f"{result}_part"], [result]),
    ]


def network_nodes(kind: str, frames: int, timed: bool) -> tuple[list[Any], dict[str, Any]]:
    """Nodes from `mixed` to `small`, and their constants."""
    single = {f"number{i}": np.array([i]) for i in range(frames + 1)}
    if kind == "run":
        nodes, parts = [], []
        moment = "half"
        if timed:
            nodes.append(helper.make_node("Reshape", ["time", "as_frames"], ["moment"]))
            moment = "moment"
        for i in range(frames):
            nodes.append(helper.make_node("Gather", ["mixed", f"number{i}"], [f"frame{i}"], axis=1))
        for i in range(frames - 1):
            nodes += lerp(f"frame{i}", f"frame{i + 1}", moment, f"between{i}")
            parts += [f"frame{i}", f"between{i}"]
        nodes.append(helper.make_node("Concat", [*parts, f"frame{frames - 1}"], ["small"], axis=1))
        return nodes, {**single, "half": np.float32(0.5), "as_frames": np.array([-1, 1, 1, 1, 1])}
    if kind == "doubled":
        nodes = [
            helper.make_node("Slice", ["mixed", "zero", "one", "time_axis"], ["head"]),
            helper.make_node("Slice", ["mixed", "zero", "less", "time_axis"], ["all_but_last"]),
            helper.make_node("Concat", ["head", "all_but_last"], ["before"], axis=1),
            helper.make_node("Slice", ["mixed", "one", "end", "time_axis"], ["all_but_first"]),
            helper.make_node("Slice", ["mixed", "less", "end", "time_axis"], ["tail"]),
            helper.make_node("Concat", ["all_but_first", "tail"], ["after"], axis=1),
            *lerp("mixed", "before", "quarter", "first"),
            *lerp("mixed", "after", "quarter", "second"),
            helper.make_node("Unsqueeze", ["first", "pair_axis"], ["first_alone"]),
            helper.make_node("Unsqueeze", ["second", "pair_axis"], ["second_alone"]),
            helper.make_node("Concat", ["first_alone", "second_alone"], ["pairs"], axis=2),
            helper.make_node("Shape", ["mixed"], ["planes"], start=2, end=5),
            helper.make_node("Concat", ["one", "less", "planes"], ["flat"], axis=0),
            helper.make_node("Reshape", ["pairs", "flat"], ["small"]),
        ]
        return nodes, {"quarter": np.float32(0.25)}
    nodes, constants, total = [], dict(single), ""
    for i in range(frames):
        nodes.append(helper.make_node("Gather", ["mixed", f"number{i}"], [f"frame{i}"], axis=1))
        nodes.append(helper.make_node("Mul", [f"frame{i}", f"weight{i}"], [f"part{i}"]))
        if total:
            nodes.append(helper.make_node("Add", [total, f"part{i}"], [f"sum{i}"]))
        total = f"sum{i}" if total else f"part{i}"
        constants[f"weight{i}"] = np.float32((i + 1) * 0.0625)
    nodes.append(helper.make_node("Identity", [total], ["small"]))
    return nodes, constants


def engine_text(kind: str, scale: int, inputs: dict[str, Axes], outputs: dict[str, Axes]) -> str:
    """What the fake inference library takes for an engine."""

    def sizes(axes: Axes, which: int | None) -> str:
        free = (-1 if which is None else SHAPES[axis.split("*")[-1]][which] for axis in axes if isinstance(axis, str))
        return " ".join(str(next(free) if isinstance(axis, str) else axis) for axis in axes)

    lines = [f"input {n} float {sizes(a, None)} min {sizes(a, 0)} max {sizes(a, 2)}" for n, a in inputs.items()]
    lines += [f"output {n} float {sizes(a, None)}" for n, a in outputs.items()]
    return "\n".join([*lines, f"compute {kind} {scale}"]) + "\n"


def engine_entry(folder: Path, graph: dict[str, Any], text: str, **changes: Any) -> dict[str, Any]:
    """Write an engine beside the manifest and return what the manifest says of it."""
    entry = {
        "role": graph["role"],
        "graph_sha256": graph["sha256"],
        "precision": "fp32",
        "shapes": {name: list(sizes) for name, sizes in SHAPES.items()},
        "target": TARGET,
        "library": LIBRARY,
        "version": "1.7.0",
        "lowering": 1,
        **changes,
    }
    file = f"{entry['role']}.{entry['library']}.{entry['target']}.{entry['precision']}.engine"
    (folder / file).write_text(text)
    entry |= {"file": file, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return Engine.model_validate_json(json.dumps(entry)).model_dump(mode="json")  # as Python writes it


def write_engines(folder: Path, python: Path, texts: dict[str, str]) -> Path:
    """Write the bundle for the C++ host: the manifest and the engines, and no graph."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((python / "manifest.json").read_text())
    manifest["engines"] = [engine_entry(folder, graph, texts[graph["role"]]) for graph in manifest["graphs"]]
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))
    return folder


def write_toy(folder: Path, window: dict[str, Any], *, scale: int = 2, timed: bool = False, **changes: Any) -> Path:
    """Write `folder`/graphs for Python and `folder`/engines for C++, of one toy network; return `folder`."""
    python = folder / "graphs"
    python.mkdir(parents=True)
    kind = window["kind"]
    base: dict[str, Any] = {
        "format": FORMAT,
        "name": f"toy-{kind}",
        "architecture": Architecture(name="toy", config={"é": [1.5, None]}),
        "window": window,
        "value_range": (0.0, 1.0),
        "channel_order": "RGB",
        "size": SizeConstraint(minimum=4, multiple_of=4),
        "halo_px": None,
        "training": {"steps": 1, "nested": {"a": [1, 2, {"b": True}]}},
        "scores": {},
        "licence": "none",
    }
    if kind == "pair":
        frames: Axes = ("batch", 2, 3, "height", "width")
        graphs = {
            "encoder": (mix_nodes(), {"frames": frames}, {"features": frames}),
            "decoder": (
                decoder_nodes(),
                {"features": frames, "time": ("batch",), "y": ("target_height",), "x": ("target_width",)},
                {"frame": ("batch", 3, "target_height", "target_width")},
            ),
        }
        graphs["encoder"][0].append(helper.make_node("Identity", ["mixed"], ["features"]))
        constants = {
            "encoder": CONSTANTS,
            "decoder": {
                "zero": np.array(0), "one": np.array(1), "step": np.array([1]), "nought": np.array(0, np.float32),
                "column": np.array([-1, 1, 1, 1]), "as_rows": np.array([-1, 1]), "as_columns": np.array([-1]),
            },
        }  # fmt: skip
        texts = {"encoder": engine_text("identity", 1, *graphs["encoder"][1:])}
        texts["decoder"] = engine_text("bilinear", 1, *graphs["decoder"][1:])
        base |= {"space": {"kind": "continuous", "minimum": 1.0, "maximum": 8.0}, "time": ContinuousTime()}
    else:
        count = window["frames"]
        results = {"run": 2 * count - 1, "sliding": 1, "doubled": "2*frames"}[kind]
        inputs: dict[str, Axes] = {"frames": ("batch", "frames" if kind == "doubled" else count, 3, "height", "width")}
        if timed:
            inputs["time"] = ("batch",)
        outputs: dict[str, Axes] = {"upscaled": ("batch", results, 3, f"{scale}*height", f"{scale}*width")}
        nodes, own = network_nodes(kind, count, timed)
        enlarge = helper.make_node(
            "Resize", ["small", "", "scales"], ["upscaled"], mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        graphs = {"network": ([*mix_nodes(), *nodes, enlarge], inputs, outputs)}
        scales = np.array([1, 1, 1, scale, scale], np.float32)
        constants = {"network": {**CONSTANTS, **own, "scales": scales}}
        texts = {"network": engine_text(kind, scale, inputs, outputs)}
        factor = FixedFactors(factors=(1 if kind == "sliding" else 2,))
        base |= {"space": FixedFactors(factors=(scale,)), "time": ContinuousTime() if timed else factor}
    entries = []
    for role, (nodes, inputs, outputs) in graphs.items():
        save_graph(python / f"{role}.onnx", nodes, inputs, outputs, **constants[role])
        entries.append(graph_entry(python / f"{role}.onnx", role, specs(inputs), specs(outputs)))  # type: ignore[arg-type]
    write_manifest(python, Manifest.model_validate({**base, "graphs": tuple(entries), **changes}))
    write_engines(folder / "engines", python, texts)
    return folder


# Running both.

DTYPES = {"rgb24": np.dtype("u1"), "rgb48le": np.dtype("<u2")}


def clip(count: int, size: tuple[int, int], format: str) -> np.ndarray:  # (count, h, w, 3)
    top = np.iinfo(DTYPES[format]).max + 1
    return np.random.default_rng(count).integers(0, top, (count, *size, 3)).astype(DTYPES[format])


def by_python(folder: Path, frames: np.ndarray, size: tuple[int, int], factor: int) -> np.ndarray:
    """What the Python upscaler makes of packed frames, packed alike."""
    top = np.iinfo(frames.dtype).max
    planes = (np.clip(frame.transpose(2, 0, 1) * np.float32(1 / top), 0, 1).astype(np.float32) for frame in frames)
    times = tuple(Fraction(part, factor) for part in range(factor))
    with Upscaler(folder / "graphs", device="cpu", tile=0, threads=1) as upscaler:
        made = np.stack(list(upscaler.frames(one_scene(planes, times), size)))
    rounded = np.rint(made.astype(np.float32) * np.float32(top / 65535)).astype(frames.dtype)
    return rounded.transpose(0, 2, 3, 1)


def call(
    program: Path, *arguments: object, data: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(program), *map(str, arguments)], input=data, capture_output=True, env={**os.environ, **environment}
    )


def by_cpp(programs: Programs, folder: Path, frames: np.ndarray, *options: object) -> np.ndarray:
    format = "rgb24" if frames.dtype == np.uint8 else "rgb48le"
    h, w = frames.shape[1:3]
    done = call(
        programs.upscale, folder / "engines", "--size", f"{w}x{h}", "--format", format, *options, data=frames.tobytes()
    )
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    return np.frombuffer(done.stdout, frames.dtype)


def assert_alike(
    programs: Programs, folder: Path, frames: np.ndarray, scale: float, factor: int, *options: object
) -> None:
    h, w = frames.shape[1:3]
    expected = by_python(folder, frames, (round(h * scale), round(w * scale)), factor)
    assert len(expected) == factor * len(frames)
    assert expected.std() > 0
    found = by_cpp(programs, folder, frames, "--scale", scale, "--factor", factor, *options)
    assert found.size == expected.size
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


PAIR = {"kind": "pair", "frames": 2}
WINDOWS: dict[str, dict[str, Any]] = {
    "pair": PAIR,
    "run 2": {"kind": "run", "frames": 2},
    "run 4": {"kind": "run", "frames": 4},
    "sliding 1": {"kind": "sliding", "frames": 1, "padding": "replicate"},
    "replicate 3": {"kind": "sliding", "frames": 3, "padding": "replicate"},
    "reflection 5": {"kind": "sliding", "frames": 5, "padding": "reflection"},
    "circle 5": {"kind": "sliding", "frames": 5, "padding": "reflection_circle"},
    "doubled 4+2": {"kind": "doubled", "frames": 4, "overlap": 2},
    "doubled 2+1": {"kind": "doubled", "frames": 2, "overlap": 1},
}
KINDS = list(WINDOWS)


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("toys")
    made = {name: write_toy(root / name, window) for name, window in WINDOWS.items()}
    made["run 3 at any time"] = write_toy(root / "timed", {"kind": "run", "frames": 3}, timed=True)
    return made


def own_factor(kind: str) -> int:
    return 1 if WINDOWS[kind]["kind"] == "sliding" else 2


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_every_window_gives_what_python_gives(programs: Programs, toys: dict[str, Path], kind: str, count: int) -> None:
    assert_alike(programs, toys[kind], clip(count, (7, 10), "rgb24"), 2, own_factor(kind))


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["pair", "run 3 at any time"])
def test_any_time_between_frames(programs: Programs, toys: dict[str, Path], kind: str, factor: int) -> None:
    assert_alike(programs, toys[kind], clip(6, (6, 9), "rgb48le"), 2, factor)


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (3, 17), (8, 12), (1, 1)])
@pytest.mark.parametrize("format", DTYPES)
@pytest.mark.parametrize("kind", ["pair", "replicate 3"])
def test_odd_sizes_are_padded_and_cropped(
    programs: Programs, toys: dict[str, Path], kind: str, format: str, size: tuple[int, int]
) -> None:
    assert_alike(programs, toys[kind], clip(3, size, format), 2, own_factor(kind))


@pytest.mark.parametrize("scale", [1, 1.25, 2.7, 3, 8])
def test_any_scale_that_the_bundle_makes(programs: Programs, toys: dict[str, Path], scale: float) -> None:
    assert_alike(programs, toys["pair"], clip(2, (6, 10), "rgb48le"), scale, 2)


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 255.0), (0.25, 0.5)])
@pytest.mark.parametrize("format", DTYPES)
def test_other_value_ranges(programs: Programs, tmp_path: Path, format: str, value_range: tuple[float, float]) -> None:
    for window in (PAIR, WINDOWS["run 4"]):
        folder = write_toy(tmp_path / window["kind"], window, value_range=value_range)
        assert_alike(programs, folder, clip(3, (5, 6), format), 2, 2)


def test_defaults_are_those_of_the_bundle(programs: Programs, toys: dict[str, Path], tmp_path: Path) -> None:
    frames = clip(2, (6, 9), "rgb24")
    for kind, scale in (("pair", 4), ("run 2", 2), ("replicate 3", 2), ("doubled 4+2", 2)):
        expected = by_python(toys[kind], frames, (6 * scale, 9 * scale), own_factor(kind))
        np.testing.assert_array_equal(by_cpp(programs, toys[kind], frames), expected.ravel())
    space = {"kind": "continuous", "minimum": 1, "maximum": 3}
    less = write_toy(tmp_path / "less", PAIR, space=space)
    assert by_cpp(programs, less, frames).size == 4 * 18 * 27 * 3


def test_half_precision_takes_its_own_engine(programs: Programs, toys: dict[str, Path], tmp_path: Path) -> None:
    folder = write_toy(tmp_path / "toy", WINDOWS["replicate 3"])
    frames = clip(2, (4, 4), "rgb24")
    text = (folder / "engines/network.tensorrt-rtx.sm89.fp32.engine").read_text()
    edit(
        folder, lambda m: m["engines"].append(engine_entry(folder / "engines", m["graphs"][0], text, precision="fp16"))
    )
    (folder / "engines/network.tensorrt-rtx.sm89.fp32.engine").unlink()
    expected = by_python(folder, frames, (8, 8), 1).ravel()
    np.testing.assert_array_equal(by_cpp(programs, folder, frames, "--precision", "fp16"), expected)


def test_statistics_go_to_standard_error(programs: Programs, toys: dict[str, Path]) -> None:
    frames = clip(3, (4, 6), "rgb24")
    done = call(
        programs.upscale, toys["pair"] / "engines", "--size", "6x4", "--verbose", "--scale", 2, data=frames.tobytes()
    )
    assert done.stderr.startswith(b"6 frames of 12x8 made of 3 by tensorrt-rtx on device 0: ")
    assert done.stderr.endswith(b" ms a frame\n")
    assert len(done.stdout) == 6 * 12 * 8 * 3


def test_a_second_device(programs: Programs, toys: dict[str, Path]) -> None:
    """Streams, events and memory belong to the device that is asked for."""
    frames = clip(3, (4, 6), "rgb24")
    arguments = (toys["pair"] / "engines", "--size", "6x4", "--device", 1)
    done = call(programs.upscale, *arguments, data=frames.tobytes(), FAKE_CUDA_DEVICES="2")
    assert (done.returncode, len(done.stdout)) == (0, 6 * 24 * 16 * 3), done.stderr


# Errors: one sentence each, an exit status, and nothing on standard output.


def edit(folder: Path, change: Any) -> None:
    """Change the manifest of the C++ host's bundle."""
    path = folder / "engines/manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest, indent=2))


def refusal(programs: Programs, bundle: Path, *options: object, data: bytes | None = None, **environment: str) -> str:
    frames = clip(2, (4, 6), "rgb24").tobytes() if data is None else data
    done = call(programs.upscale, bundle, "--size", "6x4", *options, data=frames, **environment)
    text = done.stderr.decode()
    assert done.returncode == 1, text
    assert done.stdout == b""
    assert text.endswith(".\n")
    assert text.count("\n") == 1
    return text


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


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy", WINDOWS["replicate 3"])


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


TIMES = ["-", "0/1", "0/1,1/2", "1/2", "0/1,0/1,1/2"]
EVERY_TIME = [*TIMES, "1/3,2/3", "0/4,1/4,3/4", "1/2,3/4"]


@pytest.mark.parametrize("kind", ["pair", "run 4", "run 3 at any time", "doubled 2+1", "circle 5"])
def test_scenes_and_times_of_a_host_with_its_own_stream(programs: Programs, toys: dict[str, Path], kind: str) -> None:
    """Any times wanted of each frame, none of some, and scenes of any length; and again after a call that failed."""
    rng = np.random.default_rng(len(kind))
    choice = EVERY_TIME if kind in ("pair", "run 3 at any time") else ["-", "0/1"] if "circle" in kind else TIMES
    for _ in range(4):
        lengths = rng.integers(1, 8, 3)
        words = [str(rng.choice(choice)) + "!" * int(i == n - 1) for n in lengths for i in range(n)]
        frames = rng.random((len(words), 3, 6, 9), np.float32)
        size = (12, 18)
        inputs = []
        for frame, word in zip(frames, words, strict=True):
            times = tuple(Fraction(part) for part in word.rstrip("!").split(",") if part != "-")
            inputs.append(InputFrame(frame, times, word.endswith("!")))
        with Upscaler(toys[kind] / "graphs", device="cpu", tile=0, threads=1) as upscaler:
            expected = list(upscaler.frames(inputs, size))
        done = call(programs.host, "upscale", toys[kind] / "engines", "9x6", "18x12", *words, data=frames.tobytes())
        assert done.returncode == 0, done.stderr
        assert done.stderr == b"A frame of 161 values is not one of 9x6: give three planes of that size.\n"
        twice = np.frombuffer(done.stdout, np.uint16).reshape(2, len(expected), 3, *size)
        for found in twice:
            np.testing.assert_array_equal(found, np.array(expected, np.uint16).reshape(found.shape))


@pytest.mark.parametrize("times", ["1/1", "3/2", "1/3"])
def test_times_that_no_gap_has(programs: Programs, toys: dict[str, Path], times: str) -> None:
    done = call(programs.host, "upscale", toys["run 4"] / "engines", "4x4", "8x8", times + "!", data=bytes(192))
    message = "makes frames in time by x2" if times == "1/3" else f"The time {times} is not from 0 to below 1"
    assert message in done.stderr.decode()


# The manifest.


def damaged(*path: str | int, value: Any = None, gone: bool = False) -> Any:
    def change(manifest: Any) -> None:
        for part in path[:-1]:
            manifest = manifest[part]
        if gone:
            del manifest[path[-1]]
        else:
            manifest[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged("format", value=2), " is of format 2, and this stvsr reads up to 1: update stvsr."),
        (damaged("format", value=0), "format: 1 is expected; export the bundle again."),
        (damaged("format", value="1"), "format: a value that is a whole number is expected"),
        (damaged("format", gone=True), "format: this field is missing"),
        (damaged("colour", value=1), "colour: this field is unknown"),
        (damaged("licence", gone=True), "licence: this field is missing"),
        (damaged("name", value=3), "name: a value that is text is expected"),
        (damaged("architecture", "config", value=[]), "architecture.config: a value that is an object is expected"),
        (damaged("architecture", "more", value=[]), "architecture.more: this field is unknown"),
        (damaged("graphs", value={}), "graphs: a value that is a list is expected"),
        (damaged("graphs", 0, "role", value="head"), "graphs.0.role: 'encoder' or 'decoder' or 'network' is expected"),
        (damaged("graphs", 0, "role", value="encoder"), "a window of this kind takes the graph network"),
        (damaged("graphs", 0, "file", value="../x"), "graphs.0.file: a bare file name is expected"),
        (damaged("graphs", 0, "file", value=".x"), "graphs.0.file: a bare file name is expected"),
        (damaged("graphs", 0, "sha256", value="0" * 63), "graphs.0.sha256: a sha256 in hex is expected"),
        (damaged("graphs", 0, "inputs", 0, "axes", 1, value=1.5), "graphs.0.inputs.0.axes.1: a value that is text is"),
        (damaged("graphs", 0, "outputs", 0, "kind", value=1), "graphs.0.outputs.0.kind: this field is unknown"),
        (damaged("window", "kind", value="single"), "window.kind: 'pair' or 'run' or 'sliding' or 'doubled' is"),
        (damaged("window", "frames", value=0), "window.frames: a whole number from 1 on is expected"),
        (damaged("window", "frames", value=4), "a sliding window has an odd number of frames"),
        (damaged("window", "padding", value="zero"), "window.padding: 'replicate' or 'reflection' or"),
        (damaged("window", "overlap", value=1), "window.overlap: this field is unknown"),
        (damaged("window", value={"kind": "pair", "frames": 3}), "window.frames: 2 is expected"),
        (damaged("window", value={"kind": "pair", "frames": 2}), "takes the graphs decoder and encoder"),
        (damaged("window", value={"kind": "run", "frames": 3}), "the window does not make frames in time by x1"),
        (damaged("time", value={"kind": "continuous"}), "the window does not make frames in time by any"),
        (damaged("time", "factors", value=[]), "time.factors: a list of at least 1 is expected"),
        (damaged("space", "factors", 0, value=0), "space.factors.0: a whole number from 1 on is expected"),
        (
            damaged("space", value={"kind": "continuous", "minimum": 0, "maximum": 1}),
            "space.minimum: a number above 0 is expected",
        ),
        (
            damaged("space", value={"kind": "continuous", "minimum": 2, "maximum": 1}),
            "the smallest space factor is larger than the largest",
        ),
        (damaged("value_range", value=[1, 1]), "the value range is empty"),
        (damaged("value_range", value=[1]), "value_range: a list of 2 is expected"),
        (damaged("value_range", 0, value="0"), "value_range.0: a value that is a number is expected"),
        (damaged("channel_order", value="BGR"), "channel_order: 'RGB' is expected"),
        (damaged("size", "minimum", value=0), "size.minimum: a whole number from 1 on is expected"),
        (damaged("halo_px", value=-1), "halo_px: a whole number from 0 on is expected"),
        (damaged("halo_px", gone=True), "halo_px: this field is missing"),
        (damaged("training", value=None), "training: a value that is an object is expected"),
        (
            damaged("flows", value=[{"name": "flow", "pairs": [[0, 3]], "method": "dis"}]),
            "the flows 'flow' name frames outside the window",
        ),
        (
            damaged("flows", value=[{"name": "flow", "pairs": [], "method": "dis"}]),
            "flows.0.pairs: a list of at least 1 is expected",
        ),
        (
            damaged("flows", value=[{"name": "flow", "pairs": [[0, 1]], "method": "dis", "unit": "metres"}]),
            "flows.0.unit: 'input pixels' is expected",
        ),
        (damaged("engines", 0, "target", value="89"), "engines.0.target: a compute capability such as 'sm89' is"),
        (damaged("engines", 0, "precision", value="int8"), "engines.0.precision: 'fp32' or 'fp16' is expected"),
        (damaged("engines", 0, "library", value="onnx"), "engines.0.library: 'tensorrt' or 'tensorrt-rtx' is expected"),
        (damaged("engines", 0, "shapes", "height", value=[1, 2]), "engines.0.shapes.height: a list of 3 is expected"),
        (damaged("engines", 0, "note", value=""), "engines.0.note: this field is unknown"),
    ],
)
def test_manifests_that_are_not_of_the_format(programs: Programs, toy: Path, change: Any, message: str) -> None:
    edit(toy, change)
    told = refusal(programs, toy / "engines")
    assert told.startswith(str(toy / "engines/manifest.json"))
    assert message in told


def test_what_the_format_lets_out(programs: Programs, toy: Path) -> None:
    """Flows and parts of the size constraint may be missing, as in Python; a halo may be null or a number."""
    frames = clip(2, (4, 4), "rgb24")
    edit(toy, damaged("flows", gone=True))
    edit(toy, damaged("size", value={}))
    edit(toy, damaged("halo_px", value=7))
    expected = by_python(toy, frames, (8, 8), 1)
    np.testing.assert_array_equal(by_cpp(programs, toy, frames), expected.ravel())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: a value is expected"),
        ('{\n "a": 1,\n "é": é}', "line 3, column 7: a value is expected"),
        ('{"a": 1} x', "line 1, column 10: nothing more is expected"),
        ("[1 2]", "line 1, column 4: a comma or ] is expected"),
        ('{"a": 1, "a": 2}', "line 1, column 10: the name 'a' is repeated"),
        ("[NaN]", "line 1, column 2: a value is expected"),
    ],
)
def test_manifests_that_are_no_json(programs: Programs, toy: Path, text: str, message: str) -> None:
    path = toy / "engines/manifest.json"
    path.write_text(text)
    told = refusal(programs, toy / "engines")
    assert told == f"{path} is not valid JSON ({message}); restore the file or export the bundle again.\n"


def test_a_folder_that_is_no_bundle(programs: Programs, tmp_path: Path) -> None:
    told = refusal(programs, tmp_path)
    assert told == (
        f"{tmp_path} is no bundle: manifest.json cannot be read there (No such file or directory);"
        " name a bundle's folder.\n"
    )


# JSON and SHA-256.


@pytest.fixture(scope="session")
def read_json(programs: Programs) -> Iterator[Any]:
    """What the reader made of a document of one line."""
    with subprocess.Popen([programs.probe, "json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def read(document: bytes) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(document + b"\n")
            process.stdin.flush()
            return process.stdout.readline().decode().rstrip("\n")

        yield read
        process.stdin.close()


def told(value: Any) -> Any:
    """A value as the probe tells it: text in hex, and whole numbers that a machine's integers do not hold as reals."""
    if isinstance(value, dict):
        return {name.encode().hex(): told(item) for name, item in value.items()}
    if isinstance(value, list):
        return [told(item) for item in value]
    if isinstance(value, str):
        return value.encode().hex()
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and not -(2**63) <= value < 2**63 else value


def typed(value: Any) -> Any:
    """Tell 1 from 1.0 and True, and 0.0 from -0.0."""
    if isinstance(value, dict):
        return {name: typed(item) for name, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else (type(value), repr(value))


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
documents = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)


@settings(deadline=None, max_examples=300)
@given(value=documents, ascii=st.booleans(), spaces=st.booleans())
@example(
    value=['\U0001f600\u007f\x00"\\/', {"": {}}, [], -0.0, 5e-324, 1.7976931348623157e308], ascii=True, spaces=True
)
def test_json_is_read_as_python_wrote_it(read_json: Any, value: Any, ascii: bool, spaces: bool) -> None:
    document = json.dumps(value, ensure_ascii=ascii, separators=(" , ", "\t:\r ") if spaces else (",", ":"))
    assert typed(json.loads(read_json(document.encode()))) == typed(told(value))


@settings(deadline=None, max_examples=300)
@given(document=st.binary(max_size=12) | st.text('[]{}",:\\u01a.eE+-truefalsn ', max_size=12).map(str.encode))
@example(document=b'"\\ud800"')
@example(document=b"[01]")
@example(document=b"1.")
@example(document=b"[1,]")
def test_what_python_refuses_is_refused(read_json: Any, document: bytes) -> None:
    if b"\n" in document:
        return
    found = read_json(document)
    try:
        value = json.loads(document.decode(), parse_constant=float.fromhex)
        dumped = json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        assert found.startswith("error: line 1, column ")
        return
    if found.startswith("error"):  # stricter: what has no meaning that everybody shares
        assert "repeated" in found or b"NaN" in dumped or b"Infinity" in dumped
    else:
        assert typed(json.loads(found)) == typed(told(value))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b'"\\ud800"', "column 2: the escape stands for no character"),
        (b'"\\ud800\\u0041"', "column 2: the escape stands for no character"),
        (b'"\\udc00"', "column 2: the escape stands for no character"),
        (b'"\\u12"', "column 2: the escape stands for no character"),
        (b'"\\x"', "column 2: the escape stands for no character"),
        (b'"a\tb"', "column 3: a control character in text must be escaped"),
        (b'"abc', "column 5: the text does not end"),
        (b'"\xff"', "column 2: the text is not UTF-8"),
        (b'"\xc0\x80"', "column 2: the text is not UTF-8"),
        (b'"\xed\xa0\x80"', "column 2: the text is not UTF-8"),
        (b'"\xf4\x90\x80\x80"', "column 2: the text is not UTF-8"),
        (b'"\xe2\x82', "column 2: the text is not UTF-8"),
        (b"1e999", "column 1: the number is too large"),
        (b"-", "column 2: a digit is expected"),
        (b"01", "column 2: nothing more is expected"),
        (b"{1: 2}", "column 2: a name in quotes is expected"),
        (b'{"a" 2}', "column 6: a colon is expected"),
        (b'{"a": 2 "b"}', "column 9: a comma or } is expected"),
        (b"[" * 200, "column 130: arrays and objects are nested too deeply"),
    ],
)
def test_what_is_no_json(read_json: Any, document: bytes, message: str) -> None:
    assert read_json(document) == f"error: line 1, {message}"


@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 100_003])
def test_sha256(programs: Programs, length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert call(programs.probe, "sha256", data=data).stdout.decode() == hashlib.sha256(data).hexdigest()


# The build.


def compile_alone(include: Path, sdk: Path, *options: str) -> None:
    for path in sorted(SOURCE.glob("*.cpp")):
        flags = ("-std=c++17", *WARNINGS, *options, '-DSTVSR_LIBRARY="tensorrt"', "-c", "-o", os.devnull)
        shell(COMPILER, *flags, "-isystem", include, "-isystem", sdk, path)


def needs_compiler() -> None:
    if COMPILER is None:
        pytest.skip("no C++ compiler: the C++ host is not built")


def test_it_compiles_without_the_toolkit() -> None:
    needs_compiler()
    compile_alone(FAKES / "cuda", FAKES / "sdk", "-fsyntax-only")


@pytest.mark.slow
def test_it_compiles_with_optimisation() -> None:
    """Which finds other faults than a build without."""
    needs_compiler()
    compile_alone(toolkit_include() or FAKES / "cuda", FAKES / "sdk", "-O3")


def test_it_compiles_with_the_sdk() -> None:
    needs_compiler()
    root = os.environ.get("TENSORRT_ROOT")
    places = [Path(root) / "include"] if root else []
    places += map(Path, ("/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu", "/usr/include"))
    found = next((place for place in places if (place / "NvInferRuntime.h").is_file()), None)
    include = toolkit_include()
    if found is None or include is None:
        pytest.skip("no NvInferRuntime.h, by TENSORRT_ROOT or in the system's folders, or no CUDA toolkit beside it")
    compile_alone(include, found, "-fsyntax-only")


def configure(tmp_path: Path, *options: str) -> str:
    if CMAKE is None or COMPILER is None:
        pytest.skip("no CMake or no C++ compiler: the C++ host is not built")
    environment = {name: value for name, value in os.environ.items() if name != "TENSORRT_ROOT"}
    command = [CMAKE, *GENERATOR, "-S", str(SOURCE), "-B", str(tmp_path), f"-DCMAKE_CXX_COMPILER={COMPILER}", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    return " ".join(done.stderr.split())


def test_cmake_says_what_is_missing(tmp_path: Path, programs: Programs) -> None:
    told = configure(tmp_path / "a", "-DSTVSR_LIBRARY=onnx")
    assert "STVSR_LIBRARY is 'onnx': give tensorrt or tensorrt-rtx." in told
    nowhere = ("-DSTVSR_SDK_INCLUDE=OFF", "-DSTVSR_SDK_LIBRARY=OFF")  # as if the search had failed
    told = configure(tmp_path / "b", "-DSTVSR_LIBRARY=tensorrt", *nowhere)
    assert "The tensorrt SDK (NvInferRuntime.h and nvinfer) was not found: unpack it and give its folder with" in told
    found = [f"-DTENSORRT_ROOT={programs.root / 'sdk'}", "-DSTVSR_CUDA_INCLUDE=OFF", "-DSTVSR_CUDA_LIBRARY=OFF"]
    told = configure(tmp_path / "c", *found)
    assert "The CUDA toolkit (cuda_runtime_api.h and cudart) was not found: install it, or give its folder with" in told


def test_the_wheel_ships_the_sources() -> None:
    root = SOURCE.parent.parent
    if not (root / "pyproject.toml").is_file():
        pytest.skip("the tests run on an installed package, and no source tree is here")
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "stvsr.engine"
    ]
    shipped = {path for pattern in patterns for path in SOURCE.parent.glob(pattern)}
    assert set(SOURCE.iterdir()) <= shipped
    assert {path.suffix for path in SOURCE.iterdir()} == {".cpp", ".hpp", ".txt", ".cmake", ".in"}


def test_installed_headers_need_no_other(programs: Programs) -> None:
    """They compile without CUDA's headers, the SDK's and those that are not installed."""
    headers = sorted((programs.root / "installed/include/stvsr").glob("*.hpp"))
    assert len(headers) >= 5
    text = "".join(f'#include "{header}"\n' for header in headers)
    done = subprocess.run(
        [str(COMPILER), "-std=c++17", *WARNINGS, "-fsyntax-only", "-x", "c++", "-"],
        input=text, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
