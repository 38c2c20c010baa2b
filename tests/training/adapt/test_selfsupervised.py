"""Self-supervised adaptation and distillation of small networks, their training pairs and restored frames."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from stvsr.engine.contract.errors import AdaptationError
from stvsr.training.adapt.blur import gaussian_kernel
from stvsr.training.adapt.distillation import Distillation
from stvsr.training.adapt.learning import Learning, learn
from stvsr.training.adapt.protocol import Budget, Clock
from stvsr.training.adapt.pseudo import PseudoPairs, bicubic, blurring
from stvsr.training.adapt.restore import restored_frames, restorer
from stvsr.training.adapt.selfsupervised import SelfSupervised, select_segments
from stvsr.training.networks.base import Network
from stvsr.training.networks.dtsr import DTSR_S, DeepTemporalSR
from stvsr.training.resize import imresize
from torch import Tensor

from tests.support.procedural import filled
from tests.support.small_networks import moving_blobs, small_edvr, small_networks, zero_flow


@settings(deadline=None)
@given(count=st.integers(1, 300), limit=st.integers(1, 60), length=st.integers(1, 9))
def test_segments_are_disjoint_and_inside(count: int, limit: int, length: int) -> None:
    segments = select_segments(count, limit, length)
    indices = [index for segment in segments for index in segment]
    assert indices == sorted(set(indices))
    assert 0 <= indices[0] <= indices[-1] < count
    assert len(indices) <= max(limit, length)
    assert all(len(segment) == length for segment in segments) or indices == list(range(count))


@pytest.mark.parametrize(
    "name",
    ["edvr", "rbpn", "toflow", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tmnet", "videoinr-s"))],
)
def test_networks_of_every_window_adapt(name: str) -> None:
    network = filled(small_networks()[name], gain=0.5, offset_gain=4.0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    reported: list[tuple[int, float]] = []
    method = SelfSupervised(rate=1e-3, batch=2, patch=16, flow=zero_flow)
    adapted = method.adapt(
        network,
        moving_blobs(6, 24, 28),
        Budget(steps=3),
        on_step=lambda clock, loss: reported.append((clock.steps, loss)),
    )
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert adapted.weights.keys() == before.keys()
    assert sum(not torch.equal(value, before[key]) for key, value in adapted.weights.items()) > 10
    buffers = [key for key in before if "running" in key]
    assert all(torch.equal(adapted.weights[key], before[key]) for key in buffers)
    record = adapted.record
    assert (record.method, record.steps, record.details["frames"]) == ("self-supervised", 3, 6)
    assert reported == list(enumerate(record.losses, 1))
    again = method.adapt(network, moving_blobs(6, 24, 28), Budget(steps=3))
    assert all(torch.equal(value, adapted.weights[key]) for key, value in again.weights.items())
    other = method.adapt(network, moving_blobs(6, 24, 28), Budget(steps=3), seed=1)
    assert other.record.losses != record.losses


def test_sliding_window_restores_its_middle_frame() -> None:
    network, frames = filled(small_edvr(), gain=0.5), moving_blobs(4, 18, 22)
    outputs = torch.stack(list(restored_frames(network, frames, range(4))))
    assert outputs.shape == (4, 3, 72, 88)
    padded = F.pad(frames, (0, 2, 0, 2), mode="replicate")
    with torch.no_grad():
        expected = network(padded[[1, 2, 3]][None])[0, 0, :, :72, :88].clamp(0, 1)
    assert torch.equal(outputs[2], expected)


@pytest.mark.slow
def test_run_restores_the_frames_at_input_times() -> None:
    network = filled(small_networks()["tmnet"], gain=0.5)
    frames = moving_blobs(3, 16, 20)
    outputs = list(restored_frames(network, frames, range(3)))
    with torch.no_grad():
        runs = [network(frames[None, k : k + 2], torch.tensor([0.5]))[0] for k in (0, 1)]
    for actual, expected in zip(outputs, (runs[0][0], runs[1][0], runs[1][2]), strict=True):
        assert torch.equal(actual, expected.clamp(0, 1))


def pairs_of(network: Network, frames: Tensor, **changes: Any) -> PseudoPairs:
    """Return pairs that use the frames as if they were restored."""
    segment = np.ascontiguousarray(frames.permute(0, 2, 3, 1).numpy())
    options: dict[str, Any] = {"patch": 16, "shrink": (0.8, 0.95), "degrade": bicubic, "flow": None, "seed": 0}
    return PseudoPairs(network, [segment], **options | changes)


def test_patches_equal_crops_of_resized_whole_frames() -> None:
    network, frames = small_edvr(), moving_blobs(4, 96, 110)
    pairs = pairs_of(network, frames)
    for _ in range(5):
        crop = pairs.draw()
        example = pairs.example(crop)
        whole = imresize(frames[crop.indices[1]].permute(1, 2, 0).double().numpy(), crop.size).clip(0, 1)
        expected = whole[crop.top : crop.top + 64, crop.left : crop.left + 64]
        np.testing.assert_allclose(example.target[0, 0].permute(1, 2, 0).numpy(), expected, atol=1e-6)
        small = imresize(expected, (16, 16)).clip(0, 1)
        np.testing.assert_allclose(example.inputs[0][0, 1].permute(1, 2, 0).numpy(), small, atol=1e-6)


def test_crops_are_inside_and_cover_every_scale_and_frame() -> None:
    pairs = pairs_of(small_edvr(), moving_blobs(5, 96, 110))
    crops = [pairs.draw() for _ in range(600)]
    assert {crop.size[0] for crop in crops} == {-(-96 * n // 100) for n in range(80, 96)}
    assert {crop.indices[1] for crop in crops} == set(range(5))
    for n, corners in ((0, [crop.top for crop in crops]), (1, [crop.left for crop in crops])):
        room = [crop.size[n] - 64 - corner for crop, corner in zip(crops, corners, strict=True)]
        assert min(corners) == min(room) == 0


def test_inputs_are_degraded_by_the_blur_of_the_clip() -> None:
    network, frames, kernel = small_edvr(), moving_blobs(3, 96, 110), gaussian_kernel((3.0, 1.0), 0.4)
    plain, blurred = pairs_of(network, frames), pairs_of(network, frames, degrade=blurring(kernel))
    crop = plain.draw()
    one, other = plain.example(crop), blurred.example(crop)
    assert torch.equal(one.target, other.target)
    assert other.inputs[0].diff(dim=-1).abs().mean() < 0.95 * one.inputs[0].diff(dim=-1).abs().mean()


def test_targets_of_a_run_include_the_frames_between_inputs() -> None:
    network = small_networks()["tmnet"]
    frames = moving_blobs(4, 96, 110)
    pairs = pairs_of(network, frames)
    crop = pairs.draw()
    example = pairs.example(crop)
    assert list(crop.indices) == list(range(crop.indices[0], crop.indices[0] + 3))
    assert [tuple(x.shape) for x in example.inputs] == [(1, 2, 3, 16, 16), (1,)]
    assert example.target.shape == (1, 3, 3, 64, 64)
    small = bicubic(example.target[0, ::2], 4).clamp(0, 1)
    torch.testing.assert_close(example.inputs[0][0], small, atol=1e-6, rtol=0)


def test_learning_lowers_the_loss_on_other_pairs() -> None:
    network, frames = small_edvr(), moving_blobs(4, 96, 110)
    fixed = pairs_of(network, frames, seed=9).batch(8)

    @torch.no_grad()
    def loss() -> float:
        return float(F.mse_loss(network(*fixed.inputs), fixed.target))

    before = loss()
    learn(network, pairs_of(network, frames), Learning(1e-3, batch=2), Budget(steps=30).start())
    assert loss() < 0.7 * before


def test_distillation_learns_from_the_frames_of_its_teacher() -> None:
    student, frames = filled(small_edvr(), gain=0.3), moving_blobs(4, 24, 28)
    requested: list[int] = []

    def teacher(scene: Tensor, indices: Sequence[int]) -> Iterator[Tensor]:
        requested.extend(indices)
        for index in indices:
            yield F.interpolate(scene[index : index + 1], scale_factor=4, mode="bicubic")[0].clamp(0, 1)

    method = Distillation(rate=1e-3, batch=2, patch=16, restore=teacher)
    distilled = method.adapt(student, frames, Budget(steps=4))
    assert (requested, distilled.record.method) == ([0, 1, 2, 3], "distillation")
    alone = SelfSupervised(rate=1e-3, batch=2, patch=16).adapt(student, frames, Budget(steps=4))
    assert distilled.record.losses != alone.record.losses
    same = Distillation(rate=1e-3, batch=2, patch=16, restore=restorer(student)).adapt(student, frames, Budget(steps=4))
    assert all(torch.equal(value, alone.weights[name]) for name, value in same.weights.items())


def test_targets_are_restored_from_corrected_frames() -> None:
    network, frames, factors = filled(small_edvr(), gain=0.3), moving_blobs(4, 24, 28), []

    def darker(scene: Tensor, factor: int) -> Tensor:
        factors.append(factor)
        return scene / 2

    restored: list[Tensor] = []

    def restore(scene: Tensor, indices: Sequence[int]) -> Iterator[Tensor]:
        restored.append(scene)
        return restored_frames(network, scene, indices)

    method = SelfSupervised(rate=1e-3, batch=2, patch=16, correct=darker, restore=restore)
    method.adapt(network, frames, Budget(steps=1))
    assert factors == [4]
    assert torch.equal(restored[0], frames / 2)


class TickingClock:
    """A clock that advances by a second each time it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_budget_of_seconds_leaves_half_for_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stvsr.training.adapt.protocol.time.perf_counter", TickingClock())
    adapted = SelfSupervised(batch=1, patch=16).adapt(
        filled(small_edvr(), 0.3), moving_blobs(40, 24, 28), Budget(seconds=30)
    )
    assert 3 <= adapted.record.details["restored"] <= 16
    assert adapted.record.steps >= 2


