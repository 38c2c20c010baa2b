"""The measurements of one case, in this process: every kind of window, a chain, batches, a fake GPU, and stages."""

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stvsr import Backend, Bundle, MediaError, RequestError, Upscaler, one_scene
from stvsr.engine.backends.remote.repository import write_repository
from stvsr.engine.backends.stages import STAGES, StageClock
from stvsr.engine.benchmark import measure as measure_module
from stvsr.engine.benchmark.clip import frames_of_clip, synthetic_frames, write_synthetic_clip
from stvsr.engine.benchmark.measure import Job, describe, measure
from stvsr.engine.benchmark.results import Case, Figures, Percentiles
from stvsr.engine.pipeline.scenes import CutDetector

from tests.support import toy_windows
from tests.support.fake_gpu import FakeGpu, plugged_in
from tests.support.media import make_video, pan

SIZE = (48, 32)
CPU = Backend("ort", "cpu", threads=1)
CASE = Case(
    bundle="toy",
    backend="ort",
    title="ONNX Runtime",
    device="cpu",
    precision="fp32",
    size_in=SIZE,
    size_out=(96, 64),
    factor=2,
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", SIZE)


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path / "cache"))
    with plugged_in() as gpu:
        yield gpu


def figures_of(clip: Path, folder: Path, model: object, how: Backend = CPU, **changes: Any) -> Figures:
    case = CASE.model_copy(update=changes)
    found: dict[str, Any] = {}
    for figures in measure(Job(case, str(model), how, clip, folder, 0.02)):
        found |= figures
    return Figures(**found)


