"""What test files share and is made once: the C++ host, and bundles that it runs."""

import os
from pathlib import Path

# Tests that run side by side share the cores: a thread each, said before libraries load.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from tests.support.cpp_host import CMAKE, COMPILER, Programs, build
from tests.support.toy_windows import WINDOWS, write_toy


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """The programs, built anew: a build that was kept would hold links into a checkout that may be gone."""
    if CMAKE is None or COMPILER is None:
        pytest.skip("no CMake or no C++ compiler: the C++ host is not built")
    root = tmp_path_factory.mktemp("cpp_host")
    build(root, CMAKE, COMPILER)
    return Programs(root / "installed/bin/stvsr-upscale", root / "hosts/host", root / "hosts/probe", root)


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle of every kind of window, for Python and for the C++ host."""
    root = tmp_path_factory.mktemp("toys")
    made = {name: write_toy(root / name, window) for name, window in WINDOWS.items()}
    made["run 3 at any time"] = write_toy(root / "timed", {"kind": "run", "frames": 3}, timed=True)
    return made


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """One such bundle, to be changed."""
    return write_toy(tmp_path / "toy", WINDOWS["replicate 3"])
