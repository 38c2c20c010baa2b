"""The server on Ray Serve: replicas and the front are killed, and no job is lost."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stvsr import Backend, RequestError, UpscaleRequest, upscale

from tests.support.equal_files import facts_of, frames_of
from tests.support.media import make_video, pan
from tests.support.ray_nodes import Nodes, actors

pytest.importorskip("ray.serve", reason="stvsr[ray] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

import httpx2
import numpy as np
from stvsr.engine.serving.ray_serve import ServeArguments, build

pytestmark = [pytest.mark.slow, pytest.mark.long]

FRAMES = 300
PATIENCE_S = 300  # on a machine that is busy with other things


@pytest.fixture(scope="module")
def client(ray_nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("serve")
    arguments = ServeArguments(
        store=folder / "store", files=str(folder / "files"), host="127.0.0.1", least_engines=1, most_engines=2
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(arguments), name="stvsr", route_prefix="/")
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as opened:
        yield opened
    serve.shutdown()


def job_of(client: httpx2.Client, identifier: str) -> dict[str, Any]:
    """Return a job; while the front is started again, nobody answers."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            response = client.get(f"/v1/jobs/{identifier}")
            if response.status_code == 200:
                job: dict[str, Any] = response.json()
                return job
        except httpx2.TransportError:
            pass
        assert time.monotonic() < until
        time.sleep(0.1)


def wait_for(client: httpx2.Client, identifier: str, segments: int | None = None) -> dict[str, Any]:
    """Wait until a job has ended, or has some finished segments."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        job = job_of(client, identifier)
        if job["state"] in ("done", "failed") or (segments is not None and job["segments_done"] >= segments):
            return job
        time.sleep(0.05)
    raise AssertionError(f"the job is still {job}")


def post(client: httpx2.Client, clip: Path, **options: Any) -> str:
    response = client.post("/v1/jobs", content=clip.read_bytes(), params={"model": "toy", **options})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def test_the_queue_adds_engines_and_deleted_jobs_leave_them(client: httpx2.Client, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", pan(FRAMES))
    jobs = [post(client, clip, scale=8) for _ in range(2)]
    until = time.monotonic() + PATIENCE_S
    while len(actors("Engine")) < 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    for job in jobs:
        assert client.delete(f"/v1/jobs/{job}").status_code == 204
        assert client.get(f"/v1/jobs/{job}").status_code == 404
    short = post(client, make_video(tmp_path / "short.mp4", pan(5)), scale=2)
    assert wait_for(client, short)["state"] == "done"


def test_no_job_is_lost(client: httpx2.Client, ray_nodes: Nodes, tmp_path: Path) -> None:
    toy = Path(ray_nodes.environment["STVSR_MODELS"]) / "toy"
    clip, whole = make_video(tmp_path / "clip.mp4", pan(FRAMES)), tmp_path / "whole.mp4"
    upscale(UpscaleRequest(input=clip, output=whole, model=toy, scale=4, crf=0, backend=Backend(device="cpu")))
    jobs = [post(client, clip, scale=4, crf=0) for _ in range(2)]
    for segments, victim in ((2, "Engine"), (4, "Front")):
        assert wait_for(client, jobs[0], segments)["state"] == "running"
        os.kill(actors(victim)[0]["pid"], signal.SIGKILL)
    assert job_of(client, jobs[1])["state"] != "done", "both were killed in mid job"
    for job in jobs:
        ended = wait_for(client, job)
        assert (ended["state"], ended["frames_done"]) == ("done", FRAMES), ended
        (tmp_path / "result.mp4").write_bytes(client.get(ended["links"]["result"]).content)
        assert facts_of(tmp_path / "result.mp4") == facts_of(whole)
        (times, pictures), (expected_times, expected) = frames_of(tmp_path / "result.mp4"), frames_of(whole)
        assert times == expected_times
        assert np.abs(pictures.astype(int) - expected).max() <= 4, "the encoder is almost lossless"


def test_a_server_that_others_reach_needs_a_token(tmp_path: Path) -> None:
    arguments = ServeArguments(store=tmp_path)
    with pytest.raises(RequestError, match="Everybody who reaches"):
        arguments.settings()
    (tmp_path / "token").write_text("a-token-of-some-length")
    assert arguments.model_copy(update={"token_file": tmp_path / "token"}).settings().token is not None
