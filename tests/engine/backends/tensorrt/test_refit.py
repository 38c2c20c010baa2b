"""Weights of open engines are replaced by name, and the engines compared with ONNX Runtime."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stvsr import BackendError, Bundle
from stvsr.engine.backends.cuda import CudaDevice
from stvsr.engine.backends.onnxruntime import OrtSession
from stvsr.engine.backends.tensorrt.engines import find_engine
from stvsr.engine.backends.tensorrt.refit import refit_session
from stvsr.engine.backends.tensorrt.session import TensorRtSession
from stvsr.engine.contract.weights import read_weights, replace_weights

from tests.support.exports import exported
from tests.support.fake_gpu import FakeGpu

NAME = "conv_first.weight"
FRAMES = {"frames": np.random.default_rng(sum((1, 5, 3, 16, 24))).random((1, 5, 3, 16, 24), np.float32)}
UNKNOWN = {"nowhere.weight": np.zeros(3, np.float32)}


@pytest.fixture
def bundle() -> Bundle:
    return exported("edvr-s")[1]


@pytest.fixture
def weights(bundle: Bundle) -> dict[str, np.ndarray]:
    """New weights under all names but the slopes of PReLUs, which are attributes, and constants."""
    names = exported("edvr-s")[0].state_dict()
    stored = read_weights(bundle.path("network").read_bytes())
    return {n: w * np.float32(1.1) for n, w in stored.items() if n in names and w.shape != (1,)}


def open_engine(bundle: Bundle, *, refit: bool) -> TensorRtSession:
    path = find_engine(bundle, "network", target="sm89", refit=refit)
    return TensorRtSession(path, bundle.graph("network"), "tensorrt-rtx", CudaDevice())


@pytest.fixture
def session(gpu: FakeGpu, bundle: Bundle) -> Iterator[TensorRtSession]:
    with open_engine(bundle, refit=True) as session:
        yield session


def test_replaced_weights_take_effect(
    session: TensorRtSession, bundle: Bundle, weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    changed = replace_weights(bundle, weights, tmp_path / "other")
    with OrtSession(changed.path("network")) as reference:
        expected = reference.run(FRAMES)["upscaled"]
    for _ in range(2):
        before = session.run(FRAMES)["upscaled"]
    assert np.abs(before - expected).max() > 0.01
    assert refit_session(session, bundle.path("network"), weights, FRAMES) < 1e-4
    np.testing.assert_allclose(session.run(FRAMES)["upscaled"], expected, atol=1e-4)


def test_unknown_weights_and_other_sizes_are_refused(
    session: TensorRtSession, bundle: Bundle, weights: dict[str, np.ndarray]
) -> None:
    with pytest.raises(BackendError, match=r"has no weights named 'nowhere.weight'"):
        session.refit(UNKNOWN)
    with pytest.raises(BackendError, match=r"has no weights 'nowhere.weight'"):
        refit_session(session, bundle.path("network"), UNKNOWN, FRAMES)
    count = weights[NAME].size
    with pytest.raises(BackendError, match=rf"{count} numbers in '{NAME}', and 1 numbers were given"):
        session.refit({NAME: np.zeros(1, np.float32)})


def test_an_engine_that_differs_after_a_refit_is_refused(
    session: TensorRtSession, bundle: Bundle, weights: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = bundle.path("network")
    monkeypatch.setattr(session, "refit", lambda weights: None)  # as by a library that silently does nothing
    with pytest.raises(BackendError, match=r"differs by .* from ONNX Runtime"):
        refit_session(session, graph, weights, FRAMES)
    run = session.run
    monkeypatch.setattr(session, "run", lambda inputs: {n: v * np.float32("nan") for n, v in run(inputs).items()})
    with pytest.raises(BackendError, match=r"differs by nan from ONNX Runtime"):
        refit_session(session, graph, {NAME: weights[NAME]}, FRAMES)


def test_an_engine_built_without_refit_is_refused(gpu: FakeGpu, bundle: Bundle, weights: dict[str, np.ndarray]) -> None:
    with open_engine(bundle, refit=False) as session:
        with pytest.raises(BackendError, match="compile the bundle with --refit"):
            session.refit(weights)
        with pytest.raises(BackendError, match="of the engine cannot be replaced"):
            refit_session(session, bundle.path("network"), weights, FRAMES)
