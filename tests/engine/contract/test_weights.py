"""Replacing weights in a bundle by name: it agrees with PyTorch, is atomic and takes about a second."""

import contextlib
import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from stvsr import Backend, Bundle, BundleError, ExportError, RequestError, Upscaler
from stvsr.engine.backends.onnxruntime import OrtSession
from stvsr.engine.contract import weights as weights_module
from stvsr.engine.contract.bundle import find_bundle, graph_entry, write_manifest
from stvsr.engine.contract.manifest import FixedFactors
from stvsr.engine.contract.weights import edit_graph, edit_graphs, read_weights, replace_weights
from stvsr.engine.pipeline.flow import optical_flow
from stvsr.export.bundle_network import changed_weights, check_parity, engine_restorer, load_network, write_adapted
from stvsr.export.exporter import export_bundle
from stvsr.training.adapt.restore import restored_frames
from stvsr.training.networks.base import Network
from stvsr.training.networks.edvr import EDVRConfig
from stvsr.training.networks.rbpn import RBPNConfig
from stvsr.training.networks.registry import find_network
from stvsr.training.networks.toflow import TOFLOW_S

from tests.support.procedural import filled
from tests.support.toy import specs, write_toy

# One network for each special case: slopes in attributes and flows (rbpn), batch normalization (toflow), offsets
# (edvr), layers with two names (stinet) and two graphs (videoinr). They are small where the case allows it.
SMALL: dict[str, Any] = {
    "rbpn-s": RBPNConfig(base_filter=8, feat=8, num_stages=1, n_resblock=1, frames=3, residual=True),
    "toflow-s": replace(TOFLOW_S, frames=3, width=8, flow_width=8, flow_levels=2),
    "edvr-s": EDVRConfig(8, num_frame=3, deformable_groups=2, num_extract_block=1, num_reconstruct_block=1),
}
SLOW = ["rbpn-s", "toflow-s", "stinet-s", "dtsr-s", "zsm-s"]


def constant_flow(first: np.ndarray, second: np.ndarray, method: str) -> np.ndarray:
    return np.stack([np.full(first.shape[:2], 0.5), np.full(first.shape[:2], -0.25)]).astype(np.float32)


