"""Building, installing and packaging the C++ host."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.cpp_host import (
    CMAKE,
    COMPILER,
    FAKES,
    GENERATOR,
    SOURCE,
    WARNINGS,
    Programs,
    run_checked,
    toolkit_include,
)


def compile_sources(cuda_include: Path, sdk_include: Path, *options: str) -> None:
    flags = ("-std=c++17", *WARNINGS, *options, '-DSTVSR_LIBRARY="tensorrt"', "-c", "-o", os.devnull)
    includes = ("-I", SOURCE / "include", "-isystem", cuda_include, "-isystem", sdk_include)
    paths = sorted(SOURCE.glob("src/*.cpp"))
    assert paths
    for path in paths:
        run_checked(COMPILER, *flags, *includes, path)


def skip_without_compiler() -> None:
    if COMPILER is None:
        pytest.skip("no C++ compiler: the C++ host is not built")


def test_sources_compile_without_the_cuda_toolkit() -> None:
    skip_without_compiler()
    compile_sources(FAKES / "cuda", FAKES / "sdk", "-fsyntax-only")


@pytest.mark.slow
def test_sources_compile_with_optimisation() -> None:
    """Some warnings need the data flow analysis of an optimised build."""
    skip_without_compiler()
    compile_sources(toolkit_include() or FAKES / "cuda", FAKES / "sdk", "-O3")


def test_sources_compile_with_the_tensorrt_sdk() -> None:
    skip_without_compiler()
    root = os.environ.get("TENSORRT_ROOT")
    folders = [Path(root) / "include"] if root else []
    folders += map(Path, ("/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu", "/usr/include"))
    sdk_include = next((folder for folder in folders if (folder / "NvInferRuntime.h").is_file()), None)
    cuda_include = toolkit_include()
    if sdk_include is None or cuda_include is None:
        pytest.skip("needs the CUDA toolkit, and NvInferRuntime.h in TENSORRT_ROOT or in the system's folders")
    compile_sources(cuda_include, sdk_include, "-fsyntax-only")


def configure_error(tmp_path: Path, *options: str) -> str:
    if CMAKE is None or COMPILER is None:
        pytest.skip("no CMake or no C++ compiler: the C++ host is not built")
    environment = {name: value for name, value in os.environ.items() if name != "TENSORRT_ROOT"}
    command = [CMAKE, *GENERATOR, "-S", str(SOURCE), "-B", str(tmp_path), f"-DCMAKE_CXX_COMPILER={COMPILER}", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    return " ".join(done.stderr.split())


def test_cmake_names_missing_dependencies(tmp_path: Path, programs: Programs) -> None:
    error = configure_error(tmp_path / "a", "-DSTVSR_LIBRARY=onnx")
    assert "STVSR_LIBRARY is 'onnx': set it to tensorrt or tensorrt-rtx." in error
    # OFF has the same effect as a search that finds nothing.
    no_sdk = ("-DSTVSR_SDK_INCLUDE=OFF", "-DSTVSR_SDK_LIBRARY=OFF")
    error = configure_error(tmp_path / "b", "-DSTVSR_LIBRARY=tensorrt", *no_sdk)
    assert "The tensorrt SDK (NvInferRuntime.h and nvinfer) was not found: unpack it and pass its folder with" in error
    no_cuda = (f"-DTENSORRT_ROOT={programs.root / 'sdk'}", "-DSTVSR_CUDA_INCLUDE=OFF", "-DSTVSR_CUDA_LIBRARY=OFF")
    error = configure_error(tmp_path / "c", *no_cuda)
    assert (
        "The CUDA toolkit (cuda_runtime_api.h and cudart) was not found: install it, or pass its folder with" in error
    )


def test_package_data_includes_every_file() -> None:
    root = SOURCE.parent.parent
    if not (root / "pyproject.toml").is_file():
        pytest.skip("the tests run on an installed package, without a source tree")
    setuptools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = setuptools["package-data"]["stvsr.engine"]
    packaged = {path for pattern in patterns for path in SOURCE.parent.glob(pattern)}
    files = {path for path in SOURCE.rglob("*") if path.is_file()}
    assert files <= packaged
    assert {path.suffix for path in files} == {".cpp", ".hpp", ".txt", ".cmake", ".in", ".md"}


def test_each_installed_header_compiles_alone(programs: Programs) -> None:
    """Without the headers of CUDA, of the SDK and of `src`."""
    include = programs.root / "installed/include"
    headers = sorted(path.relative_to(include) for path in include.rglob("*.hpp"))
    assert headers == sorted(path.relative_to(SOURCE / "include") for path in SOURCE.glob("include/stvsr/*.hpp"))
    assert len(headers) == 8
    command = [str(COMPILER), "-std=c++17", *WARNINGS, "-fsyntax-only", f"-I{include}", "-x", "c++", "-"]
    for header in headers:
        done = subprocess.run(command, input=f"#include <{header}>\n", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
