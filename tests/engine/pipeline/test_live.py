"""Live streams: frames come when they are computed, callers slow the work down, and nothing is left of it."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import Backend, RequestError, Upscaler, one_scene
from stvsr.engine.pipeline.live import live_inputs, run_in_thread

from tests.support.toy import write_toy
from tests.support.toy_windows import write_toy as write_window_toy

CPU = Backend(device="cpu", threads=1)
HALF = (Fraction(0), Fraction(1, 2))
SIZE = (24, 32)


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upscaler]:
    with Upscaler(write_toy(tmp_path_factory.mktemp("bundles") / "toy"), CPU) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert threads() == []


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stvsr-frames")]


def clip(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 3, *SIZE), np.float32)


async def camera(frames: Iterable[Any], taken: list[int] | None = None) -> AsyncIterator[Any]:
    """Yield frames, and count those that were taken."""
    for number, frame in enumerate(frames):
        if taken is not None:
            taken.append(number)
        await asyncio.sleep(0)
        yield frame


async def collect(results: AsyncIterator[Any]) -> list[Any]:
    return [result async for result in results]


def squares(inputs: Iterable[int]) -> Iterator[int]:
    for number in inputs:
        yield number**2


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("source", [camera, list], ids=["asynchronous", "list"])
def test_a_stream_equals_frames_in_memory(upscaler: Upscaler, source: Any) -> None:
    frames = clip(5)
    actual = asyncio.run(collect(upscaler.stream(source(frames), SIZE, HALF)))
    expected = list(upscaler.frames(one_scene(frames, HALF), SIZE))
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    "window", [{"kind": "sliding", "frames": 5, "padding": "replicate"}, {"kind": "doubled", "frames": 2, "overlap": 1}]
)
def test_a_stream_of_any_window_equals_frames_in_memory(tmp_path: Path, window: dict[str, Any]) -> None:
    frames, times = clip(7), HALF if window["kind"] == "doubled" else HALF[:1]
    size = 2 * SIZE[0], 2 * SIZE[1]
    with Upscaler(write_window_toy(tmp_path / "toy", window) / "graphs", CPU) as opened:
        actual = asyncio.run(collect(opened.stream(camera(frames), size, times)))
        np.testing.assert_array_equal(actual, list(opened.frames(one_scene(frames, times), size)))


def test_scenes_are_cut_on_request(upscaler: Upscaler) -> None:
    textures = clip(2)
    dark, bright = (  # with other shares of their levels, so that it is no fade
        [np.roll(picture, shift, axis=2) for shift in range(3)] for picture in (textures[0] / 8, 1 - textures[1] ** 4)
    )
    frames = [*dark, *bright]
    cut = asyncio.run(collect(upscaler.stream(camera(frames), SIZE, HALF, scene_threshold=0.3)))
    expected = [frame for scene in (dark, bright) for frame in upscaler.frames(one_scene(scene, HALF), SIZE)]
    np.testing.assert_array_equal(cut, expected)
    blended = asyncio.run(collect(upscaler.stream(camera(frames), SIZE, HALF)))
    assert np.abs(blended[5].astype(int) - cut[5]).max() > 1000
    assert [frame is None for frame in live_inputs(frames, HALF, 0.3)] == [False] * 3 + [True] + [False] * 3 + [True]


def test_a_frame_comes_as_soon_as_its_window_is_there(upscaler: Upscaler) -> None:
    """The frames between two input frames are there before a third one comes."""

    async def run() -> int:
        third = asyncio.Event()

        async def source() -> AsyncIterator[np.ndarray]:
            frames = clip(3)
            yield frames[0]
            yield frames[1]
            await third.wait()
            yield frames[2]

        async with asyncio.timeout(30):
            results = upscaler.stream(source(), SIZE, HALF)
            first = [await anext(results), await anext(results)]
            third.set()
            return len([*first, *await collect(results)])

    assert asyncio.run(run()) == 6


def test_frames_are_taken_as_results_are() -> None:
    async def run() -> None:
        taken: list[int] = []
        results = run_in_thread(squares, camera(range(1000), taken))
        for number in range(5):
            assert await anext(results) == number**2
        await asyncio.sleep(0.1)
        assert len(taken) == 6, "one result is computed ahead"
        await results.aclose()

    asyncio.run(run())


def test_streams_run_at_once(upscaler: Upscaler) -> None:
    clips = [clip(6, seed) for seed in range(4)]

    async def run() -> list[list[np.ndarray]]:
        return await asyncio.gather(*(collect(upscaler.stream(camera(one), SIZE, HALF)) for one in clips))

    for one, actual in zip(clips, asyncio.run(run()), strict=True):
        np.testing.assert_array_equal(actual, list(upscaler.frames(one_scene(one, HALF), SIZE)))


def test_a_cancelled_wait_for_an_input_ends_the_source() -> None:
    async def run() -> None:
        ended: list[str] = []

        async def source() -> AsyncIterator[int]:
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append("source")

        task = asyncio.create_task(collect(run_in_thread(squares, source())))
        await until(lambda: threads())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert threads() == []
        assert ended == ["source"]

    asyncio.run(run())


def test_a_cancelled_stream_ends_after_the_result_that_it_computes() -> None:
    go = threading.Event()
    computed: list[int] = []

    def slow(inputs: Iterable[int]) -> Iterator[int]:
        for number in inputs:
            assert go.wait(30)
            computed.append(number)
            yield number

    async def run() -> None:
        task = asyncio.create_task(collect(run_in_thread(slow, range(1000))))
        await until(lambda: threads())
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.sleep(0.02)
        task.cancel()  # again, while it waits for the thread
        await asyncio.sleep(0.02)
        assert not task.done(), "the thread is not left behind"
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert threads() == []
        assert computed == [0]

    asyncio.run(run())


def test_a_loop_that_is_left_ends_the_stream() -> None:
    async def run() -> None:
        async with aclosing(run_in_thread(squares, camera(range(1000)))) as results:
            async for result in results:
                if result == 9:
                    break
        assert threads() == []
        async for _ in run_in_thread(squares, camera(range(1000))):
            break  # without aclosing, the event loop closes it
        await until(lambda: threads() == [])

    asyncio.run(run())


def test_errors_arrive_where_a_frame_is_awaited(upscaler: Upscaler) -> None:
    async def fail_after(count: int) -> AsyncIterator[np.ndarray]:
        for frame in clip(count):
            yield frame
        raise ValueError("the camera is gone")

    async def run(frames: AsyncIterator[Any], size: tuple[int, int]) -> int:
        count = 0
        async with asyncio.timeout(30):
            async for _ in upscaler.stream(frames, size):
                count += 1
                last.append(count)
        return count

    last: list[int] = []
    with pytest.raises(ValueError, match="the camera is gone"):
        asyncio.run(run(fail_after(3), SIZE))
    assert last[-1] == 2, "the frames whose windows were there came first"
    with pytest.raises(RequestError, match="values of int64"):
        asyncio.run(run(camera([np.zeros((3, 8, 8), np.int64)]), (8, 8)))
    with pytest.raises(RequestError, match="does not make 7x7"):
        asyncio.run(run(camera(clip(2)), (7, 7)))
    with pytest.raises(RequestError, match="give times below 1"):
        upscaler.stream(camera(clip(2)), SIZE, [0, 1])
    with pytest.raises(RequestError, match="outside the pair"):
        upscaler.stream(camera(clip(2)), SIZE, [-0.5])


def test_an_error_waits_for_no_input() -> None:
    """A generator that fails while the source waits ends at once."""

    def fail(inputs: Iterable[int]) -> Iterator[int]:
        yield next(iter(inputs))
        raise ZeroDivisionError

    async def source() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(collect(run_in_thread(fail, source())))
    assert time.monotonic() - began < 20
