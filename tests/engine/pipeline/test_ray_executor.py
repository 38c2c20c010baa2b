"""Workers on a Ray cluster of two nodes: actors and a node are killed, and nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import pytest
from stvsr import Backend, BackendError, UpscaleRequest, upscale

from tests.support.commands import assert_one_clear_error, stvsr
from tests.support.equal_files import assert_equal_files
from tests.support.media import make_video, pan
from tests.support.ray_nodes import Nodes, actors

pytest.importorskip("ray", reason="stvsr[ray] is not installed")

from stvsr.engine.pipeline.batch import upscale_batch
from stvsr.engine.pipeline.ray_executor import RayExecutor

pytestmark = [pytest.mark.slow, pytest.mark.long]

CPU = Backend(device="cpu")
LOSSLESS: dict[str, Any] = {"scale": 1, "encoder_options": {"qp": "0"}}
FRAMES = 240  # five segments


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mp4", pan(FRAMES))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, clip: Path, toy: Path) -> Path:
    output = tmp_path_factory.mktemp("whole") / "whole.mp4"
    upscale(UpscaleRequest(input=clip, output=output, model=toy, backend=CPU, **LOSSLESS))
    return output


class ReadyExecutor(RayExecutor):
    """Begins when every worker can take a task."""

    def __enter__(self) -> Self:
        super().__enter__()
        until = time.monotonic() + 300
        while not all(worker.ready for worker in self.workers):
            assert time.monotonic() < until
            time.sleep(0.05)
        return self


@pytest.mark.parametrize("victim", ["actor", "node"])
def test_a_video_survives_its_workers(
    ray_nodes: Nodes, clip: Path, whole: Path, toy: Path, tmp_path: Path, victim: str
) -> None:
    request = UpscaleRequest(input=clip, output=tmp_path / "out.mp4", model=toy, backend=CPU, **LOSSLESS)
    killed: list[int] = []

    def on_progress(number: int, done: int, total: int | None) -> None:
        if killed or done < 50:
            return
        (pid,) = [actor["pid"] for actor in actors("_ActorProcess") if actor["node"] == ray_nodes.second]
        killed.append(pid)
        if victim == "actor":
            os.kill(killed[0], signal.SIGKILL)
        else:
            ray_nodes.kill_second()

    try:
        executor = ReadyExecutor(CPU)
        assert len(executor.workers) == 2, "one for each CPU of the cluster"
        (outcome,) = upscale_batch([request], executor, on_progress)
    finally:
        if victim == "node" and killed:
            ray_nodes.restore()
    assert killed
    assert outcome.error is None
    assert_equal_files(tmp_path / "out.mp4", whole)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert actors("_ActorProcess") == [], "the workers have ended"


def test_the_command_uses_a_cluster(ray_nodes: Nodes, clip: Path, whole: Path, toy: Path, tmp_path: Path) -> None:
    """Paths are relative to the folder of the command, which is not that of the workers."""
    os.symlink(clip, tmp_path / "clip.mp4")
    os.symlink(toy, tmp_path / "toy")
    command = [sys.executable, "-m", "stvsr", "batch", "clip.mp4", "none.mp4", "-o", "out", "--store", "parts"]
    command += ["-m", "toy", "-s", "1", "-e", "qp=0", "--device", "cpu", "--json"]
    command += ["--executor", "ray", "--ray-address", ray_nodes.address]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    first, second = json.loads(done.stdout)["outcomes"]
    assert first["report"]["frames_out"] == 2 * FRAMES, first
    assert "none.mp4 does not exist" in second["error"]
    assert done.returncode == 1
    assert_equal_files(tmp_path / "out" / "clip.mp4", whole)
    assert list((tmp_path / "parts").iterdir()) == []


def test_a_cluster_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    began = time.monotonic()
    clip = make_video(tmp_path / "a.mp4", pan(2))
    batch = ("batch", clip, "-o", tmp_path / "out", "--executor", "ray")
    assert_one_clear_error(stvsr(*batch, "--ray-address", "127.0.0.1:1"), "127.0.0.1:1 cannot be used")
    assert time.monotonic() - began < 30, "Ray alone would try for minutes"
    assert_one_clear_error(stvsr(*batch, "--ray-address", "ray://x:1"), "write HOST:PORT, or auto")
    for device in ("cuda:1", "cuda:0,cuda:1"):
        with pytest.raises(BackendError, match=f"Ray chooses the GPU .* in the place of {device}"):
            RayExecutor(Backend(device=device))
