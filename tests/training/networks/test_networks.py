"""Every network of the registry: its exported graph, and its use by the engine."""

import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from stvsr import Backend, Bundle, UpscaleRequest, one_scene, upscale
from stvsr.engine.backends.onnxruntime import open_session
from stvsr.engine.contract.picture import FULL_SCALE
from stvsr.engine.media.reader import open_reader
from stvsr.engine.pipeline.chain import Chain
from stvsr.engine.pipeline.flow import optical_flow
from stvsr.engine.pipeline.plan import default_factor, default_scale, plan_passes
from stvsr.training.adapt.video_resize import back_project_time
from stvsr.training.networks.base import Network

from tests.support import exports
from tests.support.exports import FULL, SMALL, by_time
from tests.support.media import make_video, pan

STANDARD = {"", "ai.onnx"}


@pytest.fixture(scope="module", params=by_time([*SMALL, *FULL]), ids=str)
def exported(request: pytest.FixtureRequest) -> tuple[Network, Bundle]:
    return exports.exported(request.param)


def graph_of(bundle: Bundle) -> onnx.GraphProto:
    return onnx.load(bundle.path("network")).graph


def test_graph_agrees_with_pytorch_at_untraced_sizes(exported: tuple[Network, Bundle]) -> None:
    parity = exported[1].manifest.training["parity"]
    assert parity["difference"] <= max(1e-4, 2 * parity["float32_error"])


def test_graph_has_standard_operators_and_no_unused_or_repeated_nodes(exported: tuple[Network, Bundle]) -> None:
    graph = graph_of(exported[1])
    assert {node.domain for node in graph.node} <= STANDARD
    assert not [n.op_type for n in graph.node if re.match(r"Loop|If|Scan|Sequence|Scatter|NonZero", n.op_type)]
    # No unused outputs or initializers.
    used = Counter(name for node in graph.node for name in node.input)
    outputs = {value.name for value in graph.output}
    assert all(used[name] or name in outputs for node in graph.node for name in node.output[:1])
    assert all(used[initializer.name] for initializer in graph.initializer)
    # No node repeats another.
    computed = Counter(
        (node.op_type, tuple(node.input), tuple(sorted(a.SerializeToString() for a in node.attribute)))
        for node in graph.node
        if node.op_type != "Constant"
    )
    assert [key[:2] for key, count in computed.items() if count > 1] == []


def test_weights_are_initializers_with_the_names_of_the_state_dict(exported: tuple[Network, Bundle]) -> None:
    """A host can replace each weight by name; the slope of a PReLU is an attribute of the node of that name."""
    network, bundle = exported
    state = network.state_dict()
    graph = graph_of(bundle)
    initializers = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    assert len(initializers) == len(graph.initializer)
    for name, value in initializers.items():
        if name in state:
            np.testing.assert_array_equal(value, state[name].numpy())
        else:
            assert value.size <= 256, f"{name} {value.shape} is too large for a constant"  # 14 x 14: STINet's graph
    slopes = {n.name: a.f for n in graph.node if n.op_type == "LeakyRelu" for a in n.attribute if n.name in state}
    assert slopes == {name: pytest.approx(float(state[name])) for name in slopes}
    absent = {name for name in state if name not in initializers and name not in slopes}
    stored = {state[name].data_ptr() for name in initializers if name in state}
    shared = {name for name in state if state[name].data_ptr() in stored}
    # Used only in training, or contained in official checkpoints and never used.
    unused = ("num_batches_tracked", "reconstruction_l.", "reconstruction_h.", "DBPN.output_conv2", "h_down_gcn")
    assert [name for name in absent - shared if not any(part in name for part in unused)] == []


def test_graph_has_no_constant_of_the_traced_size(exported: tuple[Network, Bundle]) -> None:
    network, bundle = exported
    step = -(-8 // network.size.multiple_of) * network.size.multiple_of
    traced = {n * step * k for n in (7, 11) for k in (1, 2, 4)}
    for initializer in graph_of(bundle).initializer:
        value = onnx.numpy_helper.to_array(initializer)
        if value.dtype == np.int64 and initializer.name not in network.state_dict():
            assert not traced & set(value.ravel().tolist()), initializer.name


def test_session_has_the_inputs_and_outputs_of_the_manifest(exported: tuple[Network, Bundle]) -> None:
    graph = exported[1].graph("network")
    with open_session(exported[1].path("network"), device="cpu") as session:
        assert session.inputs == graph.inputs
        assert session.outputs == graph.outputs


def test_engine_frames_equal_those_of_pytorch(exported: tuple[Network, Bundle]) -> None:
    """The engine runs the network on a clip as its manifest describes; PyTorch runs it on one window of the clip."""
    network, bundle = exported
    h, w = 19, 22  # padded to the network's sizes
    frames = torch.rand(9, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    clip = torch.nn.functional.interpolate(frames, (h, w), mode="bilinear").numpy()
    factor, scale = default_factor([bundle]), round(default_scale([bundle]))
    times = tuple(Fraction(part, factor) for part in range(factor))
    with Chain(plan_passes([bundle], (h, w), (h * scale, w * scale), factor), Backend(device="cpu")) as route:
        actual = list(route.frames(one_scene(clip, times)))
    assert len(actual) == factor * len(clip)
    assert {frame.shape for frame in actual} == {(3, h * scale, w * scale)}
    window = bundle.manifest.window
    # The pieces of a doubled sequence equal the whole; for other windows this compares the first complete window.
    window_frames = clip if window.kind == "doubled" else clip[: window.frames]
    inputs = [window_frames]
    for flow in bundle.manifest.flows:
        inputs.append(np.stack([optical_flow(window_frames[a], window_frames[b], flow.method) for a, b in flow.pairs]))
    tensors = [torch.from_numpy(bundle.manifest.size.pad(value))[None] for value in inputs]
    if bundle.manifest.time.kind == "continuous":
        tensors.append(torch.tensor([0.5]))
    with torch.no_grad():
        expected = network(*tensors)[0, ..., : h * scale, : w * scale]
    if window.kind == "doubled":  # the mean of every two output frames is the input frame
        expected = back_project_time(expected.clamp(0, 1), torch.from_numpy(clip))
    expected = expected.clamp(0, 1).numpy()
    first = window.frames // 2 if window.kind == "sliding" else 0
    # The engine takes the last frame of a run from the next run.
    compared = len(expected) - (window.kind == "run")
    for frame, truth in zip(actual[first : first + compared], expected, strict=False):
        assert np.abs(frame / FULL_SCALE - truth).max() < 1e-4


def test_video_is_upscaled(exported: tuple[Network, Bundle], tmp_path: Path) -> None:
    bundle = exported[1]
    clip = make_video(tmp_path / "clip.mp4", pan(5, (20, 28)))
    report = upscale(UpscaleRequest(input=clip, model=bundle.folder, backend=Backend(device="cpu")))
    factor, scale = default_factor([bundle]), round(default_scale([bundle]))
    assert (report.frames_in, report.frames_out) == (5, 5 * factor)
    assert report.size_out == (28 * scale, 20 * scale)
    with open_reader(report.output) as output:
        assert [frame.rgb.shape for frame in output] == [(3, 20 * scale, 28 * scale)] * 5 * factor
