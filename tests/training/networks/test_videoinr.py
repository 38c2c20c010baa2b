"""VideoINR: agreement with the official network, targets and batches, gradients, quirks and checkpoints."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from stvsr.engine.backends.onnxruntime import open_session
from stvsr.engine.contract.bundle import Bundle
from stvsr.engine.contract.errors import CheckpointError
from stvsr.export.exporter import export_bundle
from stvsr.training.checkpoints import load_official, read_state_dict
from stvsr.training.networks.ops import target_coordinates
from stvsr.training.networks.registry import find_network
from stvsr.training.networks.videoinr import VideoINR, VideoINRConfig, target_axis
from torch import Tensor, nn

from tests.support.compare import assert_close_to_range
from tests.support.networks import assert_official_state_dict, random_clip
from tests.support.oracle import LARGE_ORACLES
from tests.support.paths import ORACLES
from tests.support.videoinr import BOUNDS, FULL, Oracle, tiny

SMALL = "videoinr_small"

FULL_CASES: dict[str, dict[str, Any]] = json.loads((ORACLES / f"{FULL}.json").read_text())["cases"]


@pytest.fixture(scope="module")
def full() -> Oracle:
    return Oracle(ORACLES, FULL, VideoINRConfig())


@pytest.fixture(scope="module")
def small() -> Oracle:
    if not (LARGE_ORACLES / f"{SMALL}.npz").is_file():
        pytest.skip(f"the weights of {SMALL} (35 MB) are not next to the checkout")
    return Oracle(LARGE_ORACLES, SMALL, VideoINRConfig(back_blocks=1))


def small_cases() -> list[str]:
    path = LARGE_ORACLES / f"{SMALL}.json"
    return list(json.loads(path.read_text())["cases"]) if path.is_file() else ["s4"]


def clip(batch: int, height: int, width: int) -> Tensor:
    return random_clip(batch, 2, height, width)


def test_state_dict_is_the_official_one(full: Oracle) -> None:
    assert_official_state_dict(full.tested, full.record)
    assert len(full.tested.state_dict()) == 442


@pytest.mark.parametrize("case", FULL_CASES)
def test_full_size_agrees_with_the_official_network(full: Oracle, case: str) -> None:
    full.check(case)


@pytest.mark.parametrize("case", small_cases())
def test_small_size_agrees_with_the_official_network(small: Oracle, case: str) -> None:
    small.check(case)


@pytest.mark.parametrize("case", small_cases())
def test_nearest_pixels_are_the_official_ones(small: Oracle, case: str) -> None:
    small.check_picks(case)


def test_intermediate_results_agree_with_the_official_network(small: Oracle) -> None:
    with np.load(LARGE_ORACLES / f"{SMALL}_taps.npz") as arrays:
        taps = dict(arrays)
    network, features = small.tested, small.features["x"]
    encoded = features[:, :192].unflatten(1, (3, 64))
    assert_close_to_range(encoded, taps["enc_feat(B,3,64,H,W)"], mean=1e-6, max=1e-5)
    axes = target_axis(target_coordinates(32, 64), 32), target_axis(target_coordinates(48, 96), 48)
    moment = torch.full((1, 1, 1, 1), 0.5)
    with torch.no_grad():
        target = network.target_features(features, moment, *axes)
        flows = network.target_flows(target, *network.split(features), moment, *axes)
    for out, name in ((target, "feat_imnet_out(qs,64)"), (flows, "flow_imnet_out(qs,4)")):
        assert_close_to_range(out[0].flatten(1).T, taps[f"s2_t0.5/{name}"], mean=1e-6, max=2e-5)


def test_forward_decodes_the_encoded_frames() -> None:
    network, frames, time = tiny(), clip(1, 8, 12), torch.tensor([0.3])
    with torch.no_grad():
        features = network.encode(frames)
        whole = network(frames, time, (20, 30))
        again = network.decode(*features, time=time, y=target_coordinates(8, 20), x=target_coordinates(12, 30))
    assert len(features) == len(network.feature_names)
    assert features[0].shape == (1, 3 * 8 + 6, 8, 12)
    assert whole.shape == (1, 3, 20, 30)
    assert torch.equal(whole, again)


@pytest.mark.parametrize("official", [True, False])
def test_batch_items_are_independent(official: bool) -> None:
    network, frames, times = tiny(official_sampling=official), clip(3, 8, 12), torch.tensor([0.0, 0.4, 1.0])
    with torch.no_grad():
        together = network(frames, times, (18, 33))
        alone = torch.cat([network(frames[i : i + 1], times[i : i + 1], (18, 33)) for i in range(3)])
    assert_close_to_range(together, alone, mean=1e-6, max=1e-5)


@pytest.mark.parametrize("official", [True, False])
def test_part_of_a_target_equals_that_part_of_the_whole(official: bool) -> None:
    network, frames, time = tiny(official_sampling=official), clip(1, 16, 24), torch.tensor([0.4])
    y, x = target_coordinates(16, 40), target_coordinates(24, 60)
    with torch.no_grad():
        (features,) = network.encode(frames)
        whole = network.decode(features, time, y, x)
        flows = network.target_flows(
            network.target_features(features, time.view(1, 1, 1, 1), target_axis(y, 16), target_axis(x, 24)),
            *network.split(features),
            time.view(1, 1, 1, 1),
            target_axis(y, 16),
            target_axis(x, 24),
        )
        part = network.decode(features, time, y[5:30], x[:45])
    reach = int(flows.abs().max().ceil()) + 2  # target pixels from a cut within which flows lead out of the part
    assert reach < 10
    whole, part = whole[:, :, 5 + reach : 30 - reach, : 45 - reach], part[:, :, reach:-reach, :-reach]
    assert_close_to_range(part, whole, mean=1e-5, max=1e-4)


def test_every_used_parameter_has_a_finite_gradient() -> None:
    network = tiny().train()
    network(clip(2, 8, 12), torch.tensor([0.2, 0.7]), (20, 28)).square().mean().backward()
    unused = {"upconv1", "upconv2", "HRconv", "conv_last"}
    for name, parameter in network.named_parameters():
        if name.split(".")[0] in unused:
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name


def still(official: bool) -> VideoINR:
    """Return a network without flow that returns the first frame's colours at the first sampled position."""
    network = tiny(official_sampling=official, frame_upsample=1)
    linear_layers = [module for module in network.encode_imnet.modules() if isinstance(module, nn.Linear)]
    flow_layer = network.flow_imnet.net[-1]
    assert isinstance(flow_layer, nn.Linear)
    nn.init.zeros_(flow_layer.weight)
    nn.init.zeros_(flow_layer.bias)
    with torch.no_grad():
        # The sine of a small number is almost that number.
        for linear in linear_layers:
            linear.weight.zero_()
            linear.bias.zero_()
            linear.weight[:3, :3] = torch.eye(3) / 30
        first, last = linear_layers[0].weight, linear_layers[-1].weight
        first.zero_()
        first[:3, 2 * (8 + 24) : 2 * (8 + 24) + 3] = torch.eye(3) * (1e-3 / 30)
        last.mul_(30 * 1e3)
    return network


