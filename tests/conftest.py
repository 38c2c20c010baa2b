"""Settings of every test run."""

import os

# Parallel workers share the cores, so each computes with one thread. Libraries read this when they are loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
