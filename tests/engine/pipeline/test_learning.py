"""Adapted weights of scenes: learned beside a run or before it, kept in the store of one that is resumed, as tasks."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from stvsr import Backend, BackendError, Bundle, CancelledError, RequestError, UpscaleRequest, upscale
from stvsr.engine.pipeline.adaptation import Adapting, AdaptSettings, SceneAdaptation
from stvsr.engine.pipeline.learning import BackgroundLearner, share_threads
from stvsr.engine.pipeline.outline import Outline
from stvsr.engine.pipeline.report import Report
from stvsr.engine.pipeline.resume import upscale_resumable
from stvsr.engine.pipeline.task_runner import TaskRunner
from stvsr.engine.pipeline.tasks import Surveyed, Task
from stvsr.engine.pipeline.video_tasks import VideoTasks

from tests.support.equal_files import assert_equal_files
from tests.support.learners import KnownLearner, QuickLearner, with_eighth
from tests.support.media import make_video, pan
from tests.support.toy import write_toy

CPU = Backend(device="cpu", threads=1)
SCENES = AdaptSettings("scene")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("bundles") / "toy", integer=True)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of three scenes; the last one has two frames, and is not learned."""
    frames = [*pan(9), *(1 - frame for frame in pan(7)), *pan(2)]
    return make_video(tmp_path_factory.mktemp("clips") / "clip.mp4", frames)


def request(clip: Path, model: Path, output: Path) -> UpscaleRequest:
    lossless = {"qp": "0", "preset": "ultrafast"}
    return UpscaleRequest(
        input=clip, output=output, model=model, scale=2, time_factor=1, backend=CPU, encoder_options=lossless
    )


def learning_here(settings: AdaptSettings = SCENES, calls: list[int] | None = None) -> Adapting:
    """Return an adaptation in this process; the units that are learned are appended to `calls`."""

    class Counted(QuickLearner):
        def learn(self, unit: int, cancel: Event | None = None) -> Any:
            if calls is not None:
                calls.append(unit)
            return super().learn(unit, cancel)

    return Adapting(
        settings, lambda request, folder: Counted(request, settings, folder, lambda *_: None, lambda _: None)
    )


def adapted(wanted: UpscaleRequest, adapting: Adapting) -> Report:
    with SceneAdaptation(wanted, adapting) as adaptation:
        return upscale(wanted, adaptation=adaptation)