def test_unsupported_networks_and_small_clips_are_refused() -> None:
    budget = Budget(steps=1)
    with pytest.raises(AdaptationError, match=r"crops of at least 16 pixels, which the clip, of 12 pixels"):
        SelfSupervised().adapt(small_edvr(), moving_blobs(4, 12, 40), budget)
    with pytest.raises(AdaptationError, match="learns from 3 neighbouring frames"):
        SelfSupervised().adapt(small_networks()["tmnet"], moving_blobs(2, 24, 28), budget)
    with pytest.raises(AdaptationError, match="does not enlarge frames"):
        SelfSupervised().adapt(DeepTemporalSR(DTSR_S), moving_blobs(8, 24, 28), budget)
    with pytest.raises(AdaptationError, match="takes optical flow"):
        SelfSupervised(patch=16).adapt(small_networks()["rbpn"], moving_blobs(4, 24, 28), budget)


def test_diverging_run_is_stopped() -> None:
    network = filled(small_edvr(), gain=0.3)
    clock: Clock = Budget(steps=200).start()
    with pytest.raises(AdaptationError, match=r"diverged, as the loss .* lower learning rate"):
        learn(network, pairs_of(network, moving_blobs(3, 96, 110)), Learning(10.0, batch=1), clock)
    assert clock.steps < 30
