"""Jobs that adapt the network to each scene: allowed by the operator, followed by clients, documented."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from stvsr import Backend, RequestError
from stvsr.engine.pipeline.executor import LocalExecutor
from stvsr.engine.serving.jobs import JobStore
from stvsr.engine.serving.settings import Settings

from tests.support.learners import QuickLearner
from tests.support.media import make_video, pan
from tests.support.toy import write_toy

pytest.importorskip("fastapi", reason="stvsr[serve] is not installed")

from fastapi.testclient import TestClient
from stvsr.engine.serving.app import make_app
from stvsr.engine.serving.requests import JobOptions, adapt_settings, limited_adaptation

from tests.support.servers import LOCAL
from tests.support.serving import clip_of, post, serving, wait_for

CPU = Backend(device="cpu", threads=1)


@pytest.fixture
def bright(models: Path) -> str:
    """Install the toy with weights that can be learned."""
    if not (models.parent / "bright").exists():
        write_toy(models.parent / "bright", name="bright", integer=True)
    return "bright"


def test_a_job_adapts_to_each_scene(bright: str, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", [*pan(8), *(1 - frame for frame in pan(7))]).read_bytes()
    app = make_app(Settings(tmp_path / "store", adapt_s=5), [CPU], LocalExecutor([CPU], QuickLearner))
    with TestClient(app, base_url=LOCAL, client=("127.0.0.1", 1)) as client:
        plain = wait_for(client, post(client, clip, model=bright).json()["id"])
        created = post(client, clip, model=bright, adapt="true", adapt_per="scene", adapt_seconds=2).json()
        assert created["options"]["adapt"] is True
        events = client.get(created["links"]["events"]).text
        done = wait_for(client, created["id"])
        assert (done["state"], done["scenes_done"], done["scenes_total"]) == ("done", 2, 2), done["error"]
        assert '"scenes_done": 2, "scenes_total": 2' in events.partition("event: done")[2]
        assert [record["unit"] for record in done["report"]["adaptation"]] == [0, 1]
        assert plain["scenes_total"] is None
        assert client.get(plain["links"]["result"]).content != client.get(done["links"]["result"]).content
        too_long = post(client, clip, model=bright, adapt="true", adapt_seconds=6)
        assert (too_long.status_code, too_long.headers["content-type"]) == (422, "application/problem+json")
        assert too_long.json()["detail"] == "This server learns a scene for at most 5 s: lower adapt_seconds."
        documented = client.get("/v1/openapi.json").json()["paths"]["/v1/jobs"]["post"]
        query = {parameter["name"]: parameter for parameter in documented["parameters"] if parameter["in"] == "query"}
        del query["access"]  # of every route
        assert query.keys() == JobOptions.model_fields.keys()
        in_json = documented["requestBody"]["content"]["application/json"]["schema"]["properties"]
        assert in_json.keys() == {"upload", "url", *query}
        assert "where the server allows it" in in_json["adapt"]["description"]


def test_it_is_off_unless_the_operator_allows_it(models: Path, tmp_path: Path) -> None:
    clip = clip_of(tmp_path)
    with serving(tmp_path) as client:
        refused = post(client, clip, adapt="true")
        assert refused.status_code == 422
        assert refused.json()["detail"] == "This server adapts no networks to videos: leave out adapt."
        refused = post(client, clip, adapt_steps=3)
        assert "adapt_steps has no effect without adapt" in refused.json()["detail"]
        assert client.get("/v1/jobs").json()["jobs"] == []
    for seconds in (0, 600):
        with pytest.raises(RequestError, match="A scene is learned for"):
            Settings(tmp_path, adapt_s=seconds)


@pytest.mark.parametrize(
    ("options", "most", "steps", "seconds"),
    [
        ({}, 30, None, None),
        ({}, 8, None, 8),
        ({"adapt_steps": 4}, 30, 4, 30),
        ({"adapt_seconds": 3}, 30, None, 3),
    ],
)
def test_learning_has_limits(options: dict[str, Any], most: float, steps: int, seconds: float) -> None:
    """Without a choice the learner's own budget holds, if it is within the limit."""
    settings = adapt_settings(limited_adaptation(JobOptions(adapt=True, **options), most))
    assert settings is not None
    assert (settings.per, settings.steps, settings.seconds) == ("scene", steps, seconds)
    assert adapt_settings(limited_adaptation(JobOptions(), most)) is None


def test_a_database_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    with JobStore(tmp_path) as store:
        identifier = store.create(store.new_id(), {}).id
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as database:
        for column in ("scenes_done", "scenes_total"):
            database.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
    with JobStore(tmp_path) as store:
        job = store.get(identifier)
        assert job is not None
        assert (job.scenes_done, job.scenes_total) == (0, None)
        store.update(identifier, scenes_done=1, scenes_total=2)
        assert store.get(identifier).scenes_total == 2  # type: ignore[union-attr]
