"""The routes on which a server describes itself: models, health and metrics."""

from typing import Any

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST

from ..pipeline.request import DEFAULT_MODEL
from .problems import Problem
from .server import Server


def status_routes(server: Server) -> APIRouter:
    """Return the routes of models, health and metrics."""
    routes = APIRouter()
    private = [Depends(server.authorize)]

    @routes.get("/v1/models", dependencies=private)
    def list_models() -> dict[str, Any]:
        """List the models that a job can name."""
        return {"models": server.models(), "default": DEFAULT_MODEL}

    @routes.get("/healthz")
    def health() -> dict[str, str]:
        """Tell that the process answers."""
        return {"status": "ok"}

    @routes.get("/readyz")
    def ready() -> dict[str, str]:
        """Tell whether jobs are accepted and computed."""
        if server.draining or not server.scheduler.ready:
            raise Problem(503, "not-ready", "The server is starting or ending.", retry_after="1")
        return {"status": "ready"}

    @routes.get("/metrics", dependencies=private)
    def metrics() -> Response:
        """Return the metrics for Prometheus."""
        return Response(server.metrics.text(server.jobs.counts()), media_type=CONTENT_TYPE_LATEST)

    return routes
