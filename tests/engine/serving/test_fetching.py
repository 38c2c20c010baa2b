"""Videos that clients name by an address: only those are fetched that the operator allows, and within the limits."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import Pipe
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from stvsr import Backend, RequestError

pytest.importorskip("fastapi", reason="stvsr[serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

from stvsr.engine.serving.addresses import connect
from stvsr.engine.serving.fetching import FETCHED, FetchOrder, serve_fetch
from stvsr.engine.serving.settings import Settings

from tests.support.serving import clip_of, serving, wait_for

pytestmark = pytest.mark.usefixtures("models")
CONTENT = bytes(range(256)) * 40


class Site(ThreadingHTTPServer):
    """Answers at /videos/ as the name says, and counts its requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.requests = CONTENT, list[str]()
        self.prefix = f"http://127.0.0.1:{self.server_port}/videos/"


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        name, content = self.path.rpartition("/")[2], self.server.content
        locations = {"moved": "clip.mp4", "away": "/private/clip.mp4", "file": "file:///etc/passwd", "loop": "loop"}
        self.send_response(302 if name in locations else 404 if name == "none" else 200)
        if name in locations:
            self.send_header("Location", locations[name])
        if name not in ("undeclared", "slow"):
            self.send_header("Content-Length", str(2 * len(content) if name == "short" else len(content)))
        self.end_headers()
        if name == "slow":
            for byte in content:
                try:
                    self.wfile.write(bytes([byte]))
                except OSError:
                    return
                time.sleep(0.02)
        else:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as opened:
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


def fetch(site: Site, name: str, path: Path, **options: Any) -> Any:
    """Fetch in this process, and return the message."""
    ours, theirs = Pipe()
    values = {"most_bytes": len(CONTENT), "room_bytes": 1 << 20, "most_s": 20.0, "prefixes": (site.prefix,), **options}
    serve_fetch(FetchOrder(url=site.prefix + name, path=path, **values), theirs, Backend(device="cpu"))
    assert ours.poll()
    return ours.recv()


@pytest.mark.parametrize("name", ["clip.mp4", "moved", "undeclared"])
def test_an_allowed_video_is_fetched(site: Site, tmp_path: Path, name: str) -> None:
    assert fetch(site, name, tmp_path / "clip") == (FETCHED, None)
    assert (tmp_path / "clip").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "options", "status", "words"),
    [
        ("away", {}, 422, "leads to an address from which this server fetches nothing"),
        ("file", {}, 422, "leads to an address from which this server fetches nothing"),
        ("loop", {}, 422, "redirected more than 5 times"),
        ("none", {}, 422, "answered with the status 404"),
        ("short", {"most_bytes": 1 << 20}, 422, f"sent {len(CONTENT)} of {2 * len(CONTENT)} bytes"),
        ("clip.mp4", {"most_bytes": len(CONTENT) - 1}, 413, "larger than"),
        ("undeclared", {"most_bytes": len(CONTENT) - 1}, 413, "larger than"),
        ("clip.mp4", {"room_bytes": len(CONTENT) - 1}, 507, "no space"),
        ("slow", {"most_s": 0.1}, 422, "within 0.1 seconds"),
    ],
)
def test_other_answers_are_refused(
    site: Site, tmp_path: Path, name: str, options: dict[str, Any], status: int, words: str
) -> None:
    _, refusal = fetch(site, name, tmp_path / "clip", **options)
    assert refusal.status == status, refusal
    assert words in refusal.sentence
    assert all(path.startswith("/videos/") for path in site.requests)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_of_a_private_network_is_refused(monkeypatch: pytest.MonkeyPatch, site: Site, scheme: str) -> None:
    """A name may resolve to any address; the operator allows a private one by itself."""
    resolved: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        family = socket.AF_INET6 if ":" in resolved[0] else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 0, "", (resolved[0], port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for address in ("127.0.0.1", "10.0.0.7", "192.168.1.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.7"):
        resolved[:] = [address]
        with pytest.raises(PermissionError, match="private network"):
            connect(urlsplit(f"{scheme}://videos.example.com/clip.mp4"), 0.1).connect()
    resolved[:] = ["127.0.0.1"]
    for host in ("127.0.0.1", "localhost"):
        connection = connect(urlsplit(f"http://{host}:{site.server_port}/"), 5)
        connection.connect()
        connection.close()


@pytest.mark.slow
def test_a_job_of_an_address(site: Site, tmp_path: Path) -> None:
    site.content = clip_of(tmp_path)
    options = {"model": "toy", "scale": 2}
    with serving(tmp_path, url_prefixes=(site.prefix,)) as client:
        created = client.post("/v1/jobs", json={"url": f"{site.prefix}clip.mp4", **options})
        assert created.status_code == 202, created.text
        job = wait_for(client, created.json()["id"])
        assert (job["state"], job["frames_done"]) == ("done", 7)
        site.content = b"no video"
        for body, status, words in (
            ({"url": f"{site.prefix}none"}, 422, "404"),
            ({"url": f"{site.prefix}clip.mp4"}, 400, "the video"),
            ({"url": f"{site.prefix}../private/clip.mp4"}, 422, "fetches nothing from"),
            ({"url": f"{site.prefix}x", "upload": "y"}, 422, "no upload and no url, or both"),
            ({}, 422, "no upload and no url, or both"),
        ):
            refused = client.post("/v1/jobs", json={**body, **options})
            assert refused.status_code == status, refused.text
            assert refused.headers["content-type"] == "application/problem+json"
            assert words in refused.json()["detail"].replace("The video", "the video")
        folders = [path.name for path in (tmp_path / "store" / "jobs").iterdir()]
        assert folders == [job["id"]], "nothing is left of what was refused"
    count = len(site.requests)
    with serving(tmp_path / "other") as client:
        refused = client.post("/v1/jobs", json={"url": f"{site.prefix}clip.mp4", **options})
        assert (refused.status_code, len(site.requests)) == (422, count), "it is off without a prefix"


@pytest.mark.parametrize("prefix", ["example.com", "https://example.com", "file:///videos/", "https://a@b/"])
def test_a_prefix_has_a_host_and_a_path(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(RequestError, match="is no prefix of videos"):
        Settings(tmp_path, url_prefixes=(prefix,))
