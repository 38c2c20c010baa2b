"""Resumable uploads: the protocol, limits, full disks, two writers at once, and a server that is killed."""

import base64
import errno
import http.client
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import wait_until
from tests.support.serving import PATCH, TUS, begin_upload, clip_of, listening, send_part, serving, wait_for

pytest.importorskip("httpx2", reason="httpx2 is not installed")

import httpx2
from stvsr.engine.serving import uploads
from stvsr.engine.serving.problems import Problem
from stvsr.engine.serving.uploads import UploadStore

pytestmark = pytest.mark.usefixtures("models")
NO_UPLOADS = [
    "nothing",
    "%2e%2e",
    "..%2f..%2fjobs.sqlite3",
    str(uuid.UUID(int=0)),
    "A" * 300,
    f"{{{uuid.UUID(int=0)}}}",
]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    with serving(tmp_path, workers=0) as opened:
        yield opened


def offset_of(client: Any, address: str) -> int:
    found = client.head(address, headers=TUS)
    assert found.status_code == 200, found.headers
    return int(found.headers["upload-offset"])


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_video_is_uploaded_in_parts_and_upscaled(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        upload_and_upscale(client, tmp_path)


def upload_and_upscale(client: Any, tmp_path: Path) -> None:
    clip = clip_of(tmp_path)
    name = base64.b64encode(b"../../etc/passwd").decode()
    begun = begin_upload(client, len(clip), **{"Upload-Metadata": f"filename {name},private"})
    assert begun.status_code == 201
    assert (begun.headers["tus-resumable"], begun.headers["upload-offset"]) == ("1.0.0", "0")
    assert begun.headers["upload-expires"].endswith("GMT")
    address = begun.headers["location"]
    identifier = address.rpartition("/")[2]
    assert str(uuid.UUID(identifier)) == identifier
    early = client.post("/v1/jobs", json={"upload": identifier})
    assert (early.status_code, early.json()["title"]) == (409, "incomplete")
    for low in range(0, len(clip), 1000):
        sent = send_part(client, address, low, clip[low : low + 1000])
        assert sent.status_code == 204, sent.text
        assert int(sent.headers["upload-offset"]) == min(low + 1000, len(clip)) == offset_of(client, address)
    found = client.head(address, headers=TUS)
    assert found.headers["upload-length"] == str(len(clip))
    assert found.headers["upload-metadata"] == f"filename {name},private"
    assert found.headers["cache-control"] == "no-store"
    wrong = client.post("/v1/jobs", json={"upload": identifier, "model": "toy", "scale": 9})
    assert wrong.status_code == 422
    assert offset_of(client, address) == len(clip), "a refused job leaves the upload"
    made = client.post("/v1/jobs", json={"upload": identifier, "model": "toy", "scale": 2, "fps": 29.97})
    assert made.status_code == 202, made.text
    assert made.json()["options"]["fps"] == "29.97"
    assert client.head(address, headers=TUS).status_code == 404, "the upload has become the job's"
    assert (tmp_path / "store" / "jobs" / made.json()["id"] / "input").read_bytes() == clip
    assert wait_for(client, made.json()["id"])["state"] == "done"
    assert files_in(tmp_path / "store" / "uploads") == []


def test_the_server_describes_its_uploads(tmp_path: Path) -> None:
    with serving(tmp_path, workers=0, most_upload_bytes=12345) as client:
        found = client.options("/v1/uploads")
        assert found.status_code == 204
        assert found.headers["tus-version"] == found.headers["tus-resumable"] == "1.0.0"
        assert set(found.headers["tus-extension"].split(",")) == {"creation", "expiration", "termination"}
        assert found.headers["tus-max-size"] == "12345"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412),
        ({"Upload-Length": "many"}, 400),
        ({"Upload-Length": "-1"}, 400),
        ({"Upload-Length": "1" * 30}, 400),
        ({"Upload-Length": "²"}, 400),
        ({"Upload-Metadata": "name ../x"}, 400),
        ({"Upload-Metadata": "name " + "A" * 5000}, 400),
    ],
)
def test_wrong_uploads_are_not_begun(client: Any, tmp_path: Path, change: dict[str, str], status: int) -> None:
    headers = {name: value.encode() for name, value in (TUS | {"Upload-Length": "5"} | change).items()}
    refused = client.post("/v1/uploads", headers=headers)
    assert refused.status_code == status
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["tus-resumable"] == "1.0.0"
    assert files_in(tmp_path / "store" / "uploads") == []


