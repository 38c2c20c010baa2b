"""The client of a server: jobs, frames and live streams from Python."""

import json
import os
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..contract.closing import Closing
from ..contract.errors import MediaError, RequestError, ServerError
from .client_frames import decode_frames, encode_frames, query_of, stream_frames
from .client_upload import LARGE_BYTES, read_chunks, size_of, takes_parts, upload
from .connection import Connection, Patience

_ENDED = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class ServerJob:
    """A job of a server."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    frames_done: int  # input frames
    frames_total: int | None  # None: not known yet
    error: str | None  # the reason why it failed
    report: dict[str, Any] | None  # of a job that is done
    facts: dict[str, Any] = field(repr=False)  # everything that the server states

    @property
    def ended(self) -> bool:
        """Return whether the state will not change any more."""
        return self.state in _ENDED


class Client(Closing):
    """Uses a server, "http://127.0.0.1:8000" for example. A context manager.

    token: that of the server.
    timeout_s: how long a server may be silent in an answer.
    patience_s: how long a request is tried again while the server is busy, starting, or cannot be reached.

    Options of jobs and frames have the names that the server documents; a `size` is (width, height) in pixels, and
    times are numbers. Every method raises ServerError with the server's sentence, and its `status` and `code`.
    Raises BackendError if the packages of stvsr[client] are not installed, RequestError for a wrong address.
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout_s: float = 60.0, patience_s: float = 60.0
    ) -> None:
        self._connection = Connection(url, token, timeout_s, patience_s)

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        self._connection.close()

    def upscale(
        self,
        video: str | Path,
        output: str | Path,
        on_progress: Callable[[ServerJob], None] | None = None,
        *,
        overwrite: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Upscale a video on the server into a file, and return the report.

        The job is deleted when the file is complete, and when an interrupt ends the wait for it. Raises as `create`,
        `wait` and `download`.
        """
        _check_output(Path(output), overwrite)
        job = self.create(video, **options)
        try:
            done = self.wait(job.id, on_progress)
        except KeyboardInterrupt:
            self.delete(job.id)
            raise
        self.download(job.id, output, overwrite=overwrite)
        self.delete(job.id)
        assert done.report is not None
        return done.report

    def create(self, video: str | Path, *, key: str | None = None, **options: Any) -> ServerJob:
        """Send a video, and return the job that upscales it.

        A large video is sent in parts if the server takes them, and goes on after an interruption. A job is created
        once for each `key`, which is random unless it is given. Raises MediaError for a file that cannot be read.
        """
        video = Path(video)
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        values = query_of(options)
        size = size_of(video)
        if size > LARGE_BYTES and takes_parts(self._connection):
            content = json.dumps({"upload": upload(self._connection, video), **values}).encode()
            headers |= {"Content-Type": "application/json"}
            created = self._connection.request("POST", "/v1/jobs", content=content, headers=headers)
        else:
            headers |= {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
            created = self._connection.request(
                "POST", "/v1/jobs", content=partial(read_chunks, video), params=values, headers=headers
            )
        return _job(created.json())

    def job(self, job_id: str) -> ServerJob:
        """Return a job."""
        return _job(self._connection.request("GET", _path(job_id)).json())

    def jobs(self, state: str | None = None) -> Iterator[ServerJob]:
        """Yield all jobs in the order of their creation, or those in a state."""
        cursor: int | None = 0
        while cursor is not None:
            params = {"cursor": str(cursor)} | ({} if state is None else {"state": state})
            page = self._connection.request("GET", "/v1/jobs", params=params).json()
            yield from map(_job, page["jobs"])
            cursor = page["cursor"]

    def progress(self, job_id: str) -> Iterator[ServerJob]:
        """Yield a job whenever its progress has changed, and at last when it has ended.

        A connection that is lost is opened again.
        """
        job = self.job(job_id)
        yield job
        patience = Patience(self._connection.patience_s)
        while not job.ended:
            try:
                for facts in self._connection.events(f"{_path(job_id)}/events"):
                    patience.restart()
                    if facts["state"] in _ENDED:
                        break
                    counts = {"frames_done": facts["frames_done"], "frames_total": facts["frames_total"]}
                    if (changed := replace(job, state=facts["state"], **counts)) != job:
                        job = changed
                        yield job
                else:
                    raise ServerError(f"{self._connection.url} has ended the events of the job: try again.")
            except ServerError as error:
                patience.wait(error)
            if (changed := self.job(job_id)).ended:
                job = changed
                yield job

    def wait(self, job_id: str, on_progress: Callable[[ServerJob], None] | None = None) -> ServerJob:
        """Wait until a job is done, and return it. Raises ServerError if it fails or is cancelled."""
        for job in self.progress(job_id):
            if on_progress is not None:
                on_progress(job)
        if job.state != "done":
            raise ServerError(job.error or "The job was cancelled: create it again.", code=job.state)
        return job

    def download(self, job_id: str, output: str | Path, *, overwrite: bool = False) -> Path:
        """Write the video of a job that is done to a file, which takes its name when it is complete.

        Bytes that have arrived are kept in `.NAME.JOB.part` beside it: a download that was interrupted, even by the end
        of this process, goes on with the same call. Raises RequestError if the file exists and may not be replaced,
        MediaError if it cannot be written.
        """
        output = Path(output)
        _check_output(output, overwrite)
        path, part = f"{_path(job_id)}/result", output.with_name(f".{output.name}.{job_id}.part")
        patience = Patience(self._connection.patience_s)
        try:
            while True:
                before = part.stat().st_size if part.exists() else 0
                try:
                    self._download_rest(path, part)
                    break
                except ServerError as error:
                    if part.exists() and part.stat().st_size > before:
                        patience.restart()
                    patience.wait(error)
            part.replace(output)
        except OSError as error:
            raise MediaError(f"{output} cannot be written ({error.strerror}): check its folder and disk.") from error
        return output

    def delete(self, job_id: str) -> None:
        """Cancel a job that has not ended, and delete it with its files."""
        self._connection.request("DELETE", _path(job_id))

    def models(self) -> list[dict[str, Any]]:
        """Return the models of the server: their names, spaces, times and licences."""
        models: list[dict[str, Any]] = self._connection.request("GET", "/v1/models").json()["models"]
        return models

    def frames(self, frames: Iterable[np.ndarray], **options: Any) -> list[np.ndarray]:
        """Upscale a few frames of one size in one request, and return the new frames in order.

        The frames are (3, h, w), RGB: uint8, or uint16, or floats in [0, 1]; the new ones are (3, H, W), uint8 if the
        frames are, else uint16. Raises RequestError for other frames.
        """
        frame_format, content = encode_frames(list(frames))
        params = {**frame_format.query, **query_of(options)}
        answer = self._connection.request(
            "POST", "/v1/frames", content=content, params=params, headers={"Content-Type": "application/octet-stream"}
        )
        size = int(answer.headers["stvsr-width"]), int(answer.headers["stvsr-height"])
        return decode_frames(answer.content, frame_format.name, size)

    def stream(self, frames: Iterable[np.ndarray], **options: Any) -> Generator[np.ndarray]:
        """Upscale a live stream of frames of one size, and yield the new frames as they are ready.

        The types are those of `frames`. Input frames are taken in a thread, which waits while new frames are not taken;
        after the iterator was closed it ends when `frames` gives its next frame.
        """
        return stream_frames(self._connection, frames, options)

    def _download_rest(self, path: str, part: Path) -> None:
        """Append to a file what it lacks of a result."""
        start = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._connection.open("GET", path, headers=headers, accept=(416,)) as answer:
            if answer.status_code == 416:  # nothing is missing, or the file is another one
                whole = answer.headers.get("content-range", "").rpartition("/")[2]
                if whole == str(start):
                    return
                part.unlink()
                raise ServerError("The video has changed on the server.")
            with part.open("ab" if answer.status_code == 206 else "wb") as file:
                for chunk in answer.iter_bytes():
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())


def _job(facts: dict[str, Any]) -> ServerJob:
    error = facts.get("error")
    return ServerJob(
        id=facts["id"],
        state=facts["state"],
        frames_done=facts["frames_done"],
        frames_total=facts["frames_total"],
        error=None if error is None else error["message"],
        report=facts.get("report"),
        facts=facts,
    )


def _path(job_id: str) -> str:
    try:
        return f"/v1/jobs/{uuid.UUID(job_id)}"
    except ValueError:
        raise RequestError(f"'{job_id}' is no job: name one by its id.") from None


def _check_output(output: Path, overwrite: bool) -> None:
    if output.exists() and not overwrite:
        raise RequestError(f"{output} exists already: choose another output, or pass overwrite=True.")