@pytest.fixture(scope="module")
def expected(toy: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The file and the report of a run whose scenes were all learned first."""
    folder = tmp_path_factory.mktemp("expected")
    quiet = (lambda *_: None, lambda _: None)
    with QuickLearner(request(scenes, toy, folder / "x.mp4"), SCENES, folder, *quiet) as learner:
        learned = [one.bundles for unit in range(3) if (one := learner.learn(unit)) is not None]
    assert [len(bundles) for bundles in learned] == [1, 1, 0]
    output = folder / "out.mp4"
    return output, adapted(request(scenes, toy, output), Adapting(SCENES, lambda *_: KnownLearner(learned)))


def test_one_scene_is_learned_ahead(toy: Path, scenes: Path, tmp_path: Path) -> None:
    learner = KnownLearner([(with_eighth(Bundle.load(toy), 0.5, tmp_path / "b"),), (), ()])
    report = adapted(request(scenes, toy, tmp_path / "out.mp4"), Adapting(SCENES, lambda *_: learner, True))
    assert learner.calls == [(what, n + (what == "begin")) for n in range(3) for what in ("learn", "begin")] + [
        ("close", 0)
    ]
    assert [record["kept"] for record in report.adaptation] == [True, False, False]
    video = KnownLearner([()])
    report = adapted(request(scenes, toy, tmp_path / "video.mp4"), Adapting(AdaptSettings(), lambda *_: video))
    assert video.calls == [("learn", 0), ("close", 0)]
    assert len(report.adaptation) == 1


def test_what_a_process_learns_is_what_was_learned_before(
    toy: Path, scenes: Path, tmp_path: Path, expected: tuple[Path, Report]
) -> None:
    steps: list[tuple[int, float, int]] = []
    sentences: list[str] = []

    def open_beside(wanted: UpscaleRequest, folder: Path) -> BackgroundLearner:
        on_step = lambda *step: steps.append(step)  # noqa: E731
        return BackgroundLearner(QuickLearner, wanted, SCENES, folder, on_step, sentences.append)

    report = adapted(request(scenes, toy, tmp_path / "out.mp4"), Adapting(SCENES, open_beside, True))
    assert_equal_files(tmp_path / "out.mp4", expected[0])
    assert report.adaptation == expected[1].adaptation
    assert sentences == [f"Scene {number} is learned." for number in (1, 2, 3)]
    assert steps[0] == (0, 1.0, 3)


def test_a_process_that_cannot_learn_ends_the_run(toy: Path, scenes: Path, tmp_path: Path) -> None:
    wanted = request(scenes, toy, tmp_path / "out.mp4")
    cases: list[tuple[int, type[Exception], str]] = [
        (-1, RequestError, "The seed is -1: give another"),
        (-2, BackendError, r"has ended \(exit code 7\), perhaps for lack of memory"),
    ]
    for seed, kind, sentence in cases:
        settings = AdaptSettings("scene", seed=seed)
        open_beside = lambda local, folder, s=settings: BackgroundLearner(QuickLearner, local, s, folder)  # noqa: E731
        with pytest.raises(kind, match=sentence):
            adapted(wanted, Adapting(settings, open_beside, True))
    cancel = Event()
    cancel.set()
    with BackgroundLearner(QuickLearner, wanted, SCENES, tmp_path) as learner, pytest.raises(CancelledError):
        learner.learn(0, cancel)
    with pytest.raises(RequestError, match="a pipe can be read once"):
        SceneAdaptation(UpscaleRequest(input="-", output="out.mkv"), learning_here())
    assert not list(tmp_path.iterdir())


def test_the_cpus_are_shared_where_both_compute_on_them() -> None:
    run, learner = share_threads(Backend(device="cpu", threads=5), SCENES)
    assert (run.threads, learner.threads, learner.device) == (3, 2, "cpu")
    run, learner = share_threads(Backend(device="cpu", threads=1), SCENES)
    assert (run.threads, learner.threads) == (1, 1)
    whole = Backend(device="cpu", threads=4)
    assert share_threads(whole, AdaptSettings()) == (whole, Backend(device="cpu", threads=4))
    gpu = Backend("tensorrt", "cuda:1")
    assert share_threads(gpu, SCENES)[0] is gpu
    assert share_threads(gpu, SCENES)[1].device == "auto"
    for other in (Backend("tensorrt"), Backend("remote", url="http://127.0.0.1:8000")):  # which take no threads
        assert share_threads(other, SCENES)[0] is other


def test_a_resumed_run_does_not_learn_again(
    toy: Path, scenes: Path, tmp_path: Path, expected: tuple[Path, Report]
) -> None:
    """Stop in the second scene, and damage its archive, which is learned again."""
    wanted, calls = request(scenes, toy, tmp_path / "out.mp4"), list[int]()

    def run(on_progress: Callable[[Any], None] | None = None, settings: AdaptSettings = SCENES) -> Report:
        return upscale_resumable(wanted, on_progress, segment_frames=4, adapting=learning_here(settings, calls))

    class StopError(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.frames_in >= 12:
            raise StopError

    with pytest.raises(StopError):
        run(stop)
    assert calls == [0, 1]
    with pytest.raises(RequestError, match="whose adaptation differs"):
        run(settings=AdaptSettings("scene", seed=5))
    (archive,) = tmp_path.glob(".out.mp4.stvsr/weights-000001.zip")
    archive.write_bytes(b"damaged")
    report = run()
    assert calls == [0, 1, 1, 2]
    assert_equal_files(tmp_path / "out.mp4", expected[0])
    assert report.adaptation == expected[1].adaptation
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_segment_with_other_weights_is_computed_again(toy: Path, scenes: Path, tmp_path: Path) -> None:
    """The weights of a scene were lost, and those that are learned again differ."""
    one, other = (with_eighth(Bundle.load(toy), value, tmp_path / str(value)) for value in (0.5, 0.75))
    wanted, store = request(scenes, toy, tmp_path / "out.mp4"), tmp_path / ".out.mp4.stvsr"

    class StopError(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.frames_in >= 16:
            raise StopError

    first = Adapting(SCENES, lambda *_: KnownLearner([(one,)] * 3))
    with pytest.raises(StopError):
        upscale_resumable(wanted, stop, segment_frames=4, adapting=first)
    (store / "weights-000000.json").unlink()
    kept = {path.name: path.stat().st_mtime_ns for path in store.glob("*.mkv")}
    again = Adapting(SCENES, lambda *_: KnownLearner([(other,)] * 3))
    changed: set[str] = set()

    def compare(progress: Any) -> None:
        now = {path.name: path.stat().st_mtime_ns for path in store.glob("*.mkv") if not path.name.startswith(".")}
        changed.update(name for name, written in kept.items() if now.get(name, written) != written)

    upscale_resumable(wanted, compare, segment_frames=4, adapting=again)
    assert changed == {"000000.mkv", "000001.mkv"}, "the segments of the first scene"
    mixed = Adapting(SCENES, lambda *_: KnownLearner([(other,), (one,), (other,)]))
    adapted(request(scenes, toy, tmp_path / "mixed.mp4"), mixed)
    assert_equal_files(tmp_path / "out.mp4", tmp_path / "mixed.mp4")


def do_tasks(tasks: VideoTasks, runner: TaskRunner) -> tuple[list[tuple[str, int]], Any]:
    """Do the tasks of a video one after another, and return them with the last answer."""
    done: list[tuple[str, int]] = []
    answer: Any = None
    while (task := tasks.take()) is not None:
        sent: list[tuple[str, Any]] = []
        runner.run(task, sent.append)
        kind, answer = sent[-1]
        done.append((kind, task.number))
        if kind in ("join", "failed"):
            break
        tasks.finish(task, answer, 0.1)
    return done, answer


def test_workers_learn_scenes_as_tasks(toy: Path, scenes: Path, tmp_path: Path, expected: tuple[Path, Report]) -> None:
    """A single worker learns a scene when it needs it. Without what learns, the task fails."""
    wanted = request(scenes, toy, tmp_path / "out.mp4")
    with TaskRunner(CPU) as runner:
        done, failure = do_tasks(VideoTasks("a", wanted, adapt=SCENES), runner)
    assert done == [("failed", 0)]
    assert "adapt no networks" in failure.sentence
    tasks = VideoTasks("a", wanted, adapt=SCENES)
    with TaskRunner(CPU, QuickLearner) as runner:
        done, report = do_tasks(tasks, runner)
    learned = [("adapt", 0), ("segment", 0), ("adapt", 1), ("segment", 1), ("adapt", 2), ("segment", 2)]
    assert done == [("survey", 0), *learned, ("join", 0)]
    assert (tasks.scenes_done, tasks.scenes_total) == (3, 3)
    assert_equal_files(tmp_path / "out.mp4", expected[0])
    assert report.adaptation == expected[1].adaptation


def test_the_next_scene_is_learned_while_one_is_computed() -> None:
    """By several workers at once, and none beyond it; a scene that ends its workers fails the video."""
    tasks = VideoTasks("a", UpscaleRequest(input="a.mp4", output="b.mp4"), adapt=SCENES)
    units = (0, 0, 1, 2, 3)
    starts = tuple(range(6))
    outline = Outline(Fraction(1, 24), Fraction(1, 24), "h264", (1,) * 5, starts, 0, range(5), True)

    def take() -> Task:
        task = tasks.take()
        assert task is not None
        return task

    tasks.finish(take(), Surveyed(outline, [], units, [0]), 0.1)
    first, second, third = take(), take(), take()
    assert [(task.kind, task.number) for task in (first, second, third)] == [
        ("segment", 0),
        ("adapt", 1),
        ("segment", 1),
    ]
    assert tasks.take() is None, "the third scene waits until the first one is finished"
    tasks.finish(first, 0, 0.1)
    tasks.finish(second, 1, 0.1)
    assert (take().number, tasks.take()) == (2, None)
    tasks.finish(third, 1, 0.1)
    ahead = take()
    assert (ahead.kind, ahead.number) == ("adapt", 2)
    for _ in range(2):
        assert tasks.give_back(ahead, "exit code -9") is None
        ahead = take()
    sentence = tasks.give_back(ahead, "exit code -9")
    assert sentence is not None
    assert sentence.startswith("Learning scene 3 ended its worker 3 times")


def test_identities_have_what_determines_the_weights(toy: Path) -> None:
    identity = AdaptSettings("scene", teacher=str(toy), checkpoint=Path("run.pt"), steps=3).identity()
    assert identity["teacher"] == Bundle.load(toy).fingerprint
    assert json.loads(json.dumps(identity)) == identity
    assert "checkpoint" not in identity
    with pytest.raises(RequestError, match="Unknown value 'frame' of --adapt-per"):
        AdaptSettings("frame")  # type: ignore[arg-type]
