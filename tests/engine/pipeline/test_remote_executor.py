"""Workers that are elsewhere: what becomes of their tasks when they end, are lost or cannot run."""

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path

import pytest
from stvsr import Backend, BackendError, UpscaleRequest
from stvsr.engine.pipeline import executor as executor_module
from stvsr.engine.pipeline import remote_executor
from stvsr.engine.pipeline.executor import ENDED, LOST, LocalExecutor, Message
from stvsr.engine.pipeline.remote_executor import (
    RemoteExecutor,
    StreamedRunner,
    TaskEndedWorkerError,
    WorkerLostError,
)
from stvsr.engine.pipeline.tasks import PROGRESS, Task
from stvsr.engine.pipeline.worker import Worker

from tests.support.executors import ScriptedRunner, end_after_a_task


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_executor, "_PAUSE_S", 0.0)


def task(number: int = 0) -> Task:
    return Task("video", "segment", UpscaleRequest(input="clip.mp4"), number)


def next_messages(executor: RemoteExecutor, count: int = 1) -> list[Message]:
    found: list[Message] = []
    for _ in range(100):
        found += executor.messages(0.1)
        if len(found) >= count:
            break
    assert len(found) == count
    return found


def wait_until_ready(executor: RemoteExecutor) -> None:
    for _ in range(100):
        if all(worker.ready for worker in executor.workers):
            return
        list(executor.messages(0.1))
    raise AssertionError("the workers are not ready")


def test_messages_come_from_every_worker() -> None:
    runners = [ScriptedRunner(), ScriptedRunner()]
    with RemoteExecutor(runners) as executor:
        wait_until_ready(executor)
        for number, worker in enumerate(executor.workers):
            worker.start(task(number))
        runners[1].script.put((PROGRESS, 3))
        (message,) = next_messages(executor)
        assert (message.worker, message.task.number, message.kind, message.value) == (
            executor.workers[1], 1, PROGRESS, 3
        )  # fmt: skip
        assert executor.workers[1].task is not None
        for number, runner in enumerate(runners):
            runner.script.put(("segment", number))
        assert sorted(message.value for message in next_messages(executor, 2)) == [0, 1]
        assert [worker.task for worker in executor.workers] == [None, None]


@pytest.mark.parametrize(
    ("error", "kind", "value"),
    [(TaskEndedWorkerError("of a fault"), ENDED, "of a fault"), (WorkerLostError(), LOST, None)],
)
def test_a_worker_that_ends_gives_its_task_back_and_runs_again(error: Exception, kind: str, value: str | None) -> None:
    runner = ScriptedRunner()
    with RemoteExecutor([runner]) as executor:
        wait_until_ready(executor)
        executor.workers[0].start(task())
        runner.script.put(error)
        (message,) = next_messages(executor)
        assert (message.kind, message.value) == (kind, value)
        wait_until_ready(executor)
        executor.workers[0].start(task(7))
        runner.script.put(("segment", 7))
        assert next_messages(executor)[0].value == 7
        assert runner.opened == 2


@pytest.mark.parametrize("error", [TaskEndedWorkerError("late"), WorkerLostError()])
def test_a_worker_that_ends_behind_its_last_message_has_done_its_task(error: Exception) -> None:
    runner = ScriptedRunner()
    runner.after = error
    with RemoteExecutor([runner]) as executor:
        for number in range(3):
            wait_until_ready(executor)
            executor.workers[0].start(task(number))
            runner.script.put(("segment", number))
            (message,) = next_messages(executor)
            assert (message.kind, message.value) == ("segment", number)
            while runner.opened < number + 2:
                assert list(executor.messages(0.1)) == []


def test_a_process_that_ends_behind_its_last_message_has_done_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "_do_tasks", end_after_a_task)
    with LocalExecutor([Backend(device="cpu")]) as executor:
        for number in range(3):
            executor.workers[0].start(task(number))
            assert [message.value for message in executor.messages(300)] == [number]
            assert list(executor.messages(2)) == [], "its end is no message"


