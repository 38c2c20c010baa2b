"""The exporter: bundles of standard graphs with free axes and named weights, or an error and nothing on disk."""

import copy
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from stvsr.engine.contract.bundle import Bundle
from stvsr.engine.contract.errors import ExportError, RequestError
from stvsr.export import exporter, parity
from stvsr.training.networks.base import Network
from stvsr.training.networks.edvr import EDVR, EDVRConfig
from stvsr.training.networks.registry import NetworkEntry, find_network
from stvsr.training.networks.videoinr_s import VideoINRS

from tests.support.toy_networks import TINY_PAIR

Exported = tuple[NetworkEntry, Network, Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(0)
    entry = replace(find_network("videoinr-s"), config=TINY_PAIR)
    network = VideoINRS(TINY_PAIR)
    folder = tmp_path_factory.mktemp("export") / "bundle"
    exporter.export_bundle(entry, network, folder, training={"steps": 0})
    return entry, network, folder


def test_an_exported_bundle_loads(exported: Exported) -> None:
    entry, _, folder = exported
    bundle = Bundle.load(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["decoder.onnx", "encoder.onnx", "manifest.json"]
    assert bundle.manifest.architecture.config["width"] == entry.config.width
    assert bundle.manifest.training["steps"] == 0
    assert 0 < bundle.manifest.training["parity"]["difference"] < parity.TOLERANCE
    assert bundle.graph("decoder").inputs[0].axes == ("batch", 22, "height", "width")


def test_graphs_have_only_standard_operators_and_free_axes(exported: Exported) -> None:
    _, _, folder = exported
    for role in ("encoder", "decoder"):
        model = onnx.load(folder / f"{role}.onnx")
        assert {o.domain: o.version for o in model.opset_import} == {"": exporter.OPSET}
        assert not model.functions
        fixed = {
            v.name: [d.dim_value for d in v.type.tensor_type.shape.dim if d.dim_value]
            for v in (*model.graph.input, *model.graph.output)
        }
        assert all(len(sizes) <= 2 for sizes in fixed.values()), fixed  # the channels, and the two frames of a pair
        assert b".py" not in model.SerializeToString()  # no source paths of the machine that exported
    assert any(node.op_type == "GridSample" for node in model.graph.node)


def test_graphs_have_no_constant_of_the_traced_size(exported: Exported) -> None:
    _, network, folder = exported
    m = exporter.size_step(network)
    traced = {n * m // k for n in exporter.TRACED_STEPS for k in (1, 2, 4)} | set(exporter.TRACED_TARGET_PX)
    traced |= {2 * n * m for n in exporter.TRACED_STEPS}
    for role in ("encoder", "decoder"):
        for initializer in onnx.load(folder / f"{role}.onnx").graph.initializer:
            if initializer.data_type == onnx.TensorProto.INT64:
                values = set(onnx.numpy_helper.to_array(initializer).flatten().tolist())
                assert not values & traced, (initializer.name, values & traced)


def test_initializers_have_the_names_of_the_state_dict(exported: Exported) -> None:
    _, network, folder = exported
    names = {i.name for role in ("encoder", "decoder") for i in onnx.load(folder / f"{role}.onnx").graph.initializer}
    assert [key for key in network.state_dict() if key not in names] == []


@pytest.mark.slow
def test_a_graph_that_differs_fails_the_export_and_leaves_nothing(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, network, _ = exported
    network_output = parity.network_output
    changed = copy.deepcopy(network)
    with torch.no_grad():
        changed.get_parameter("up1.bias").add_(0.01)
    # The graphs have other weights than the network that they are compared with.
    monkeypatch.setattr(
        parity,
        "network_output",
        lambda original, inputs: network_output(changed.to(next(original.parameters()).dtype), inputs),
    )
    with pytest.raises(ExportError, match=r"differ from VideoINRS in PyTorch by .* is allowed: nothing was written"):
        exporter.export_bundle(entry, network, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_fails_the_export(exported: Exported, tmp_path: Path, value: float) -> None:
    entry, network, _ = exported
    broken = copy.deepcopy(network)
    with torch.no_grad():
        broken.get_parameter("conv_first.weight")[-1, -1, -1, -1] = value
    with pytest.raises(ExportError, match=r"conv_first\.weight of VideoINRS has values that are not finite numbers"):
        exporter.export_bundle(entry, broken, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_weights_whose_frames_are_not_finite_fail_the_export(exported: Exported, tmp_path: Path) -> None:
    entry, network, _ = exported
    broken = copy.deepcopy(network)
    with torch.no_grad():
        for weight in broken.parameters():
            weight.fill_(1e30)  # finite, and its products are not
    with pytest.raises(ExportError, match="not finite numbers: check its weights; nothing was written"):
        exporter.export_bundle(entry, broken, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_configuration_that_the_format_does_not_support_is_a_request_error(tmp_path: Path) -> None:
    config = EDVRConfig(8, num_frame=2, deformable_groups=2, num_extract_block=1, num_reconstruct_block=1)
    entry = replace(find_network("edvr-s"), config=config)
    with pytest.raises(RequestError, match=r"cannot contain edvr-s with EDVRConfig\(.*odd number of frames"):
        exporter.export_bundle(entry, EDVR(config), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_export_refuses_an_existing_folder(exported: Exported) -> None:
    entry, network, folder = exported
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(RequestError, match="exists already"):
        exporter.export_bundle(entry, network, folder)
    assert (folder / "manifest.json").read_bytes() == before


def test_export_never_overwrites_a_folder_that_is_not_a_bundle(exported: Exported, tmp_path: Path) -> None:
    entry, network, _ = exported
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    with pytest.raises(RequestError, match="something other than a bundle"):
        exporter.export_bundle(entry, network, tmp_path / "letters", overwrite=True)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "keep me"
