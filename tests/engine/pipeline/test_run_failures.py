"""Runs that fail or are interrupted leave nothing behind, and memory stays bounded."""

import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stvsr import (
    Backend,
    Progress,
    UpscaleRequest,
    upscale,
)
from stvsr.engine.backends.device import CpuDevice
from stvsr.engine.media.frame import Frame
from stvsr.engine.pipeline import run as pipeline
from stvsr.engine.pipeline.runners import PairRunner

RATE = Fraction(24)
CPU = Backend(device="cpu")


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stvsr-")]


class FaultError(Exception):
    pass


def assert_nothing_is_left(clip: Path) -> None:
    assert sorted(path.name for path in clip.parent.iterdir()) == [clip.name]
    assert workers() == []


def test_a_failure_while_encoding_leaves_nothing(clip: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, count = pipeline.VideoWriter.write, iter(range(99))

    def failing(self: Any, *arguments: Any) -> None:
        if next(count) == 3:
            raise FaultError("the disk is full")
        write(self, *arguments)

    monkeypatch.setattr(pipeline.VideoWriter, "write", failing)
    with pytest.raises(FaultError, match="disk is full"):
        upscale(UpscaleRequest(input=clip, model=toy, backend=CPU))
    assert_nothing_is_left(clip)


def test_a_failure_while_decoding_leaves_nothing(clip: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = pipeline.Run._decode

    def failing(self: Any, reader: Any, decoded: Any) -> None:
        def frames() -> Iterator[Frame]:
            for i, frame in enumerate(reader):
                if i == 3:
                    raise FaultError("a broken packet")
                yield frame

        decode(self, frames(), decoded)

    monkeypatch.setattr(pipeline.Run, "_decode", failing)
    with pytest.raises(FaultError, match="broken packet"):
        upscale(UpscaleRequest(input=clip, model=toy, backend=CPU))
    assert_nothing_is_left(clip)


def test_a_failure_while_inferring_leaves_nothing(clip: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, count = PairRunner._decode, iter(range(99))

    def failing(self: Any, *arguments: Any) -> Any:
        if next(count) == 3:
            raise FaultError("no memory")
        return decode(self, *arguments)

    monkeypatch.setattr(PairRunner, "_decode", failing)
    with pytest.raises(FaultError, match="no memory"):
        upscale(UpscaleRequest(input=clip, model=toy, backend=CPU))
    assert_nothing_is_left(clip)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Handle SIGINT as a foreground program does; a background one ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_leaves_nothing(clip: Path, toy: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.frames_in == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        upscale(UpscaleRequest(input=clip, model=toy, backend=CPU), interrupt)
    assert_nothing_is_left(clip)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("at", [0, 13])
def test_interrupts_while_a_frame_is_written_leave_nothing(
    clip: Path, toy: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Interrupt twice while the calling thread waits for room, or for the encoder to finish."""
    write, count = pipeline.VideoWriter.write, iter(range(99))

    def interrupting(self: Any, *arguments: Any) -> None:
        if next(count) == at:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
        write(self, *arguments)

    monkeypatch.setattr(pipeline.VideoWriter, "write", interrupting)
    monkeypatch.setattr(pipeline, "OUTPUT_BYTES", 0)
    with pytest.raises(KeyboardInterrupt):
        upscale(UpscaleRequest(input=clip, model=toy, backend=CPU))
    assert_nothing_is_left(clip)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Live:
    """Counts the arrays that are still alive."""

    def __init__(self) -> None:
        self.references: list[weakref.ref[np.ndarray]] = []
        self.most = 0

    def add(self, array: np.ndarray) -> np.ndarray:
        self.references = [reference for reference in self.references if reference() is not None]
        self.references.append(weakref.ref(array))
        self.most = max(self.most, len(self.references))
        return array


@pytest.mark.parametrize("count", [10, 60])
def test_the_number_of_frames_in_memory_does_not_depend_on_the_length(
    tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    decoded, computed = Live(), Live()

    class Reader:
        warnings, repairs = (), ()
        info = SimpleNamespace(width=32, height=24, rate=RATE, time_base=1 / RATE, frames=None)

        def __init__(self, *arguments: Any, **options: Any) -> None: ...

        def __enter__(self) -> "Reader":
            return self

        def __exit__(self, *error: object) -> None: ...

        def __iter__(self) -> Iterator[Frame]:
            for i in range(count):
                rgb = decoded.add(np.full((3, 24, 32), i / count, np.float32))
                yield Frame(rgb, i / RATE, 1 / RATE)
                del rgb

    class Writer:
        warnings, repairs, picture_format = (), (), None

        def __init__(self, *arguments: Any, **options: Any) -> None: ...

        def __enter__(self) -> "Writer":
            return self

        def __exit__(self, *error: object) -> None: ...

        def write(self, rgb: np.ndarray, pts: Fraction, duration: Fraction) -> None:
            time.sleep(0.002)  # the slowest stage, so that every queue fills

    output_buffer = CpuDevice.output_buffer

    def watched(self: Any, size: tuple[int, int]) -> np.ndarray:
        return computed.add(output_buffer(self, size))

    monkeypatch.setattr(pipeline, "open_reader", Reader)
    monkeypatch.setattr(pipeline, "VideoWriter", Writer)
    monkeypatch.setattr(pipeline, "OUTPUT_BYTES", 0)  # as if one frame were more
    monkeypatch.setattr(CpuDevice, "output_buffer", watched)
    report = upscale(UpscaleRequest(input=tmp_path / "long", model=toy, scale=1, backend=CPU))
    assert report.frames_out == 2 * count
    # The queue, a pair, the frame after it, one that is read and one in between.
    assert decoded.most <= pipeline.INPUT_FRAMES + 5
    assert computed.most <= 5  # one in the queue, two at the writer, one in computation, one in between
