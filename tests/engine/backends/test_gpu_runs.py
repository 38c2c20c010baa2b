"""Whole runs of the shipped networks on a real GPU, each in a process of its own."""

import json
from pathlib import Path

import av
import pytest
from stvsr.engine.backends.cuda_driver import local_target

from tests.support.commands import stvsr
from tests.support.media import make_video, pan

FRAMES, HEIGHT, WIDTH = 41, 360, 640

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(local_target() is None, reason="no CUDA device")]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mp4", pan(FRAMES, (HEIGHT, WIDTH)))


@pytest.mark.parametrize(("model", "frames_out"), [("videoinr-s", 2 * FRAMES), ("edvr-s", FRAMES)])
def test_the_command_upscales_a_video_on_a_gpu(clip: Path, model: str, frames_out: int, tmp_path: Path) -> None:
    """In a process of its own, so that an abort in a CUDA library shows as an exit code."""
    output = tmp_path / "out.mp4"
    done = stvsr("upscale", clip, "--model", model, "--device", "cuda:0", "--output", output, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["device"], report["frames_out"]) == ("cuda:0", frames_out)
    with av.open(str(output)) as container:
        sizes = [(frame.height, frame.width) for frame in container.decode(video=0)]
    assert sizes == [(4 * HEIGHT, 4 * WIDTH)] * frames_out
