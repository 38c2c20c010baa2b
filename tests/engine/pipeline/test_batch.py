"""Batches: which worker does which task, and what happens when workers end."""

from pathlib import Path
from typing import Any

import pytest
from stvsr import Backend, UpscaleRequest, upscale
from stvsr.engine.pipeline import resume
from stvsr.engine.pipeline.batch import split_cpu, upscale_batch

from tests.support.equal_files import assert_equal_files
from tests.support.executors import InlineExecutor
from tests.support.media import make_video, pan

OPTIONS: dict[str, Any] = {"scale": 1, "encoder_options": {"qp": "0"}}
LENGTHS = {"long": 30, "short": 5}  # frames

# Segments of eight frames.
pytestmark = pytest.mark.usefixtures("short_segments")


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "SEGMENT_S", 0.1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [make_video(folder / f"{name}.mp4", pan(count)) for name, count in LENGTHS.items()]


def requests(clips: list[Path], folder: Path, toy: Path) -> list[UpscaleRequest]:
    return [UpscaleRequest(input=clip, output=folder / clip.name, model=toy, **OPTIONS) for clip in clips]


def test_idle_workers_help_with_the_segments_of_others(clips: list[Path], toy: Path, tmp_path: Path) -> None:
    executor = InlineExecutor(2)
    seen: list[tuple[int, int, int | None]] = []
    outcomes = upscale_batch(requests(clips, tmp_path, toy), executor, lambda *progress: seen.append(progress))
    assert [outcome.report and outcome.report.frames_out for outcome in outcomes] == [60, 10]
    workers_of = {name: {worker for worker, key in executor.done if key[0] == name} for name in ("0", "1")}
    assert workers_of == {"0": {0, 1}, "1": {1}}, "each begins a video of its own"
    assert [key[1:] for _, key in executor.done if key[0] == "0"] == [
        ("survey", 0), ("segment", 0), ("segment", 1), ("segment", 2), ("segment", 3), ("join", 0)
    ]  # fmt: skip
    assert [done for number, done, _ in seen if number == 0][-1] == 30
    assert {total for number, _, total in seen if number == 1} == {5}
    for clip in clips:
        upscale(UpscaleRequest(input=clip, output=tmp_path / "whole.mp4", model=toy, overwrite=True, **OPTIONS))
        assert_equal_files(tmp_path / clip.name, tmp_path / "whole.mp4")


@pytest.mark.parametrize("key", [("0", "survey", 0), ("0", "segment", 2), ("0", "join", 0)])
def test_a_task_that_ends_its_workers_fails_its_video_alone(
    clips: list[Path], toy: Path, tmp_path: Path, key: Any
) -> None:
    outcomes = upscale_batch(requests(clips, tmp_path, toy), InlineExecutor(2, deaths={key: 3}))
    assert outcomes[0].error is not None
    assert "ended its worker 3 times (exit code -9)" in outcomes[0].error
    assert outcomes[1].report is not None
    again = upscale_batch(requests(clips[:1], tmp_path, toy), InlineExecutor(1, deaths={key: 2}))
    assert again[0].report is not None, "twice is not too often"
    assert again[0].report.frames_out == 60


@pytest.mark.parametrize("key", [("0", "survey", 0), ("0", "segment", 0), ("0", "join", 0)])
def test_tasks_of_lost_workers_are_done_again(clips: list[Path], toy: Path, tmp_path: Path, key: Any) -> None:
    """A machine may go after it did a task and before the message of it, even after it published the output."""
    executor = InlineExecutor(2, losses={key: 2})
    (outcome,) = upscale_batch(requests(clips[:1], tmp_path, toy), executor)
    assert outcome.report is not None
    assert outcome.report.frames_out == 60
    assert [path.name for path in tmp_path.iterdir()] == ["long.mp4"]


def test_finished_segments_of_an_earlier_batch_are_no_tasks(clips: list[Path], toy: Path, tmp_path: Path) -> None:
    stopped = upscale_batch(requests(clips[:1], tmp_path, toy), InlineExecutor(1, deaths={("0", "segment", 2): 3}))
    assert stopped[0].error is not None
    (tmp_path / ".long.mp4.stvsr" / "000001.mkv").write_bytes(b"damaged")
    executor = InlineExecutor(1)
    (outcome,) = upscale_batch(requests(clips[:1], tmp_path, toy), executor)
    assert outcome.report is not None
    assert outcome.report.frames_out == 60
    assert [key[1:] for _, key in executor.done] == [("survey", 0), ("segment", 2), ("segment", 3), ("join", 0)]
    upscale(UpscaleRequest(input=clips[0], output=tmp_path / "whole.mp4", model=toy, **OPTIONS))
    assert_equal_files(tmp_path / "long.mp4", tmp_path / "whole.mp4")


def test_no_videos_are_no_work() -> None:
    assert upscale_batch([]) == []


def test_workers_share_the_threads_of_the_cpu() -> None:
    assert split_cpu(Backend(device="cpu", threads=3), 1) == [Backend(device="cpu", threads=3)]
    assert [backend.threads for backend in split_cpu(Backend(device="cuda:0"), 2)] == [None, None]
    assert [backend.threads for backend in split_cpu(Backend(device="cpu", threads=3), 2)] == [3, 3]
    for backend in (Backend("tensorrt"), Backend("remote", url="http://127.0.0.1:8000")):  # which take no threads
        assert split_cpu(backend, 2) == [backend, backend]
