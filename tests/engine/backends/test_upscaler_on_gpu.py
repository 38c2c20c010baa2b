"""Upscaling on a fake GPU gives the frames of the CPU, with tiles, several streams and replaced weights."""

import asyncio
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import (
    Backend,
    BackendError,
    Bundle,
    BundleError,
    DeviceMemoryError,
    NonFiniteError,
    RequestError,
    Upscaler,
    UpscaleRequest,
    one_scene,
    upscale,
)
from stvsr.engine.backends.cuda import CudaDevice
from stvsr.engine.backends.tensorrt.session import TensorRtSession
from stvsr.engine.contract.manifest import FixedFactors
from stvsr.engine.contract.weights import read_weights, replace_weights
from stvsr.engine.media.reader import open_reader

from tests.support.exports import exported
from tests.support.fake_gpu import FakeGpu
from tests.support.learners import with_eighth
from tests.support.media import make_video, pan
from tests.support.pictures import half_transparent, write_frames_rgba
from tests.support.toy import write_toy

CPU, GPU = Backend(device="cpu"), Backend("tensorrt")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random(shape, np.float32)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    "name", ["edvr-s", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adavsr-temporal-s", "dtsr-s"))]
)
def test_engines_give_the_frames_of_onnx_runtime(gpu: FakeGpu, name: str, precision: Any) -> None:
    bundle = exported(name)[1]
    frames = np.random.default_rng(1).random((4, 3, 20, 36), np.float32)
    factor = 1 if bundle.manifest.window.kind == "sliding" else 2
    times = tuple(Fraction(part, factor) for part in range(factor))
    assert isinstance(bundle.manifest.space, FixedFactors)
    (scale,) = bundle.manifest.space.factors
    outputs = []
    for backend, device in ((CPU, "cpu"), (Backend("tensorrt", precision=precision), "cuda:0")):
        with Upscaler(bundle, backend) as upscaler:
            results = upscaler.frames(one_scene(frames, times), (20 * scale, 36 * scale))
            outputs.append(np.stack(list(results)).astype(int))
            assert upscaler.device == device
            assert upscaler.warnings == []
    difference = np.abs(outputs[0] - outputs[1]).max() / 65535
    assert difference <= (1e-4 if precision == "fp32" else 2e-2)
    assert gpu.count["computed"] > 0
    assert gpu.count["page-locked"] > 0


def frames_between(
    bundle: Bundle, backend: Backend, times: tuple[float, ...], size: tuple[int, int], *, tile: int | None = None
) -> np.ndarray:
    """Return the frames between two frames of 37x53, (N, 3, H, W)."""
    first, second = noise(2, 3, 37, 53)
    with Upscaler(bundle, backend, tile=tile) as upscaler:
        return np.stack(list(upscaler.between(first, second, times, size))).astype(int)


