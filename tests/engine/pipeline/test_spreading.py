"""Windows spread over several devices: the frames of one device, in order, and an end of all when one fails."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stvsr import Backend, BackendError, NonFiniteError, RequestError, Upscaler, UpscaleRequest, one_scene, upscale
from stvsr.engine.backends.device import drain
from stvsr.engine.contract.picture import Picture
from stvsr.engine.contract.windows import InputFrame, Output, WindowFrames
from stvsr.engine.pipeline import upscaler as upscaler_module
from stvsr.engine.pipeline.device_queue import NumberedWindow
from stvsr.engine.pipeline.spreading import Spreading

from tests.support.equal_files import assert_equal_files
from tests.support.media import make_video, pan
from tests.support.toy import write_toy as write_pair
from tests.support.toy_windows import WINDOWS, time_factor, write_toy

ONE, TWO, THREE = (Backend(device=device, threads=1) for device in ("cpu", "cpu,cpu", "cpu,cpu,cpu"))
SIZE = (18, 26)


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    until = time.monotonic() + 10
    while threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert not threads()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stvsr-device")]


def scenes(times: tuple[Fraction, ...]) -> Iterator[InputFrame]:
    """Yield scenes of 9, 1, 2 and 5 frames; no output is requested at the third frame."""
    random = np.random.default_rng(2)
    for length in (9, 1, 2, 5):
        clip = random.random((length, 3, 9, 13), np.float32)
        for number, frame in enumerate(one_scene(clip, times)):
            yield InputFrame(frame.rgb, () if number == 2 else frame.times, frame.last)


def window(number: int, outputs: int) -> NumberedWindow:
    frame = np.full((3, 4, 4), number, np.float32)
    return number, WindowFrames((frame,), tuple(Output(0, Fraction(n, outputs)) for n in range(outputs)))


class FakeQueue:
    """A device with outputs in flight, whose outputs are pairs of the numbers of their windows and their own."""

    def __init__(self, name: str, in_flight: int = 0, seconds: float = 0.0, fails_at: int = -1) -> None:
        self.device = SimpleNamespace(name=name, in_flight=in_flight)
        self.windows: list[int] = []
        self.computed = 0
        self._seconds, self._fails_at = seconds, fails_at

    def pictures(self, windows: Iterable[NumberedWindow], size: Any, picture_format: Any) -> Iterator[Any]:
        return drain(self._queue(windows), self.device.in_flight)

    def _queue(self, windows: Iterable[NumberedWindow]) -> Iterator[Callable[[], Any]]:
        for number, one in windows:
            self.windows.append(number)
            if number == self._fails_at:
                raise NonFiniteError("The values are not finite.")
            for part in range(len(one.outputs)):
                time.sleep(self._seconds)
                self.computed += 1
                yield lambda result=(number, part): result  # type: ignore[misc]


def spread(*queues: FakeQueue, outputs: Iterable[int], size: tuple[int, int] = (4, 4)) -> Iterator[Picture]:
    windows = (window(number, count) for number, count in enumerate(outputs))
    return Spreading(queues).pictures(windows, size, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", WINDOWS)
def test_frames_equal_those_of_one_device(tmp_path: Path, kind: str) -> None:
    folder = write_toy(tmp_path / "toy", WINDOWS[kind], timed=kind == "run 2") / "graphs"
    factor = time_factor(kind)
    times = tuple(Fraction(n, factor) for n in range(factor))
    frames = []
    for backend in (ONE, TWO, THREE):
        with Upscaler(folder, backend) as upscaler:
            frames.append(np.stack(list(upscaler.frames(scenes(times), SIZE))))
    assert len(frames[0]) == factor * (9 + 1 + 2 + 5 - 2)
    for other in frames[1:]:
        np.testing.assert_array_equal(other, frames[0])


@pytest.mark.parametrize("in_flight", [0, 1, 3])
@pytest.mark.parametrize("devices", [2, 3])
def test_outputs_come_in_order_whatever_is_fast(in_flight: int, devices: int) -> None:
    queues = [FakeQueue(f"cuda:{n}", in_flight, seconds=0.002 * n) for n in range(devices)]
    outputs = [1, 0, 4, 2, 0, 0, 1, 1, 7, 1, 2, 0]
    expected = [(number, part) for number, count in enumerate(outputs) for part in range(count)]
    assert list(spread(*queues, outputs=outputs)) == expected
    with_outputs = [number for number, count in enumerate(outputs) if count]
    assert [queue.windows for queue in queues] == [with_outputs[n::devices] for n in range(devices)]


@pytest.mark.parametrize("windows", [0, 1])
def test_streams_shorter_than_the_number_of_devices(windows: int) -> None:
    queues = [FakeQueue(f"cuda:{n}", 3) for n in range(3)]
    assert len(list(spread(*queues, outputs=[2] * windows))) == 2 * windows


def test_devices_work_at_the_same_time() -> None:
    """Each waits, in its first window, for the other."""
    both = threading.Barrier(2, timeout=30)

    class Meeting(FakeQueue):
        def _queue(self, windows: Iterable[NumberedWindow]) -> Iterator[Callable[[], Any]]:
            both.wait()
            yield from super()._queue(windows)

    assert len(list(spread(Meeting("cuda:0"), Meeting("cuda:1"), outputs=[1] * 4))) == 4


def test_memory_does_not_grow_with_the_stream() -> None:
    """An endless stream: a bounded number of windows is taken, and one large output waits on each device."""
    taken = count()
    queues = [FakeQueue(f"cuda:{n}", in_flight=3) for n in range(2)]
    pictures = spread(*queues, outputs=(5 for _ in taken), size=(1 << 14, 1 << 14))
    assert next(pictures) == (0, 0)
    time.sleep(0.1)
    # One in the results, one that waits to be put there, and those in flight.
    assert max(queue.computed for queue in queues) <= 1 + 1 + 1 + 3
    assert next(taken) <= 2 * (2 + 3)
    pictures.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("fails_at", [0, 1, 5])
def test_an_error_names_its_device_and_ends_the_others(fails_at: int) -> None:
    queues = [FakeQueue(f"cuda:{n}", fails_at=fails_at) for n in range(2)]
    pictures = spread(*queues, outputs=(2 for _ in count()))
    with pytest.raises(NonFiniteError, match=rf"^On device 'cuda:{fails_at % 2}': The values are not finite\.$"):
        list(pictures)
    assert not threads()


def test_an_error_of_the_input_ends_the_devices(tmp_path: Path) -> None:
    with Upscaler(write_pair(tmp_path / "toy"), TWO) as upscaler:

        def frames() -> Iterator[InputFrame]:
            yield from scenes((Fraction(0),))
            yield InputFrame(np.zeros((3, 4, 99), np.float32))

        with pytest.raises(RequestError, match="x1 to x8"):
            list(upscaler.frames(frames(), SIZE))
        assert not threads()


def test_a_stream_that_is_left_ends_the_devices(tmp_path: Path) -> None:
    with Upscaler(write_pair(tmp_path / "toy"), TWO) as upscaler:
        frames = upscaler.frames(scenes((Fraction(0),)), SIZE)
        next(frames)
        assert len(threads()) == 2
        del frames
        assert not threads()


def test_closing_ends_streams_before_the_graphs(tmp_path: Path) -> None:
    upscaler = Upscaler(write_pair(tmp_path / "toy"), TWO)
    streams = [upscaler.frames(scenes((Fraction(0),)), SIZE) for _ in range(2)]
    for stream in streams:
        next(stream)
    assert len(threads()) == 4
    upscaler.close()
    upscaler.close()
    assert not threads()
    with pytest.raises(BackendError, match="was closed while it computed a stream"):
        list(streams[0])


def test_several_streams_share_the_devices(tmp_path: Path) -> None:
    folder = write_pair(tmp_path / "toy")
    times = (Fraction(0), Fraction(1, 3))
    with Upscaler(folder, ONE) as upscaler:
        expected = list(upscaler.frames(scenes(times), SIZE))
    with Upscaler(folder, TWO) as upscaler:
        streams = [upscaler.frames(scenes(times), SIZE) for _ in range(3)]
        for frames in zip(expected, *streams, strict=True):
            for frame in frames[1:]:
                np.testing.assert_array_equal(frame, frames[0])


def test_a_video_equals_that_of_one_device(tmp_path: Path) -> None:
    """Two scenes, through a chain that repeats a network, and tiles."""
    bundle = write_toy(tmp_path / "toy", WINDOWS["run 2"], halo_px=4) / "graphs"
    clip = make_video(tmp_path / "clip.mkv", [*pan(5), *(1 - frame for frame in pan(6))])
    outputs = []
    for name, backend in (("one", ONE), ("two", TWO)):
        output = tmp_path / f"{name}.mkv"
        report = upscale(
            UpscaleRequest(
                input=clip, output=output, model=bundle, scale=2, time_factor=4, codec="ffv1", backend=backend, tile=24
            )
        )
        assert (report.device, report.backend, report.frames_out) == (backend.device, "ort", 44)
        outputs.append(output)
    assert_equal_files(outputs[1], outputs[0])


def test_devices_open_alike_and_their_warnings_name_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first device decides about the kind of backend; those that were opened are closed if another one fails."""
    opened: list[Backend] = []
    closed: list[str] = []

    class Queue:
        def __init__(
            self, bundle: Any, backend: Backend, inference: Any, batch: int, warn: Any, clock: Any, *, alone: bool
        ) -> None:
            if backend.device == "cuda:9":
                raise BackendError("There is no CUDA device 9.")
            assert not alone
            opened.append(backend)
            warn("It is slow.")
            self.device = SimpleNamespace(name=backend.device)
            self.graphs = SimpleNamespace(backend="tensorrt", precision="tf32" if len(opened) == 2 else "fp16")

        def __enter__(self) -> "Queue":
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def close(self) -> None:
            closed.append(self.device.name)

    monkeypatch.setattr(upscaler_module, "DeviceQueue", Queue)
    toy = write_pair(tmp_path / "toy")
    with Upscaler(toy, Backend(device="cuda:0,cuda:1")) as upscaler:
        assert [(one.kind, one.device) for one in opened] == [("auto", "cuda:0"), ("tensorrt", "cuda:1")]
        assert upscaler.warnings == ["On device 'cuda:0': It is slow.", "On device 'cuda:1': It is slow."]
        assert (upscaler.device, upscaler.backend, upscaler.precision) == ("cuda:0,cuda:1", "tensorrt", "tf32")
    assert closed == ["cuda:0", "cuda:1"]
    with pytest.raises(BackendError, match="no CUDA device 9"):
        Upscaler(toy, Backend(device="cuda:2,cuda:9"))
    assert closed == ["cuda:0", "cuda:1", "cuda:2"]
