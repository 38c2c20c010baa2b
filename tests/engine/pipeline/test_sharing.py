"""Streams that share an upscaler: in turns, or as batches, with the results of streams that are alone."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import Backend, DeviceMemoryError, Upscaler, one_scene
from stvsr.engine.contract.windows import Output, WindowFrames, split_windows
from stvsr.engine.pipeline.runners import Buffers
from stvsr.engine.pipeline.sharing import SharedRunner, Turns

from tests.support.toy_windows import WINDOWS, time_factor, write_toy

CPU = Backend(device="cpu", threads=1)


def clips(count: int, frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).random((count, frames, 3, height, width), np.float32)


def wait_until(condition: Any) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def window(shade: float, outputs: int = 1, side: int = 4) -> WindowFrames:
    frame = np.full((3, side, side), shade, np.float32)
    return WindowFrames((frame, frame), tuple(Output(0, Fraction(n, outputs)) for n in range(outputs)))


class SlowRunner:
    """A runner whose runs can be held up, and that keeps the shades of the windows of each batch."""

    def __init__(self, most: int = 99) -> None:
        self.go = threading.Event()
        self.batches: list[list[float]] = []
        self.most = most  # windows that the memory holds

    def run(self, windows: Sequence[WindowFrames], size: tuple[int, int]) -> Iterator[Buffers]:
        shades = [float(one.frames[0][0, 0, 0]) for one in windows]
        for output in windows[0].outputs:
            self.batches.append(shades)
            assert self.go.wait(30)
            if len(windows) > self.most:
                raise DeviceMemoryError("too many")
            yield tuple(shade + float(output.time) for shade in shades)


def run_at_once(shared: SharedRunner, runner: SlowRunner, windows: list[WindowFrames]) -> list[list[Any]]:
    """Run windows in threads: the first is under way when the others come, one after another."""
    with ThreadPoolExecutor(len(windows)) as threads:
        results = []
        for number, one in enumerate(windows):
            results.append(threads.submit(lambda one=one: list(shared.run(one, (4, 4)))))  # type: ignore[misc]
            wait_until(lambda number=number: len(shared._turns._tickets) == number + 1 and runner.batches)
        runner.go.set()
        return [result.result() for result in results]


def test_turns_are_taken_in_order() -> None:
    turns, order, go = Turns(), [], threading.Event()

    def take(number: int) -> None:
        with turns.turn():
            assert go.wait(30)
            order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for number, thread in enumerate(threads):
        thread.start()
        wait_until(lambda number=number: len(turns._tickets) == number + 1)
    go.set()
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_an_error_ends_a_turn() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.turn():
        1 / 0  # noqa: B018
    with turns.turn() as first:
        assert first


def test_streams_take_turns_of_one_output() -> None:
    """A stream with many outputs lets another one in after each."""
    runner = SlowRunner()
    results = run_at_once(SharedRunner(runner), runner, [window(1, outputs=4), window(2), window(3)])
    assert results == [[1, 1.25, 1.5, 1.75], [2], [3]]
    assert runner.batches[:4] == [[1], [2], [3], [1]]


def test_windows_that_wait_are_a_batch() -> None:
    runner = SlowRunner()
    windows = [
        window(1),
        window(2),
        window(3),
        window(4, outputs=2),
        window(5, side=8),
        window(6),
        window(7, outputs=2),
    ]
    results = run_at_once(SharedRunner(runner, most=2), runner, windows)
    assert results == [[1], [2], [3], [4, 4.5], [5], [6], [7, 7.5]]
    assert runner.batches == [[1], [2, 3], [4, 7], [4, 7], [5], [6]]


def test_a_batch_that_does_not_fit_is_computed_one_by_one() -> None:
    runner = SlowRunner(most=1)
    shared = SharedRunner(runner, most=4)
    assert run_at_once(shared, runner, [window(1), window(2), window(3)]) == [[1], [2], [3]]
    assert runner.batches == [[1], [2, 3], [2], [3]]
    runner.most = 0
    with pytest.raises(DeviceMemoryError):
        list(shared.run(window(4), (4, 4)))
    assert shared._waiting == []


@pytest.mark.parametrize("kind", WINDOWS)
def test_a_batch_equals_single_windows(tmp_path: Path, kind: str) -> None:
    folder = write_toy(tmp_path / "toy", WINDOWS[kind], timed=kind == "run 2") / "graphs"
    factor = time_factor(kind)
    times = tuple(Fraction(n, factor) for n in range(factor))
    with Upscaler(folder, CPU) as upscaler:
        runner = upscaler.queues[0].runner._runner
        kinds = upscaler.bundle.manifest.window
        streams = [list(split_windows(kinds, one_scene(clip, times))) for clip in clips(3, 7, 9, 13)]
        for windows in zip(*streams, strict=True):
            together = list(runner.run(windows, (18, 26)))
            for number, one in enumerate(windows):
                alone = [buffer for (buffer,) in runner.run([one], (18, 26))]
                for expected, buffers in zip(alone, together, strict=True):
                    np.testing.assert_allclose(buffers[number].astype(int), expected, atol=1)


@pytest.mark.parametrize("batch", [1, 3])
def test_streams_at_once_equal_streams_alone(tmp_path: Path, batch: int) -> None:
    """Streams of two sizes run in threads; windows of one size may be batches."""
    folder = write_toy(tmp_path / "toy", WINDOWS["pair"], integer=True) / "graphs"
    times = (Fraction(0), Fraction(1, 3))
    inputs = [*clips(3, 6, 9, 13), *clips(2, 6, 8, 8)]

    def upscale(clip: np.ndarray) -> np.ndarray:
        size = 2 * clip.shape[2], 2 * clip.shape[3]
        return np.stack(list(upscaler.frames(one_scene(clip, times), size)))

    with Upscaler(folder, CPU, batch=batch) as upscaler, ThreadPoolExecutor(len(inputs)) as threads:
        alone = [upscale(clip) for clip in inputs]
        for _ in range(3):
            for expected, actual in zip(alone, threads.map(upscale, inputs), strict=True):
                np.testing.assert_allclose(actual.astype(int), expected, atol=1)
        assert upscaler.queues[0].runner._waiting == []


@pytest.mark.parametrize("model", ["fourier-s", "edvr-s", pytest.param("videoinr-s", marks=pytest.mark.slow)])
def test_shipped_bundles_compute_batches(model: str) -> None:
    scale, times = 4, (Fraction(0),) if model == "edvr-s" else (Fraction(0), Fraction(1, 2))
    with Upscaler(model, Backend(device="cpu")) as upscaler:
        streams = [
            next(split_windows(upscaler.bundle.manifest.window, one_scene(clip, times))) for clip in clips(2, 5, 20, 28)
        ]
        runner, size = upscaler.queues[0].runner._runner, (20 * scale, 28 * scale)
        together = list(runner.run(streams, size))
        for number, one in enumerate(streams):
            for (expected,), buffers in zip(runner.run([one], size), together, strict=True):
                assert np.abs(buffers[number].astype(int) - expected).max() <= 4  # of 65535: rounding of floats
