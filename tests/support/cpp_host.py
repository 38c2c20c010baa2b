"""Build the C++ host on fakes of CUDA and of the inference library, and compare it with the Python upscaler."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import stvsr
from stvsr import Backend, Upscaler, one_scene

from tests.support.paths import TESTS

SOURCE = Path(stvsr.__file__).parent / "engine/cpp"
FAKES = TESTS / "cpp"
CMAKE, COMPILER = shutil.which("cmake"), shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
GENERATOR = ("-G", "Ninja") if shutil.which("ninja") else ()


def toolkit_include() -> Path | None:
    """Return the folder of the CUDA toolkit's headers, or None if no toolkit is installed."""
    roots = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    if nvcc := shutil.which("nvcc"):
        roots.append(os.fspath(Path(nvcc).resolve().parent.parent))
    roots += map(os.fspath, Path("/usr/local").glob("cuda-*"))
    return next((Path(r) / "include" for r in roots if r and (Path(r) / "include/cuda_runtime_api.h").is_file()), None)


def run_checked(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a build command and assert that it succeeds."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done


@dataclass
class Programs:
    """The programs built by `build`; `root` is the folder of the build."""

    upscale: Path
    host: Path
    probe: Path
    root: Path


def build(root: Path, cmake: str, compiler: str) -> None:
    """Build the library on the fakes with sanitizers, install it, and build the test programs on the installation."""
    cuda, sdk = root / "cuda", root / "sdk"
    for folder in (cuda, sdk):
        (folder / "lib").mkdir(parents=True)
    (cuda / "include").symlink_to(toolkit_include() or FAKES / "cuda")
    (sdk / "include").symlink_to(FAKES / "sdk")
    fake = [compiler, "-std=c++17", "-fPIC", "-shared", "-ffp-contract=off", *SANITIZERS, *WARNINGS]
    fake += [f"-isystem{cuda / 'include'}", f"-I{sdk / 'include'}"]
    run_checked(*fake, FAKES / "fake_cuda.cpp", "-o", cuda / "lib/libcudart.so")
    run_checked(*fake, FAKES / "fake_inference.cpp", cuda / "lib/libcudart.so", "-o", sdk / "lib/libtensorrt_rtx.so")
    # Without optimisation the build takes a quarter of the time.
    configure = [cmake, *GENERATOR, "-DCMAKE_BUILD_TYPE=None"]
    configure += [f"-DCMAKE_CXX_COMPILER={compiler}", f"-DCMAKE_INSTALL_PREFIX={root / 'installed'}"]
    configure += [f"-DCMAKE_CXX_FLAGS={' '.join((*SANITIZERS, *WARNINGS))}"]
    libraries = [f"-DTENSORRT_ROOT={sdk}", f"-DCUDAToolkit_ROOT={cuda}"]
    run_checked(*configure, *libraries, "-S", SOURCE, "-B", root / "library")
    run_checked(cmake, "--build", root / "library", "--parallel", "2", "--target", "install")
    package = [f"-DCMAKE_PREFIX_PATH={root / 'installed'}", f"-DSTVSR_PRIVATE_HEADERS={SOURCE / 'src'}"]
    run_checked(*configure, *package, "-S", FAKES, "-B", root / "hosts")
    run_checked(cmake, "--build", root / "hosts", "--parallel", "2")


DTYPES: dict[str, np.dtype[np.unsignedinteger]] = {"rgb24": np.dtype("u1"), "rgb48le": np.dtype("<u2")}


def random_clip(count: int, size: tuple[int, int], format: str) -> np.ndarray:
    """Return packed random frames (count, h, w, 3) in a pixel format; `size` is (h, w)."""
    levels = np.iinfo(DTYPES[format]).max + 1
    return np.random.default_rng(count).integers(0, levels, (count, *size, 3)).astype(DTYPES[format])


def upscale_with_python(folder: Path, frames: np.ndarray, size: tuple[int, int], factor: int) -> np.ndarray:
    """Upscale packed frames (n, h, w, 3) with the Python upscaler, to packed frames (factor * n, H, W, 3)."""
    white = np.iinfo(frames.dtype).max
    planes = (np.clip(frame.transpose(2, 0, 1) * np.float32(1 / white), 0, 1).astype(np.float32) for frame in frames)
    times = tuple(Fraction(i, factor) for i in range(factor))
    with Upscaler(folder / "graphs", Backend(device="cpu", threads=1), tile=0) as upscaler:
        upscaled = np.stack(list(upscaler.frames(one_scene(planes, times), size)))
    rounded = np.rint(upscaled.astype(np.float32) * np.float32(white / 65535)).astype(frames.dtype)
    return rounded.transpose(0, 2, 3, 1)


def run(program: Path, *arguments: object, data: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program with `data` on standard input."""
    return subprocess.run(
        [str(program), *map(str, arguments)], input=data, capture_output=True, env={**os.environ, **environment}
    )


def upscale_with_cpp(programs: Programs, folder: Path, frames: np.ndarray, *options: object) -> np.ndarray:
    """Upscale packed frames with `stvsr-upscale`, to the values of all packed output frames in one dimension."""
    format = "rgb24" if frames.dtype == np.uint8 else "rgb48le"
    h, w = frames.shape[1:3]
    arguments = (folder / "engines", "--size", f"{w}x{h}", "--format", format, *options)
    done = run(programs.upscale, *arguments, data=frames.tobytes())
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    return np.frombuffer(done.stdout, frames.dtype)


def assert_cpp_equals_python(
    programs: Programs, folder: Path, frames: np.ndarray, scale: float, factor: int, *options: object
) -> None:
    """Assert that both upscalers compute the same frames, bit for bit."""
    h, w = frames.shape[1:3]
    expected = upscale_with_python(folder, frames, (round(h * scale), round(w * scale)), factor)
    assert len(expected) == factor * len(frames)
    assert expected.std() > 0
    actual = upscale_with_cpp(programs, folder, frames, "--scale", scale, "--factor", factor, *options)
    assert actual.size == expected.size
    np.testing.assert_array_equal(actual.reshape(expected.shape), expected)


def edit_manifest(folder: Path, change: Callable[[Any], object]) -> None:
    """Apply `change` to the manifest of the C++ host's bundle."""
    path = folder / "engines/manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest, indent=2))


def error_of(programs: Programs, bundle: Path, *options: object, data: bytes | None = None, **environment: str) -> str:
    """Run `stvsr-upscale`, assert that it fails with one line on standard error and no output, and return the line."""
    frames = random_clip(2, (4, 6), "rgb24").tobytes() if data is None else data
    done = run(programs.upscale, bundle, "--size", "6x4", *options, data=frames, **environment)
    text = done.stderr.decode()
    assert done.returncode == 1, text
    assert done.stdout == b""
    assert text.endswith(".\n")
    assert text.count("\n") == 1
    return text
