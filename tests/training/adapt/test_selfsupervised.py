"""Self-supervised adaptation and distillation: against the authors' demonstration, and on small networks."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from stvsr.engine.contract.errors import AdaptationError
from stvsr.engine.contract.manifest import SlidingWindow
from stvsr.engine.contract.windows import window_numbers
from stvsr.training.adapt.blur import gaussian_kernel
from stvsr.training.adapt.distillation import Distillation
from stvsr.training.adapt.protocol import Budget, Clock
from stvsr.training.adapt.pseudo import Crop, PseudoPairs, bicubic, blurring
from stvsr.training.adapt.restore import restored_frames, restoring
from stvsr.training.adapt.selfsupervised import SelfSupervised, learn, spread
from stvsr.training.checkpoints import load_official
from stvsr.training.networks.base import Network
from stvsr.training.networks.dtsr import DTSR_S, DeepTemporalSR
from stvsr.training.networks.edvr import EDVR, EDVR_M, EDVRConfig
from stvsr.training.networks.rbpn import RBPN, RBPNConfig
from stvsr.training.networks.tmnet import TMNet, TMNetConfig
from stvsr.training.networks.toflow import TOFLOW_S, TOFlow
from stvsr.training.networks.videoinr_s import VideoINRS, VideoINRSConfig
from stvsr.training.resize import imresize
from torch import Tensor

from tests.support.oracle import Oracle, load_oracle
from tests.support.procedural import filled

SHRINK = (0.8, 0.95)


@pytest.fixture(scope="module")
def official() -> tuple[Oracle, EDVR]:
    oracle = load_oracle("selfadapt_edvr_m")
    network = EDVR(EDVR_M).eval()
    load_official(network, load_oracle("edvr_m").weights)
    return oracle, network


class Planned(PseudoPairs):
    """The demonstration's crops in place of random ones."""

    def __init__(self, network: Network, oracle: Oracle) -> None:
        frames = oracle.arrays["in/hr_frames"].transpose(0, 2, 3, 1)
        super().__init__(network, [frames], oracle.record["here"]["patch"] // 4, SHRINK, bicubic, None, 0)
        self.plan = iter(oracle.record["plan"])

    def draw(self) -> Crop:
        crop = next(self.plan)
        return Crop(0, crop["frame_idx"], tuple(crop["resized_hw"]), crop["crop_y"], crop["crop_x"])


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).detach().norm() / expected.detach().norm())


def test_pairs_are_those_of_the_demonstration(official: tuple[Oracle, EDVR]) -> None:
    oracle, network = official
    example = Planned(network, oracle).batch(2)
    assert (example.inputs[0] - oracle.tensor("step0/lq")).abs().max() < 2e-5
    assert (example.target[:, 0] - oracle.tensor("step0/gt")).abs().max() < 2e-5


def test_windows_are_those_of_the_demonstration(official: tuple[Oracle, EDVR]) -> None:
    oracle, network = official
    for crop in oracle.record["plan"]:
        assert isinstance(network.window, SlidingWindow)
        assert window_numbers(network.window, crop["center"], 5) == crop["frame_idx"]


def test_first_gradients_are_those_of_the_demonstration(official: tuple[Oracle, EDVR]) -> None:
    oracle, network = official
    example = Planned(network, oracle).batch(2)
    network.zero_grad()
    F.mse_loss(network(*example.inputs), example.target).backward()
    names = [name.removeprefix("step0/grad/") for name in oracle.arrays if name.startswith("step0/grad/")]
    assert len(names) == 5
    errors = {n: relative(network.get_parameter(n).grad, oracle.tensor(f"step0/grad/{n}")) for n in names}
    assert max(errors.values()) < 1e-3, errors


