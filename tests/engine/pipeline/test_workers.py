"""Worker threads and their channels stop together."""

import signal
import threading
import time
from collections.abc import Callable

import pytest
from stvsr.engine.contract import interrupts
from stvsr.engine.contract.errors import BackendError
from stvsr.engine.pipeline.workers import Channel, Stopped, WorkerGroup


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stvsr-")]


class FaultError(Exception):
    pass


def run_in_group(*works: Callable[[Channel[int]], None], body: Callable[[Channel[int]], None]) -> None:
    with WorkerGroup() as group:
        channel: Channel[int] = Channel(group, 2)
        for i, work in enumerate(works):
            group.spawn(f"stvsr-{i}", lambda work=work: work(channel))  # type: ignore[misc]
        body(channel)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_thread_that_cannot_start_ends_the_group(monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) > failing:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(BackendError, match="No more threads can be started"):
        run_in_group(fill, fill, body=lambda channel: None)
    assert not workers()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_end_a_group_if_no_host_program_handles_them(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(interrupts, "_received", [])
    before = signal.signal(number, interrupts.raise_interrupted)
    try:
        with pytest.raises(interrupts.Interrupted) as interrupted:
            run_in_group(fill, body=lambda channel: signal.raise_signal(number))
        assert interrupted.value.number == interrupts.received() == number
        assert signal.getsignal(number) is interrupts.raise_interrupted
    finally:
        signal.signal(number, before)
    assert not workers()


def test_a_second_signal_does_not_cut_short_the_cleaning_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_received", [])
    with pytest.raises(interrupts.Interrupted):
        interrupts.raise_interrupted(signal.SIGTERM)
    interrupts.raise_interrupted(signal.SIGINT)
    assert interrupts.received() == signal.SIGTERM
    monkeypatch.setattr(interrupts, "_GRACE_S", 0.0)
    with pytest.raises(interrupts.Interrupted):
        interrupts.raise_interrupted(signal.SIGINT)


def fill(channel: Channel[int]) -> None:
    for i in range(100):
        channel.put(i)
    channel.close()


def test_a_channel_keeps_order() -> None:
    got: list[int] = []
    run_in_group(fill, body=got.extend)
    assert got == list(range(100))
    assert workers() == []


def test_the_first_failure_is_raised_and_ends_every_wait() -> None:
    def fail(channel: Channel[int]) -> None:
        time.sleep(0.05)
        raise FaultError("first")

    began = time.perf_counter()
    with pytest.raises(FaultError, match="first"):
        run_in_group(fail, fill, body=lambda channel: time.sleep(0.1) or channel.put(0))  # type: ignore[func-returns-value]
    assert time.perf_counter() - began < 5
    assert workers() == []


def test_a_failure_of_the_body_ends_the_threads() -> None:
    def fail(channel: Channel[int]) -> None:
        raise FaultError("body")

    with pytest.raises(FaultError, match="body"):
        run_in_group(fill, body=fail)
    assert workers() == []


def test_a_stopped_channel_raises() -> None:
    group = WorkerGroup()
    channel: Channel[int] = Channel(group, 1)
    group._stop(None)
    with pytest.raises(Stopped):
        channel.put(1)
    with pytest.raises(Stopped):
        next(iter(channel))
