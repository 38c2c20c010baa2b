"""The repository in a real Triton, if there is one: `tritonserver`, or the command in STVSR_TRITON.

`tests/support/triton_backend/model.py` says how to come to one without a container.
"""

import json
import os
import shlex
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import Backend, BackendError, Bundle, Upscaler, one_scene
from stvsr.engine.backends.graphs import open_graphs
from stvsr.engine.backends.remote.repository import write_repository
from stvsr.engine.contract.bundle import MODELS

from tests.support.ports import unused_port
from tests.support.toy import write_toy
from tests.support.toy_windows import WINDOWS
from tests.support.toy_windows import write_toy as write_window

TRITON = os.environ.get("STVSR_TRITON") or shutil.which("tritonserver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(TRITON is None, reason="there is no Triton: neither tritonserver nor STVSR_TRITON"),
]
START_S = 60.0


@contextmanager
def triton(repository: Path) -> Iterator[dict[str, str]]:
    """Run Triton on a repository, and yield its URL for each protocol."""
    ports = {"http": unused_port(), "grpc": unused_port()}
    options = [f"--{name}-{what}" for name, port in ports.items() for what in ("address=127.0.0.1", f"port={port}")]
    command = [*shlex.split(TRITON or ""), f"--model-repository={repository}", *options]
    log = repository.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--disable-auto-complete-config", "--allow-metrics=false"], stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + START_S
        while not ready(ports["http"]):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Triton did not start: {log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield {name: f"{name}://127.0.0.1:{port}" for name, port in ports.items()}
    finally:
        process.terminate()
        process.wait(60)


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 3, 48, 64), dtype=np.float32)


@pytest.mark.parametrize("name", ["fourier-s", "videoinr-s", "edvr-s"])
def test_shipped_networks_equal_local_ones(name: str, repository: Path) -> None:
    bundle = Bundle.load(MODELS / name)
    write_repository([bundle], repository)
    times = (Fraction(0),) if name == "edvr-s" else (Fraction(0), Fraction(1, 3))
    sizes = [(192, 256)] if name == "edvr-s" else [(96, 128), (100, 131)]
    with triton(repository) as urls:
        for size in sizes:
            frames: list[Any] = []
            for backend in (Backend("ort", "cpu"), *(Backend("remote", url=url) for url in urls.values())):
                with Upscaler(bundle, backend) as upscaler:
                    frames.append(np.stack(list(upscaler.frames(one_scene(noise(3), times), size))).astype(int))
                    assert upscaler.warnings == []
            for remote in frames[1:]:
                assert np.abs(remote - frames[0]).max() <= 2  # of 65535: it may have another ONNX Runtime


def test_requests_of_one_shape_are_joined(repository: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(write_window(tmp_path / "toy", WINDOWS["run 2"], timed=True) / "graphs")
    write_repository([bundle], repository)
    windows = np.random.default_rng(1).random((8, 2, 3, 32, 48), dtype=np.float32)
    times = np.linspace(0, 1, 8, dtype=np.float32)
    inputs = [{"frames": windows[i : i + 1], "time": times[i : i + 1]} for i in range(8)]
    with open_graphs(bundle, Backend("ort", "cpu")) as graphs:
        expected = [graphs.run("network", one)["upscaled"] for one in inputs]
    with triton(repository) as urls:
        for url in urls.values():
            with open_graphs(bundle, Backend("remote", url=url)) as graphs, ThreadPoolExecutor(8) as pool:
                for _ in range(8):
                    results = list(pool.map(lambda one: graphs.run("network", one)["upscaled"], inputs))
                    np.testing.assert_allclose(results, expected, atol=1e-5)
        with urllib.request.urlopen(f"{urls['http']}/v2/models/toy-run/stats") as answer:
            (stats,) = json.load(answer)["model_stats"]
        assert stats["inference_count"] == 128
        assert stats["execution_count"] < 128


def test_errors_are_sentences(repository: Path, tmp_path: Path) -> None:
    toy = Bundle.load(write_toy(tmp_path / "toy"))
    write_repository([toy], repository, max_batch=2)
    others = [Bundle.load(write_toy(tmp_path / "a", name="other")), Bundle.load(write_toy(tmp_path / "b", blur_px=2))]
    with triton(repository) as urls:
        for url in urls.values():
            for other, message in zip(others, ("has no model 'other-encoder'", "from another bundle"), strict=True):
                with pytest.raises(BackendError, match=message):
                    Upscaler(other, Backend("remote", url=url))
            three = {"frames": np.zeros((3, 2, 3, 16, 16), np.float32)}
            with (
                open_graphs(toy, Backend("remote", url=url)) as graphs,
                pytest.raises(BackendError, match="batch-size must be <= 2"),
            ):
                graphs.run("encoder", three)
