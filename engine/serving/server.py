"""The state behind the HTTP interface: jobs and how they are created, their workers, and the metrics."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import Header, Query, Request
from fastapi.concurrency import run_in_threadpool

from ..backends.options import Backend
from ..contract.errors import MediaError, RequestError
from ..pipeline.adaptation import AdaptSettings
from ..pipeline.executor import Executor
from ..pipeline.request import UpscaleRequest
from .checks import VideoChecker, VideoLimits
from .jobs import Job, JobStore
from .logs import log
from .metrics import Metrics
from .problems import Problem
from .requests import JobOptions, adapt_settings, limited_adaptation, make_request, read_options, without_paths
from .scheduler import Scheduler
from .settings import Settings
from .streams import FrameStreams
from .uploads import UploadStore, check_space, receive
from .webhooks import is_allowed

_EVENT_S = 0.25  # between looks at a job whose events are read
_SILENCE_S = 15.0  # at most, so that neither clients nor proxies take a job that waits for a lost connection
_MOST_JSON_BYTES = 1 << 16  # of options


class Server:
    """The state behind the application."""

    def __init__(self, settings: Settings, executor: Executor, backends: Sequence[Backend]) -> None:
        self.settings = settings
        self.jobs = JobStore(settings.folder, settings.files)
        self.uploads = UploadStore(settings.folder / "uploads", settings.keep_s)
        self.metrics = Metrics()
        self.draining = False
        self.checker = VideoChecker(VideoLimits(settings.most_pixels, settings.most_frames))
        self.streams = FrameStreams(settings, backends)
        self.scheduler = Scheduler(
            self.jobs,
            executor,
            self._request_of,
            adapt_of=self._adapt_of,
            task_s=settings.task_s,
            on_segment=self.metrics.segment,
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

    def authorize(
        self, request: Request, authorization: str | None = Header(None), access: str | None = Query(None)
    ) -> None:
        """Raise Problem for a request without the server's token, and without what admits to reading its job."""
        reads = request.method == "GET" and self.settings.admits_reading(
            request.path_params.get("identifier", ""), access
        )
        if not reads:
            self.check_token(authorization)

    def check_token(self, authorization: str | None) -> None:
        """Raise Problem for a value of the Authorization header without the server's token."""
        if not self.settings.admits(authorization):
            raise Problem(401, "unauthorized", "Send 'Authorization: Bearer TOKEN'.", www_authenticate="Bearer")

    async def create(self, request: Request, key: str | None) -> Job:
        """Store the video of a request, or take its upload, and create its job.

        Raises Problem; then nothing is left but the upload.
        """
        if self.draining:
            raise Problem(503, "not-ready", "The server is ending.", retry_after="30")
        if key is not None and (earlier := self.jobs.with_key(key)) is not None:
            return earlier
        counts = self.jobs.counts()
        if counts["queued"] + counts["running"] >= self.settings.most_queued:
            raise Problem(429, "busy", "Too many jobs are waiting: send this one later.", retry_after="30")
        upload, options = await _read_request(request, self.settings.adapt_s)
        if options.webhook is not None and not is_allowed(options.webhook, self.settings.webhook_prefixes):
            raise Problem(422, "bad-request", f"This server sends no message to {options.webhook}: choose another.")
        identifier = self.jobs.new_id()
        try:
            source = self.jobs.input_of(identifier)
            if upload is None:
                await self._store(request, source)
            else:
                await run_in_threadpool(self.uploads.link, upload, source)
            await run_in_threadpool(self._check, options, identifier)
            await run_in_threadpool(self._share, identifier)
            job = await run_in_threadpool(
                lambda: self.jobs.create(identifier, options.model_dump(), priority=options.priority, key=key)
            )
        except BaseException:
            self.jobs.remove_files(identifier)
            raise
        log.info("job created", extra={"job": job.id})
        if job.id != identifier:  # another request with the same key was faster
            self.jobs.remove_files(identifier)
        if upload is not None:
            await run_in_threadpool(self.uploads.delete, upload)
        self.scheduler.wake()
        return job

    async def events(self, identifier: str) -> AsyncIterator[str]:
        """Yield server-sent events: "progress" whenever a number changes, comments in between, and the last state."""
        last: dict[str, Any] = {}
        sent = time.monotonic()
        while (job := await run_in_threadpool(self.jobs.get, identifier)) is not None:
            names = ["state", "frames_done", "frames_total", "segments_done", "segments_total"]
            if job.options.get("adapt"):
                names += ["scenes_done", "scenes_total"]
            facts = {name: getattr(job, name) for name in names}
            if facts != last:
                event = job.state if job.ended else "progress"
                data = {**facts, "error": job.error} if job.ended else facts
                yield f"event: {event}\ndata: {json.dumps(data)}\n\n"
                last, sent = facts, time.monotonic()
            elif time.monotonic() - sent > _SILENCE_S:
                yield ": waiting\n\n"
                sent = time.monotonic()
            if job.ended:
                return
            await asyncio.sleep(_EVENT_S)

    async def sweep(self) -> None:
        """Delete old jobs and uploads, every minute."""
        while True:
            await run_in_threadpool(self.uploads.delete_expired, time.time())
            await run_in_threadpool(self.jobs.delete_ended, time.time() - self.settings.keep_s)
            await asyncio.sleep(60)

    async def _store(self, request: Request, path: Path) -> None:
        """Write the body of a request to a file. Raises Problem if it is too large or empty, or the disk is full."""
        most = self.settings.most_upload_bytes
        too_large = f"The video is larger than {most} bytes."
        declared = int(request.headers.get("content-length") or 0)
        if declared > most:
            raise Problem(413, "too-large", too_large)
        check_space(self.settings.folder, declared)
        path.touch()
        if not await receive(request.stream(), path, 0, most, too_large):
            raise Problem(400, "no-video", "The body is empty: send the video as the body of the request.")

    def _check(self, options: JobOptions, identifier: str) -> None:
        try:
            request = self._make_request(options, identifier)
            self.checker.check(request)
        except MediaError as error:
            raise Problem(400, "unreadable", self._without_paths(str(error), identifier)) from error
        except RequestError as error:
            raise Problem(422, "bad-request", self._without_paths(str(error), identifier)) from error

    def _share(self, identifier: str) -> None:
        try:
            self.jobs.share(identifier)
        except OSError as error:
            log.error("upload not shared", extra={"job": identifier, "reason": str(error.strerror)})
            raise Problem(503, "not-ready", "The video cannot be given to the workers.", retry_after="30") from error

    def _request_of(self, job: Job) -> UpscaleRequest:
        request = self._make_request(JobOptions.model_validate(job.options), job.id)
        source, output = self.jobs.input_of(job.id), self.jobs.output_of(job.id, job.options["container"])
        return replace(request, input=self.jobs.for_workers(source), output=self.jobs.for_workers(output))

    def _adapt_of(self, job: Job) -> AdaptSettings | None:
        """Return the settings of a job's adaptation; None: the network is used as it is."""
        return adapt_settings(JobOptions.model_validate(job.options))

    def _make_request(self, options: JobOptions, identifier: str) -> UpscaleRequest:
        output = self.jobs.output_of(identifier, options.container)
        return make_request(options, self.jobs.input_of(identifier), output)

    def _without_paths(self, sentence: str, identifier: str) -> str:
        """Return a sentence without the paths of this machine."""
        folder = self.jobs.folder_of(identifier)
        return without_paths(sentence, {str(folder / "input"): "the video", str(folder): ""})


async def _read_request(request: Request, most_adapt_s: float | None) -> tuple[str | None, JobOptions]:
    """Return the upload and the options of a new job: in a JSON body, or in the query if the body is the video."""
    values: Any = {name: value for name, value in request.query_params.items()}
    upload = None
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_JSON_BYTES:
                raise Problem(413, "too-large", f"The options are larger than {_MOST_JSON_BYTES} bytes.")
        try:
            values |= json.loads(body)
            upload = str(values.pop("upload"))
        except (ValueError, TypeError, KeyError) as error:
            raise Problem(422, "bad-request", "The body is no JSON object with an upload: send one.") from error
    try:
        return upload, limited_adaptation(read_options(values), most_adapt_s)
    except RequestError as error:
        raise Problem(422, "bad-request", str(error)) from error
