"""Workers with limited memory: what needs more fails with a sentence that says so, and the worker goes on."""

import os
import re
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import Backend, RequestError, UpscaleRequest
from stvsr.engine.pipeline.executor import LocalExecutor, Message
from stvsr.engine.pipeline.memory_limit import LEAST_BYTES, check_limit, describe_limit
from stvsr.engine.pipeline.tasks import PROGRESS, Task
from stvsr.engine.pipeline.worker import Worker

from tests.support.media import make_video, pan

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone limits the memory of a process")


def take_memory(connection: Connection, _: Backend) -> None:
    """Take more memory than there may be, hold nearly all of it, and end: the main function of a process."""
    try:
        bytearray(LEAST_BYTES)
    except MemoryError as error:
        connection.send(("too much", describe_limit(error, "It needs")))
    fault = ValueError("a fault.")
    connection.send(("little", describe_limit(fault, "It needs")))
    used = int(re.findall(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[0]) << 10
    held = bytearray(LEAST_BYTES * 9 // 10 - used)
    connection.send(("nearly all", describe_limit(fault, "It needs")))
    del held
    os.abort()


def test_errors_of_a_lack_of_memory_are_known() -> None:
    with Worker(take_memory, Backend(device="cpu"), LEAST_BYTES).running() as worker:
        found: list[Any] = []
        while len(found) < 4:
            worker.connection.poll(60)
            found += list(worker.messages())
        worker.kill()  # it runs again
    assert found.pop(2)[1].startswith("a fault. Nearly all memory of the worker (512M) is in use")
    assert found == [
        ("too much", "It needs more memory than a worker has (512M): ask for a smaller size, or for smaller tiles."),
        ("little", None),
        ("ended", "exit code -6, with at most 512M of memory"),
    ]
    assert describe_limit(MemoryError(), "It needs") is None, "this process has no limit"


def test_a_limit_leaves_room_to_work() -> None:
    check_limit(LEAST_BYTES)
    with pytest.raises(RequestError, match=r"cannot run in 511M: give it 512M or more"):
        check_limit(LEAST_BYTES - (1 << 20))


@pytest.mark.slow
def test_a_video_that_needs_too_much_fails_and_others_do_not(toy: Path, tmp_path: Path) -> None:
    """ONNX Runtime and FFmpeg work within the limit, and neither ends the process at it."""
    small = make_video(tmp_path / "small.mp4", pan(3))
    large = make_video(tmp_path / "large.mp4", [np.zeros((3, 720, 1280), np.float32)] * 3)

    def request(clip: Path, scale: int) -> UpscaleRequest:
        return UpscaleRequest(input=clip, output=tmp_path / "new.mp4", model=toy, scale=scale, overwrite=True)

    with LocalExecutor([Backend(device="cpu", threads=1)], most_bytes=LEAST_BYTES) as executor:

        def run(request: UpscaleRequest, kind: Any) -> Message:
            executor.workers[0].start(Task(str(request.output), kind, request))
            while True:
                for message in executor.messages(60):
                    if message.kind != PROGRESS:
                        return message

        for _ in range(2):
            failed = run(request(large, 8), "whole")
            assert failed.kind == "failed", failed
            assert failed.value.code == "worker-memory", failed.value
            assert re.search(r"memory (of the worker|than a worker has) \(512M\)", failed.value.sentence)
            done = run(request(small, 2), "whole")
            assert done.kind == "whole", done
