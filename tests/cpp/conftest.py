"""Fixtures of the C++ host's tests: the built programs, and the bundles that they run."""

from pathlib import Path

import pytest

from tests.support.cpp_host import CMAKE, COMPILER, Programs, build
from tests.support.toy_windows import WINDOWS, write_toy


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """Build the programs anew: a cached build would contain links into a checkout that may have been deleted."""
    if CMAKE is None or COMPILER is None:
        pytest.skip("the C++ host is not built without CMake and a C++ compiler")
    root = tmp_path_factory.mktemp("cpp_host")
    build(root, CMAKE, COMPILER)
    return Programs(root / "installed/bin/stvsr-upscale", root / "hosts/host", root / "hosts/probe", root)


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of every kind of window, each for Python and for the C++ host. Tests must not change them."""
    root = tmp_path_factory.mktemp("toys")
    folders = {name: write_toy(root / name, window) for name, window in WINDOWS.items()}
    folders["run 3 at any time"] = write_toy(root / "timed", {"kind": "run", "frames": 3}, timed=True)
    return folders


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A bundle that the test may change."""
    return write_toy(tmp_path / "toy", WINDOWS["replicate 3"])
