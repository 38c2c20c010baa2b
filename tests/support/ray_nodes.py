"""A Ray cluster of two nodes on this machine, each with one CPU, which stand for two machines."""

import logging
import os
import secrets
from typing import Any
from unittest import mock

_ATTEMPTS = 3  # Ray's processes give up where a busy machine starts them slowly


class Nodes:
    """The cluster, to which this process is connected; its processes have some environment variables more.

    Ray must be installed.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)  # else Ray writes one to the home folder
        for attempt in range(_ATTEMPTS):
            try:
                self._start()
                return
            except Exception:
                self.shutdown()
                if attempt + 1 == _ATTEMPTS:
                    raise

    @property
    def address(self) -> str:
        """The address of the head node."""
        return str(self._cluster.address)

    @property
    def second(self) -> str:
        """The identifier of the second node."""
        return str(self._second.node_id)

    def kill_second(self) -> None:
        """Kill the processes of the second node, as if its machine lost its power."""
        self._cluster.remove_node(self._second, allow_graceful=False)

    def restore(self) -> None:
        """Start a second node again."""
        with mock.patch.dict(os.environ, self.environment):
            self._second = self._cluster.add_node(num_cpus=1)
        self._cluster.wait_for_nodes()

    def shutdown(self) -> None:
        """End everything."""
        import ray

        ray.shutdown()
        self._cluster.shutdown()

    def _start(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        with mock.patch.dict(os.environ, self.environment):
            self._cluster = Cluster()
            self._cluster.add_node(num_cpus=1, include_dashboard=False)
            self._second = self._cluster.add_node(num_cpus=1)
        ray.init(address=self._cluster.address, namespace="stvsr", log_to_driver=False, logging_level=logging.WARNING)


def actors(name: str) -> list[dict[str, Any]]:
    """Return the living actors with a word in the name of their class, each with its `pid` and `node`."""
    from ray._private.state import actors as every  # the public function needs Ray's dashboard

    return [
        {"pid": actor["Pid"], "node": actor["Address"]["NodeID"]}
        for actor in every().values()
        if name in actor["ActorClassName"] and actor["State"] == "ALIVE"
    ]
