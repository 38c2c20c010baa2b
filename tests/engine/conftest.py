"""The Ray cluster of a test session."""

import fcntl
from collections.abc import Iterator

import pytest

from tests.support.ray_nodes import Nodes
from tests.support.toy import write_toy


@pytest.fixture(scope="session")
def ray_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Run a cluster of two nodes, on which a toy network is installed under the name "toy"."""
    pytest.importorskip("ray", reason="stvsr[ray] is not installed")
    models = tmp_path_factory.mktemp("models")
    write_toy(models / "toy")
    # Parallel test processes have one cluster after another: two at once would be too much for a small machine.
    with (tmp_path_factory.getbasetemp().parent / "ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        nodes = Nodes({"STVSR_MODELS": str(models)})
        try:
            yield nodes
        finally:
            nodes.shutdown()
