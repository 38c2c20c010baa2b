"""The state behind the HTTP interface: jobs and how they are created, their workers, and the metrics."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import Header, Query, Request
from fastapi.concurrency import run_in_threadpool

from ..backends.options import Backend
from ..contract.bundle import MANIFEST, named_bundles
from ..contract.errors import MediaError, RequestError
from ..pipeline.adaptation import AdaptSettings
from ..pipeline.executor import Executor
from ..pipeline.request import UpscaleRequest
from .addresses import is_allowed
from .checks import VideoChecker, VideoLimits
from .fetcher import UrlFetcher
from .jobs import Job, JobStore
from .logs import log
from .metrics import Metrics
from .problems import Problem
from .requests import JobOptions, adapt_settings, limited_adaptation, make_request, read_options, without_paths
from .scheduler import Scheduler
from .settings import Settings
from .streams import FrameStreams
from .uploads import UploadStore, check_space, receive

_EVENT_S = 0.25  # between looks at a job whose events are read
_SILENCE_S = 15.0  # at most, so that neither clients nor proxies take a job that waits for a lost connection
_MOST_JSON_BYTES = 1 << 16  # of options
_PROGRESS = ("state", "frames_done", "frames_total", "segments_done", "segments_total")  # in an event
_SCENES = ("scenes_done", "scenes_total")  # of a job that adapts


class Server:
    """The state behind the application."""

    def __init__(self, settings: Settings, executor: Executor, backends: Sequence[Backend]) -> None:
        self.settings = settings
        self.jobs = JobStore(settings.folder, settings.files)
        self.uploads = UploadStore(settings.folder / "uploads", settings.keep_s)
        self.metrics = Metrics()
        self.draining = False
        self.checker = VideoChecker(
            VideoLimits(settings.most_pixels, settings.most_frames), most_bytes=settings.most_worker_bytes
        )
        self.fetcher = UrlFetcher(settings)
        self.streams = FrameStreams(settings, backends)
        self._models: tuple[dict[str, int], list[dict[str, Any]]] = {}, []  # by the times of their manifests
        self.scheduler = Scheduler(
            self.jobs,
            executor,
            self._request_of,
            adapt_of=self._adapt_of,
            task_s=settings.task_s,
            on_start=self.metrics.start,
            on_segment=self.metrics.segment,
        )

    def drain(self) -> None:
        """Take no job and begin no task any more; streams of events end, and their clients come back."""
        self.draining = True
        self.fetcher.close()
        self.scheduler.drain()

    def job(self, identifier: str) -> Job:
        """Return a job. Raises Problem if there is none, or if it was deleted for its age."""
        try:
            self.jobs.folder_of(identifier)
        except ValueError:
            raise Problem(404, "not-found", "There is no such job.") from None
        if (job := self.jobs.get(identifier)) is not None:
            return job
        if self.jobs.has_expired(identifier):
            hours = self.settings.keep_s / 3600
            raise Problem(410, "expired", f"Results are kept for {hours:g} hours, which have passed: send it again.")
        raise Problem(404, "not-found", "There is no such job.")

    async def authorize(  # a function that is not would run in a thread
        self, request: Request, authorization: str | None = Header(None), access: str | None = Query(None)
    ) -> None:
        """Raise Problem for a request without the server's token, and without what admits to reading its job."""
        reads = request.method in ("GET", "HEAD") and self.settings.admits_reading(
            request.path_params.get("identifier", ""), access
        )
        if not reads:
            self.check_token(authorization)

    def check_token(self, authorization: str | None) -> None:
        """Raise Problem for a value of the Authorization header without the server's token."""
        if not self.settings.admits(authorization):
            raise Problem(401, "unauthorized", "Send 'Authorization: Bearer TOKEN'.", www_authenticate="Bearer")

    def models(self) -> list[dict[str, Any]]:
        """Return what clients see of the models that a job can name. Those that cannot be used are left out."""
        stamps = {name: (folder / MANIFEST).stat().st_mtime_ns for name, folder in named_bundles().items()}
        if self._models[0] != stamps:
            found = self.checker.call("A model", "list_models")
            for facts in found:
                if "error" in facts:
                    log.warning("model left out", extra={"reason": facts["error"]})
            self._models = stamps, [facts for facts in found if "error" not in facts]
        return self._models[1]

    async def create(self, request: Request, key: str | None) -> Job:
        """Store the video of a request, or take its upload, or fetch it from an address, and create its job.

        Raises Problem; then nothing is left but the upload.
        """
        if self.draining:
            raise Problem(503, "not-ready", "The server is ending.", retry_after="30")
        if key is not None and (earlier := self.jobs.with_key(key)) is not None:
            return earlier
        counts = self.jobs.counts()
        if counts["queued"] + counts["running"] >= self.settings.most_queued:
            raise Problem(429, "busy", "Too many jobs are waiting: send this one later.", retry_after="30")
        given, options = await _read_request(request, self.settings.adapt_s)
        if options.webhook is not None and not is_allowed(options.webhook, self.settings.webhook_prefixes):
            raise Problem(422, "bad-request", f"This server sends no message to {options.webhook}: choose another.")
        identifier = self.jobs.new_id()
        try:
            source = self.jobs.input_of(identifier)
            if given.upload is not None:
                await run_in_threadpool(self.uploads.link, given.upload, source)
            elif given.url is not None:
                await run_in_threadpool(self.fetcher.fetch, given.url, source)
            else:
                await self._store(request, source)
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
        if given.upload is not None:
            await run_in_threadpool(self.uploads.delete, given.upload)
        self.scheduler.wake()
        return job

    async def events(self, identifier: str, last: str | None = None) -> AsyncIterator[str]:
        """Yield server-sent events: "progress" whenever a number changes, comments in between, and the last state.

        `last` is the id of the last event that the client has.
        """
        sent = time.monotonic()
        while not self.draining and (job := await run_in_threadpool(self.jobs.get, identifier)) is not None:
            if (number := event_id(job)) != last:
                facts = _progress(job)
                event = job.state if job.ended else "progress"
                data = {**facts, "error": job.error} if job.ended else facts
                yield f"id: {number}\nevent: {event}\ndata: {json.dumps(data)}\n\n"
                last, sent = number, time.monotonic()
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


