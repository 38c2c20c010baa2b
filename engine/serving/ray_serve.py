"""The server on Ray Serve: the HTTP interface on one replica, which keeps the jobs, and replicas that do their tasks.

`serve run stvsr.engine.serving.ray_serve:build store=/data files=s3://bucket/jobs token_file=/run/secrets/token` starts
it on a cluster; deploy/rayservice.yaml has it for Kubernetes. A replica that dies loses nothing: its task is done again
by another one, and the front goes on with the jobs of its store.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from ..backends.options import Backend
from ..contract.bundle import find_bundles
from ..contract.errors import StvsrError
from ..pipeline.ray_executor import cause_of, is_alive
from ..pipeline.remote_executor import (
    STARTED,
    RemoteExecutor,
    RemoteRunner,
    StreamedRunner,
    TaskEndedWorkerError,
    WorkerLostError,
)
from ..pipeline.tasks import Failure, Task
from .app import make_app
from .logs import log_to_stderr
from .scheduler import DRAIN_S
from .settings import Settings, read_secret, read_token

_MODELS = 2  # that a replica keeps open
_UPSCALE_S = 5.0  # time that tasks wait before an engine is added
_CLIENTS = 1000  # requests to the front at once


class ServeArguments(BaseModel):
    """The arguments of `build`."""

    model_config = ConfigDict(extra="forbid")

    store: Path  # folder of the jobs, on a disk that stays when the front is started elsewhere
    files: str | None = None  # folder or address of their files, which every machine reaches
    host: str = "0.0.0.0"  # on which Serve's proxies listen; others than this machine's need a token
    token_file: Path | None = None
    url_prefixes: tuple[str, ...] = ()
    webhook_prefixes: tuple[str, ...] = ()
    webhook_secret_file: Path | None = None
    most_upload_bytes: int = Settings.most_upload_bytes
    most_pixels: int = Settings.most_pixels
    most_frames: int = Settings.most_frames
    most_queued: int = Settings.most_queued
    keep_s: float = Settings.keep_s
    task_s: float = Settings.task_s
    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None  # CPUs of each engine; None: 1
    gpus: Annotated[float, Field(ge=0)] = 0  # of each engine
    least_engines: Annotated[int, Field(ge=1)] = 1
    most_engines: Annotated[int, Field(ge=1)] = 4
    front_resources: dict[str, float] = {}  # of the machine that the front runs on, where its store is

    def settings(self) -> Settings:
        """Return the settings of the server. Raises RequestError for those that cannot be used."""
        return Settings(
            folder=self.store,
            files=self.files,
            host=self.host,
            token=None if self.token_file is None else read_token(self.token_file),
            most_upload_bytes=self.most_upload_bytes,
            most_pixels=self.most_pixels,
            most_frames=self.most_frames,
            most_queued=self.most_queued,
            keep_s=self.keep_s,
            task_s=self.task_s,
            most_streams=0,  # the front computes nothing
            url_prefixes=self.url_prefixes,
            webhook_prefixes=self.webhook_prefixes,
            webhook_secret=None if self.webhook_secret_file is None else read_secret(self.webhook_secret_file),
        )

    def engine_backend(self) -> Backend:
        """Return the backend of an engine. Raises BackendError for options that contradict each other."""
        return Backend(
            kind=self.backend,  # type: ignore[arg-type]  # validated by Backend
            device=self.device,
            precision=self.precision,  # type: ignore[arg-type]
            threads=self.threads if self.gpus else self.threads or 1,
        )


def build(arguments: ServeArguments) -> Any:
    """Return the application for Ray Serve."""
    from ray import serve

    backend = arguments.engine_backend()

    class Engine(TaskReplica):
        """A replica that does tasks, and keeps its last models open."""

        load = serve.multiplexed(max_num_models_per_replica=_MODELS)(TaskReplica.load)

    def front() -> FastAPI:
        log_to_stderr("info")
        handle = serve.get_deployment_handle("Engine")
        # One task more than engines waits, so that the queue shows that engines are missing.
        executor = RemoteExecutor([_Replica(handle) for _ in range(arguments.most_engines + 1)])
        # Frames are computed here; the GPUs belong to the engines.
        return make_app(arguments.settings(), [Backend(device="cpu")], executor)

    engine: Any = serve.deployment(
        Engine,
        name="Engine",
        max_ongoing_requests=1,
        ray_actor_options={"num_gpus": arguments.gpus, "num_cpus": 0 if arguments.gpus else backend.threads},
        autoscaling_config={
            "min_replicas": arguments.least_engines,
            "max_replicas": max(arguments.least_engines, arguments.most_engines),
            "target_ongoing_requests": 1,
            "upscale_delay_s": _UPSCALE_S,
        },
    )
    app: Any = serve.deployment(
        serve.ingress(front)(),
        name="Front",
        num_replicas=1,  # the only process that writes the database of the jobs
        max_ongoing_requests=_CLIENTS,
        graceful_shutdown_timeout_s=2 * DRAIN_S,
        ray_actor_options={"num_cpus": 0, "resources": arguments.front_resources},
    )
    return app.bind(engine.bind(backend))


class TaskReplica:
    """Does one task at a time, with the runner of its model."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def load(self, model: str) -> "_Model":
        """Return a runner for a model, by its fingerprint."""
        return _Model(self._backend)

    async def run(self, task: Task) -> AsyncIterator[tuple[str, Any]]:
        """Do a task, and yield the messages about it; the first has the names of this actor and its node."""
        import ray
        from ray import serve

        context = ray.get_runtime_context()
        yield STARTED, (context.get_actor_name(), context.get_node_id())
        runner = await self.load(serve.get_multiplexed_model_id())
        messages = runner.run(task)
        loop = asyncio.get_running_loop()
        while (message := await loop.run_in_executor(None, next, messages, None)) is not None:
            yield message