@pytest.mark.parametrize("tile", [None, 24])
def test_pairs_are_decoded_at_any_time_and_size(gpu: FakeGpu, toy: Bundle, tile: int | None) -> None:
    times = (0.0, 0.25, 0.5, 1.0)
    on_cpu, on_gpu = (frames_between(toy, backend, times, (100, 131), tile=tile) for backend in (CPU, GPU))
    assert np.abs(on_cpu - on_gpu).max() <= 1


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_a_preset_gives_the_mean_of_mirrored_frames(
    gpu: FakeGpu, tmp_path: Path, value_range: tuple[float, float]
) -> None:
    toy = write_toy(tmp_path / "toy", integer=True, value_range=value_range)  # not symmetric
    frames, results = noise(3, 3, 13, 21), []
    for backend in (CPU, GPU):
        with Upscaler(toy, backend, preset="best") as upscaler:
            inputs = one_scene(frames, (Fraction(0), Fraction(1, 3)))
            results.append(np.stack(list(upscaler.frames(inputs, (26, 42)))).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_mean_keeps_values_that_are_not_finite(gpu: FakeGpu, value: float) -> None:
    device = CudaDevice(0)
    buffers = [noise(3, 4, 6), noise(3, 4, 6)]
    buffers[1][0, 0, 0] = value
    with device.stream(0), pytest.raises(NonFiniteError):
        device.download(device.mean([device.upload(buffer) for buffer in buffers]), None)()


def test_smaller_tiles_are_used_if_memory_is_too_small(gpu: FakeGpu, tmp_path: Path) -> None:
    bundle = Bundle.load(write_toy(tmp_path / "blurred", blur_px=3))
    first, second = noise(2, 3, 64, 80)
    arguments = (first, second, (0.0, 0.5), (128, 160))
    with Upscaler(bundle, CPU) as upscaler:
        expected = np.stack(list(upscaler.between(*arguments))).astype(int)
    gpu.memory_bytes = 64 * 2 * 3 * 48 * 48
    with Upscaler(bundle, GPU) as upscaler:
        actual = np.stack(list(upscaler.between(*arguments)))
        assert upscaler.warnings == [
            "The memory of device 'cuda:0' is too small for tiles of 80 pixels: tiles of 40 were used, which takes"
            " longer."
        ]
    assert np.abs(actual - expected).max() <= 2


@pytest.mark.parametrize("tile", [None, 0])
def test_memory_that_is_too_small_for_the_least_tiles_is_an_error(
    gpu: FakeGpu, tmp_path: Path, tile: int | None
) -> None:
    bundle = Bundle.load(write_toy(tmp_path / "blurred", blur_px=3))
    first, second = noise(2, 3, 64, 80)
    gpu.memory_bytes = 1000
    with (
        Upscaler(bundle, GPU, tile=tile) as upscaler,
        pytest.raises(DeviceMemoryError, match="too small for this work"),
    ):
        list(upscaler.between(first, second, (0.0, 0.5), (128, 160)))


def test_several_windows_are_in_flight(gpu: FakeGpu, toy: Bundle) -> None:
    """Work is queued on two streams in turn, and a result is awaited when three more are pending."""
    frames = noise(8, 3, 16, 16)
    with Upscaler(toy, GPU) as upscaler:
        assert isinstance(upscaler.queues[0].device, CudaDevice)
        read = 0

        def counted() -> Iterator[np.ndarray]:
            nonlocal read
            for frame in frames:
                read += 1
                yield frame

        results = upscaler.frames(one_scene(counted()), (16, 16))
        next(results)
        assert read >= 4
        assert len(list(results)) == 7
        streams = {stream.ptr for stream in upscaler.queues[0].device.streams}
        for session in upscaler.queues[0].graphs._sessions.values():
            assert set(session._contexts) == streams  # type: ignore[attr-defined]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv444p"])
def test_a_video_has_the_same_pictures(gpu: FakeGpu, toy: Bundle, tmp_path: Path, pix_fmt: str) -> None:
    """The GPU returns planes of the video's format if the kernels support it, else RGB."""
    source = make_video(tmp_path / "in.mp4", pan(4))
    frames = {}
    for backend in (CPU, GPU):
        output = tmp_path / f"{backend.kind}.mkv"
        request = UpscaleRequest(
            input=source,
            output=output,
            model=toy.folder,
            scale=2,
            backend=backend,
            codec="libx264",
            encoder_options={"qp": "0"},
            pix_fmt=pix_fmt,
        )
        report = upscale(request)
        assert report.frames_out == 8
        with open_reader(output) as reader:
            frames[report.device] = np.stack([frame.rgb for frame in reader])
    assert frames.keys() == {"cpu", "cuda:0"}
    codes = 1023 if "10" in pix_fmt else 255
    assert np.abs(frames["cpu"] - frames["cuda:0"]).max() <= 3.5 / codes  # one code of luma and one of chroma


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "bgra"])
def test_odd_sizes_and_alpha_are_those_of_the_cpu(gpu: FakeGpu, toy: Bundle, tmp_path: Path, pix_fmt: str) -> None:
    """Planes of an odd size fill the even frame, and alpha passes through the streams of the colors."""
    source = write_frames_rgba(tmp_path / "in.mkv", half_transparent(4), "ffv1", "bgra")
    options: dict[str, Any] = {"model": toy.folder, "size": (127, 95), "pix_fmt": pix_fmt}
    options |= {"codec": "ffv1"} if pix_fmt == "bgra" else {"codec": "libx264", "encoder_options": {"qp": "0"}}
    frames = {}
    for backend in (CPU, GPU):
        output = tmp_path / f"{backend.kind}.mkv"
        report = upscale(UpscaleRequest(input=source, output=output, backend=backend, **options))
        with open_reader(output) as reader:
            frames[report.device] = np.stack(
                [f.rgb if f.alpha is None else np.concatenate([f.rgb, f.alpha[None]]) for f in reader]
            )
    height = {"yuv420p": 96}.get(pix_fmt, 95)
    shape = (8, 4, 95, 127) if pix_fmt == "bgra" else (8, 3, height, 128)
    assert frames["cpu"].shape == frames["cuda:0"].shape == shape
    assert np.abs(frames["cpu"] - frames["cuda:0"]).max() <= 3.5 / 255