def test_four_steps_are_those_of_the_demonstration(official: tuple[Oracle, EDVR]) -> None:
    oracle, start = official
    here = oracle.record["here"]
    network = EDVR(EDVR_M).eval()
    network.load_state_dict(start.state_dict())
    losses = learn(network, Planned(network, oracle), here["batch"], here["lr"], Budget(steps=here["steps"]).start())
    np.testing.assert_allclose(losses, oracle.record["losses"], rtol=1e-5)
    for name in ("conv_last.weight", "conv_last.bias", "pcd_align.cas_dcnpack.conv_offset.bias"):
        before, after = start.get_parameter(name), network.get_parameter(name)
        assert relative(after - before, oracle.tensor(f"after/{name}") - before) < 2e-3
    with torch.no_grad():
        change = network(oracle.tensor("probe/in"))[:, 0] - oracle.tensor("probe/before")
    assert relative(change, oracle.tensor("probe/after") - oracle.tensor("probe/before")) < 1e-3


@settings(deadline=None)
@given(count=st.integers(1, 300), most=st.integers(1, 60), length=st.integers(1, 9))
def test_stretches_are_apart_and_inside(count: int, most: int, length: int) -> None:
    stretches = spread(count, most, length)
    places = [place for stretch in stretches for place in stretch]
    assert places == sorted(set(places))
    assert 0 <= places[0] <= places[-1] < count
    assert len(places) <= max(most, length)
    assert all(len(stretch) == length for stretch in stretches) or places == list(range(count))


