"""Fourier-S's decoders by their own kernel, on a fake GPU."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from stvsr import Backend, BackendError, Bundle, NonFiniteError, Upscaler
from stvsr.engine.backends.cuda import CudaDevice
from stvsr.engine.backends.fourier_field import FourierFieldSession
from stvsr.engine.backends.onnxruntime import OrtSession
from stvsr.engine.contract.bundle import find_bundle
from stvsr.engine.contract.manifest import Role
from stvsr.engine.contract.picture import PictureFormat
from stvsr.engine.pipeline.runners import decoder_inputs, positions

from tests.support.fake_gpu import Array, FakeGpu
from tests.support.fake_onnxruntime import with_cuda

H, W = 6, 9
TARGETS: dict[Role, tuple[np.ndarray, np.ndarray]] = {
    "integer_decoder": (positions(range(3), 1, 3, 0), positions(range(4), 1, 4, 0)),
    "decoder": (positions(range(2, 13), H, 13, 0), positions(range(20), W, 20, 0)),
}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return find_bundle("fourier-s")


def maps() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=(1, 64, H, W)).astype(np.float32)
    return {"coefficients": coefficients, "base": rng.random((1, 3, H, W), np.float32)}


@pytest.mark.parametrize("role", TARGETS)
def test_the_session_agrees_with_the_graph(gpu: FakeGpu, bundle: Bundle, role: Role) -> None:
    """With the weights of the graph and with replaced ones; the second run uses the same positions."""
    y, x = TARGETS[role]
    with OrtSession(bundle.path(role)) as reference:
        expected = reference.run({**maps(), "y": y, "x": x})["frame"]
    uploaded = {name: value.view(Array) for name, value in maps().items()}
    with FourierFieldSession(bundle, role, CudaDevice()) as session:
        for _ in range(2):
            actual = session.run({**uploaded, "y": y, "x": x})["frame"]
            assert actual.dtype == np.float32
            np.testing.assert_allclose(np.asarray(actual), expected, atol=2e-5)
    with pytest.raises(BackendError, match="closed"):
        session.run({**uploaded, "y": y, "x": x})
    with FourierFieldSession(bundle, role, CudaDevice(), {"field.colour": np.zeros((3, 32), np.float32)}) as session:
        plain = np.asarray(session.run({**uploaded, "y": y, "x": x})["frame"])
    assert 0 <= plain.min() + 0.2 < plain.max() < 1.3, "the base alone"


def test_onnx_runtime_on_a_gpu_leaves_the_decoders_to_the_kernel(gpu: FakeGpu, bundle: Bundle) -> None:
    first, second = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    frames, sizes = [], [(96, 96), (50, 80)]
    with with_cuda() as ort:
        for backend in (Backend("ort", "cuda:0", "fp32"), Backend(device="cpu")):
            with Upscaler(bundle, backend) as upscaler:
                frames.append([f.astype(int) for size in sizes for f in upscaler.between(first, second, [0.5], size)])
        assert len(ort.opened) == 3, "the encoder before its size is known, the encoder and the refiner"
    for actual, expected in zip(*frames, strict=True):
        assert np.abs(actual - expected).max() <= 3  # of 65535


@pytest.mark.parametrize(
    ("target", "pix_fmt"),
    [
        *(((24, 36), "nv12"), ((18, 27), "nv12"), ((13, 20), "nv12"), ((18, 27), "yuv444p")),
        *(pytest.param(target, "yuv444p", marks=pytest.mark.slow) for target in ((24, 36), (13, 20))),
    ],
    ids=str,
)
def test_a_picture_is_rendered_as_its_frame_is_converted(
    gpu: FakeGpu, bundle: Bundle, target: tuple[int, int], pix_fmt: str
) -> None:
    """At even factors, at odd ones and at others, of two pairs; in a format that no kernel writes it is RGB."""
    device, picture_format = CudaDevice(), PictureFormat(pix_fmt, (0.2126, 0.0722), False)
    role, at = decoder_inputs(bundle.manifest, (H, W), target)
    inputs = {name: np.concatenate([value, value[..., ::-1]]).view(Array) for name, value in maps().items()} | at
    with FourierFieldSession(bundle, role, device) as session, device.stream(0):
        frames = session.run(inputs)["frame"]
        pictures = [device.download(rendering, picture_format)() for rendering in session.renderings(inputs, target)]
        for picture, frame in zip(pictures, frames, strict=True):
            converted = device.download(frame.copy(), picture_format)()
            of_yuv = isinstance(picture, tuple) and isinstance(converted, tuple)
            assert of_yuv == (pix_fmt == "nv12")
            planes = zip(picture, converted, strict=True) if of_yuv else [(picture, converted)]
            for actual, expected in ((np.asarray(a), np.asarray(b)) for a, b in planes):
                assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
                difference = np.abs(actual.astype(int) - expected)
                assert difference.max() <= 1
                assert (difference > 0).mean() < (1e-2 if pix_fmt == "nv12" else 0.5)
        inputs["base"][1, 0, 2, 2] = np.nan
        first, second = (device.download(each, picture_format) for each in session.renderings(inputs, target))
        first()
        with pytest.raises(NonFiniteError):
            second()


def test_frames_of_one_tile_are_rendered_without_a_buffer(gpu: FakeGpu, bundle: Bundle) -> None:
    """The network computes the same in tiles, in buffers that pictures are made of."""
    first, second = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    with with_cuda(), Upscaler(bundle, Backend("ort", "cuda:0", "fp32")) as upscaler:
        with patch.object(CudaDevice, "output_buffer", side_effect=AssertionError("no buffer is needed")):
            for size in ((192, 192), (100, 150)):
                assert [frame.shape for frame in upscaler.between(first, second, [0.5], size)] == [(3, *size)]
        assert upscaler.preparation.first_run_seconds > 0
