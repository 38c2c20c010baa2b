"""The wheel contains every module and data file of the source tree, and works when it is installed."""

import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from tests.support.source_tree import ROOMS, ROOT, copy_source

DATA = (".onnx", ".json", ".cu", ".cuh", ".cpp", ".hpp", ".cmake", ".in", ".txt", ".html", ".js", ".css")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel, install it in a folder of its own, and return the folder."""
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("the tests run on an installed package, without the source tree that a wheel is built from")
    pytest.importorskip("setuptools", "77", reason="the build has no network, so it needs this setuptools installed")
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    copy_source(source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(work), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        assert file.testzip() is None
    subprocess.run([*pip, "install", "--no-deps", "--target", work / "target", wheel], check=True)
    return work / "target"


def source_files(*suffixes: str) -> set[str]:
    """Return the package's files with these suffixes in the source tree, relative to its root."""
    files = [*ROOT.glob("*"), *(path for room in ROOMS for path in (ROOT / room).rglob("*"))]
    return {path.relative_to(ROOT).as_posix() for path in files if path.suffix in suffixes and path.is_file()}


def run_python(code: str, installed: Path) -> str:
    """Run code in a process that imports `stvsr` from the wheel, and return its standard output.

    The wheel comes before the source tree and before the import hook of an editable install.
    """
    prefix = (
        f"import sys; sys.path.insert(0, {os.fspath(installed)!r})\n"
        "sys.meta_path = [finder for finder in sys.meta_path if 'Editable' not in getattr(finder, '__name__', '')]\n"
    )
    done = subprocess.run([sys.executable, "-c", prefix + code], capture_output=True, text=True, cwd=installed)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_contains_every_module_and_data_file(installed: Path) -> None:
    package = installed / "stvsr"
    files = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert source_files(".py", *DATA) - files == set()
    assert "py.typed" in files
    assert not [name for name in files if name.startswith(("tests", "benchmarks", "shared"))]


def test_every_module_imports_from_the_wheel(installed: Path) -> None:
    names = sorted(name.removesuffix(".py").replace("/", ".") for name in source_files(".py"))
    modules = [f"stvsr.{name}".removesuffix(".__init__") for name in names if name != "__main__"]
    code = (
        "import importlib\n"
        f"for name in {modules}:\n"
        "    module = importlib.import_module(name)\n"
        f"    assert module.__file__.startswith({os.fspath(installed)!r}), module.__file__\n"
    )
    run_python(code, installed)


def test_the_shipped_bundles_load_from_the_wheel(installed: Path) -> None:
    code = (
        "from stvsr.engine.contract.bundle import Bundle, shipped_bundles\n"
        "for folder in shipped_bundles().values(): print(Bundle.load(folder).folder.name)\n"
    )
    names = run_python(code, installed).split()
    assert names == sorted(path.parent.name for path in ROOT.glob("engine/models/*/manifest.json"))


def test_the_base_installation_needs_no_torch_and_no_onnx(installed: Path) -> None:
    (distribution,) = Distribution.discover(name="stvsr", path=[str(installed)])
    base = [line for line in distribution.requires or [] if "extra ==" not in line]
    assert base
    assert not [line for line in base if line.startswith(("torch", "onnx>", "onnxscript"))]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert distribution.version == version
