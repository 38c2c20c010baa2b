"""Settings of every test run."""

import os
import sys

import stvsr

# pytest imports the checkout as a package, which is the package itself. Where the folder's name is no name of a module,
# as `stvsr-main` of an archive, pytest looks for it under the name of its file.
sys.modules.setdefault("__init__", stvsr)

# Parallel workers share the cores, so each computes with one thread. Libraries read this when they are loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