def clip(frames: int = 6, h: int = 24, w: int = 40) -> torch.Tensor:
    coarse = torch.rand(frames, 3, h // 4, w // 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(h, w), mode="bicubic").clamp(0, 1)


@pytest.fixture(
    scope="module",
    params=["videoinr-s", "edvr-s", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Bundle]:
    if request.param == "videoinr-s":  # shipped with the package
        bundle = find_bundle(request.param)
        return load_network(bundle), bundle
    entry = find_network(request.param)
    network = filled(entry.build(SMALL.get(entry.name, entry.config)), gain=0.6, offset_gain=8.0)
    return network, Bundle.load(export_bundle(entry, network, tmp_path_factory.mktemp("bundles") / entry.name))


def stored_weights(bundle: Bundle) -> dict[str, np.ndarray]:
    """Return the weights of all graphs of a bundle, by name."""
    graphs = [read_weights(bundle.path(graph.role).read_bytes()) for graph in bundle.manifest.graphs]
    return {name: value for weights in graphs for name, value in weights.items()}


def perturbed(network: Network, bundle: Bundle) -> dict[str, torch.Tensor]:
    """Return the state dict with every weight that a graph reads changed a little, under all of its names."""
    state, stored = network.state_dict(keep_vars=True), stored_weights(bundle)
    trained = {id(value) for name, value in state.items() if name in stored and value.requires_grad}
    torch.manual_seed(1)
    changed = {id(v): v.detach() * (1 + 0.05 * torch.rand_like(v)) + 1e-3 for v in state.values() if id(v) in trained}
    return {name: changed.get(id(value), value.detach()) for name, value in state.items()}


def test_load_network_restores_the_exported_weights(exported: tuple[Network, Bundle]) -> None:
    network, bundle = exported
    loaded, original = load_network(bundle).state_dict(), network.state_dict()
    names = [name for name in original if name in stored_weights(bundle)]
    assert len(names) > 10
    assert [name for name in names if not torch.equal(loaded[name], original[name])] == []
    assert check_parity(load_network(bundle), bundle, clip(), constant_flow)["difference"] < 1e-3


def test_an_adapted_bundle_agrees_with_pytorch(exported: tuple[Network, Bundle], tmp_path: Path) -> None:
    network, bundle = exported
    weights = perturbed(network, bundle)
    out = write_adapted(bundle, network, weights, clip(), tmp_path / "out", {"method": "perturbed"}, constant_flow)
    loaded, stored = load_network(out), stored_weights(out)
    assert [n for n, v in loaded.state_dict().items() if n in stored and not torch.equal(v, weights[n])] == []
    training = out.manifest.training
    assert (training["adapted"]["parent"], training["adapted"]["method"]) == (bundle.fingerprint, "perturbed")
    assert training["parity"]["difference"] < 1e-3
    assert out.manifest.scores == {}
    with pytest.raises(ExportError, match="differ"):
        check_parity(loaded, bundle, clip(), constant_flow)


@pytest.mark.parametrize("indices", [range(7), range(2, 5), [6]], ids=["all", "middle", "last"])
def test_engine_and_pytorch_restore_the_same_frames(exported: tuple[Network, Bundle], indices: Sequence[int]) -> None:
    network, bundle = exported
    if network.space == FixedFactors(factors=(1,)):
        pytest.skip("the network keeps the size of frames")
    frames = clip(7, 30, 38)

    def flow(first: np.ndarray, second: np.ndarray, method: str) -> np.ndarray:
        planes = [np.ascontiguousarray(f.transpose(2, 0, 1), np.float32) / 255 for f in (first, second)]
        return optical_flow(planes[0], planes[1], method)

    expected = torch.stack(list(restored_frames(network, frames, indices, flow)))
    with Upscaler(bundle, Backend(device="cpu"), tile=0) as upscaler:
        actual = torch.stack(list(engine_restorer(upscaler)(frames, indices)))
    assert actual.shape == expected.shape == (len(indices), 3, 120, 152)
    assert (actual - expected).abs().max() < 2e-3
    assert (actual - expected).abs().mean() < 2e-5


def test_graphs_without_new_weights_stay_identical(exported: tuple[Network, Bundle], tmp_path: Path) -> None:
    network, bundle = exported
    assert changed_weights(network, network.state_dict(), bundle) == {}
    out = replace_weights(bundle, {}, tmp_path / "same")
    for graph in bundle.manifest.graphs:
        assert out.path(graph.role).read_bytes() == bundle.path(graph.role).read_bytes()


def test_editing_a_graph_changes_only_its_weights(exported: tuple[Network, Bundle]) -> None:
    network, bundle = exported
    weights = changed_weights(network, perturbed(network, bundle), bundle)
    for role, edited in edit_graphs(bundle, weights).items():
        before, after = onnx.load(bundle.path(role)).graph, onnx.load_model_from_string(edited).graph
        onnx.checker.check_model(onnx.load_model_from_string(edited))
        assert [(i.name, i.dims, i.data_type) for i in before.initializer] == [
            (i.name, i.dims, i.data_type) for i in after.initializer
        ]
        for old, new in zip(before.initializer, after.initializer, strict=True):
            expected = weights.get(old.name, numpy_helper.to_array(old))
            np.testing.assert_array_equal(numpy_helper.to_array(new), expected)
        for old, new in zip(before.node, after.node, strict=True):
            assert (old.name, old.op_type, old.input, old.output) == (new.name, new.op_type, new.input, new.output)


def test_a_shared_slope_is_replaced_in_every_layer() -> None:
    nodes = [
        helper.make_node("LeakyRelu", ["x"], ["y"], name="act.weight", alpha=0.25),
        helper.make_node("LeakyRelu", ["y"], ["z"], name="act.weight_1", alpha=0.25),
        helper.make_node("LeakyRelu", ["z"], ["out"], name="node_leaky_relu", alpha=0.1),
    ]
    edited, replaced = edit_graph(graph_of(nodes, {}), {"act.weight": np.array([0.5], np.float32)})
    slopes = [node.attribute[0].f for node in onnx.load_model_from_string(edited).graph.node]
    assert (slopes, replaced) == ([0.5, 0.5, np.float32(0.1)], {"act.weight"})


def graph_of(nodes: list[Any], weights: dict[str, np.ndarray], raw: bool = True) -> bytes:
    """Return a serialized graph of these nodes and initializers, which store raw bytes or a list of floats."""
    x, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "out"))
    tensors = [
        numpy_helper.from_array(value, name)
        if raw
        else helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.ravel())
        for name, value in weights.items()
    ]
    nodes = nodes or [helper.make_node("Identity", ["x"], ["out"])]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [out], tensors)).SerializeToString()


SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)


@settings(deadline=None, max_examples=60)
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=5),
    dtype=st.sampled_from(["float32", "float16", "float64"]),
    chosen=st.integers(0, 31),
    seed=st.integers(0, 9),
)
def test_any_weights_are_read_and_replaced(shapes: list[tuple[int, ...]], dtype: str, chosen: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    old = {f"layer{i}.weight": np.asarray(random.normal(size=shape), dtype) for i, shape in enumerate(shapes)}
    new = {name: np.asarray(value + 1, np.float32) for i, (name, value) in enumerate(old.items()) if chosen >> i & 1}
    edited, replaced = edit_graph(graph_of([], old), new)
    assert replaced == set(new)
    for name, value in read_weights(edited).items():
        assert value.dtype == dtype
        np.testing.assert_array_equal(value, new[name].astype(dtype) if name in new else old[name])


def test_weights_stored_as_a_list_of_floats_are_replaced() -> None:
    graph = graph_of([], {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, raw=False)
    edited, _ = edit_graph(graph, {"w": np.full((2, 3), 7, np.float32)})
    np.testing.assert_array_equal(numpy_helper.to_array(onnx.load_model_from_string(edited).graph.initializer[0]), 7)


@settings(deadline=None, max_examples=100)
@given(cut=st.integers(1, 400), position=st.integers(0, 400), byte=st.integers(0, 255))
def test_damaged_graphs_are_read_or_raise_bundle_error(cut: int, position: int, byte: int) -> None:
    graph = bytearray(graph_of([], {"a": np.ones((3, 4), np.float32), "b": np.ones(9, np.float32)}))
    graph[position % len(graph)] = byte
    with contextlib.suppress(BundleError):  # any other exception fails the test
        read_weights(bytes(graph[: max(1, len(graph) - cut % len(graph))]))


def test_a_truncated_graph_is_refused() -> None:
    graph = graph_of([], {"a": np.ones((3, 4), np.float32)})
    with pytest.raises(BundleError, match="cannot be read as ONNX"):
        read_weights(graph[:-20])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"conv.weight": np.zeros((2, 3), np.float32)}, r"conv.weight has the shape \(2, 3\) and should have \(3, 2\)"),
        ({"conv.weight": np.full((3, 2), np.nan, np.float32)}, "conv.weight has values that are not finite in float32"),
        ({"conv.weight": np.zeros((3, 2), np.int64)}, "conv.weight has the dtype int64 and should have float32"),
        ({"act.weight": np.zeros(2, np.float32)}, r"act.weight has the shape \(2,\) and should have \(1,\)"),
        ({"half": np.full(1, 1e6, np.float32)}, "half has values that are not finite in float16"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(weights: dict[str, np.ndarray], message: str) -> None:
    nodes = [helper.make_node("LeakyRelu", ["x"], ["out"], name="act.weight", alpha=0.25)]
    stored: dict[str, np.ndarray] = {"conv.weight": np.ones((3, 2), np.float32), "half": np.ones(1, np.float16)}
    with pytest.raises(BundleError, match=message):
        edit_graph(graph_of(nodes, stored), weights)


def test_an_attribute_without_a_name_is_no_graph() -> None:
    node = helper.make_node("LeakyRelu", ["x"], ["y"], "slope.weight")
    node.attribute.add(type=onnx.AttributeProto.FLOAT, f=0.1)
    with pytest.raises(BundleError, match="cannot be read as ONNX"):
        read_weights(graph_of([node], {}))


def test_unknown_names_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"have no weight stranger\.weight: .* 'videoinr-s'"):
        replace_weights(find_bundle("videoinr-s"), {"stranger.weight": np.ones(1, np.float32)}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    bundle = find_bundle("videoinr-s")
    name, value = next((n, v) for n, v in stored_weights(bundle).items() if n.endswith("weight") and v.ndim == 4)
    replace_weights(bundle, {}, tmp_path / "out")
    with pytest.raises(RequestError, match="exists already"):
        replace_weights(bundle, {name: value + 1}, tmp_path / "out")
    once = replace_weights(bundle, {name: value + 1}, tmp_path / "out", {"step": 1}, overwrite=True)
    np.testing.assert_array_equal(stored_weights(once)[name], value + 1)
    twice = replace_weights(once, {name: value + 2}, tmp_path / "out", {"step": 2}, overwrite=True)
    adapted = twice.manifest.training["adapted"]
    assert (adapted["step"], adapted["parent"], adapted["before"]["step"]) == (2, once.fingerprint, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(RequestError, match="something other than a bundle"):
        replace_weights(bundle, {}, tmp_path / "mine", overwrite=True)


def test_a_failed_write_leaves_the_existing_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = replace_weights(find_bundle("videoinr-s"), {}, tmp_path / "out")
    monkeypatch.setattr(weights_module, "write_manifest", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        replace_weights(bundle, {}, tmp_path / "out", overwrite=True)
    assert Bundle.load(tmp_path / "out").fingerprint == bundle.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def large_bundle(folder: Path, layers: int = 14, width: int = 512) -> tuple[Bundle, dict[str, np.ndarray]]:
    """Write a toy bundle whose encoder is replaced by a chain of matrix products with 3.7 million weights."""
    toy = Bundle.load(write_toy(folder))
    random = np.random.default_rng(0)
    weights = {f"layer{i}.weight": random.normal(size=(width, width)).astype(np.float32) for i in range(layers)}
    nodes = [helper.make_node("ReduceSum", ["frames", "axes"], ["s0"], keepdims=0)]
    nodes += [helper.make_node("Gemm", [f"s{i}", f"layer{i}.weight"], [f"s{i + 1}"]) for i in range(layers)]
    nodes += [helper.make_node("Identity", [f"s{layers}"], ["features"])]
    constants = [numpy_helper.from_array(np.array([1, 2, 3]), "axes")]
    constants += [numpy_helper.from_array(value, name) for name, value in weights.items()]
    frames = helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["B", 2, 3, "h", width])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", width])
    graph = helper.make_graph(nodes, "large", [frames], [features], constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "encoder.onnx"
    )
    tensors = specs({"frames": ("B", 2, 3, "h", width)}), specs({"features": ("B", width)})
    encoder = graph_entry(folder / "encoder.onnx", "encoder", *tensors)
    write_manifest(folder, toy.manifest.model_copy(update={"graphs": (encoder, toy.graph("decoder"))}))
    return Bundle.load(folder), weights


def test_replacing_three_million_weights_takes_one_second_and_opening_a_session_two(tmp_path: Path) -> None:
    bundle, weights = large_bundle(tmp_path / "large")
    assert sum(value.size for value in weights.values()) > 3e6
    new = {name: value / 8 for name, value in weights.items()}
    write_seconds, open_seconds = [], []
    for attempt in range(3):  # the best of three, in processor time, as other processes may use the machine
        start = time.process_time()
        out = replace_weights(bundle, new, tmp_path / f"out{attempt}")
        write_seconds.append(time.process_time() - start)
        start = time.process_time()
        session = OrtSession(edit_graphs(bundle, new)["encoder"], threads=1)
        open_seconds.append(time.process_time() - start)
    assert min(write_seconds) < 1
    assert min(open_seconds) < 2
    frames = {"frames": np.random.default_rng(1).normal(size=(1, 2, 3, 1, 512)).astype(np.float32)}
    with (
        session,
        OrtSession(out.path("encoder"), threads=1) as written,
        OrtSession(bundle.path("encoder"), threads=1) as before,
    ):
        actual = session.run(frames)["features"]
        np.testing.assert_array_equal(actual, written.run(frames)["features"])
        assert np.abs(actual).max() < 1e-6 * np.abs(before.run(frames)["features"]).max()
    assert out.graph("encoder").sha256 == hashlib.sha256(out.path("encoder").read_bytes()).hexdigest()