def video(frames: int, h: int, w: int, seed: int = 0) -> Tensor:
    """Blobs of many sizes that move, (N, 3, h, w) in [0, 1]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w].astype(float)
    shown = np.full((frames, 3, h, w), 0.5)
    for _ in range(40):
        at, way, size = random.uniform(0, (h, w)), random.uniform(-1, 1, 2), random.uniform(1, 6)
        colour = random.uniform(-0.5, 0.5, 3)
        for t in range(frames):
            spot = np.exp(-((y - at[0] - t * way[0]) ** 2 + (x - at[1] - t * way[1]) ** 2) / (2 * size**2))
            shown[t] += colour[:, None, None] * (spot > 0.5)
    return torch.from_numpy(np.clip(shown, 0, 1)).float()


def steady(first: np.ndarray, second: np.ndarray, method: str) -> np.ndarray:
    return np.zeros((2, *first.shape[:2]), np.float32)


def small_edvr() -> Network:
    torch.manual_seed(0)
    return EDVR(EDVRConfig(8, num_frame=3, deformable_groups=2, num_extract_block=1, num_reconstruct_block=1)).eval()


def small_networks() -> dict[str, Network]:
    torch.manual_seed(0)
    rbpn = RBPNConfig(base_filter=8, feat=8, num_stages=1, n_resblock=1, frames=3, residual=True)
    return {
        "edvr": small_edvr(),
        "rbpn": RBPN(rbpn),
        "toflow": TOFlow(replace(TOFLOW_S, frames=3, width=8, flow_width=8, flow_levels=2)),
        "tmnet": TMNet(TMNetConfig(nf=8, groups=2, frames=2, front_blocks=1, back_blocks=1, residual=True)),
        "videoinr-s": VideoINRS(VideoINRSConfig()),
    }


@pytest.mark.parametrize("name", ["edvr", "rbpn", "toflow", "tmnet", "videoinr-s"])
def test_networks_of_every_window_adapt(name: str) -> None:
    network = filled(small_networks()[name], gain=0.5, offset_gain=4.0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    told: list[tuple[int, float]] = []
    method = SelfSupervised(rate=1e-3, batch=2, patch=16, flow=steady)
    adapted = method.adapt(
        network, video(6, 24, 28), Budget(steps=3), on_step=lambda clock, loss: told.append((clock.steps, loss))
    )
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert adapted.weights.keys() == before.keys()
    assert sum(not torch.equal(value, before[key]) for key, value in adapted.weights.items()) > 10
    buffers = [key for key in before if "running" in key]
    assert all(torch.equal(adapted.weights[key], before[key]) for key in buffers)
    record = adapted.record
    assert (record.method, record.steps, record.details["frames"]) == ("self-supervised", 3, 6)
    assert told == list(enumerate(record.losses, 1))
    again = method.adapt(network, video(6, 24, 28), Budget(steps=3))
    assert all(torch.equal(value, adapted.weights[key]) for key, value in again.weights.items())
    other = method.adapt(network, video(6, 24, 28), Budget(steps=3), seed=1)
    assert other.record.losses != record.losses


def test_restored_frames_are_what_the_network_makes_of_each_window() -> None:
    network, frames = filled(small_edvr(), gain=0.5), video(4, 18, 22)
    made = torch.stack(list(restored_frames(network, frames, range(4))))
    assert made.shape == (4, 3, 72, 88)
    padded = F.pad(frames, (0, 2, 0, 2), mode="replicate")
    with torch.no_grad():
        expected = network(padded[[1, 2, 3]][None])[0, 0, :, :72, :88].clamp(0, 1)
    assert torch.equal(made[2], expected)


def test_a_run_restores_the_frames_at_input_times() -> None:
    network = filled(small_networks()["tmnet"], gain=0.5)
    frames = video(3, 16, 20)
    made = list(restored_frames(network, frames, range(3)))
    with torch.no_grad():
        runs = [network(frames[None, k : k + 2], torch.tensor([0.5]))[0] for k in (0, 1)]
    for found, expected in zip(made, (runs[0][0], runs[1][0], runs[1][2]), strict=True):
        assert torch.equal(found, expected.clamp(0, 1))


def pairs_of(network: Network, frames: Tensor, **changes: Any) -> PseudoPairs:
    stretch = np.ascontiguousarray(frames.permute(0, 2, 3, 1).numpy())
    options = {"patch": 16, "shrink": SHRINK, "degrade": bicubic, "flow": None, "seed": 0} | changes
    return PseudoPairs(network, [stretch], **options)


def test_patches_are_those_of_frames_that_are_resized_as_a_whole() -> None:
    network, frames = small_edvr(), video(4, 96, 110)
    pairs = pairs_of(network, frames)
    for _ in range(5):
        crop = pairs.draw()
        example = pairs.example(crop)
        whole = imresize(frames[crop.places[1]].permute(1, 2, 0).double().numpy(), crop.size).clip(0, 1)
        expected = whole[crop.top : crop.top + 64, crop.left : crop.left + 64]
        np.testing.assert_allclose(example.target[0, 0].permute(1, 2, 0).numpy(), expected, atol=1e-6)
        small = imresize(expected, (16, 16)).clip(0, 1)
        np.testing.assert_allclose(example.inputs[0][0, 1].permute(1, 2, 0).numpy(), small, atol=1e-6)


def test_crops_lie_inside_and_take_every_scale_and_frame() -> None:
    pairs = pairs_of(small_edvr(), video(5, 96, 110))
    crops = [pairs.draw() for _ in range(600)]
    assert {crop.size[0] for crop in crops} == {-(-96 * n // 100) for n in range(80, 96)}
    assert {crop.places[1] for crop in crops} == set(range(5))
    for n, corners in ((0, [crop.top for crop in crops]), (1, [crop.left for crop in crops])):
        room = [crop.size[n] - 64 - corner for crop, corner in zip(crops, corners, strict=True)]
        assert min(corners) == min(room) == 0


def test_inputs_are_made_with_the_blur_of_the_clip() -> None:
    network, frames, kernel = small_edvr(), video(3, 96, 110), gaussian_kernel((3.0, 1.0), 0.4)
    plain, blurred = pairs_of(network, frames), pairs_of(network, frames, degrade=blurring(kernel))
    crop = plain.draw()
    one, other = plain.example(crop), blurred.example(crop)
    assert torch.equal(one.target, other.target)
    assert other.inputs[0].diff(dim=-1).abs().mean() < 0.95 * one.inputs[0].diff(dim=-1).abs().mean()


def test_a_run_learns_frames_between_that_the_clip_has() -> None:
    network = small_networks()["tmnet"]
    frames = video(4, 96, 110)
    pairs = pairs_of(network, frames)
    crop = pairs.draw()
    example = pairs.example(crop)
    assert list(crop.places) == list(range(crop.places[0], crop.places[0] + 3))
    assert [tuple(x.shape) for x in example.inputs] == [(1, 2, 3, 16, 16), (1,)]
    assert example.target.shape == (1, 3, 3, 64, 64)
    small = bicubic(example.target[0, ::2], 4).clamp(0, 1)
    torch.testing.assert_close(example.inputs[0][0], small, atol=1e-6, rtol=0)


def test_learning_lowers_the_loss_on_pairs_that_were_not_seen() -> None:
    network, frames = small_edvr(), video(4, 96, 110)
    fixed = pairs_of(network, frames, seed=9).batch(8)

    @torch.no_grad()
    def loss() -> float:
        return float(F.mse_loss(network(*fixed.inputs), fixed.target))

    before = loss()
    learn(network, pairs_of(network, frames), 2, 1e-3, Budget(steps=30).start())
    assert loss() < 0.7 * before


def test_distillation_learns_from_the_teacher_s_frames() -> None:
    student, frames = filled(small_edvr(), gain=0.3), video(4, 24, 28)
    asked: list[int] = []

    def teacher(scene: Tensor, places: Sequence[int]) -> Iterator[Tensor]:
        asked.extend(places)
        for place in places:
            yield F.interpolate(scene[place : place + 1], scale_factor=4, mode="bicubic")[0].clamp(0, 1)

    method = Distillation(rate=1e-3, batch=2, patch=16, restore=teacher)
    taught = method.adapt(student, frames, Budget(steps=4))
    assert (asked, taught.record.method) == ([0, 1, 2, 3], "distillation")
    alone = SelfSupervised(rate=1e-3, batch=2, patch=16).adapt(student, frames, Budget(steps=4))
    assert taught.record.losses != alone.record.losses
    same = Distillation(rate=1e-3, batch=2, patch=16, restore=restoring(student)).adapt(
        student, frames, Budget(steps=4)
    )
    assert all(torch.equal(value, alone.weights[name]) for name, value in same.weights.items())


def test_a_blur_that_is_not_given_is_estimated_from_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, asked = gaussian_kernel((3.0, 1.0), 0.4), []
    monkeypatch.setattr(
        "stvsr.training.adapt.selfsupervised.estimate_kernel", lambda frames, factor: asked.append(frames) or kernel
    )
    network, frames = filled(small_edvr(), gain=0.3), video(4, 24, 28)
    blind = SelfSupervised(rate=1e-3, batch=1, patch=16, degrade=None).adapt(network, frames, Budget(steps=2))
    given = SelfSupervised(rate=1e-3, batch=1, patch=16, degrade=blurring(kernel))
    assert blind.record.losses == given.adapt(network, frames, Budget(steps=2)).record.losses
    assert torch.equal(asked[0], frames)
    assert blind.record.details["kernel_widths_px"] == pytest.approx([3.0, 1.0], abs=0.05)


class Ticking:
    """A clock of which every look takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_a_budget_of_seconds_leaves_half_for_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stvsr.training.adapt.protocol.time.perf_counter", Ticking())
    adapted = SelfSupervised(batch=1, patch=16).adapt(filled(small_edvr(), 0.3), video(40, 24, 28), Budget(seconds=30))
    assert 3 <= adapted.record.details["restored"] <= 16
    assert adapted.record.steps >= 2


def test_too_little_to_learn_from_is_said() -> None:
    budget = Budget(steps=1)
    with pytest.raises(AdaptationError, match=r"crops of 16 pixels and more, and the clip, of 12 pixels"):
        SelfSupervised().adapt(small_edvr(), video(4, 12, 40), budget)
    with pytest.raises(AdaptationError, match="learns from 3 neighbouring frames"):
        SelfSupervised().adapt(small_networks()["tmnet"], video(2, 24, 28), budget)
    with pytest.raises(AdaptationError, match="makes no frame larger"):
        SelfSupervised().adapt(DeepTemporalSR(DTSR_S), video(8, 24, 28), budget)
    with pytest.raises(AdaptationError, match="takes optical flow"):
        SelfSupervised(patch=16).adapt(small_networks()["rbpn"], video(4, 24, 28), budget)


def test_a_run_that_diverges_is_stopped() -> None:
    network = filled(small_edvr(), gain=0.3)
    clock: Clock = Budget(steps=200).start()
    with pytest.raises(AdaptationError, match=r"went astray, as the loss .* lower learning rate"):
        learn(network, pairs_of(network, video(3, 96, 110)), 1, 10.0, clock)
    assert clock.steps < 30
