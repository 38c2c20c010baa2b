"""The scheduler: what it stores and logs when workers finish tasks, end and are lost, and how it ends."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from stvsr import UpscaleRequest
from stvsr.engine.pipeline import remote_executor
from stvsr.engine.pipeline.remote_executor import RemoteExecutor, TaskEndedWorkerError, WorkerLostError
from stvsr.engine.pipeline.tasks import PROGRESS, Failure
from stvsr.engine.serving.jobs import Job, JobStore
from stvsr.engine.serving.scheduler import Scheduler

from tests.support.executors import ScriptedRunner, outline_of


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobStore]:
    with JobStore(tmp_path) as opened:
        yield opened


@contextmanager
def scheduling(jobs: JobStore, runner: ScriptedRunner, **options: Any) -> Iterator[Scheduler]:
    def request_of(job: Job) -> UpscaleRequest:
        return UpscaleRequest(input=jobs.input_of(job.id), output=jobs.output_of(job.id, "mp4"))

    with Scheduler(jobs, RemoteExecutor([runner]), request_of, **options) as scheduler:
        yield scheduler


def wait_for(jobs: JobStore, identifier: str, **expected: Any) -> Job:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        job = jobs.get(identifier)
        assert job is not None
        if all(getattr(job, name) == value for name, value in expected.items()):
            return job
        time.sleep(0.01)
    raise AssertionError(f"the job is {job}")


def test_progress_is_stored_and_failures_are_logged(jobs: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "stvsr.serving")
    identifier = jobs.create(jobs.new_id(), {}).id
    runner = ScriptedRunner()
    segments: list[tuple[int, float]] = []
    with scheduling(jobs, runner, on_segment=lambda _, frames, seconds: segments.append((frames, seconds))):
        runner.script.put(("survey", (outline_of(48, 12), [])))
        wait_for(jobs, identifier, state="running", frames_total=60, segments_total=2)
        runner.script.put((PROGRESS, 20))
        runner.script.put(("segment", 0))
        wait_for(jobs, identifier, frames_done=48, segments_done=1)
        runner.script.put(("failed", Failure("media", f"{jobs.input_of(identifier)} is damaged.")))
        failed = wait_for(jobs, identifier, state="failed")
    assert failed.error == {"code": "failed", "message": "The video is damaged."}
    assert [frames for frames, _ in segments] == [48]
    assert caplog.messages == ["job started", "segment done", "job failed"]
    assert {record.__dict__["job"] for record in caplog.records} == {identifier}


def test_what_concerns_the_server_alone_is_in_its_log(jobs: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    identifier = jobs.create(jobs.new_id(), {}).id
    runner = ScriptedRunner()
    sentence = "http://10.0.0.7:8000 does not answer: check the address and the server."
    with scheduling(jobs, runner):
        runner.script.put(("failed", Failure("backend", sentence)))
        failed = wait_for(jobs, identifier, state="failed")
    assert failed.error == {
        "code": "failed",
        "message": "The server failed at this video: its log has the reason.",
    }
    assert caplog.records[-1].__dict__["reason"] == sentence


def test_only_deaths_by_a_task_are_held_against_it(
    jobs: JobStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(remote_executor, "_PAUSE_S", 0.0)
    identifier = jobs.create(jobs.new_id(), {}).id
    runner = ScriptedRunner()
    with scheduling(jobs, runner):
        for _ in range(5):
            runner.script.put(WorkerLostError())
        runner.script.put(("survey", (outline_of(48), [])))
        wait_for(jobs, identifier, segments_total=1)
        for _ in range(3):
            runner.script.put(TaskEndedWorkerError("of a fault"))
        failed = wait_for(jobs, identifier, state="failed")
    assert failed.error is not None
    assert failed.error["code"] == "worker-died"
    assert failed.error["message"].startswith("Segment 0 ended its worker 3 times (of a fault)")
    assert caplog.messages == ["worker ended"] * 8 + ["job failed"]


def test_a_running_job_is_queued_and_runs_again_after_a_restart(jobs: JobStore) -> None:
    identifier = jobs.create(jobs.new_id(), {}).id
    jobs.update(identifier, state="running", started=1.0)
    runner = ScriptedRunner()
    with scheduling(jobs, runner, drain_s=0):
        assert wait_for(jobs, identifier, state="running").started == 1.0, "it began before"
        runner.script.put(("survey", (outline_of(48), [])))
        wait_for(jobs, identifier, segments_total=1)


def test_running_tasks_are_finished_when_the_server_ends(jobs: JobStore) -> None:
    identifier = jobs.create(jobs.new_id(), {}).id
    runner = ScriptedRunner()
    with scheduling(jobs, runner):
        runner.script.put(("survey", (outline_of(48, 48), [])))
        wait_for(jobs, identifier, segments_total=2)
        threading.Timer(0.3, lambda: runner.script.put(("segment", 0))).start()
    job = jobs.get(identifier)
    assert job is not None
    assert (job.state, job.segments_done) == ("running", 1), "no other task was begun"


def test_a_task_that_takes_too_long_ends_its_worker(jobs: JobStore) -> None:
    identifier = jobs.create(jobs.new_id(), {}).id
    runner = ScriptedRunner()
    with scheduling(jobs, runner, task_s=0.1):
        failed = wait_for(jobs, identifier, state="failed")
    assert failed.error is not None
    assert "The survey of the video ended its worker 3 times (it was killed)" in failed.error["message"]


def test_a_server_whose_workers_cannot_run_is_not_ready(jobs: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    with scheduling(jobs, ScriptedRunner(RuntimeError("a bug"))) as scheduler:
        until = time.monotonic() + 30
        while "scheduler ended" not in caplog.messages:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert not scheduler.ready
    assert "a bug" in str(caplog.records[-1].exc_info)
