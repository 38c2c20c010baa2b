"""Every network of the list: exported, clean, equal to PyTorch, and fed by the engine from its manifest alone."""

import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from stvsr.engine.backends.session import open_session
from stvsr.engine.contract.bundle import Bundle
from stvsr.engine.contract.picture import FULL_SCALE
from stvsr.engine.contract.windows import one_scene
from stvsr.engine.media.reader import open_reader
from stvsr.engine.pipeline.chain import Route, default_factor, default_scale, plan_route
from stvsr.engine.pipeline.flow import optical_flow
from stvsr.engine.pipeline.request import UpscaleRequest
from stvsr.engine.pipeline.run import upscale
from stvsr.training.adapt.video_resize import back_project_time
from stvsr.training.networks.base import Network
from stvsr.training.networks.registry import configured, find_network
from test_pipeline import make_video, pan

from tests.support import exports
from tests.support.agreement import AGREEMENTS, Agreement
from tests.support.exports import FULL, SMALL

STANDARD = {"", "ai.onnx"}


@pytest.fixture(
    scope="module", params=[*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in FULL)], ids=str
)
def exported(request: pytest.FixtureRequest) -> tuple[Network, Bundle]:
    return exports.exported(request.param)


def graph_of(bundle: Bundle) -> onnx.GraphProto:
    return onnx.load(bundle.path("network")).graph


def test_graphs_agree_with_pytorch_at_sizes_that_were_not_traced(exported: tuple[Network, Bundle]) -> None:
    parity = exported[1].manifest.training["parity"]
    assert parity["difference"] <= max(1e-4, 2 * parity["float32_error"])


def test_graphs_are_clean(exported: tuple[Network, Bundle]) -> None:
    graph = graph_of(exported[1])
    assert {node.domain for node in graph.node} <= STANDARD
    assert not [n.op_type for n in graph.node if re.match(r"Loop|If|Scan|Sequence|Scatter|NonZero", n.op_type)]
    # Nothing dangles.
    used = Counter(name for node in graph.node for name in node.input)
    outputs = {value.name for value in graph.output}
    assert all(used[name] or name in outputs for node in graph.node for name in node.output[:1])
    assert all(used[initializer.name] for initializer in graph.initializer)
    # Nothing is computed twice.
    computed = Counter(
        (node.op_type, tuple(node.input), tuple(sorted(a.SerializeToString() for a in node.attribute)))
        for node in graph.node
        if node.op_type != "Constant"
    )
    assert [key[:2] for key, count in computed.items() if count > 1] == []


def test_weights_are_stored_once_under_their_names(exported: tuple[Network, Bundle]) -> None:
    """As they are, so that a host can replace each by name; the slope of a PReLU is its node's attribute."""
    network, bundle = exported
    state = network.state_dict()
    graph = graph_of(bundle)
    held = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    assert len(held) == len(graph.initializer)
    for name, value in held.items():
        if name in state:
            np.testing.assert_array_equal(value, state[name].numpy())
        else:
            assert value.size <= 256, f"{name} {value.shape} is no weight"  # 14 x 14: STINet's graph
    slopes = {n.name: a.f for n in graph.node if n.op_type == "LeakyRelu" for a in n.attribute if n.name in state}
    assert slopes == {name: pytest.approx(float(state[name])) for name in slopes}
    absent = {name for name in state if name not in held and name not in slopes}
    shared = {
        other for name in held if name in state for other in state if state[other].data_ptr() == state[name].data_ptr()
    }
    # Of training alone, or checkpoints hold them and nothing reads them.
    unread = ("num_batches_tracked", "reconstruction_l.", "reconstruction_h.", "DBPN.output_conv2", "h_down_gcn")
    assert [name for name in absent - shared if not any(part in name for part in unread)] == []