def test_wrong_parts_are_refused(client: Any) -> None:
    address = begin_upload(client, 10).headers["location"]
    assert send_part(client, address, 0, b"01234").status_code == 204
    refused = send_part(client, address, 3, b"34")
    assert (refused.status_code, refused.headers["upload-offset"]) == (409, "5")
    for change, status in (
        ({"Content-Type": "video/mp4"}, 415),
        ({"Upload-Offset": "five"}, 400),
        ({"Tus-Resumable": "2.0.0"}, 412),
    ):
        assert send_part(client, address, 5, b"56789", **change).status_code == status
    assert offset_of(client, address) == 5
    assert send_part(client, address, 5, b"56789").status_code == 204
    assert send_part(client, address, 10, b"").status_code == 204
    assert send_part(client, address, 10, b"0").status_code == 413


@pytest.mark.parametrize("identifier", NO_UPLOADS)
def test_what_is_no_upload_is_not_found(client: Any, identifier: str) -> None:
    address = f"/v1/uploads/{identifier}"
    assert client.head(address, headers=TUS).status_code == 404
    assert send_part(client, address, 0, b"x").status_code == 404
    assert client.delete(address, headers=TUS).status_code == 404
    assert client.post("/v1/jobs", json={"upload": identifier}).status_code == 404


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b"{", b'{"scale": 2}', b'"upload"', b"\xff"])
def test_a_job_of_json_has_an_upload(client: Any, body: bytes) -> None:
    refused = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    long = client.post("/v1/jobs", json={"upload": "x" * 70_000})
    assert long.status_code == 413


def test_other_methods_can_be_named_in_a_header(client: Any) -> None:
    address = begin_upload(client, 3).headers["location"]
    headers = {"X-HTTP-Method-Override": "PATCH", "Content-Type": "application/offset+octet-stream"}
    assert client.post(address, content=b"abc", headers=TUS | headers | {"Upload-Offset": "0"}).status_code == 204
    assert client.post(address, headers=TUS | {"X-HTTP-Method-Override": "DELETE"}).status_code == 204
    assert client.post(address, headers=TUS).status_code == 405
    assert client.head(address, headers=TUS).status_code == 404


def test_one_byte_over_the_limit(tmp_path: Path) -> None:
    with serving(tmp_path, workers=0, most_upload_bytes=1000) as client:
        assert begin_upload(client, 1001).status_code == 413
        assert files_in(tmp_path / "store" / "uploads") == []
        address = begin_upload(client, 1000).headers["location"]
        assert send_part(client, address, 0, bytes(1001)).status_code == 413
        chunks = (bytes(100) for _ in range(11))
        assert send_part(client, address, 0, chunks).status_code == 413, "a body without a declared length is counted"
        assert offset_of(client, address) == 0, "nothing is left of a body that is refused"
        assert send_part(client, address, 0, bytes(1000)).status_code == 204


def test_uploads_need_the_token(tmp_path: Path) -> None:
    with serving(tmp_path, workers=0, host="0.0.0.0", token="a-token-of-some-length") as client:
        for answer in (begin_upload(client, 3), client.head("/v1/uploads/x"), client.options("/v1/uploads")):
            assert answer.status_code == 401
        assert begin_upload(client, 3, Authorization="Bearer a-token-of-some-length").status_code == 201


def test_unfinished_uploads_are_limited_and_their_space_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = UploadStore(tmp_path / "uploads", keep_s=60)
    first = store.create(1000, "", most=2)
    with pytest.raises(Problem, match="unfinished"):
        store.create(1000, "", most=1)
    usage = type("Usage", (), {"free": 4 * 1999})
    monkeypatch.setattr(uploads.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(Problem, match="no space"):
        store.create(1000, "", most=2)
    first.path.write_bytes(bytes(1))
    assert store.create(1000, "", most=2).length == 1000


def test_old_uploads_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    store = UploadStore(folder, keep_s=60)
    old, new, written = (store.create(1000, "", most=9) for _ in range(3))
    (folder / "half-made").mkdir()
    for upload in (old, written):
        os.utime(upload.path, (1, 1))
    with store.writing(written.id):
        store.delete_expired(time.time())
    assert sorted(path.name for path in folder.iterdir()) == sorted([new.id, written.id, "half-made"])
    store.delete_expired(time.time() + 61)
    assert list(folder.iterdir()) == []


def test_the_server_sweeps_uploads(tmp_path: Path) -> None:
    with serving(tmp_path, workers=0, keep_s=0) as client:
        address = begin_upload(client, 3).headers["location"]
    with serving(tmp_path, workers=0, keep_s=0) as client:
        wait_until(lambda: client.head(address, headers=TUS).status_code == 404)


def test_a_full_disk_leaves_nothing_half_written(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = begin_upload(client, 100).headers["location"]
    assert send_part(client, address, 0, bytes(10)).status_code == 204
    with monkeypatch.context() as patched:

        def full(_: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patched.setattr(uploads, "sync_file", full)
        refused = client.post("/v1/jobs", content=clip_of(tmp_path))
        assert (refused.status_code, refused.json()["title"]) == (507, "disk-full")
        assert list((tmp_path / "store" / "jobs").iterdir()) == []
    with monkeypatch.context() as patched:
        patched.setattr(uploads.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 399}))
        assert begin_upload(client, 100).status_code == 507
        assert client.post("/v1/jobs", content=bytes(100)).status_code == 507
    assert len(list((tmp_path / "store" / "uploads").iterdir())) == 1


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="the small disk is a tmpfs")
def test_a_small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "FREE_SHARE", 0)
    with small_disk(tmp_path / "store", "1m"), serving(tmp_path, workers=0) as client:
        address = begin_upload(client, 4 << 20).headers["location"]
        assert send_part(client, address, 0, bytes(1000)).status_code == 204
        refused = send_part(client, address, 1000, bytes((4 << 20) - 1000))
        assert (refused.status_code, refused.json()["title"]) == (507, "disk-full")
        assert offset_of(client, address) == 1000, "what was there before is still there"
        assert client.post("/v1/jobs", content=bytes(2 << 20)).status_code == 507
        assert list((tmp_path / "store" / "jobs").iterdir()) == []
        assert send_part(client, address, 1000, bytes(1000)).status_code == 204


