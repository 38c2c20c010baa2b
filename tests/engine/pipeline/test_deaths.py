"""Deaths of workers: a task that ends them fails its video soon, and chance does not, however long it goes on."""

import random

import pytest
from stvsr import UpscaleRequest
from stvsr.engine.pipeline.deaths import LEAST_DEATHS, MOST_DEATHS, ChanceDeaths
from stvsr.engine.pipeline.video_tasks import VideoTasks

from tests.support.executors import outline_of

TASK_S = 5.0


def surveyed(chance: ChanceDeaths, segments: int) -> VideoTasks:
    tasks = VideoTasks("0", UpscaleRequest(input="clip.mp4", output="new.mp4"), chance=chance)
    survey = tasks.take()
    assert survey is not None
    tasks.finish(survey, (outline_of(*[48] * segments), []), 0.5)
    return tasks


def deaths_until_failed(chance: ChanceDeaths, age_s: float) -> int:
    """Return how many workers a segment ends, each after some seconds, before its video fails."""
    tasks, deaths = surveyed(chance, 1), 0
    while True:
        segment = tasks.take()
        assert segment is not None
        deaths += 1
        if (error := tasks.give_back(segment, "exit code -9", age_s)) is not None:
            assert error.startswith(f"Segment 0 ended its worker {deaths} times (exit code -9)")
            return deaths


def compute_with_kills(chance: ChanceDeaths, segments: int, seconds_between: float, rng: random.Random) -> bool:
    """Compute a video while chance ends workers at a rate, and return whether it was done."""
    tasks = surveyed(chance, segments)
    while True:
        task = tasks.take()
        assert task is not None
        if task.kind == "join":
            return True
        killed_s = rng.expovariate(1 / seconds_between)
        if killed_s > TASK_S:
            tasks.finish(task, task.number, TASK_S)
        elif tasks.give_back(task, "exit code -9", killed_s) is not None:
            return False


def test_a_task_that_ends_its_workers_at_once_fails_after_three() -> None:
    quiet = ChanceDeaths()
    for _ in range(100):
        quiet.add((), TASK_S)
    for chance in (ChanceDeaths(), quiet):
        assert deaths_until_failed(chance, 0.0) == deaths_until_failed(chance, 0.5) == LEAST_DEATHS


def test_a_task_that_ends_its_workers_late_fails_too() -> None:
    counts = [deaths_until_failed(ChanceDeaths(), age_s) for age_s in (0.5, 5.0, 15.0, 1000.0)]
    assert counts == sorted(counts)
    assert counts[-1] == MOST_DEATHS


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("seconds_between", [20.0, 40.0, 300.0])
def test_chance_fails_no_video(seconds_between: float, seed: int) -> None:
    """A fifth of all attempts of five seconds are ended at the highest rate: three deaths in a row are common."""
    rng, chance = random.Random(seed), ChanceDeaths()
    for segments in [1] * 300 + [300]:
        assert compute_with_kills(chance, segments, seconds_between, rng)


def test_a_task_that_ends_its_workers_fails_among_deaths_by_chance() -> None:
    rng, chance = random.Random(0), ChanceDeaths()
    assert compute_with_kills(chance, 300, 20.0, rng)
    assert deaths_until_failed(chance, 0.2) <= LEAST_DEATHS + 1
    assert deaths_until_failed(chance, 4.0) <= MOST_DEATHS
    assert deaths_until_failed(chance, 0.2) <= LEAST_DEATHS + 1, "videos that fail do not speak for chance"
