"""The ways of installing: what each downloads, and that what it installs upscales a video.

They take packages from the index that the tools are configured for.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import av
import pytest

from tests.support.media import make_video, pan
from tests.support.source_tree import ROOT, copy_source

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"] if (ROOT / "pyproject.toml").exists() else {}

pytestmark = pytest.mark.skipif(not PROJECT, reason="the tests run on an installed package, without the source tree")


def requirements(extra: str) -> set[str]:
    """Return the names of the packages that an extra adds, those of other extras included."""
    names: set[str] = set()
    for line in PROJECT["optional-dependencies"][extra]:
        match = re.match(r"([\w-]+)(?:\[([\w,-]+)\])?", line)
        assert match
        name, extras = match[1], match[2] or ""
        names |= set().union(*map(requirements, extras.split(","))) if name == "stvsr" else {name}
    return names


def test_one_build_of_onnx_runtime_is_chosen_by_an_extra() -> None:
    assert not [line for line in PROJECT["dependencies"] if line.startswith("onnxruntime")]
    builds = {
        extra: {name for name in requirements(extra) if name.startswith("onnxruntime")}
        for extra in PROJECT["optional-dependencies"]
    }
    assert {extra: names for extra, names in builds.items() if names} == {
        "cpu": {"onnxruntime"},
        "dev": {"onnxruntime"},
        "cuda": {"onnxruntime-gpu"},
        "pycuda": {"onnxruntime-gpu"},
    }


def run(*command: str | Path, **environment: str | Path) -> str:
    variables = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    variables.pop("PYTHONPATH", None)
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the source tree. Skip if no package index can be reached."""
    folder = tmp_path_factory.mktemp("installation") / "source"
    copy_source(folder)
    trial = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder.parent / "trial"), "typer"]
    if subprocess.run(trial, capture_output=True).returncode != 0:
        pytest.skip("no package index can be reached")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["pip", "pipx", "uv"])
def test_an_installation_for_the_cpu_upscales(tool: str, source: Path, tmp_path: Path) -> None:
    package, bin_folder = f"{source}[cpu]", tmp_path / "bin"
    if tool == "pip":
        bin_folder = install_by_pip(sys.executable, package, tmp_path)
    elif (beside := shutil.which(tool) or shutil.which(tool, path=str(Path(sys.executable).parent))) is None:
        pytest.skip(f"{tool} is not installed: pip install {tool}")
    elif tool == "pipx":
        homes = {"PIPX_HOME": tmp_path / "home", "PIPX_BIN_DIR": bin_folder, "PIPX_MAN_DIR": tmp_path / "man"}
        run(beside, "install", "--python", sys.executable, package, **homes)
    else:
        homes = {"UV_TOOL_DIR": tmp_path / "home", "UV_TOOL_BIN_DIR": bin_folder}
        run(beside, "tool", "install", "--python", sys.executable, package, **homes)
    installed = {path.name.split("-")[0] for path in tmp_path.rglob("*.dist-info")}
    assert {"stvsr", "onnxruntime", "av"} <= installed
    assert not [name for name in installed if "gpu" in name or name.startswith(("nvidia", "cupy", "torch"))]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 400 << 20
    assert_upscales(bin_folder, tmp_path)


def install_by_pip(python: str | Path, package: str, folder: Path) -> Path:
    """Install a package into a new virtual environment, and return the folder of its commands."""
    run(python, "-m", "venv", folder / "venv")
    run(folder / "venv/bin/pip", "install", package)
    return folder / "venv/bin"


def assert_upscales(bin_folder: Path, folder: Path) -> None:
    clip, output = make_video(folder / "clip.mp4", pan(2, (32, 48))), folder / "out.mp4"
    run(bin_folder / "stvsr", "upscale", clip, "-o", output, "--no-progress")
    with av.open(str(output)) as container:
        assert [(frame.width, frame.height) for frame in container.decode(video=0)] == [(192, 128)] * 4
    assert "ONNX Runtime" in run(bin_folder / "stvsr", "info", "--devices")


@pytest.mark.slow
@pytest.mark.parametrize("version", [f"3.{minor}" for minor in range(11, 16) if minor != sys.version_info.minor])
def test_other_versions_of_python_upscale(version: str, source: Path, tmp_path: Path) -> None:
    """Each gets other versions of the packages that stvsr depends on."""
    if (python := find_python(version)) is None:
        pytest.skip(f"Python {version} is not installed")
    assert_upscales(install_by_pip(python, f"{source}[cpu]", tmp_path), tmp_path)


def find_python(version: str) -> Path | None:
    """Return an interpreter from the path, or one of pyenv's, which are there and not on the path."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    paths = sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    if (on_path := shutil.which(f"python{version}")) is not None:
        paths.insert(0, Path(on_path))
    for path in paths:
        if subprocess.run([path, "-c", "import venv, ensurepip"], capture_output=True).returncode == 0:
            return path
    return None
