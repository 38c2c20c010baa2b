"""The wheel holds what the source tree does: every module of every room, and the shipped bundles."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest
import stvsr

ROOT = Path(stvsr.__file__).parent
ROOMS = ("engine", "kernels", "export", "training")
DATA = (".onnx", ".json", ".cu", ".cuh", ".cpp", ".hpp", ".cmake", ".in", ".txt")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from a copy of the tree, so that nothing is left in it, and install it in a folder."""
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("the tests run on an installed package, and no source tree is here to build")
    pytest.importorskip("setuptools", "77", reason="a wheel is built without the network, so with this setuptools")
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    source.mkdir()
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, source)
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(work), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        assert file.testzip() is None
    subprocess.run([*pip, "install", "--no-deps", "--target", work / "target", wheel], check=True)
    return work / "target"


def sources(*suffixes: str) -> set[str]:
    """Return the files of the package in the tree, by their path in it."""
    files = [*ROOT.glob("*"), *(path for room in ROOMS for path in (ROOT / room).rglob("*"))]
    return {path.relative_to(ROOT).as_posix() for path in files if path.suffix in suffixes and path.is_file()}


def from_wheel(installed: Path) -> str:
    """Return code that puts the wheel ahead of the source tree and of the hook of an editable install."""
    return (
        f"import sys; sys.path.insert(0, {os.fspath(installed)!r})\n"
        "sys.meta_path = [finder for finder in sys.meta_path if 'Editable' not in getattr(finder, '__name__', '')]\n"
    )


def test_every_module_and_every_data_file_is_inside(installed: Path) -> None:
    package = installed / "stvsr"
    inside = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert sources(".py", *DATA) - inside == set()
    assert "py.typed" in inside
    assert not [name for name in inside if name.startswith(("tests", "benchmarks", "shared"))]


def test_every_module_imports_from_the_wheel(installed: Path) -> None:
    names = sorted(name.removesuffix(".py").replace("/", ".") for name in sources(".py"))
    modules = [f"stvsr.{name}".removesuffix(".__init__") for name in names if name != "__main__"]
    code = (
        f"{from_wheel(installed)}import importlib\n"
        f"for name in {modules}:\n"
        "    module = importlib.import_module(name)\n"
        f"    assert module.__file__.startswith({os.fspath(installed)!r}), module.__file__\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=installed)
    assert done.returncode == 0, done.stderr


def test_the_shipped_bundles_load_from_the_wheel(installed: Path) -> None:
    code = (
        f"{from_wheel(installed)}"
        "from stvsr.engine.contract.bundle import Bundle, shipped_bundles\n"
        "for folder in shipped_bundles().values(): print(Bundle.load(folder).folder.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=installed)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(path.parent.name for path in ROOT.glob("engine/models/*/manifest.json"))


def test_the_base_asks_for_no_torch(installed: Path) -> None:
    (found,) = Distribution.discover(name="stvsr", path=[str(installed)])
    base = [line for line in found.requires or [] if "extra ==" not in line]
    assert base
    assert not [line for line in base if line.startswith(("torch", "onnx>", "onnxscript"))]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert found.version == version
