"""The HTTP interface, version 1: jobs, their events and results, models, health and metrics.

Errors are `application/problem+json` (RFC 9457), with the sentence of the engine's error in `detail`.
"""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import anyio
from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..backends.options import Backend
from ..contract.bundle import Bundle, named_bundles
from ..contract.errors import MediaError, RequestError
from ..pipeline.request import UpscaleRequest
from .jobs import Job, JobStore, State
from .requests import JobOptions, check_request, make_request, read_options
from .scheduler import Scheduler
from .settings import Settings

_PARAMETERS = frozenset(JobOptions.model_fields)
_EVENT_S = 0.25  # between looks at a job whose events are read
_FREE_SHARE = 4  # of the size of an upload: the disk space that a job needs at least
_TYPES = {"mp4": "video/mp4", "mov": "video/quicktime", "mkv": "video/x-matroska", "webm": "video/webm"}


class Problem(Exception):  # noqa: N818
    """An answer that is an error."""

    def __init__(self, status: int, code: str, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.headers = status, code, detail, headers

    def response(self) -> JSONResponse:
        """Return the answer."""
        body = {"type": f"urn:stvsr:{self.code}", "title": self.code, "status": self.status, "detail": self.detail}
        headers = {name.replace("_", "-"): value for name, value in self.headers.items()}
        return JSONResponse(body, self.status, headers, media_type="application/problem+json")


def make_app(settings: Settings, backends: list[Backend]) -> FastAPI:
    """Return the application, whose workers run while it does, one for each backend."""
    server = _Server(settings, backends)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with server.scheduler:
            sweeper = asyncio.create_task(server.sweep())
            yield
            server.draining = True
            sweeper.cancel()
        server.jobs.close()

    app = FastAPI(
        title="stvsr", version="1", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json"
    )
    app.add_exception_handler(Problem, lambda _, problem: problem.response())

    def authorized(authorization: str | None = Header(None)) -> None:
        if not settings.admits(authorization):
            raise Problem(401, "unauthorized", "Send 'Authorization: Bearer TOKEN'.", www_authenticate="Bearer")

    private = [Depends(authorized)]

    @app.post("/v1/jobs", status_code=202, dependencies=private)
    async def create_job(request: Request, idempotency_key: str | None = Header(None, max_length=200)) -> JSONResponse:
        """Upscale the video in the body; the options are in the query."""
        job = await server.create(request, idempotency_key)
        return JSONResponse(job_facts(job), 202, {"Location": f"/v1/jobs/{job.id}"})

    @app.get("/v1/jobs", dependencies=private)
    def list_jobs(state: str | None = None, cursor: int = 0, limit: int = Query(100, ge=1, le=1000)) -> dict[str, Any]:
        """List jobs in the order of their creation."""
        if state is not None and state not in get_args(State):
            raise Problem(422, "bad-request", f"There is no state '{state}': use {', '.join(get_args(State))}.")
        jobs = server.jobs.page(state, cursor, limit)  # type: ignore[arg-type]
        following = jobs[-1].number if len(jobs) == limit else None
        return {"jobs": [job_facts(job) for job in jobs], "cursor": following}

    @app.get("/v1/jobs/{identifier}", dependencies=private)
    def read_job(identifier: str) -> dict[str, Any]:
        """Return a job."""
        return job_facts(server.job(identifier))

    @app.delete("/v1/jobs/{identifier}", status_code=204, dependencies=private)
    def delete_job(identifier: str) -> Response:
        """Cancel a job, and delete it with its files."""
        job = server.job(identifier)
        server.jobs.end(job.id, "cancelled")
        server.jobs.delete(job.id)
        server.scheduler.wake()
        return Response(status_code=204)

    @app.get("/v1/jobs/{identifier}/events", dependencies=private)
    def read_events(identifier: str) -> StreamingResponse:
        """Stream the progress of a job as server-sent events, until it ends."""
        job = server.job(identifier)
        return StreamingResponse(server.events(job.id), media_type="text/event-stream")

    @app.get("/v1/jobs/{identifier}/result", dependencies=private)
    def read_result(identifier: str) -> FileResponse:
        """Return the upscaled video, or a range of its bytes."""
        job = server.job(identifier)
        if job.state != "done":
            raise Problem(409, "not-done", f"The job is {job.state}, and has no result.")
        container = job.options["container"]
        return FileResponse(server.jobs.output_of(job.id, container), media_type=_TYPES[container])

    @app.get("/v1/models", dependencies=private)
    def list_models() -> dict[str, Any]:
        """List the models that a job can name."""
        bundles = {name: Bundle.load(folder).manifest for name, folder in named_bundles().items()}
        return {
            "models": [
                {"name": name, "space": str(m.space), "time": str(m.time), "licence": m.licence}
                for name, m in bundles.items()
            ]
        }

    @app.get("/healthz")
    def health() -> dict[str, str]:
        """Tell that the process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    def ready() -> dict[str, str]:
        """Tell whether jobs are accepted and computed."""
        if server.draining or not server.scheduler.ready:
            raise Problem(503, "not-ready", "The server is starting or ending.", retry_after="1")
        return {"status": "ready"}

    @app.get("/metrics", dependencies=private)
    def metrics() -> Response:
        """Return the metrics for Prometheus."""
        return Response(server.metrics.text(server.jobs.counts()), media_type=CONTENT_TYPE_LATEST)

    return app


def job_facts(job: Job) -> dict[str, Any]:
    """Return what clients see of a job."""
    base = f"/v1/jobs/{job.id}"
    links = {"self": base, "events": f"{base}/events"} | ({"result": f"{base}/result"} if job.state == "done" else {})
    return {
        "id": job.id,
        "state": job.state,
        "options": job.options,
        "frames_done": job.frames_done,
        "frames_total": job.frames_total,
        "segments_done": job.segments_done,
        "segments_total": job.segments_total,
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


class _Metrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._jobs = Gauge("stvsr_jobs", "Jobs by state", ["state"], registry=self._registry)
        self._frames = Counter("stvsr_frames_total", "Input frames of finished segments", registry=self._registry)
        self._segments = Histogram("stvsr_segment_seconds", "Duration of segments", ["model"], registry=self._registry)

    def segment(self, job: Job, frames: int, seconds: float) -> None:
        """Count a finished segment."""
        self._frames.inc(frames)
        self._segments.labels(job.options["model"]).observe(seconds)

    def text(self, counts: dict[str, int]) -> bytes:
        """Return all metrics in the format of Prometheus."""
        for state, count in counts.items():
            self._jobs.labels(state).set(count)
        return generate_latest(self._registry)


class _Server:
    """The state behind the application."""

    def __init__(self, settings: Settings, backends: list[Backend]) -> None:
        self.settings = settings
        self.jobs = JobStore(settings.folder)
        self.metrics = _Metrics()
        self.draining = False
        self.scheduler = Scheduler(
            self.jobs, backends, self._request_of, task_s=settings.task_s, on_segment=self.metrics.segment
        )

    def job(self, identifier: str) -> Job:
        """Return a job. Raises Problem if there is none."""
        try:
            self.jobs.folder_of(identifier)
            job = self.jobs.get(identifier)
        except ValueError:
            job = None
        if job is None:
            raise Problem(404, "not-found", "There is no such job.")
        return job

    async def create(self, request: Request, key: str | None) -> Job:
        """Store the upload of a request and create its job. Raises Problem; then nothing is left."""
        if self.draining:
            raise Problem(503, "not-ready", "The server is ending.", retry_after="30")
        if key is not None and (earlier := self.jobs.with_key(key)) is not None:
            return earlier
        counts = self.jobs.counts()
        if counts["queued"] + counts["running"] >= self.settings.most_queued:
            raise Problem(429, "busy", "Too many jobs are waiting: send this one later.", retry_after="30")
        try:
            options = read_options({name: v for name, v in request.query_params.items()})
        except RequestError as error:
            raise Problem(422, "bad-request", str(error)) from error
        identifier = self.jobs.new_id()
        try:
            await self._store(request, self.jobs.input_of(identifier))
            await run_in_threadpool(self._check, options, identifier)
            job = await run_in_threadpool(
                lambda: self.jobs.create(identifier, options.model_dump(), priority=options.priority, key=key)
            )
        except BaseException:
            shutil.rmtree(self.jobs.folder_of(identifier), ignore_errors=True)
            raise
        if job.id != identifier:  # another request with the same key was faster
            shutil.rmtree(self.jobs.folder_of(identifier), ignore_errors=True)
        self.scheduler.wake()
        return job

    async def events(self, identifier: str) -> AsyncIterator[str]:
        """Yield server-sent events: "progress" whenever a number changes, and the last state."""
        last: dict[str, Any] = {}
        while (job := await run_in_threadpool(self.jobs.get, identifier)) is not None:
            names = ("state", "frames_done", "frames_total", "segments_done", "segments_total")
            facts = {name: getattr(job, name) for name in names}
            if facts != last:
                event = job.state if job.ended else "progress"
                data = {**facts, "error": job.error} if job.ended else facts
                yield f"event: {event}\ndata: {json.dumps(data)}\n\n"
                last = facts
            if job.ended:
                return
            await asyncio.sleep(_EVENT_S)

    async def sweep(self) -> None:
        """Delete old jobs, every minute."""
        while True:
            await run_in_threadpool(self.jobs.delete_ended, time.time() - self.settings.keep_s)
            await asyncio.sleep(60)

    async def _store(self, request: Request, path: Path) -> None:
        """Write the body of a request to a file. Raises Problem if it is too large or empty, or the disk is full."""
        most = self.settings.most_upload_bytes
        too_large = Problem(413, "too-large", f"The video is larger than {most} bytes.")
        declared = int(request.headers.get("content-length") or 0)
        if declared > most:
            raise too_large
        if shutil.disk_usage(self.settings.folder).free < _FREE_SHARE * declared:
            raise Problem(507, "disk-full", "The server's disk is full.")
        size = 0
        try:
            async with await anyio.open_file(path, "wb") as file:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > most:
                        raise too_large
                    await file.write(chunk)
        except OSError as error:
            raise Problem(507, "disk-full", f"The upload cannot be stored ({error.strerror}).") from error
        if not size:
            raise Problem(400, "no-video", "The body is empty: send the video as the body of the request.")

    def _check(self, options: JobOptions, identifier: str) -> None:
        try:
            request = self._make_request(options, identifier)
            check_request(request, self.settings)
        except MediaError as error:
            raise Problem(400, "unreadable", self._without_paths(str(error), identifier)) from error
        except RequestError as error:
            raise Problem(422, "bad-request", self._without_paths(str(error), identifier)) from error

    def _request_of(self, job: Job) -> UpscaleRequest:
        return self._make_request(JobOptions.model_validate(job.options), job.id)

    def _make_request(self, options: JobOptions, identifier: str) -> UpscaleRequest:
        output = self.jobs.output_of(identifier, options.container)
        return make_request(options, self.jobs.input_of(identifier), output)

    def _without_paths(self, sentence: str, identifier: str) -> str:
        """Return a sentence without the paths of this machine."""
        folder = self.jobs.folder_of(identifier)
        return sentence.replace(str(folder / "input"), "the video").replace(str(folder), "")