class _Model(StreamedRunner):
    """A runner that Serve closes by its `__del__`."""

    def __del__(self) -> None:
        self.close()


class _Replica(RemoteRunner):
    """Some replica of the engines, which Serve's router chooses for each task."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._response: Any = None
        self._actor: tuple[str, str] | None = None  # the names of the replica that does the task, and its node

    def open(self, on_death: Callable[[], None]) -> None:
        """Do nothing: Serve starts replicas, and tasks wait for them."""

    def run(self, task: Task) -> Iterator[tuple[str, Any]]:
        """Do a task, and yield the messages about it."""
        import ray
        from ray.serve.exceptions import RayServeException

        try:
            model = _fingerprint(str(task.request.model))
        except StvsrError as error:
            yield "failed", Failure(error.code, str(error))
            return
        self._response = self._handle.options(stream=True, multiplexed_model_id=model).run.remote(task)
        try:
            for kind, value in self._response:
                if kind == STARTED:
                    self._actor = value
                yield kind, value
        except ray.exceptions.RayActorError as error:
            if self._actor is None or not is_alive(self._actor[1]):
                raise WorkerLostError from error
            raise TaskEndedWorkerError(cause_of(error)) from error
        except RayServeException as error:
            raise WorkerLostError from error
        except ray.exceptions.RayError as error:
            raise TaskEndedWorkerError(cause_of(error)) from error
        finally:
            self._actor = None  # which may do a task of others now

    def kill(self) -> None:
        """Kill the replica that does the task; a task that waits for one is given up."""
        import ray

        actor = self._actor
        if actor is None:
            self.close()
            return
        with suppress(ValueError):  # it has ended
            ray.kill(ray.get_actor(actor[0], namespace="serve"))

    def close(self) -> None:
        """Give up the task; the replica stays for others."""
        if self._response is not None:
            self._response.cancel()


@lru_cache(maxsize=100)
def _fingerprint(model: str) -> str:
    """Return an identifier of a model's weights, by which Serve finds the replicas that have it open."""
    return "+".join(bundle.fingerprint for bundle in find_bundles(model))
