"""How the C++ host is built, shipped and installed."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.cpp_host import CMAKE, COMPILER, FAKES, GENERATOR, SOURCE, WARNINGS, Programs, shell, toolkit_include


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