@pytest.mark.parametrize("refit_first", [False, True], ids=["open sessions", "later sessions"])
@pytest.mark.parametrize("backend", [CPU, Backend("tensorrt", precision="fp32", refit=True)], ids=["ort", "tensorrt"])
def test_weights_of_open_graphs_are_replaced(gpu: FakeGpu, tmp_path: Path, backend: Backend, refit_first: bool) -> None:
    bundle = exported("edvr-s")[1]
    frames, size = noise(3, 3, 16, 24), (64, 96)
    stored = read_weights(bundle.path("network").read_bytes())
    weights = {name: stored[name] * np.float32(1.1) for name in ("conv_first.weight", "conv_last.weight")}
    with Upscaler(replace_weights(bundle, weights, tmp_path / "adapted"), CPU) as upscaler:
        expected = np.stack(list(upscaler.frames(one_scene(frames), size))).astype(int)
    with Upscaler(bundle, backend) as upscaler:
        if not refit_first:
            before = np.stack(list(upscaler.frames(one_scene(frames), size)))
            assert np.abs(before - expected).max() > 200
        for name, weight in weights.items():  # a second refit keeps the weights of the first
            upscaler.refit({name: weight})
        after = np.stack(list(upscaler.frames(one_scene(frames), size)))
        assert np.abs(after - expected).max() <= 8
        with pytest.raises(BundleError, match=r"have no weight nowhere"):
            upscaler.refit({"nowhere": np.zeros(1, np.float32)})


@pytest.mark.parametrize(
    "backend",
    [CPU, Backend("ort", "cpu,cpu"), Backend("tensorrt", precision="fp32", refit=True)],
    ids=["ort", "two devices", "tensorrt"],
)
def test_an_open_upscaler_takes_the_weights_of_another_bundle(gpu: FakeGpu, tmp_path: Path, backend: Backend) -> None:
    """Between two streams; the upscaler's own bundle brings back its weights, and none are mixed within a stream."""
    bundle = exported("edvr-s")[1]
    frames, size = noise(3, 3, 16, 24), (64, 96)
    stored = read_weights(bundle.path("network").read_bytes())
    others = [
        replace_weights(bundle, {name: stored[name] * np.float32(1.1)}, tmp_path / name)
        for name in ("conv_first.weight", "conv_last.weight")
    ]

    def outputs(upscaler: Upscaler) -> np.ndarray:
        return np.stack(list(upscaler.frames(one_scene(frames), size))).astype(int)

    expected = []
    for each in (*others, bundle):
        with Upscaler(each, CPU) as upscaler:
            expected.append(outputs(upscaler))
    with Upscaler(bundle, backend) as upscaler:
        outputs(upscaler)
        queues = list(upscaler.queues)
        for each, result in zip((*others, bundle), expected, strict=True):
            upscaler.refit(each)
            assert upscaler.weights == each.fingerprint
            assert np.abs(outputs(upscaler) - result).max() <= 8
        stream = upscaler.frames(one_scene(frames), size)
        next(stream)
        with pytest.raises(RequestError, match="while a stream is computed"):
            upscaler.refit(others[0])
        stream.close()
        with pytest.raises(BundleError, match="in more than its weights"):
            upscaler.refit(exported("dtsr-s")[1])
        assert np.abs(outputs(upscaler) - expected[2]).max() <= 8
        assert upscaler.queues == queues


def test_a_live_stream_takes_new_weights_after_it_has_ended(tmp_path: Path) -> None:
    """An asynchronous stream computes a frame ahead in a thread, which has ended with the stream."""
    toy = Bundle.load(write_toy(tmp_path / "toy", integer=True))
    other = with_eighth(toy, 0.5, tmp_path / "other")
    frames = list(noise(3, 3, 16, 16))

    async def results() -> list[np.ndarray]:
        outputs = []
        with Upscaler(toy, CPU) as upscaler:
            for bundle in (toy, other, toy):
                upscaler.refit(bundle)
                outputs.append(np.stack([frame async for frame in upscaler.stream(frames, (32, 32))]).astype(int))
        return outputs

    before, during, after = asyncio.run(results())
    assert np.array_equal(before, after)
    assert np.abs(during - before).max() > 5000


def test_engines_whose_weights_cannot_be_replaced_keep_their_own(
    gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = exported("edvr-s")[1]
    stored = read_weights(bundle.path("network").read_bytes())
    other = replace_weights(bundle, {"conv_last.weight": stored["conv_last.weight"] * np.float32(2)}, tmp_path / "o")
    frames, size = noise(3, 3, 16, 24), (64, 96)
    with Upscaler(bundle, Backend("tensorrt", precision="fp32", refit=True)) as upscaler:
        before = np.stack(list(upscaler.frames(one_scene(frames), size)))

        def refuse(self: TensorRtSession, weights: object) -> None:
            raise BackendError("no such weights")

        with monkeypatch.context() as patch:
            patch.setattr(TensorRtSession, "refit", refuse)
            with pytest.raises(BackendError, match="no such weights"):
                upscaler.refit(other)
        assert upscaler.weights == bundle.fingerprint
        assert np.array_equal(np.stack(list(upscaler.frames(one_scene(frames), size))), before)


def test_engines_without_refit_refuse_weights(gpu: FakeGpu) -> None:
    bundle = exported("edvr-s")[1]
    weights = {"conv_first.weight": read_weights(bundle.path("network").read_bytes())["conv_first.weight"]}
    with Upscaler(bundle, GPU) as upscaler, pytest.raises(BackendError, match="compiled without refit"):
        upscaler.refit(weights)
