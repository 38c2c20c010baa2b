"""The shipped networks on a real GPU: whole runs, each in a process of its own, and frames beside those of the CPU."""

import json
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from stvsr import Backend, Upscaler, one_scene
from stvsr.engine.backends.cuda_driver import local_target
from stvsr.engine.contract.bundle import find_bundle
from stvsr.engine.contract.manifest import Precision

from tests.support.commands import stvsr
from tests.support.media import make_video, pan
from tests.support.paths import SAMPLE

FRAMES, HEIGHT, WIDTH = 41, 360, 640

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(local_target() is None, reason="no CUDA device")]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mp4", pan(FRAMES, (HEIGHT, WIDTH)))


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
@pytest.mark.parametrize(
    ("model", "frames_out"), [("fourier-s", 2 * FRAMES), ("videoinr-s", 2 * FRAMES), ("edvr-s", FRAMES)]
)
def test_the_command_upscales_a_video_on_a_gpu(
    clip: Path, model: str, frames_out: int, precision: str, tmp_path: Path
) -> None:
    """In a process of its own, so that an abort in a CUDA library shows as an exit code."""
    output = tmp_path / "out.mp4"
    options = ("--model", model, "--backend", "ort", "--device", "cuda:0", "--precision", precision)
    done = stvsr("upscale", clip, *options, "--output", output, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["device"], report["precision"], report["frames_out"]) == ("cuda:0", precision, frames_out)
    with av.open(str(output)) as container:
        sizes = [(frame.height, frame.width) for frame in container.decode(video=0)]
    assert sizes == [(4 * HEIGHT, 4 * WIDTH)] * frames_out


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
@pytest.mark.parametrize("model", ["fourier-s", "videoinr-s", "edvr-s"])
def test_frames_on_a_gpu_are_those_of_the_cpu(model: str, precision: Precision) -> None:
    """The difference is at most three times the recorded loss of the precision, with captured graphs too."""
    with av.open(str(SAMPLE)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), 7)]
    frames = np.stack(decoded)[:, 20:116, 40:200].transpose(0, 3, 1, 2).astype(np.float32) / 255
    bundle = find_bundle(model)
    times = (Fraction(0), Fraction(1, 2)) if bundle.manifest.window.kind == "pair" else (Fraction(0),)
    results = []
    for backend in (Backend("ort", "cpu"), Backend("ort", "cuda:0", precision)):
        with Upscaler(bundle, backend) as upscaler:
            results.append(np.stack(list(upscaler.frames(one_scene(frames, times), (384, 640)))).astype(int))
    allowed = 1e-4 if precision == "fp32" else 3 * bundle.manifest.precisions[precision].p999
    assert np.quantile(np.abs(results[0] - results[1]), 0.999) / 65535 <= allowed
