"""The executor of a Ray cluster: each worker is an actor on some machine of it, with the sessions that it keeps open.

An actor that dies, by itself or with its machine, is replaced by a new one wherever the cluster has room. Every machine
has stvsr, the same bundles, and access to the files of the videos: on a shared folder, or at an address.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

from ..backends.options import Backend, parse_device
from ..contract.errors import BackendError
from ..media.folders import is_remote
from .adaptation import OpenLearner
from .remote_executor import RemoteExecutor, RemoteRunner, StreamedRunner, TaskEndedWorkerError, WorkerLostError
from .tasks import Task

_CONNECT_S = 10.0  # time to reach the head node


class RayExecutor(RemoteExecutor):
    """Workers on a Ray cluster, each with a GPU, or on a cluster without any with `backend.threads` CPUs.

    Without a number of workers, there is one for each GPU, else for as many as the CPUs of the cluster suffice. Without
    an address, the cluster is that of RAY_ADDRESS or the one that runs on this machine; if there is none, it is started
    here, and ends with the executor. `open_learner` is that of `TaskRunner`. Raises BackendError if Ray is not
    installed or the cluster cannot be reached, and for a backend that names a GPU.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        workers: int | None = None,
        address: str | None = None,
        open_learner: OpenLearner | None = None,
    ) -> None:
        first, *others = backend.by_device()
        kind, index = parse_device(first.device)
        if index or others:
            raise BackendError(
                f"Ray chooses the GPU of each worker: use --device cuda in the place of {backend.device}."
            )
        self._owns_ray = _connect(address)
        import ray

        resources = ray.cluster_resources()
        gpus = 0 if kind == "cpu" or backend.kind == "remote" else int(resources.get("GPU", 0))
        if gpus or kind == "cuda" or backend.kind == "tensorrt":
            needed, available = {"num_gpus": 1}, gpus
        else:
            threads = backend.threads or 1
            backend = backend.with_threads(threads)
            needed, available = {"num_cpus": threads}, int(resources.get("CPU", 0)) // threads
        super().__init__([_Actor(backend, needed, open_learner) for _ in range(workers or max(1, available))])

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self._owns_ray:
            import ray

            ray.shutdown()


class _ActorProcess(StreamedRunner):
    """The process of an actor."""

    def node(self) -> str:
        """Return the identifier of the node on which the actor runs."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def live(self) -> None:
        """Wait without an end: the call fails when the process ends."""
        Event().wait()


class _Actor(RemoteRunner):
    """An actor, and its replacements."""

    def __init__(self, backend: Backend, needed: dict[str, Any], open_learner: OpenLearner | None = None) -> None:
        import ray

        # `live` runs beside the tasks.
        self._class: Any = ray.remote(_ActorProcess).options(max_concurrency=2, max_restarts=0, **needed)
        self._backend, self._open_learner = backend, open_learner
        self._actor: Any = None
        self._node = ""
        self._closed = False

    def open(self, on_death: Callable[[], None]) -> None:
        """Create an actor, and wait until the cluster has room for it."""
        import ray

        self._actor = self._class.remote(self._backend, self._open_learner)
        if self._closed:
            self.kill()
        try:
            self._node = ray.get(self._actor.node.remote())
        except ray.exceptions.ActorDiedError as error:
            if error.actor_init_failed:
                raise BackendError(
                    f"A Ray worker cannot start ({cause_of(error)}): install the same stvsr on every machine of the"
                    " cluster."
                ) from error
            raise WorkerLostError from error
        except ray.exceptions.RayError as error:
            self.kill()
            raise WorkerLostError from error
        self._actor.live.remote().future().add_done_callback(lambda _: on_death())

    def run(self, task: Task) -> Iterator[tuple[str, Any]]:
        """Do a task, and yield the messages about it."""
        import ray

        try:
            for message in self._actor.run.options(num_returns="streaming").remote(_with_absolute_paths(task)):
                yield ray.get(message)
        except ray.exceptions.RayError as error:
            self.kill()  # it may be alive: after an error of a bug, or where the network is cut
            if isinstance(error, ray.exceptions.ActorUnavailableError) or not is_alive(self._node):
                raise WorkerLostError from error
            raise TaskEndedWorkerError(cause_of(error)) from error

    def kill(self) -> None:
        """Kill the actor."""
        import ray

        if self._actor is not None:
            ray.kill(self._actor)

    def close(self) -> None:
        """End it for good."""
        self._closed = True
        self.kill()


def is_alive(node: str) -> bool:
    """Return whether a node, by its identifier, is part of the cluster."""
    import ray

    return any(entry["NodeID"] == node and entry["Alive"] for entry in ray.nodes())


def _connect(address: str | None) -> bool:
    """Connect this process to a cluster, and return whether it was not before."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise BackendError('Ray is not installed: pip install "stvsr[ray]".') from error
    if ray.is_initialized():
        return False
    try:
        if address not in (None, "auto"):
            _check_head(str(address))
        ray.init(
            address, namespace="stvsr", log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False
        )
    except (OSError, RuntimeError, ValueError) as error:
        where = address or os.environ.get("RAY_ADDRESS") or "a Ray of its own"
        raise BackendError(f"{where} cannot be used ({cause_of(error)}): check the address and the cluster.") from error
    return True


def _check_head(address: str) -> None:
    """Raise OSError or ValueError if nothing listens at HOST:PORT, to which Ray would try to connect for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in host:
        raise ValueError("write HOST:PORT, or auto")
    socket.create_connection((host, int(port)), _CONNECT_S).close()


def cause_of(error: Exception) -> str:
    """Return the part of Ray's long messages that states the cause."""
    text = str(error).strip()
    _, because, cause = text.partition("The actor is dead because ")
    return cause.partition(". ")[0].rstrip(".") if because else text.splitlines()[-1] if text else type(error).__name__


def _with_absolute_paths(task: Task) -> Task:
    """Return a task that means the same in another folder."""

    def absolute(path: str | Path) -> str:
        return str(path) if is_remote(path) else str(Path(path).absolute())

    request = task.request
    if Path(request.model).is_dir():
        model = absolute(request.model)
    else:  # a name, or the names or folders of a chain
        model = "+".join(absolute(part) if Path(part).is_dir() else part for part in str(request.model).split("+"))
    output = None if request.output is None else absolute(request.output)
    request = replace(request, input=absolute(request.input), output=output, model=model)
    return task._replace(request=request, store=None if task.store is None else absolute(task.store))