def test_no_constant_is_of_the_traced_size(exported: tuple[Network, Bundle]) -> None:
    network, bundle = exported
    step = -(-8 // network.size.multiple_of) * network.size.multiple_of
    traced = {n * step * k for n in (7, 11) for k in (1, 2, 4)}
    for initializer in graph_of(bundle).initializer:
        value = onnx.numpy_helper.to_array(initializer)
        if value.dtype == np.int64 and initializer.name not in network.state_dict():
            assert not traced & set(value.ravel().tolist()), initializer.name


def test_the_session_is_what_the_manifest_says(exported: tuple[Network, Bundle]) -> None:
    graph = exported[1].graph("network")
    with open_session(exported[1].path("network"), device="cpu") as session:
        assert session.inputs == graph.inputs
        assert session.outputs == graph.outputs


def test_the_engine_feeds_it_from_its_manifest(exported: tuple[Network, Bundle]) -> None:
    """What the engine makes of a clip is what PyTorch makes of its windows."""
    network, bundle = exported
    h, w = 19, 22  # padded to the network's sizes
    frames = torch.rand(9, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    clip = torch.nn.functional.interpolate(frames, (h, w), mode="bilinear").numpy()
    factor, scale = default_factor([bundle]), round(default_scale([bundle]))
    times = tuple(Fraction(part, factor) for part in range(factor))
    with Route(plan_route([bundle], (h, w), (h * scale, w * scale), factor), device="cpu") as route:
        found = list(route.frames(one_scene(clip, times)))
    assert len(found) == factor * len(clip)
    assert {frame.shape for frame in found} == {(3, h * scale, w * scale)}
    window = bundle.manifest.window
    # A doubled sequence is computed in pieces that overlap, and equals the whole; else the first whole window.
    seen = clip if window.kind == "doubled" else clip[: window.frames]
    inputs = [seen]
    for flow in bundle.manifest.flows:
        inputs.append(np.stack([optical_flow(seen[a], seen[b], flow.method) for a, b in flow.pairs]))
    tensors = [torch.from_numpy(bundle.manifest.size.pad(value))[None] for value in inputs]
    if bundle.manifest.time.kind == "continuous":
        tensors.append(torch.tensor([0.5]))
    with torch.no_grad():
        expected = network(*tensors)[0, ..., : h * scale, : w * scale]
    if window.kind == "doubled":  # whose means over time are its input
        expected = back_project_time(expected.clamp(0, 1), torch.from_numpy(clip))
    expected = expected.clamp(0, 1).numpy()
    first = window.frames // 2 if window.kind == "sliding" else 0
    # The last frame of a run comes with the next run.
    compared = len(expected) - (window.kind == "run")
    for frame, truth in zip(found[first : first + compared], expected, strict=False):
        assert np.abs(frame / FULL_SCALE - truth).max() < 1e-4


def test_a_video_is_upscaled(exported: tuple[Network, Bundle], tmp_path: Path) -> None:
    bundle = exported[1]
    clip = make_video(tmp_path / "clip.mp4", pan(5, (20, 28)))
    report = upscale(UpscaleRequest(input=clip, model=bundle.folder, device="cpu"))
    factor, scale = default_factor([bundle]), round(default_scale([bundle]))
    assert (report.frames_in, report.frames_out) == (5, 5 * factor)
    assert report.size_out == (28 * scale, 20 * scale)
    with open_reader(report.output) as made:
        assert [frame.rgb.shape for frame in made] == [(3, 20 * scale, 28 * scale)] * 5 * factor


def test_a_configuration_is_changed_by_text() -> None:
    entry = configured(find_network("toflow"), {"frames": "5", "official_sampling": "False"})
    assert (entry.config.frames, entry.config.official_sampling, entry.config.width) == (5, False, 64)
    for changes, words in (({"frames": "many"}, "'many' is no value for 'frames'"), ({"depth": "3"}, "it has frames")):
        with pytest.raises(ValueError, match=words):
            configured(entry, changes)


@pytest.mark.parametrize("agreement", AGREEMENTS, ids=lambda agreement: agreement.network)
def test_agrees_with_the_official_network(agreement: Agreement) -> None:
    try:
        assert agreement.difference() < agreement.bound
    except FileNotFoundError as absent:
        pytest.skip(str(absent))


def test_every_official_network_has_an_oracle() -> None:
    """Ada-VSR alone has no official code."""
    assert {agreement.network for agreement in AGREEMENTS} | {"adavsr-temporal", "adavsr-spatial"} == {
        *FULL,
        "videoinr",
    }
