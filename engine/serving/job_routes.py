"""Jobs over HTTP: create, list, read, follow, download and delete them."""

import time
from typing import Any, get_args

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from .conditional import ConditionalFile
from .jobs import Job, State
from .problems import Problem
from .requests import JobOptions
from .server import Server, event_id

_TYPES = {"mp4": "video/mp4", "mov": "video/quicktime", "mkv": "video/x-matroska", "webm": "video/webm"}


def job_routes(server: Server) -> APIRouter:
    """Return the routes below `/v1/jobs`."""
    routes = APIRouter(prefix="/v1/jobs", dependencies=[Depends(server.authorize)])

    def facts(job: Job) -> dict[str, Any]:
        return job_facts(job) | {"position": server.jobs.position(job), "access": server.settings.access_to(job.id)}

    @routes.post("", status_code=202, openapi_extra=_documented_options())
    async def create_job(request: Request, idempotency_key: str | None = Header(None, max_length=200)) -> JSONResponse:
        """Upscale the video in the body, with the options in the query; or an upload or a url, in JSON with them."""
        job = await server.create(request, idempotency_key)
        return JSONResponse(facts(job), 202, {"Location": f"/v1/jobs/{job.id}"})

    @routes.get("")
    def list_jobs(state: str | None = None, cursor: int = 0, limit: int = Query(100, ge=1, le=1000)) -> dict[str, Any]:
        """List jobs in the order of their creation."""
        if state is not None and state not in get_args(State):
            raise Problem(422, "bad-request", f"There is no state '{state}': use {', '.join(get_args(State))}.")
        jobs = server.jobs.page(state, cursor, limit)  # type: ignore[arg-type]
        following = jobs[-1].number if len(jobs) == limit else None
        return {"jobs": [facts(job) for job in jobs], "cursor": following}

    @routes.get("/{identifier}")
    def read_job(identifier: str) -> dict[str, Any]:
        """Return a job."""
        return facts(server.job(identifier))

    @routes.delete("/{identifier}", status_code=204)
    def delete_job(identifier: str) -> Response:
        """Cancel a job, and delete it with its files."""
        job = server.job(identifier)
        server.jobs.end(job.id, "cancelled")
        server.jobs.delete(job.id)
        server.scheduler.wake()
        return Response(status_code=204)

    @routes.get("/{identifier}/events")
    def read_events(identifier: str, last_event_id: str | None = Header(None)) -> Response:
        """Stream the progress of a job as server-sent events, until it ends.

        After the last of them there is nothing to come back for: 204 keeps browsers from asking again and again.
        """
        job = server.job(identifier)
        if job.ended and last_event_id == event_id(job):
            return Response(status_code=204)
        return StreamingResponse(
            server.events(job.id, last_event_id),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},  # nginx would hold them back
        )

    @routes.head("/{identifier}/result", include_in_schema=False)
    @routes.get("/{identifier}/result")
    def read_result(identifier: str) -> ConditionalFile:
        """Return the upscaled video, or a range of its bytes; 410 when it was deleted for its age."""
        job = server.job(identifier)
        if job.state != "done":
            raise Problem(409, "not-done", f"The job is {job.state}, and has no result.")
        container = job.options["container"]
        try:
            return ConditionalFile(server.jobs.result_of(job.id, container), media_type=_TYPES[container])
        except FileNotFoundError as error:
            server.job(identifier)  # raises the problem of a job that has been deleted meanwhile
            raise Problem(410, "expired", "The result was deleted on the server: send the video again.") from error
        except OSError as error:
            raise Problem(503, "not-ready", "The result cannot be fetched now.", retry_after="30") from error

    return routes


def _documented_options() -> dict[str, Any]:
    """Return the options of a job for the OpenAPI document, which the route reads itself."""
    options = JobOptions.model_json_schema()["properties"]
    query = [{"name": name, "in": "query", "schema": schema} for name, schema in options.items()]
    given = {
        "upload": {"type": "string", "description": "The identifier of an upload that is complete."},
        "url": {"type": "string", "description": "The address of the video, where the server allows it."},
    }
    either = [{"required": [name]} for name in given]
    in_json = {"type": "object", "properties": {**given, **options}, "oneOf": either}
    video = {"schema": {"type": "string", "format": "binary"}}
    body = {"content": {"application/octet-stream": video, "application/json": {"schema": in_json}}}
    return {"parameters": query, "requestBody": body | {"required": True}}


def job_facts(job: Job) -> dict[str, Any]:
    """Return what clients see of a job."""
    base = f"/v1/jobs/{job.id}"
    links = {"self": base, "events": f"{base}/events", "preview": f"{base}/preview.m3u8"}
    if job.state == "done":
        links["result"] = f"{base}/result"
    return {
        "id": job.id,
        "state": job.state,
        "options": job.options,
        "frames_done": job.frames_done,
        "frames_total": job.frames_total,
        "segments_done": job.segments_done,
        "segments_total": job.segments_total,
        "scenes_done": job.scenes_done,
        "scenes_total": job.scenes_total,
        "created": job.created,
        "started": job.started,
        "finished": job.finished,
        "eta_s": _eta_s(job),
        "error": job.error,
        "report": None if job.report is None else {k: v for k, v in job.report.items() if k not in ("input", "output")},
        "links": links,
    }


def _eta_s(job: Job) -> float | None:
    """Return the seconds until a running job is done, if its frames take as long as those before."""
    if job.state != "running" or not job.frames_done or job.frames_total is None or job.started is None:
        return None
    return round((time.time() - job.started) * (job.frames_total / job.frames_done - 1), 1)