@pytest.mark.parametrize("kind", ["run 4", "replicate 3", "doubled 2+1"])
def test_a_request_is_one_window_of_every_kind(
    kind: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = toy_windows.write_toy(tmp_path / "toy", toy_windows.WINDOWS[kind]) / "graphs"
    factor = toy_windows.time_factor(kind)
    counts: list[int] = []
    monkeypatch.setattr(measure_module._Load, "stream", lambda *_, **__: measure_module._Stream(1, 1, 1.0, 1.0))
    frames = measure_module.Chain.frames

    def counted(chain: Any, inputs: Any) -> Any:
        outputs = list(frames(chain, inputs))
        counts.append(len(outputs))
        return iter(outputs)

    monkeypatch.setattr(measure_module.Chain, "frames", counted)
    found = figures_of(clip, tmp_path, folder, factor=factor, concurrency=2)
    assert set(counts) == {found.frames_per_request}
    assert found.frames_per_request == {"run 4": 6, "replicate 3": 1, "doubled 2+1": 4}[kind]
    assert found.request_ms is not None
    assert found.request_ms.count == len(counts)


def test_one_stream_has_every_figure(clip: Path, toy: Path, tmp_path: Path) -> None:
    found = figures_of(clip, tmp_path, toy)
    missing = {name for name, value in found.model_dump().items() if value is None}
    assert missing == {"device_memory_bytes", "joules_per_frame"}, "there is no GPU"
    assert found.frames is not None
    assert found.frames % 2 == 0, "whole windows"
    assert found.whole_frames is not None
    assert found.whole_frames >= 6
    assert list(found.stages_ms or {}) == ["decode", *STAGES, "other", "encode"]
    assert (found.stages_ms or {})["network"] > 0
    assert list(tmp_path.iterdir()) == [], "outputs are deleted"


def test_a_chain_and_a_batch_are_measured(clip: Path, toy: Path, tmp_path: Path) -> None:
    enlarging = toy_windows.write_toy(tmp_path / "space", toy_windows.WINDOWS["replicate 3"]) / "graphs"
    found = figures_of(clip, tmp_path, f"{toy}+{enlarging}", batch=2, concurrency=2)
    assert found.fps is not None
    assert found.fps > 0
    assert found.whole_fps is None, "of one stream alone"
    assert found.stages_ms is None


def test_engines_are_measured_on_a_gpu(gpu: FakeGpu, clip: Path, toy: Path, tmp_path: Path) -> None:
    found = figures_of(clip, tmp_path, toy, Backend("tensorrt", "cuda:0"), device="cuda:0", backend="tensorrt")
    assert gpu.count["computed"] > 0
    assert all((found.stages_ms or {})[stage] > 0 for stage in STAGES)
    assert found.device_memory_bytes is None, "the fake has no NVML"


def test_stages_are_counted_while_the_clock_runs_and_change_no_frame(toy: Path) -> None:
    frames = np.random.default_rng(0).random((3, 3, 32, 48), np.float32)
    times = (Fraction(0), Fraction(1, 2))
    clock = StageClock()
    with Upscaler(Bundle.load(toy), CPU) as plain, Upscaler(Bundle.load(toy), CPU, clock=clock) as timed:
        expected = list(plain.frames(one_scene(frames, times), (64, 96)))
        for running in (False, True):
            clock.running = running
            actual = list(timed.frames(one_scene(frames, times), (64, 96)))
            assert all(np.array_equal(a, b) for a, b in zip(actual, expected, strict=True))
            assert all((clock.seconds[stage] > 0) is running for stage in STAGES)


def test_what_cannot_be_measured_is_described(clip: Path, toy: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not make 960x640"):
        figures_of(clip, tmp_path, toy, size_out=(960, 640))
    with pytest.raises(MediaError, match=r"one\.mp4 has fewer than two frames"):
        figures_of(make_video(tmp_path / "one.mp4", pan(1)), tmp_path, toy)
    assert describe(RequestError("A sentence.")) == "A sentence."
    assert describe(ValueError("a bug")) == "ValueError: a bug"


def test_the_clip_is_the_same_everywhere_and_has_no_cut(clip: Path) -> None:
    frames = list(synthetic_frames(SIZE, 24))
    assert all(np.array_equal(a, b) for a, b in zip(frames, synthetic_frames(SIZE, 24), strict=True))
    detector = CutDetector()
    assert not any(detector.is_cut(frame.transpose(2, 0, 1) / np.float32(255)) for frame in frames)
    assert np.abs(frames[0].astype(int) - frames[1]).mean() > 1, "it moves"
    with av.open(str(clip)) as container:
        assert sum(1 for _ in container.decode(video=0)) == frames_of_clip(SIZE) == 240
    assert frames_of_clip((3840, 2160)) == 12


def test_percentiles_are_nearest_ranks() -> None:
    found = Percentiles.of([float(value) for value in range(200, 0, -1)])
    assert (found.p50, found.p95, found.p99, found.count) == (100, 190, 198, 200)
    assert math.isclose(Percentiles.of([7.0]).p99, 7)


def test_energy_and_memory_of_a_gpu_are_above_what_was_there(
    clip: Path, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Meter:
        def __init__(self, index: int | None) -> None:
            assert index == 1
            self.readings, self.energy = iter([100, *[700] * 10_000]), 0.0

        def used_bytes(self) -> int:
            return next(self.readings)

        def joules(self) -> float:
            self.energy += 5.0
            return self.energy

    monkeypatch.setattr(measure_module, "GpuMeter", Meter)
    monkeypatch.setattr(measure_module, "_SAMPLE_S", 0.001)
    found = figures_of(clip, tmp_path, toy, device="cuda:1", batch=2, concurrency=2)
    assert found.device_memory_bytes == 600
    assert found.frames is not None
    assert found.joules_per_frame == pytest.approx(5.0 / found.frames, abs=1e-3), "between two readings"


def test_a_server_is_measured(clip: Path, toy: Path, tmp_path: Path) -> None:
    pytest.importorskip("tritonclient.grpc", reason="stvsr[remote] is not installed: there is no inference server")
    from tests.support.inference_server import serving

    write_repository([Bundle.load(toy)], tmp_path / "models", max_batch=4)
    (folder := tmp_path / "outputs").mkdir()
    with serving(tmp_path / "models", "http") as server:
        found = figures_of(clip, folder, toy, Backend("remote", url=server.url), backend="remote", device="server")
    assert (found.stages_ms or {})["network"] > 0
    assert found.whole_fps is not None
