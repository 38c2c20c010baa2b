"""A Ray cluster of two nodes on this machine, each with one CPU, which stand for two machines."""

import os
import secrets
import time
from collections.abc import Callable
from typing import Any

_ATTEMPTS = 3  # Ray's processes give up where a busy machine starts them slowly


class Nodes:
    """The cluster, to which this process is connected. Ray must be installed."""

    def __init__(self) -> None:
        # In the environment, so that nothing is written to the home folder.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))
        for attempt in range(_ATTEMPTS):
            try:
                self._start()
                return
            except Exception:
                if attempt + 1 == _ATTEMPTS:
                    raise

    @property
    def address(self) -> str:
        """The address of the head node."""
        return str(self._cluster.address)

    def kill_second(self) -> None:
        """Kill the second node with all its processes, as a machine that loses its power."""
        self._cluster.remove_node(self._second, allow_graceful=False)

    def restore(self) -> None:
        """Start a second node again."""
        self._second = self._cluster.add_node(num_cpus=1)
        self._cluster.wait_for_nodes()

    @property
    def second(self) -> str:
        """The identifier of the second node."""
        return str(self._second.node_id)

    def shutdown(self) -> None:
        """End everything."""
        import ray

        ray.shutdown()
        self._cluster.shutdown()

    def _start(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self._second = self._cluster.add_node(num_cpus=1)
        ray.init(address=self._cluster.address, namespace="stvsr", log_to_driver=False, logging_level="WARNING")


def actors(name: str) -> list[dict[str, Any]]:
    """Return the living actors whose class has a name, with their process `pid` and node `node_id`."""
    from ray._private.state import actors as every  # the public function needs Ray's dashboard

    return [
        {"pid": actor["Pid"], "node_id": actor["Address"]["NodeID"], "name": actor["Name"]}
        for actor in every().values()
        if actor["ActorClassName"].endswith(name) and actor["State"] == "ALIVE"
    ]


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until a condition is true; raise AssertionError after some seconds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
