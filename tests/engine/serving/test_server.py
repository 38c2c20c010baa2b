"""The server: jobs over HTTP, limits, access, and what happens when a worker or the server itself ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import av
import pytest
from stvsr import RequestError
from stvsr.engine.serving.credentials import drop_credentials
from stvsr.engine.serving.jobs import JobStore
from stvsr.engine.serving.settings import Settings, is_loopback

from tests.support import servers
from tests.support.commands import assert_one_clear_error, stvsr
from tests.support.serving import assert_conditional, clip_of, post, serving, wait_for

pytest.importorskip("httpx2", reason="httpx2 is not installed")

import httpx2
from fastapi.testclient import TestClient

pytestmark = pytest.mark.usefixtures("models")
TOKEN = "a-token-of-some-length"
SECRETS = {"STVSR_TOKEN": TOKEN, "AWS_SECRET_ACCESS_KEY": "x", "HOOK_SECRET": "x", "DATABASE": "pg://user:word@host/x"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with serving(tmp_path) as opened:
        yield opened


def job_folders(folder: Path) -> list[str]:
    return [path.name for path in (folder / "store" / "jobs").glob("*")]


def frames_in(content: bytes, folder: Path) -> int:
    (folder / "result.mp4").write_bytes(content)
    with av.open(str(folder / "result.mp4")) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_video_is_upscaled(client: Any, tmp_path: Path) -> None:
    created = post(client, clip_of(tmp_path), time_factor=3)
    assert created.status_code == 202, created.text
    job = created.json()
    assert created.headers["location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    events = client.get(job["links"]["events"]).text
    done = wait_for(client, job["id"])
    assert (done["state"], done["frames_done"], done["frames_total"]) == ("done", 7, 7)
    assert done["segments_done"] == done["segments_total"] == 1
    assert done["report"]["frames_out"] == 21
    assert events.endswith("\n\n")
    assert 'event: done\ndata: {"state": "done", "frames_done": 7' in events
    result = client.get(done["links"]["result"])
    assert result.headers["content-type"] == "video/mp4"
    assert frames_in(result.content, tmp_path) == 21
    assert int(client.head(done["links"]["result"]).headers["content-length"]) == len(result.content)
    last = re.findall("^id: (.*)$", events, re.M)[-1]
    assert client.get(job["links"]["events"], headers={"Last-Event-ID": last}).status_code == 204
    assert client.get(job["links"]["events"], headers={"Last-Event-ID": "earlier"}).text.count("event: ") == 1
    part = client.get(done["links"]["result"], headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, result.content[10:20])
    for unreadable in ("frames=1-2", "bytes", "bytes=9-2"):
        assert client.get(done["links"]["result"], headers={"Range": unreadable}).content == result.content
    size = len(result.content)
    beyond = client.get(done["links"]["result"], headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    assert beyond.headers["content-type"] == "application/problem+json"
    assert f"{size} bytes" in beyond.json()["detail"]
    for address in (done["links"]["result"], "/", "/app.js"):
        assert_conditional(client, address, has_ranges=True)
    assert str(tmp_path) not in json.dumps(done), "paths of the server stay there"
    assert [entry["id"] for entry in client.get("/v1/jobs", params={"state": "done"}).json()["jobs"]] == [job["id"]]
    assert client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert client.get(f"/v1/jobs/{job['id']}").status_code == 404
    assert job_folders(tmp_path) == []


def test_models_health_and_metrics(client: Any, tmp_path: Path) -> None:
    assert "toy" in [model["name"] for model in client.get("/v1/models").json()["models"]]
    assert client.get("/healthz").json() == {"status": "ok"}
    until = time.monotonic() + 30
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.05)
    wait_for(client, post(client, clip_of(tmp_path)).json()["id"])
    metrics = client.get("/metrics").text
    assert 'stvsr_jobs{state="done"} 1.0' in metrics
    assert "stvsr_frames_total 7.0" in metrics
    assert "stvsr_queue_seconds_count 1.0" in metrics
    assert 'stvsr_segment_seconds_count{model="toy"} 1.0' in metrics
    assert "/v1/jobs/{identifier}/result" in client.get("/v1/openapi.json").json()["paths"]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"scale": 100}, 422, "scale: input should be less than or equal to 64"),
        ({"scale": "nan"}, 422, "scale"),
        ({"scale": 9}, 422, "toy"),
        ({"model": "none"}, 422, "There is no model 'none' here"),
        ({"model": "../toy"}, 422, "model"),
        ({"model": "/etc"}, 422, "model"),
        ({"container": "exe"}, 422, "container"),
        ({"fps": "1/0"}, 422, "'1/0' is not a frame rate"),
        ({"time_factor": "65"}, 422, "time factor is 65: at most 64"),
        ({"slowmo": 0.5}, 422, "slow motion is 0.5"),
        ({"start": "2", "end": "1"}, 422, "The end 1 is not after the start 2"),
        ({"size": "big", "scale": None}, 422, "'big' is not a size"),
        ({"size": "1080p", "scale": 2}, 422, "either a scale or a size"),
        ({"fps": "1e9"}, 422, "fps"),
        ({"width": 100}, 422, "give both, or a scale"),
        ({"codec": "none"}, 400, "none"),
        ({"webhook": "http://127.0.0.1:1/x"}, 422, "This server sends no message to http://127.0.0.1:1/x"),
        ({"unknown": 1}, 422, "unknown: extra inputs are not permitted"),
    ],
)
def test_wrong_options_are_refused(
    client: Any, tmp_path: Path, options: dict[str, Any], status: int, words: str
) -> None:
    refused = post(client, clip_of(tmp_path), **options)
    assert refused.status_code == status, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert words in refused.json()["detail"]
    assert str(tmp_path) not in refused.text
    assert job_folders(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"no video", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", b"ffconcat version 1.0"])
def test_what_is_no_video_is_refused(client: Any, tmp_path: Path, content: bytes) -> None:
    refused = post(client, content)
    assert refused.status_code == 400
    assert str(tmp_path) not in refused.text
    assert job_folders(tmp_path) == []


@pytest.mark.parametrize(
    "identifier",
    ["nothing", "..", "%2e%2e", "..%2f..%2fjobs.sqlite3", "00000000-0000-0000-0000-000000000000", "A" * 400, "{}"],
)
def test_what_is_no_job_is_not_found(client: Any, identifier: str) -> None:
    for path in ("", "/result", "/events"):
        assert client.get(f"/v1/jobs/{identifier}{path}").status_code in (404, 405)
    assert client.delete(f"/v1/jobs/{identifier}").status_code in (404, 405)


def test_limits(tmp_path: Path) -> None:
    clip = clip_of(tmp_path)
    limits = {"most_upload_bytes": len(clip) - 1, "most_pixels": 64 * 48, "most_frames": 7}
    with serving(tmp_path, **limits) as client:
        assert post(client, clip).status_code == 413
        chunks = (clip[start : start + 100] for start in range(0, len(clip), 100))
        streamed = client.post("/v1/jobs", content=chunks, params={"model": "toy"})
        assert streamed.status_code == 413, "a body without a declared length is counted"
        assert job_folders(tmp_path) == []
    with serving(tmp_path, **limits | {"most_upload_bytes": len(clip)}) as client:
        assert post(client, clip).status_code == 202
    with serving(tmp_path, most_pixels=64 * 48 - 1) as client:
        assert "frames of 64x48 pixels" in post(client, clip).json()["detail"]
    with serving(tmp_path, most_frames=6) as client:
        assert "has 7 frames" in post(client, clip).json()["detail"]
    with serving(tmp_path / "other", most_queued=1) as client:
        first = post(client, clip_of(tmp_path, 200)).json()
        busy = post(client, clip)
        assert (busy.status_code, busy.headers["retry-after"]) == (429, "30")
        assert client.delete(f"/v1/jobs/{first['id']}").status_code == 204
        assert post(client, clip).status_code == 202


def test_a_key_makes_one_job(client: Any, tmp_path: Path) -> None:
    clip, key = clip_of(tmp_path), {"Idempotency-Key": "once"}
    first, second = post(client, clip, headers=key).json(), post(client, clip, headers=key).json()
    assert first["id"] == second["id"]
    assert job_folders(tmp_path) == [first["id"]]


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    with serving(tmp_path, host="0.0.0.0", token=TOKEN) as client:
        for value in (None, "Bearer", f"Bearer {TOKEN[:-1]}", TOKEN):
            headers = {} if value is None else {"Authorization": value}
            for path in ("/v1/jobs", "/v1/models", "/metrics"):
                assert client.get(path, headers=headers).status_code == 401
            assert client.post("/v1/jobs", content=b"x", headers=headers).status_code == 401
        assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/healthz").status_code == 200
    with pytest.raises(RequestError, match=r"0\.0\.0\.0 could use this server: give a token"):
        Settings(tmp_path, host="0.0.0.0")
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.com")] == [True] * 3 + [
        False
    ] * 2


def workers_of(process: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process), "-f", "spawn_main"], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def test_a_worker_that_dies_is_replaced(client: Any, tmp_path: Path) -> None:
    identifier = post(client, clip_of(tmp_path, 300)).json()["id"]
    until = time.monotonic() + 30
    while wait_for(client, identifier, segments_total=6)["segments_done"] < 1:
        assert time.monotonic() < until
    for pid in workers_of(os.getpid()):
        os.kill(pid, signal.SIGKILL)
    done = wait_for(client, identifier)
    assert (done["state"], done["frames_done"]) == ("done", 300)
    assert frames_in(client.get(done["links"]["result"]).content, tmp_path) == 600


def test_a_job_whose_workers_die_fails(client: Any, tmp_path: Path) -> None:
    identifier = post(client, clip_of(tmp_path, 600)).json()["id"]
    until = time.monotonic() + 60
    while (job := client.get(f"/v1/jobs/{identifier}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < until
        for pid in workers_of(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    assert job["state"] == "failed"
    assert re.search(r"ended its worker ([3-9]|10) times", job["error"]["message"])


def test_jobs_go_on_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        identifier = post(client, clip_of(tmp_path, 200)).json()["id"]
        wait_for(client, identifier, segments_done=1)
    with serving(tmp_path, workers=2) as client:
        done = wait_for(client, identifier)
        assert done["state"] == "done"
        assert frames_in(client.get(done["links"]["result"]).content, tmp_path) == 400


@pytest.mark.slow
def test_a_server_that_ends_begins_no_task_while_clients_follow_jobs(tmp_path: Path) -> None:
    clip = clip_of(tmp_path, 900)
    with ExitStack() as stack:
        with servers.serving(tmp_path) as url:
            client = stack.enter_context(httpx2.Client(base_url=url, timeout=60))
            job = post(client, clip).json()
            lines = stack.enter_context(client.stream("GET", job["links"]["events"])).iter_lines()
            next(line for line in lines if line[:5] == "data:" and json.loads(line[5:])["segments_done"])
        assert not any(line.startswith("event: done") for line in lines)
    with JobStore(tmp_path / "store") as jobs:
        left = jobs.get(job["id"])
        assert left is not None
        assert left.state == "running"
        assert 0 < left.segments_done < (left.segments_total or 0)


def test_a_cancelled_job_stops(client: Any, tmp_path: Path) -> None:
    first = post(client, clip_of(tmp_path, 600)).json()["id"]
    wait_for(client, first, state="running")
    assert client.delete(f"/v1/jobs/{first}").status_code == 204
    second = wait_for(client, post(client, clip_of(tmp_path)).json()["id"])
    assert second["state"] == "done"
    assert job_folders(tmp_path) == [second["id"]]


def test_old_jobs_are_deleted_and_half_made_ones_swept(tmp_path: Path) -> None:
    with JobStore(tmp_path) as jobs:
        old, new = (jobs.create(jobs.new_id(), {"model": "toy"}) for _ in range(2))
        jobs.new_id()  # a job whose upload was interrupted
        assert jobs.end(old.id, "done")
        assert not jobs.end(old.id, "failed"), "the last state stays"
        jobs.update(old.id, finished=1.0)
        jobs.update(new.id, state="running")
        jobs.sweep()
        assert [job.state for job in jobs.page()] == ["done", "queued"]
        assert jobs.delete_ended(before=2.0) == 1
        assert [folder.name for folder in (tmp_path / "jobs").iterdir()] == [new.id]


def test_results_that_were_deleted_for_their_age_are_gone(tmp_path: Path) -> None:
    with JobStore(tmp_path / "store") as jobs:
        expired, left, deleted = (jobs.create(jobs.new_id(), {"model": "toy", "container": "mp4"}).id for _ in range(3))
        for identifier in (expired, left, deleted):
            jobs.end(identifier, "done")
        jobs.update(expired, finished=1.0)
        jobs.output_of(left, "mp4").write_bytes(b"x")
    with serving(tmp_path, keep_s=3600.0) as client:
        servers.wait_until(lambda: client.get(f"/v1/jobs/{expired}").status_code != 200)  # the sweep deletes it
        assert client.delete(f"/v1/jobs/{deleted}").status_code == 204
        assert client.get(f"/v1/jobs/{left}/result").content == b"x"
        (tmp_path / "store" / "jobs" / left / "result.mp4").unlink()
        for identifier, status in ((expired, 410), (left, 410), (deleted, 404), (str(uuid.uuid4()), 404)):
            answer = client.get(f"/v1/jobs/{identifier}/result")
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert "kept for 1 hours, which have passed" in client.get(f"/v1/jobs/{expired}/events").json()["detail"]


def test_jobs_are_computed_by_priority(tmp_path: Path) -> None:
    with JobStore(tmp_path) as jobs:
        made = [jobs.create(jobs.new_id(), {}, priority=priority).id for priority in (0, 5, 0, 5)]
        assert [made.index(job.id) for job in jobs.waiting()] == [1, 3, 0, 2]
        assert [jobs.position(job) for job in jobs.waiting()] == [1, 2, 3, 4]
        jobs.update(made[1], state="running")
        assert [jobs.position(job) for job in jobs.waiting()] == [None, 1, 2, 3]


def test_the_command_refuses_wrong_options(tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store")
    assert_one_clear_error(stvsr("serve", *store, "--host", "0.0.0.0"), "--token-file")
    assert_one_clear_error(stvsr("serve", *store, "--max-upload", "big"), "'big' is not a size")
    assert_one_clear_error(stvsr("serve", *store, "--token-file", tmp_path / "none"), "No such file")
    (tmp_path / "token").write_text("short")
    assert_one_clear_error(stvsr("serve", *store, "--token-file", tmp_path / "token"), "16 ASCII characters")


def test_a_server_that_is_killed_goes_on(tmp_path: Path) -> None:
    """The command is killed with three jobs under way; started again, it does all of them.

    Its own process cannot import what its workers need: neither libraries nor their memory belong there. None of its
    processes has the credentials in the environment of the command.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "import sys\nsys.modules.update(dict.fromkeys(['numpy', 'av', 'onnxruntime']))\n"
    program += "from stvsr.__main__ import main\nmain()"
    command = [sys.executable, "-c", program, "serve", "--port", str(port), "--store", str(tmp_path / "store")]
    command += ["--device", "cpu", "--workers", "2"]
    clip = clip_of(tmp_path, 150)
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        server = subprocess.Popen(command, env=os.environ | SECRETS)
        try:
            wait_until_ready(client)
            environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in servers.workers_of(server.pid)]
            assert len(environments) >= 3
            for environment in environments:
                assert b"STVSR_MODELS=" in environment
                assert not [name for name in SECRETS if name.encode() in environment]
            jobs = [post(client, clip).json()["id"] for _ in range(3)]
            wait_for(client, jobs[0], segments_done=2)
            server.kill()
            server.wait()
            server = subprocess.Popen(command)
            wait_until_ready(client)
            done = [wait_for(client, job) for job in jobs]
            assert [job["state"] for job in done] == ["done"] * 3
            assert {frames_in(client.get(job["links"]["result"]).content, tmp_path) for job in done} == {300}
            there = ("preview.m3u8", "preview/init.mp4", "preview/0.m4s", "frames/9/before.png", "frames/9/after.png")
            for path in (*(f"/v1/jobs/{jobs[0]}/{name}" for name in there), "/v1/models", "/v1/openapi.json"):
                assert client.get(path).status_code == 200, path
            raw = {"format": "rgb24", "width": "8", "height": "8", "model": "toy", "scale": "2"}
            assert len(client.post("/v1/frames", params=raw, content=bytes(192)).content) == 4 * 192 * 2
        finally:
            server.terminate()
            code = server.wait(40)
        assert code in (0, -signal.SIGTERM, 128 + signal.SIGTERM)


def test_credentials_are_known_by_names_and_values() -> None:
    kept = {"PATH": "/bin", "STVSR_MODELS": "/x", "KEYBOARD": "de", "HTTP_PROXY": "http://proxy:80/", "HOME": "/a@b:c"}
    of_stores = {"AWS_ENDPOINT_URL": "http://x", "AWS_ACCESS_KEY_ID": "x", "RAY_AUTH_TOKEN": "x"}
    for keep_stores in (False, True):
        environment = kept | SECRETS | of_stores | {"API_KEY": "x", "PGPASSWORD": "x"}
        drop_credentials(environment, keep_stores=keep_stores)
        stores = of_stores | {"AWS_SECRET_ACCESS_KEY": "x"}
        assert environment == kept | (stores if keep_stores else {})


def wait_until_ready(client: Any) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with suppress(httpx2.TransportError):
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError("the server does not answer")