def test_workers_end_if_another_one_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[Worker] = []

    @contextmanager
    def only_one(worker: Worker) -> Iterator[None]:
        if running:
            raise OSError(errno.EAGAIN, "no more processes")
        running.append(worker)
        try:
            yield
        finally:
            running.remove(worker)

    monkeypatch.setattr(Worker, "running", only_one)
    executor = LocalExecutor([Backend(device="cpu")] * 2)
    with pytest.raises(OSError, match="no more processes"):
        executor.__enter__()
    assert running == []


def test_a_worker_ends_quietly_if_nobody_reads_its_last_messages() -> None:
    ours, theirs = Pipe()
    theirs.send(("segment", 0))
    ours.close()
    executor_module._do_tasks(None, theirs, Backend(device="cpu"))


def test_a_worker_can_be_killed() -> None:
    runner = ScriptedRunner()
    with RemoteExecutor([runner]) as executor:
        wait_until_ready(executor)
        executor.workers[0].start(task())
        executor.workers[0].kill()
        assert next_messages(executor)[0].kind == ENDED


def test_an_idle_worker_that_dies_runs_again_before_it_gets_a_task() -> None:
    runner = ScriptedRunner()
    with RemoteExecutor([runner]) as executor:
        wait_until_ready(executor)
        for opened in range(2, 5):
            runner.die()
            while runner.opened < opened:
                list(executor.messages(0.1))
        wait_until_ready(executor)
        executor.workers[0].start(task())
        runner.script.put(("segment", 0))
        assert next_messages(executor)[0].kind == "segment"


def test_a_task_for_a_worker_that_is_gone_is_given_back() -> None:
    waiting = threading.Event()

    class Slow(ScriptedRunner):
        def open(self, on_death: Callable[[], None]) -> None:
            if self.opened:
                waiting.wait()  # the cluster has no room
            super().open(on_death)

    runner = Slow()
    with RemoteExecutor([runner]) as executor:
        wait_until_ready(executor)
        runner.die()
        while executor.workers[0].ready:
            pass
        executor.workers[0].start(task())
        assert next_messages(executor)[0].kind == LOST
        assert executor.workers[0].task is None
        waiting.set()


def test_a_worker_that_cannot_start_yet_is_tried_again_and_one_that_never_can_is_an_error() -> None:
    runner = ScriptedRunner(WorkerLostError(), WorkerLostError(), None)
    with RemoteExecutor([runner]) as executor:
        wait_until_ready(executor)
    with (
        RemoteExecutor([ScriptedRunner(BackendError("no stvsr there"))]) as executor,
        pytest.raises(BackendError, match="no stvsr there"),
    ):
        list(executor.messages(10))


def test_a_wait_can_be_ended() -> None:
    with RemoteExecutor([ScriptedRunner()]) as executor:
        wait_until_ready(executor)
        threading.Timer(0.1, executor.wake).start()
        assert list(executor.messages()) == []


def test_a_streamed_runner_yields_the_messages_of_a_task(clip: Path, toy: Path, tmp_path: Path) -> None:
    request = UpscaleRequest(input=clip, output=tmp_path / "out.mp4", model=toy, scale=1)
    runner = StreamedRunner(Backend(device="cpu", threads=1))
    ((kind, surveyed),) = runner.run(Task("video", "survey", request))
    assert (kind, surveyed.outline.lengths, surveyed.finished) == ("survey", (7,), [])
    assert (surveyed.units, surveyed.learned) == ((), ()), "nothing is learned"
    assert list(runner.run(Task("video", "segment", request, 0)))[-1] == ("segment", 0)
    ((kind, report),) = runner.run(Task("video", "join", request, began=1.0))
    assert (kind, report.frames_out) == ("join", 14)
    (failed,) = runner.run(Task("other", "survey", UpscaleRequest(input="none.mp4", output=tmp_path / "b.mp4")))
    assert failed[0] == "failed"
    assert failed[1].code == "media"
    assert "none.mp4" in failed[1].sentence
    with pytest.raises(AttributeError):  # a bug is no message
        list(runner.run("no task"))  # type: ignore[arg-type]
    runner.close()
    runner.close()
