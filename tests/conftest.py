"""Settings of every test run."""

import os
import shutil
import sys
import tempfile

import pytest
import stvsr

# pytest imports the checkout as a package, which is the package itself. Where the folder's name is no name of a module,
# as `stvsr-main` of an archive, pytest looks for it under the name of its file.
sys.modules.setdefault("__init__", stvsr)

# Parallel workers share the cores, so each computes with one thread. Libraries read this when they are loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

EXPORTS = "STVSR_TEST_EXPORTS"  # the folder of exported bundles, which parallel workers share


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of exported bundles in the process that starts the workers."""
    if EXPORTS not in os.environ:
        os.environ[EXPORTS] = tempfile.mkdtemp(prefix="stvsr-exports-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(EXPORTS)))
