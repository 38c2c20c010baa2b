"""Deep temporal super-resolution: agreement with the official network, and with 3-D convolutions."""

from pathlib import Path
from typing import Literal

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from stvsr.engine.contract.manifest import DoubledWindow
from stvsr.training.checkpoints import load_official
from stvsr.training.networks.dtsr import DTSR_S, DeepTemporalSR, DeepTemporalSRConfig
from stvsr.training.networks.ops import upsample_cubic
from torch import Tensor, nn
from torch.export import Dim

from tests.support.compare import assert_close_to_range
from tests.support.networks import assert_official_state_dict, untrained_parameters
from tests.support.oracle import Oracle, load_oracle

TINY = DeepTemporalSRConfig(width=6)


def network() -> DeepTemporalSR:
    """Return a small network whose last layer is no longer zero."""
    torch.manual_seed(0)
    net = DeepTemporalSR(TINY)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return load_oracle("dtsr")


@pytest.mark.parametrize(("upsampling", "case"), [("cubic", "resize"), ("duplicate", "duplicate"), ("zero_gap",) * 2])
@torch.no_grad()
def test_agrees_with_the_official_network(
    oracle: Oracle, upsampling: Literal["cubic", "duplicate", "zero_gap"], case: str
) -> None:
    net = DeepTemporalSR(DeepTemporalSRConfig(upsampling=upsampling)).eval()
    load_official(net, oracle.weights)
    out = net(oracle.tensor("in/x").transpose(1, 2)).transpose(1, 2)
    assert_close_to_range(out, oracle.tensor(f"out/eval_{case}"), mean=1e-6, max=1e-5)


@torch.no_grad()
def test_refine_agrees_with_the_official_network_at_four_times_the_rate(oracle: Oracle) -> None:
    net = DeepTemporalSR().eval()
    load_official(net, oracle.weights)
    out = net.refine(upsample_cubic(oracle.tensor("in/x").transpose(1, 2), 1, 4)).transpose(1, 2)
    assert_close_to_range(out, oracle.tensor("out/eval_resize_x4"), mean=1e-6, max=1e-5)


@torch.no_grad()
def test_training_mode_updates_batch_statistics_as_the_official_network(oracle: Oracle) -> None:
    net = DeepTemporalSR().train()
    ignored = {key: torch.zeros(4, 12) for key in oracle.record["extra_state_keys_after_a_forward"]}
    load_official(net, {f"module.{key}": value for key, value in (oracle.weights | ignored).items()})
    out = net(oracle.tensor("in/xb_train").transpose(1, 2)).transpose(1, 2)
    assert_close_to_range(out, oracle.tensor("out/train_mode_resize"), mean=1e-6, max=1e-5)
    state = net.state_dict()
    statistics = [name for name in oracle.arrays if name.startswith("sd_after_train_fwd/")]
    assert len(statistics) == 3 * 7
    for name in statistics:
        torch.testing.assert_close(state[name.removeprefix("sd_after_train_fwd/")], oracle.tensor(name))


def test_state_dict_is_the_official_one(oracle: Oracle) -> None:
    assert_official_state_dict(DeepTemporalSR(), oracle.record)


def reference(net: DeepTemporalSR, frames: Tensor) -> Tensor:
    """Run the network by 3-D convolutions. `(B, T, 3, h, w)` -> `(B, 2T, 3, h, w)`"""
    doubled = upsample_cubic(frames, 1, 2).transpose(1, 2)
    x = F.pad(doubled, (1,) * 6, "replicate")
    for n in range(1, 9):
        layer = net.get_submodule(f"L{n}")
        assert isinstance(layer, nn.Conv3d)
        x = F.conv3d(x, layer.weight, layer.bias, padding=(layer.kernel_size[0] // 2, 1, 1))
        if n < 8:
            norm = net.get_submodule(f"L{n}_b")
            assert isinstance(norm, nn.BatchNorm2d)
            x = F.relu(F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, net.training))
    return (doubled + x[:, :, 1:-1, 1:-1, 1:-1]).transpose(1, 2)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 3, 7, 10), (1, 2, 3, 2, 5)])
@torch.no_grad()
def test_output_equals_that_of_3d_convolutions(training: bool, shape: tuple[int, ...]) -> None:
    # Two networks, because training mode updates the statistics.
    net, again = network().train(training), network().train(training)
    frames = torch.rand(shape)
    assert_close_to_range(net(frames), reference(again, frames), mean=1e-6, max=1e-5)


@torch.no_grad()
def test_untrained_network_interpolates() -> None:
    frames = torch.rand(2, 4, 3, 5, 7)
    assert torch.equal(DeepTemporalSR(DTSR_S).eval()(frames), upsample_cubic(frames, 1, 2))


def test_gradients_reach_every_parameter() -> None:
    net = network().eval()  # batch statistics would cancel the biases
    net(torch.rand(2, 3, 3, 7, 9)).square().mean().backward()
    assert untrained_parameters(net) == []


@torch.no_grad()
def test_frames_beyond_the_overlap_and_pixels_beyond_the_halo_do_not_affect_the_output() -> None:
    net = network().double().eval()
    assert isinstance(net.window, DoubledWindow)
    video = torch.rand(1, 10, 3, 6, 40).double()
    whole, overlap, halo = net(video), net.window.overlap, net.halo_px
    short, narrow = net(video[:, 2:]), net(video[..., 10:])
    time_error = (short - whole[:, 4:]).abs().amax((0, 2, 3, 4))
    space_error = (narrow - whole[..., 10:]).abs().amax((0, 1, 2, 3))
    for error, reach in ((time_error, 2 * overlap), (space_error, halo)):
        assert error[reach:].max() < 1e-12 < 1e-9 < error[reach - 1]


@pytest.mark.slow
@torch.no_grad()
def test_exported_graph_accepts_any_number_of_frames(tmp_path: Path) -> None:
    net = network().eval()
    free = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC, 3: Dim.DYNAMIC, 4: Dim.DYNAMIC}
    frames = torch.rand(2, 5, 3, 7, 9)
    program = torch.onnx.export(
        net, (frames,), dynamo=True, opset_version=20, dynamic_shapes=(free,), input_names=["frames"], verbose=False
    )
    assert program is not None
    program.save(tmp_path / "network.onnx")
    assert {node.op_type for node in program.model.graph}.isdisjoint({"Loop", "If", "ScatterND", "SequenceConstruct"})
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 2, 3, 5, 4), (3, 8, 3, 6, 13)):
        frames = torch.rand(shape)
        (out,) = session.run(None, {"frames": frames.numpy()})
        assert_close_to_range(out, net(frames), mean=1e-6, max=1e-5)
