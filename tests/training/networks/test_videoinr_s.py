"""The compact network: shapes, its promises about time, space and borders, and the graphs that come of it."""

import copy
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from stvsr.engine.contract.bundle import Bundle
from stvsr.engine.contract.errors import ExportError, RequestError
from stvsr.export import exporter
from stvsr.training.networks.motion import correlate
from stvsr.training.networks.ops import target_coordinates
from stvsr.training.networks.registry import NETWORKS, find_network
from stvsr.training.networks.videoinr_s import VideoINRS, VideoINRSConfig

SMALL = VideoINRSConfig(width=8, encoder_blocks=1, trunk_blocks=1, decoder_width=8)


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = VideoINRS(SMALL).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # past the gentle initialization, so that every part shows
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.fixture
def frames():
    coarse = torch.rand(2 * 2, 3, 6, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=(24, 40), mode="bilinear").unflatten(0, (2, 2))


@pytest.mark.parametrize("size", [(96, 160), (24, 40), (77, 131), (25, 200)])
def test_any_target_size_at_a_time_of_its_own_for_each_pair(network, frames, size):
    assert network(frames, torch.tensor([0.0, 0.6]), size).shape == (2, 3, *size)


def test_a_part_of_the_target_equals_that_part_of_the_whole(network, frames):
    features = network.encode(frames)
    time = torch.tensor([0.25, 0.5])
    y, x = target_coordinates(24, 77), target_coordinates(40, 131)
    whole = network.decode(*features, time=time, y=y, x=x)
    part = network.decode(*features, time=time, y=y[10:30], x=x[100:])
    assert torch.allclose(part, whole[..., 10:30, 100:], atol=1e-5)


def test_a_frame_at_an_inputs_own_time_rests_on_that_input(frames):
    torch.manual_seed(0)
    untrained = VideoINRS(SMALL)
    features = untrained.encode(frames)
    for time, index in ((0.0, 0), (1.0, 1)):
        _, base, _ = untrained.refine(*features, torch.full((2,), time))
        assert (base - frames[:, index]).abs().max() < 1e-3


def test_output_is_continuous_in_space_and_time(network, frames):
    features = network.encode(frames)
    y, x = torch.linspace(3, 9, 4001), target_coordinates(40, 80)
    rows = network.decode(*features, time=torch.tensor([0.5, 0.5]), y=y, x=x)
    assert rows.diff(dim=2).abs().max() < 0.02 * (rows.max() - rows.min())
    moments = [network(frames, torch.full((2,), t), (48, 80)) for t in np.linspace(0.4, 0.42, 11)]
    steps = torch.stack(moments).diff(dim=0).abs().amax()
    assert steps < 0.05 * (moments[0].max() - moments[0].min())


def test_every_parameter_is_trained_by_the_loss(network, frames):
    truth = torch.rand(2, 2, 3, 96, 160)
    told = torch.cat([torch.randn(2, 2, 4, 24, 40), torch.ones(2, 2, 2, 24, 40)], 2)
    judged = network.loss(frames, torch.tensor([[0.0, 0.5], [1.0, 0.25]]), truth, told)
    (judged.reconstruction + judged.auxiliary).backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_correlation_is_the_mean_product_at_each_displacement():
    first, second = torch.randn(2, 5, 6, 9), torch.randn(2, 5, 6, 9)
    padded = torch.nn.functional.pad(second, (2, 2, 2, 2))
    found = correlate(first, second, 2)
    for k in range(25):
        dy, dx = divmod(k, 5)
        expected = (first * padded[..., dy : dy + 6, dx : dx + 9]).mean(1)
        assert torch.allclose(found[:, k], expected, atol=1e-6)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    entry = replace(find_network("videoinr-s"), config=SMALL)
    network = VideoINRS(SMALL)
    folder = tmp_path_factory.mktemp("export") / "bundle"
    exporter.export_bundle(entry, network, folder, training={"steps": 0})
    return entry, network, folder


