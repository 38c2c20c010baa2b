"""Fourier-S's decoders by their own kernel, on a fake GPU."""

from typing import Any

import numpy as np
import pytest
from stvsr import Backend, BackendError, Bundle, Upscaler
from stvsr.engine.backends.cuda import CudaDevice
from stvsr.engine.backends.fourier_field import FourierFieldSession
from stvsr.engine.backends.onnxruntime import OrtSession
from stvsr.engine.contract.bundle import find_bundle
from stvsr.engine.contract.manifest import Role
from stvsr.engine.pipeline.runners import positions

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
