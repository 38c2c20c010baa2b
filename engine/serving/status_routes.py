"""The routes on which a server describes itself: models, health and metrics."""

from typing import Any

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST

from ..contract.bundle import Bundle, named_bundles
from ..contract.errors import RequestError
from ..pipeline.plan import plan_passes
from ..pipeline.request import DEFAULT_MODEL
from .problems import Problem
from .server import Server

_SCALES = (1, 1.5, 2, 3, 4, 6, 8)
_FACTORS = (1, 2, 3, 4, 8)


def status_routes(server: Server) -> APIRouter:
    """Return the routes of models, health and metrics."""
    routes = APIRouter()
    private = [Depends(server.authorize)]

    @routes.get("/v1/models", dependencies=private)
    def list_models() -> dict[str, Any]:
        """List the models that a job can name."""
        bundles = {name: Bundle.load(folder) for name, folder in named_bundles().items()}
        return {"models": [_facts(name, bundle) for name, bundle in bundles.items()], "default": DEFAULT_MODEL}

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


def _facts(name: str, bundle: Bundle) -> dict[str, Any]:
    """Return what clients see of a model; of scales and time factors, those of the usual ones that it makes."""
    made = [(scale, factor) for scale in _SCALES for factor in _FACTORS if _makes(bundle, scale, factor)]
    manifest = bundle.manifest
    return {
        "name": name,
        "space": str(manifest.space),
        "time": str(manifest.time),
        "scales": sorted({scale for scale, _ in made}),
        "time_factors": sorted({factor for _, factor in made}),
        "licence": manifest.licence,
    }


def _makes(bundle: Bundle, scale: float, factor: int) -> bool:
    side, target = 240, round(240 * scale)
    try:
        return bool(plan_passes((bundle,), (side, side), (target, target), factor))
    except RequestError:
        return False
