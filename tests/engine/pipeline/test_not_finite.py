"""NaN and infinity end a run with a sentence; those of half precision are computed again in tf32."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from stvsr import Backend, Bundle, Upscaler, UpscaleRequest, upscale
from stvsr.engine.backends import graphs
from stvsr.engine.contract.bundle import graph_entry, write_manifest
from stvsr.engine.contract.errors import NonFiniteError
from stvsr.engine.contract.picture import check_finite

from tests.support.fake_gpu import FakeGpu, plugged_in
from tests.support.fake_onnxruntime import FakeOrt, with_cuda
from tests.support.media import make_video, pan
from tests.support.toy import FRAMES, write_toy


@pytest.fixture
def gpu() -> Iterator[FakeGpu]:
    with plugged_in() as gpu:
        yield gpu


@pytest.fixture
def ort(gpu: FakeGpu) -> Iterator[FakeOrt]:
    with with_cuda() as ort:
        yield ort


def write_scaled(folder: Path, *factors: float) -> Path:
    """Write a toy whose encoder multiplies the frames by one factor after another."""
    write_toy(folder)
    names = ["frames", *(f"after{n}" for n in range(1, len(factors))), "features"]
    nodes = [helper.make_node("Mul", [names[n], f"factor{n}"], [names[n + 1]]) for n in range(len(factors))]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, FRAMES) for name in ("frames", "features")]
    weights = [
        numpy_helper.from_array(np.array([factor], np.float32), f"factor{n}") for n, factor in enumerate(factors)
    ]
    graph = helper.make_graph(nodes, "encoder", tensors[:1], tensors[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "encoder.onnx")
    bundle = folder / "encoder.onnx"
    manifest = Bundle.load(write_toy(folder.with_name("plain"))).manifest
    encoder, decoder = manifest.graphs
    entry = graph_entry(bundle, "encoder", encoder.inputs, encoder.outputs)
    write_manifest(folder, manifest.model_copy(update={"graphs": (entry, decoder)}))
    return folder


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_found(value: float) -> None:
    frame = np.zeros((3, 40, 50), np.float32)
    check_finite(frame)
    check_finite(np.full_like(frame, 3e38))  # whose sum is infinite
    frame[1, 20, 30] = value
    with pytest.raises(NonFiniteError):
        check_finite(frame)


def test_the_bundle_the_precision_and_the_frame_are_named(tmp_path: Path) -> None:
    folder = write_scaled(tmp_path / "toy", 3e38, 3e38)
    frames = [np.zeros_like(frame) for frame in pan(3)] + pan(1)
    clip = make_video(tmp_path / "clip.mkv", frames)
    cpu = Backend(device="cpu")
    output = tmp_path / "out/out.mp4"
    request = UpscaleRequest(input=clip, output=output, model=folder, scale=1, scene_threshold=None, backend=cpu)
    (tmp_path / "out").mkdir()
    with pytest.raises(NonFiniteError, match=r"Bundle 'toy' computes .* in fp32, in output frame \d+.* at 0\.\d+ s\.$"):
        upscale(request)
    assert not list((tmp_path / "out").iterdir())


def test_half_precision_that_overflows_falls_back_to_tf32(
    ort: FakeOrt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_toy(tmp_path / "toy")
    # ONNX Runtime computes products in float32 on a CPU, so that they do not overflow there: this graph does.
    large = write_scaled(tmp_path / "large", 3e38, 3e38) / "encoder.onnx"

    def overflowing(graph: Path, coordinates: object) -> bytes:
        return (large if graph.name == large.name else graph).read_bytes()

    monkeypatch.setattr(graphs, "graph_to_fp16", overflowing)
    first, second = np.random.default_rng(0).random((2, 3, 16, 24), np.float32)
    with Upscaler(folder, Backend(device="cpu")) as upscaler:
        expected = np.stack(list(upscaler.between(first, second, (0.0, 0.5), (32, 48)))).astype(int)
    with Upscaler(folder, Backend("ort", "cuda:0", "fp16")) as upscaler:
        assert upscaler.precision == "fp16"
        actual = np.stack(list(upscaler.between(first, second, (0.0, 0.5), (32, 48)))).astype(int)
        assert upscaler.precision == "tf32"
        (warning,) = upscaler.warnings
        assert "exceed the range of fp16 in output frame 1" in warning
        again = np.stack(list(upscaler.between(first, second, (0.0, 0.5), (32, 48)))).astype(int)
        assert len(upscaler.warnings) == 1
    assert np.abs(actual - expected).max() <= 2
    np.testing.assert_array_equal(again, actual)


def test_nan_in_tf32_is_an_error_too(ort: FakeOrt, tmp_path: Path) -> None:
    folder = write_scaled(tmp_path / "toy", 3e38, 3e38)
    first, second = np.random.default_rng(0).random((2, 3, 16, 24), np.float32)
    with (
        Upscaler(folder, Backend("ort", "cuda:0", "fp16")) as upscaler,
        pytest.raises(NonFiniteError, match="in tf32, in output frame 1"),
    ):
        list(upscaler.between(first, second, (0.5,), (32, 48)))
