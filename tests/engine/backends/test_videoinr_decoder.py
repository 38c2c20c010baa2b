"""VideoINR's decoder by its own kernels, on a fake GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from stvsr import Backend, Bundle, Upscaler
from stvsr.engine.backends.cuda import CudaDevice
from stvsr.engine.backends.videoinr_decoder import VideoInrDecoderSession
from stvsr.engine.contract.bundle import file_sha256, write_manifest
from stvsr.engine.contract.manifest import Architecture, TensorSpec
from stvsr.export.exporter import export_bundle
from stvsr.training.networks.ops import target_coordinates
from stvsr.training.networks.registry import find_network

from tests.support.fake_gpu import Array, FakeGpu
from tests.support.toy import save_graph, write_toy
from tests.support.videoinr import tiny


@pytest.mark.slow
@pytest.mark.parametrize("official", [True, False])
def test_kernels_decode_instead_of_an_engine(gpu: FakeGpu, official: bool, tmp_path: Path) -> None:
    network = tiny(official_sampling=official, frame_upsample=2)
    bundle = Bundle.load(export_bundle(find_network("videoinr"), network, tmp_path / "bundle"))
    first, second = np.random.default_rng(0).random((2, 3, 16, 24), np.float32)
    frames = []
    for backend in (Backend(device="cpu"), Backend("tensorrt")):
        with Upscaler(bundle, backend) as upscaler:
            frames.append(np.stack(list(upscaler.between(first, second, (0, 0.5), (40, 60)))))
    assert np.abs(frames[0].astype(int) - frames[1]).max() / 65535 < 1e-3
    assert [path.name for path in (tmp_path / "cache" / "engines").iterdir() if "decoder" in path.name] == []


def decoder_tensors(bundle: Bundle) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs of a bundle's decoder."""
    graph = bundle.graph("decoder")
    return graph.inputs, graph.outputs


def write_decoder(folder: Path, state: dict[str, np.ndarray], config: dict[str, Any]) -> Bundle:
    """Write a bundle of VideoINR whose decoder has weights and hardly a node: kernels do not run the graph."""
    toy = Bundle.load(write_toy(folder))
    inputs, outputs = ({spec.name: spec.axes for spec in side} for side in decoder_tensors(toy))
    save_graph(toy.path("decoder"), [helper.make_node("Identity", ["time"], ["frame"])], inputs, outputs, **state)
    decoder = toy.graph("decoder").model_copy(update={"sha256": file_sha256(toy.path("decoder"))})
    update = {
        "graphs": (toy.graph("encoder"), decoder),
        "architecture": Architecture(name="videoinr", config=config),
    }
    write_manifest(folder, toy.manifest.model_copy(update=update))
    return Bundle.load(folder)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("official", [True, False])
def test_the_session_agrees_with_the_network(gpu: FakeGpu, official: bool, precision: Any, tmp_path: Path) -> None:
    """With the weights of the graph and with replaced ones, at two times of the same features."""
    config = {"official_sampling": official, "frame_upsample": 2}
    network = tiny(**config)
    state = {name: value.numpy() for name, value in network.state_dict().items() if "imnet" in name}
    bundle = write_decoder(tmp_path / "bundle", state, config)
    features = torch.randn(1, 3 * 8 + 6, 12, 20, generator=torch.Generator().manual_seed(0)) * 0.3
    uploaded = features.numpy().view(Array)
    positions = {name: target_coordinates(n, m) for name, n, m in (("y", 12, 30), ("x", 20, 41))}
    position_arrays = {name: value.numpy() for name, value in positions.items()}
    bound = 1e-4 if precision == "fp32" else 2e-2
    for weights in ({}, {name: value * np.float32(0.5) for name, value in state.items()}):
        network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=False)
        with VideoInrDecoderSession(bundle, CudaDevice(), precision, weights) as session:
            for time in (np.array([0.0], np.float32), np.array([0.3], np.float32)):
                with torch.no_grad():
                    expected = network.decode(features, time=torch.from_numpy(time), **positions).numpy()
                actual = session.run({"features": uploaded, "time": time, **position_arrays})["frame"]
                assert actual.dtype == np.float32
                assert np.abs(actual - expected).max() <= bound * np.ptp(expected)