def test_corrected_sampling_preserves_still_frames_and_their_borders() -> None:
    frames, time = clip(1, 8, 12), torch.tensor([0.5])
    with torch.no_grad():
        corrected = still(False)(frames, time, (8, 12))
        stretched = still(True)(frames, time, (8, 12))
        grey = torch.full_like(frames, 0.5)
        bright, dark = (still(official)(grey, time, (24, 36)) for official in (False, True))
    assert (corrected - frames[:, 0]).abs().max() < 1e-4
    assert (bright - 0.5).abs().max() < 1e-4
    # The official sampling stretches the frame and halves the brightness at its edge.
    assert (stretched - frames[:, 0]).abs().max() > 0.1
    assert dark[..., 0].max() < 0.3


def test_checkpoint_of_data_parallel_training_loads(tmp_path: Path) -> None:
    source, network = tiny(seed=1), tiny(seed=2)
    path = tmp_path / "parallel.pth"
    torch.save({f"module.{k}": v for k, v in source.state_dict().items()}, path)
    load_official(network, path)
    for name, value in network.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


def wrong_checkpoints() -> Iterator[Any]:
    state = tiny().state_dict()
    yield pytest.param({k: v for k, v in state.items() if k != "fusion.bias"}, "missing: fusion.bias", id="missing")
    yield pytest.param({**state, "extra.weight": torch.zeros(1)}, "unexpected: extra.weight", id="unexpected")
    wrong = {**state, "conv_first.weight": torch.zeros(8, 1, 3, 3)}
    yield pytest.param(wrong, r"conv_first.weight is \(8, 1, 3, 3\) and should be \(8, 3, 3, 3\)", id="shape")
    yield pytest.param({"state": state}, "only tensors, and these entries are none: state", id="nested")


@pytest.mark.parametrize(("state", "message"), list(wrong_checkpoints()))
def test_mismatched_checkpoint_is_refused_and_changes_nothing(state: dict[str, Any], message: str) -> None:
    network = tiny(seed=5)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_official(network, state)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_unreadable_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        read_state_dict(tmp_path / "absent.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="contains a list"):
        read_state_dict(tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        read_state_dict(tmp_path / "text.pth")


@pytest.mark.slow
def test_exported_full_size_network_agrees_with_the_official_one(full: Oracle, tmp_path: Path) -> None:
    bundle = Bundle.load(export_bundle(find_network("videoinr"), full.tested, tmp_path / "videoinr"))
    operators = {n.op_type for g in bundle.manifest.graphs for n in onnx.load(bundle.path(g.role)).graph.node}
    assert {"DeformConv", "GridSample"} <= operators
    assert not [name for name in operators if "Sequence" in name]
    with open_session(bundle.path("encoder"), device="cpu") as encoder:
        features = encoder.run({"frames": full.arrays["in/x"]})
    with open_session(bundle.path("decoder"), device="cpu") as decoder:
        for case, record in FULL_CASES.items():
            (h, w), size = full.arrays["in/x"].shape[-2:], record["out_shape"][2:]
            at = {axis: target_coordinates(n, m).numpy() for axis, n, m in (("y", h, size[0]), ("x", w, size[1]))}
            for time in record["times"]:
                out = decoder.run({**features, **at, "time": np.array([time], np.float32)})["frame"]
                assert_close_to_range(out, full.arrays[f"out/{case}/t{time:.6f}"], **BOUNDS)


@pytest.mark.slow
def test_network_with_corrected_sampling_exports(tmp_path: Path) -> None:
    network = tiny(official_sampling=False, frame_upsample=1)
    assert Bundle.load(export_bundle(find_network("videoinr"), network, tmp_path / "bundle")).manifest.halo_px is None
