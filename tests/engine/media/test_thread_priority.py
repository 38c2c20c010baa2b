"""Encoders do not change the priority of the run's threads, nor take one of their own."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import pytest
from stvsr import Progress, UpscaleRequest, upscale
from stvsr.engine.media.thread_priority import keep_priority

from tests.support.media import make_video, pan
from tests.support.toy import write_toy

if sys.platform != "linux":
    pytest.skip("threads have no such priorities here", allow_module_level=True)


def policies() -> set[int]:
    """Return the scheduling policies of all threads."""
    found = set()
    for name in os.listdir("/proc/self/task"):
        try:
            found.add(os.sched_getscheduler(int(name)))
        except ProcessLookupError:
            continue
    return found


def take_real_time() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pytest.skip("only root, or a user with a limit above zero, may take real-time priority")


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    assert policies() == {os.SCHED_OTHER}
    yield
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def test_the_calling_thread_and_those_that_start_keep_its_priority() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    with suppress(ArithmeticError), keep_priority():
        take_real_time()
        thread.start()
        assert os.sched_getscheduler(thread.native_id or 0) == os.SCHED_FIFO
        raise ArithmeticError("after which priorities are kept too")
    assert policies() == {os.SCHED_OTHER}
    ended.set()
    thread.join()


@pytest.mark.parametrize("name", ["out.mkv", "out_%d.avif"])
def test_no_thread_of_a_run_takes_real_time_priority(name: str, tmp_path: Path) -> None:
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("libsvtav1 is not in this build of PyAV")
    seen: list[set[int]] = []

    def watch(_: Progress) -> None:
        seen.append(policies())

    clip, model = make_video(tmp_path / "clip.mp4", pan(6, (64, 64))), str(write_toy(tmp_path / "toy"))
    request = UpscaleRequest(
        input=clip,
        output=tmp_path / name,
        model=model,
        scale=2,
        codec="libsvtav1",
        encoder_options={"preset": "12"},
    )
    upscale(request, watch)
    assert seen
    assert set().union(*seen, policies()) == {os.SCHED_OTHER}
