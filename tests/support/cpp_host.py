"""Builds the C++ host on fakes of CUDA and of the inference library, and runs it beside the Python upscaler."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import stvsr
from stvsr.engine.contract.windows import one_scene
from stvsr.engine.pipeline.upscaler import Upscaler

from tests.support.paths import TESTS

SOURCE = Path(stvsr.__file__).parent / "engine/cpp"
FAKES = TESTS / "cpp"
CMAKE, COMPILER = shutil.which("cmake"), shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
GENERATOR = ("-G", "Ninja") if shutil.which("ninja") else ()


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
