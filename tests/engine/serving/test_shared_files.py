"""Files of jobs where workers on other machines find them: in a folder that machines share, or at an address."""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stvsr import RequestError
from stvsr.engine.media.folders import RemoteFolder
from stvsr.engine.serving.jobs import JobStore
from stvsr.engine.serving.settings import Settings

from tests.support.executors import InlineExecutor
from tests.support.media import make_video, pan
from tests.support.objects import object_store, objects_below
from tests.support.toy import write_toy

pytest.importorskip("fastapi", reason="stvsr[serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")
pytest.importorskip("fsspec", reason="fsspec is not installed")

from fastapi.testclient import TestClient
from stvsr.engine.serving.app import make_app

from tests.support.servers import LOCAL


@pytest.fixture(params=["folder", "memory", pytest.param("s3", marks=pytest.mark.slow)])
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "shared" / "files")
    elif request.param == "memory":
        yield f"memory://{secrets.token_hex(4)}"
    else:
        with object_store(monkeypatch) as bucket:
            yield f"{bucket}/jobs"


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a toy network under the name "toy"."""
    monkeypatch.setenv("STVSR_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    write_toy(tmp_path / "models" / "toy")


def names_in(files: str) -> list[str]:
    if "://" in files:
        return objects_below(files)
    return sorted(str(path.relative_to(files)) for path in Path(files).rglob("*") if path.is_file())


def wait_until_ended(client: Any, identifier: str) -> dict[str, Any]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        job: dict[str, Any] = client.get(f"/v1/jobs/{identifier}").json()
        if job["state"] in ("done", "failed"):
            return job
        time.sleep(0.02)
    raise AssertionError("the job does not end")


def test_files_of_jobs_are_where_the_workers_find_them(files: str, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", pan(7)).read_bytes()
    app = make_app(Settings(tmp_path / "store", files=files), [], InlineExecutor(1))
    with TestClient(app, base_url=LOCAL, client=("127.0.0.1", 1)) as client:
        created = client.post("/v1/jobs", content=clip, params={"model": "toy", "scale": 2})
        identifier = created.json()["id"]
        done = wait_until_ended(client, identifier)
        assert (done["state"], done["report"]["frames_out"]) == ("done", 14), done
        assert files not in str(done)
        assert names_in(files) == [f"{identifier}/input", f"{identifier}/result.mp4"]
        result = client.get(done["links"]["result"])
        assert len(result.content) > 1000
        assert client.get(done["links"]["result"], headers={"Range": "bytes=5-9"}).content == result.content[5:10]
        assert client.delete(f"/v1/jobs/{identifier}").status_code == 204
        assert names_in(files) == []
        refused = client.post("/v1/jobs", content=clip, params={"model": "toy", "scale": 9})
        assert refused.status_code == 422
        assert names_in(files) == []


def test_a_store_that_fails_is_a_passing_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_video(tmp_path / "clip.mp4", pan(7)).read_bytes()
    app = make_app(Settings(tmp_path / "store", files="memory://files"), [], InlineExecutor(1))

    def fail(*_: Any) -> None:
        raise OSError(5, "no connection to 10.0.0.1")

    with TestClient(app, base_url=LOCAL, client=("127.0.0.1", 1)) as client, monkeypatch.context() as broken:
        broken.setattr(RemoteFolder, "put", fail)
        refused = client.post("/v1/jobs", content=clip, params={"model": "toy", "scale": 2})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
        assert "10.0.0.1" not in refused.text
        assert list((tmp_path / "store" / "jobs").iterdir()) == []


def test_half_made_jobs_are_swept_everywhere(files: str, tmp_path: Path) -> None:
    with JobStore(tmp_path / "store", files) as jobs:
        made = jobs.create(jobs.new_id(), {}).id
        interrupted = jobs.new_id()
        for identifier in (made, interrupted):
            jobs.input_of(identifier).write_bytes(b"video")
            jobs.share(identifier)
    with JobStore(tmp_path / "store", files) as jobs:
        jobs.sweep()
        assert names_in(files) == [f"{made}/input"]
        assert str(jobs.for_workers(jobs.input_of(made))) == f"{files}/{made}/input"


def test_an_address_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nothing://x cannot be opened"):
        JobStore(tmp_path / "store", "nothing://x")