def test_export_writes_a_bundle_that_loads(exported):
    entry, _, folder = exported
    bundle = Bundle.load(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["decoder.onnx", "encoder.onnx", "manifest.json"]
    assert bundle.manifest.architecture.config["width"] == entry.config.width
    assert 0 < bundle.manifest.training["parity"]["difference"] < exporter.TOLERANCE
    assert bundle.graph("decoder").inputs[0].axes == ("batch", 22, "height", "width")


def test_graphs_hold_standard_operators_and_free_axes_only(exported):
    _, _, folder = exported
    for role in ("encoder", "decoder"):
        model = onnx.load(folder / f"{role}.onnx")
        assert {o.domain: o.version for o in model.opset_import} == {"": exporter.OPSET}
        assert not model.functions
        fixed = {
            v.name: [d.dim_value for d in v.type.tensor_type.shape.dim if d.dim_value]
            for v in (*model.graph.input, *model.graph.output)
        }
        assert all(len(sizes) <= 2 for sizes in fixed.values()), fixed  # channels, and the pair
        assert b".py" not in model.SerializeToString()  # no source paths of the machine that exported
    assert any(node.op_type == "GridSample" for node in model.graph.node)


def test_graphs_hold_no_constant_of_the_traced_size(exported):
    _, network, folder = exported
    m = exporter._step(network)
    traced = {n * m // k for n in exporter._TRACED for k in (1, 2, 4)} | set(exporter._TRACED_TARGET_PX)
    traced |= {2 * n * m for n in exporter._TRACED}
    for role in ("encoder", "decoder"):
        for initializer in onnx.load(folder / f"{role}.onnx").graph.initializer:
            if initializer.data_type == onnx.TensorProto.INT64:
                held = set(onnx.numpy_helper.to_array(initializer).flatten().tolist())
                assert not held & traced, (initializer.name, held & traced)


def test_initializers_are_named_after_the_state_dict(exported):
    _, network, folder = exported
    names = {i.name for role in ("encoder", "decoder") for i in onnx.load(folder / f"{role}.onnx").graph.initializer}
    assert [key for key in network.state_dict() if key not in names] == []


def test_a_graph_that_disagrees_fails_the_export_and_leaves_nothing(exported, tmp_path, monkeypatch):
    entry, network, _ = exported
    computed = exporter.computed
    changed = copy.deepcopy(network)  # the graphs come out with other weights than the network is checked with
    with torch.no_grad():
        changed.up1.bias.add_(0.01)
    monkeypatch.setattr(exporter, "computed", lambda _, inputs: computed(changed.to(_.conv_first.weight), inputs))
    with pytest.raises(ExportError, match="differ from VideoINRS"):
        exporter.export_bundle(entry, network, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["conv_first.weight", "every weight"])
def test_weights_that_are_not_numbers_fail_the_export(exported, tmp_path, value, name):
    entry, network, _ = exported
    broken = copy.deepcopy(network)
    with torch.no_grad():
        for own, weight in broken.named_parameters():
            if name in (own, "every weight"):
                weight.fill_(value)
    with pytest.raises(ExportError, match="not finite numbers: check its weights"):
        exporter.export_bundle(entry, broken, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_export_refuses_a_folder_that_is_there(exported):
    entry, network, folder = exported
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(RequestError, match="exists already"):
        exporter.export_bundle(entry, network, folder)
    assert (folder / "manifest.json").read_bytes() == before


def test_export_never_overwrites_what_is_no_bundle(exported, tmp_path):
    entry, network, _ = exported
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    with pytest.raises(RequestError, match="something else than a bundle"):
        exporter.export_bundle(entry, network, tmp_path / "letters", overwrite=True)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "keep me"


def test_an_unknown_network_is_an_error_that_lists_those_there_are():
    with pytest.raises(KeyError, match="videoinr-s"):
        find_network("videoinr-xl")
    assert len({entry.name for entry in NETWORKS}) == len(NETWORKS)
