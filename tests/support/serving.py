"""Run the server of a toy network in tests, and talk to it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from stvsr import Backend
from stvsr.engine.serving.settings import Settings

from tests.support.media import make_video, pan

pytest.importorskip("fastapi", reason="stvsr[serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

import httpx2
import uvicorn
from fastapi.testclient import TestClient
from stvsr.engine.serving.app import make_app

_CPU = Backend(device="cpu", threads=1)
TUS = {"Tus-Resumable": "1.0.0"}
PATCH = TUS | {"Content-Type": "application/offset+octet-stream"}


@contextmanager
def serving(folder: Path, workers: int = 1, **settings: Any) -> Iterator[TestClient]:
    """Run the application, with its jobs in a folder, and yield a client in this process."""
    app = make_app(Settings(folder / "store", **settings), [_CPU] * workers)
    with TestClient(app, client=("127.0.0.1", 1)) as client:
        yield client


@contextmanager
def listening(folder: Path, workers: int = 1, **settings: Any) -> Iterator[httpx2.Client]:
    """Run the application on a port of this machine, and yield a client."""
    app = make_app(Settings(folder / "store", **settings), [_CPU] * workers)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < until
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def clip_of(folder: Path, frames: int = 7) -> bytes:
    """Return the bytes of a clip."""
    return make_video(folder / f"clip{frames}.mp4", pan(frames)).read_bytes()


def post(client: Any, video: bytes, headers: dict[str, str] | None = None, **options: Any) -> Any:
    """Create a job by sending its video."""
    return client.post("/v1/jobs", content=video, params={"model": "toy", "scale": 2, **options}, headers=headers)


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
