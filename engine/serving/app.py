"""The HTTP interface, version 1."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

from fastapi import FastAPI

from ..backends.options import Backend
from ..pipeline.executor import Executor, LocalExecutor
from .job_routes import job_facts, job_routes
from .other_sites import RefuseOtherSites
from .page_routes import page_routes
from .preview_routes import preview_routes
from .problems import answer_errors
from .server import Server
from .settings import Settings
from .status_routes import status_routes
from .stream_routes import stream_routes
from .upload_routes import upload_routes
from .webhooks import WebhookSender


def make_app(settings: Settings, backends: list[Backend], executor: Executor | None = None) -> FastAPI:
    """Return the application, whose workers run while it does.

    Frames are computed on this machine, by a process for each backend, and so are videos without an executor.
    """
    server = Server(settings, executor or LocalExecutor(backends, most_bytes=settings.most_worker_bytes), backends)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with server.checker, server.scheduler, server.streams, server.fetcher, _webhooks(server):
            sweeper = asyncio.create_task(server.sweep())
            yield
            server.drain()
            sweeper.cancel()
        server.jobs.close()

    app = FastAPI(
        title="stvsr", version="1", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json"
    )
    app.state.drain = server.drain  # for a host that knows earlier that it ends
    answer_errors(app)
    if settings.token is None:
        app.add_middleware(RefuseOtherSites)
    for routes in (job_routes, preview_routes, upload_routes, status_routes, stream_routes):
        app.include_router(routes(server))
    app.include_router(page_routes())
    return app


def _webhooks(server: Server) -> AbstractContextManager[object]:
    """Return the sender of webhooks, if the server allows any."""
    secret = server.settings.webhook_secret
    return nullcontext() if secret is None else WebhookSender(server.jobs, secret, job_facts)
