"""Talk to the server of a toy network, in this process or on a port of this machine."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.media import make_video, pan

pytest.importorskip("fastapi", reason="stvsr[serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

import httpx2
from fastapi.testclient import TestClient

from tests.support import servers

TUS = {"Tus-Resumable": "1.0.0"}
PATCH = TUS | {"Content-Type": "application/offset+octet-stream"}


@contextmanager
def serving(folder: Path, workers: int = 1, **settings: Any) -> Iterator[TestClient]:
    """Run a server in this process, with its jobs in `folder`/store, and yield a client."""
    with TestClient(
        servers.app_of(folder, workers, **settings), base_url=servers.LOCAL, client=("127.0.0.1", 1)
    ) as client:
        yield client


@contextmanager
def listening(folder: Path, **settings: Any) -> Iterator[httpx2.Client]:
    """Run a server on a port of this machine, with its jobs in `folder`/store, and yield a client."""
    with servers.serving(folder, **settings) as url, httpx2.Client(base_url=url, timeout=30) as client:
        yield client


def clip_of(folder: Path, frames: int = 7) -> bytes:
    """Return the bytes of a clip."""
    return make_video(folder / f"clip{frames}.mp4", pan(frames)).read_bytes()


def post(client: Any, video: bytes, headers: dict[str, str] | None = None, **options: Any) -> Any:
    """Create a job by sending its video; an option of None is left out."""
    params = {"model": "toy", "scale": 2, **options}
    given = {name: value for name, value in params.items() if value is not None}
    return client.post("/v1/jobs", content=video, params=given, headers=headers)


def begin_upload(client: Any, length: int, **headers: str) -> Any:
    """Begin an upload."""
    return client.post("/v1/uploads", headers=TUS | {"Upload-Length": str(length)} | headers)


def send_part(client: Any, address: str, offset: int, content: Any, **headers: str) -> Any:
    """Send bytes of an upload."""
    return client.patch(address, content=content, headers=PATCH | {"Upload-Offset": str(offset)} | headers)


def wait_for(client: Any, identifier: str, seconds: float = 60, **expected: Any) -> dict[str, Any]:
    """Wait until a job has some facts, by default until it has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        job: dict[str, Any] = client.get(f"/v1/jobs/{identifier}").json()
        if expected and all(job[name] == value for name, value in expected.items()):
            return job
        if job["state"] in ("done", "failed", "cancelled"):
            return job
        time.sleep(0.05)
    raise AssertionError(f"the job is still {job}")


def assert_conditional(client: Any, address: str, *, has_ranges: bool) -> None:
    """Assert that a client which has what is at an address is not sent it again, and that ranges are of the same."""
    whole = client.get(address)
    tag = whole.headers["etag"]
    assert (whole.status_code, tag[0], tag[-1]) == (200, '"', '"'), "a strong validator"
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = client.get(address, headers={"If-None-Match": known, "Range": "bytes=0-3"})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag), known
        assert answer.headers.get("cache-control") == whole.headers.get("cache-control")
        assert "content-length" not in answer.headers
    for unknown in ('"other"', tag.strip('"'), ""):
        assert client.get(address, headers={"If-None-Match": unknown}).content == whole.content
    if has_ranges:
        part = {"Range": "bytes=2-5"}
        for headers in (part, part | {"If-Range": tag}, part | {"If-Range": tag, "If-None-Match": '"other"'}):
            answer = client.get(address, headers=headers)
            assert (answer.status_code, answer.content) == (206, whole.content[2:6])
        for changed in ('"other"', f"W/{tag}"):
            assert client.get(address, headers=part | {"If-Range": changed}).content == whole.content