@contextmanager
def started_part(client: httpx2.Client, address: str, offset: int, length: int, begin: bytes) -> Iterator[Any]:
    """Begin to send a part of an upload, and yield the connection."""
    connection = http.client.HTTPConnection("127.0.0.1", client.base_url.port or 80, timeout=20)
    connection.putrequest("PATCH", address)
    for name, value in (PATCH | {"Upload-Offset": str(offset), "Content-Length": str(length)}).items():
        connection.putheader(name, value)
    connection.endheaders(begin)
    try:
        yield connection
    finally:
        connection.close()


def test_one_of_two_writers_wins(tmp_path: Path) -> None:
    content = os.urandom(200_000)
    with listening(tmp_path, workers=0) as client:
        address = begin_upload(client, 200_000).headers["location"]
        (data,) = (tmp_path / "store" / "uploads").rglob("data")
        with started_part(client, address, 0, 200_000, content[:100_000]) as first:
            wait_until(lambda: data.stat().st_size)
            assert send_part(client, address, data.stat().st_size, b"other bytes").status_code == 423
            assert send_part(client, address, 0, b"other bytes").status_code == 423
            first.send(content[100_000:])
            assert first.getresponse().status == 204
        assert send_part(client, address, 0, b"other bytes").status_code == 409
        assert data.read_bytes() == content


def test_a_client_that_goes_away_or_stops_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_IDLE_S", 0.5)
    content = os.urandom(300_000)
    with listening(tmp_path, workers=0) as client:
        address = begin_upload(client, len(content)).headers["location"]
        with started_part(client, address, 0, 300_000, content[:200_000]):
            pass  # the connection ends
        wait_until(lambda: offset_of(client, address) == 200_000)
        with started_part(client, address, 200_000, 100_000, content[200_000:200_100]) as idle:
            assert idle.getresponse().status == 408
        assert offset_of(client, address) == 200_100
        assert send_part(client, address, 200_100, content[200_100:]).status_code == 204
        (data,) = (tmp_path / "store" / "uploads").rglob("data")
        assert data.read_bytes() == content


def test_an_upload_survives_a_server_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, uvicorn\n"
        "from pathlib import Path\n"
        "from stvsr.engine.serving.app import make_app\n"
        "from stvsr.engine.serving.settings import Settings\n"
        "app = make_app(Settings(Path(sys.argv[1])), [])\n"
        "server = uvicorn.Server(uvicorn.Config(app, port=0, log_level='warning'))\n"
        "started = server.startup\n"
        "async def startup(sockets=None):\n"
        "    await started(sockets)\n"
        "    print(server.servers[0].sockets[0].getsockname()[1], flush=True)\n"
        "server.startup = startup\n"
        "server.run()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    content, address = os.urandom(100_000), ""
    for ends in (False, True):
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                if ends:
                    there = offset_of(client, address)
                    assert 40_000 <= there <= 80_000
                    assert send_part(client, address, there, content[there:]).status_code == 204
                    continue
                address = begin_upload(client, len(content)).headers["location"]
                assert send_part(client, address, 0, content[:40_000]).status_code == 204
                with started_part(client, address, 40_000, 60_000, content[40_000:80_000]):
                    server.send_signal(signal.SIGKILL)
        finally:
            server.kill()
            server.wait()
    (data,) = (tmp_path / "store" / "uploads").rglob("data")
    assert data.read_bytes() == content
