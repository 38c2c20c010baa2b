"""Who may use a server, and errors that are always problems."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="stvsr[serve] is not installed")
pytest.importorskip("httpx2", reason="stvsr[client] is not installed")

from fastapi.testclient import TestClient
from stvsr.engine.media.reader import open_reader
from stvsr.engine.serving.jobs import JobStore

from tests.support.servers import app_of
from tests.support.serving import clip_of, post, serving, wait_for

pytestmark = pytest.mark.usefixtures("models")
TOKEN = "a-token-of-some-length"
OTHER = "http://example.com"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("127.0.0.5", 200),
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("example.com", 421),
        ("127.0.0.1.example.com:8000", 421),
        ("localhost.example.com", 421),
        ("192.168.0.7:8000", 421),
        ("127.0.0.1@example.com", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_without_a_token_a_server_answers_to_its_own_machine_alone(tmp_path: Path, host: str, status: int) -> None:
    """Names of others may resolve to this machine."""
    with serving(tmp_path) as client:
        for path in ("/v1/jobs", "/"):
            assert client.get(path, headers={"Host": host}).status_code == status
        refused = client.get("/v1/jobs", headers={"Host": "example.com"})
    assert refused.headers["content-type"] == "application/problem+json"
    assert "start it with a token" in refused.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": OTHER},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1234"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_others_change_nothing(tmp_path: Path, headers: dict[str, str]) -> None:
    with serving(tmp_path) as client:
        refused = client.post("/v1/jobs", params={"model": "toy"}, content=clip_of(tmp_path), headers=headers)
        assert refused.status_code == 403, refused.text
        assert "Pages of other servers" in refused.json()["detail"]
        assert client.delete("/v1/jobs/x", headers=headers).status_code == 403
        assert client.get("/v1/jobs", headers=headers).json()["jobs"] == []


def test_a_page_of_the_server_and_programs_use_it(tmp_path: Path) -> None:
    own = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    with serving(tmp_path) as client:
        content = clip_of(tmp_path)
        for headers in (own, {}):
            created = client.post("/v1/jobs", params={"model": "toy"}, content=content, headers=headers)
            assert created.status_code == 202, created.text


def test_with_a_token_any_name_is_answered(tmp_path: Path) -> None:
    with TestClient(app_of(tmp_path, host="0.0.0.0", token=TOKEN), base_url="http://video.example.com") as client:
        assert client.get("/v1/jobs").status_code == 401
        assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v1/jobs?limit=0", 422, "limit: input should be greater than or equal to 1"),
        ("GET", "/v1/jobs?cursor=x", 422, "cursor: "),
        ("GET", "/v1/none", 404, "nothing at this address"),
        ("PUT", "/v1/jobs", 405, "takes no PUT requests"),
    ],
)
def test_every_error_is_a_problem(tmp_path: Path, method: str, path: str, status: int, words: str) -> None:
    with serving(tmp_path) as client:
        answer = client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert words in answer.json()["detail"]
    assert ("allow" in answer.headers) == (status == 405)


def test_a_fault_of_the_server_is_a_problem_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("a secret of the server")

    monkeypatch.setattr(JobStore, "page", broken)
    with TestClient(app_of(tmp_path), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        answer = client.get("/v1/jobs")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in answer.text


def test_a_part_of_a_video_is_upscaled_in_slow_motion(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        created = post(client, clip_of(tmp_path), start="0:00.1", frames=3, slowmo="2.5")
        job = wait_for(client, created.json()["id"])
        assert (job["state"], job["frames_done"]) == ("done", 3), job
        (tmp_path / "result.mp4").write_bytes(client.get(f"/v1/jobs/{job['id']}/result").content)
    with open_reader(tmp_path / "result.mp4") as reader:
        assert len(list(reader)) == 8