def event_id(job: Job) -> str:
    """Return the id of the event that states the progress of a job as it is."""
    return "-".join(map(str, _progress(job).values()))


def _progress(job: Job) -> dict[str, Any]:
    """Return the members of an event that states the progress of a job."""
    scenes = _SCENES if job.options.get("adapt") else ()
    return {name: getattr(job, name) for name in (*_PROGRESS, *scenes)}


class _Given(NamedTuple):
    """The video of a new job: an upload, or an address; else the body of the request."""

    upload: str | None = None
    url: str | None = None


async def _read_request(request: Request, most_adapt_s: float | None) -> tuple[_Given, JobOptions]:
    """Return the video and the options of a new job: in a JSON body, or in the query if the body is the video."""
    values: Any = {name: value for name, value in request.query_params.items()}
    given = _Given()
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_JSON_BYTES:
                raise Problem(413, "too-large", f"The options are larger than {_MOST_JSON_BYTES} bytes.")
        try:
            values |= json.loads(body)
            given = _Given(**{name: str(values.pop(name)) for name in _Given._fields if name in values})
        except (ValueError, TypeError) as error:
            raise Problem(422, "bad-request", "The body is no JSON object: send one.") from error
        if (given.upload is None) == (given.url is None):
            raise Problem(422, "bad-request", "The body has no upload and no url, or both: name the video by one.")
    try:
        return given, limited_adaptation(read_options(values), most_adapt_s)
    except RequestError as error:
        raise Problem(422, "bad-request", str(error)) from error
