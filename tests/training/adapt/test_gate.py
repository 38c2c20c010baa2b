"""The gate: adaptations that help are kept; adaptations that harm or fail are not."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stvsr.engine.contract.errors import AdaptationError
from stvsr.engine.contract.manifest import FixedFactors, SlidingWindow
from stvsr.training.adapt.blur import gaussian_kernel
from stvsr.training.adapt.degradation import Degradation
from stvsr.training.adapt.gate import adapt_guarded, self_consistency, split_scene
from stvsr.training.adapt.own_scale import Looks
from stvsr.training.adapt.protocol import Adapted, Budget, Method, OnStep, Record
from stvsr.training.adapt.pseudo import bicubic, blurring
from stvsr.training.adapt.restore import restored_frames
from stvsr.training.adapt.selfsupervised import SelfSupervised
from stvsr.training.adapt.verdict import Consistency, Verdict, lower_bound, refusal
from stvsr.training.networks.base import Network
from stvsr.training.networks.dtsr import DTSR_S, DeepTemporalSR
from torch import Tensor, nn

from tests.support.small_networks import moving_blobs, small_edvr, small_networks, zero_flow


class Sharpener(Network):
    """A network that enlarges the middle of three frames, sharpened by the amount of its only weight."""

    def __init__(self, amount: float = 0.0) -> None:
        super().__init__()
        self.window, self.space = SlidingWindow(frames=3, padding="replicate"), FixedFactors(factors=(2,))
        self.amount = nn.Parameter(torch.tensor(amount))

    def forward(self, frames: Tensor) -> Tensor:
        large = F.interpolate(frames[:, 1], scale_factor=2, mode="bicubic")
        soft = F.avg_pool2d(F.pad(large, (2, 2, 2, 2), mode="replicate"), 5, 1)
        return (large + self.amount * (large - soft))[:, None]


@dataclass(frozen=True)
class FixedResult:
    """A method that calls `act` and returns fixed weights and losses."""

    weights: dict[str, Tensor]
    losses: tuple[float, ...] = (1.0,)
    act: Callable[[], Any] = lambda: None
    name: str = "fixed"

    def adapt(
        self, network: Network, frames: Tensor, budget: Budget, seed: int = 0, on_step: OnStep | None = None
    ) -> Adapted:
        self.act()
        return Adapted(self.weights, Record(self.name, len(self.losses), 0.5, self.losses, {"frames": len(frames)}))


def judge(amount: float, scene: Tensor | None = None, **changes: Any) -> Verdict:
    """Return the verdict on an adaptation that sets the sharpening to `amount`."""
    method: Method = FixedResult({"amount": torch.tensor(amount)}, **changes)
    return adapt_guarded(method, Sharpener(), moving_blobs(12, 48, 64) if scene is None else scene, Budget(steps=1))


def test_gain_is_kept_and_loss_is_not() -> None:
    better, worse = judge(0.4), judge(-0.9)
    assert better.kept
    assert better.gain_db is not None
    assert better.gain_db > 0.1
    assert worse.gain_db is not None
    assert worse.gain_db < -0.1
    assert not worse.kept
    assert "did not rise significantly (from" in worse.reason


def test_unchanged_weights_are_not_kept() -> None:
    verdict = judge(0.0)
    assert (verdict.kept, verdict.gain_db) == (False, 0.0)


def test_consistency_prefers_more_sharpening_under_more_blur() -> None:
    frames = moving_blobs(6, 48, 64)
    blur = Degradation(gaussian_kernel((2.0, 2.0), 0.0, 12))
    for assumed, better in ((Degradation(), False), (blur, True)):
        measure = self_consistency(assumed)
        sharper, softer = measure(Sharpener(2.0), frames), measure(Sharpener(0.6), frames)
        assert (sharper.below_db > softer.below_db) == better


def test_verdict_is_on_held_out_frames() -> None:
    learned: list[Tensor] = []

    class RecordingResult(FixedResult):
        def adapt(self, network: Network, frames: Tensor, *rest: Any, **named: Any) -> Adapted:
            learned.append(frames)
            return super().adapt(network, frames, *rest, **named)

    held_out: list[Tensor] = []

    def measure(_: Network, frames: Tensor) -> Consistency:
        held_out.append(frames)
        return Consistency((0.0, 0.0))

    scene = moving_blobs(12, 24, 32)
    method = RecordingResult({"amount": torch.tensor(0.1)})
    adapt_guarded(method, Sharpener(), scene, Budget(steps=1), measure=measure)
    assert [len(frames) for frames in held_out] == [4, 4]
    assert torch.equal(torch.cat((learned[0], held_out[0])), scene)


def test_record_is_json_with_first_and_last_loss() -> None:
    record = judge(0.4, losses=(3.0, 2.0)).record()
    assert json.loads(json.dumps(record)) == record
    assert (record["kept"], record["method"], record["steps"], record["frames"]) == (True, "fixed", 2, 8)
    assert (record["first_loss"], record["last_loss"]) == (3.0, 2.0)
    assert record["gain_db"] == pytest.approx(record["after"]["below_db"] - record["before"]["below_db"], abs=2e-4)


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"losses": (1.0, float("nan"))}, "the loss is no longer a number"),
        ({"losses": (1.0,) * 5 + (9.0,) * 5}, "the loss rose from 1.00e+00 to 9.00e+00"),
        ({"act": raising(AdaptationError("The clip is odd."))}, "The clip is odd."),
        ({"act": raising(MemoryError())}, "memory does not suffice"),
        ({"act": raising(torch.OutOfMemoryError("CUDA out of memory."))}, "memory does not suffice"),
        (
            {"act": raising(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))},
            "memory does not suffice",
        ),
    ],
)
def test_failure_is_a_verdict(changes: dict[str, Any], words: str) -> None:
    verdict = judge(0.4, **changes)
    assert not verdict.kept
    assert words in verdict.reason
    assert verdict.before is not None
    assert verdict.reason.endswith(".")


def test_weights_that_are_not_finite_are_not_kept() -> None:
    verdict = judge(float("inf"))
    assert not verdict.kept
    assert "amount has values that are not finite" in verdict.reason


def test_other_runtime_errors_are_raised() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        judge(0.4, act=raising(RuntimeError("shapes do not match")))


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (torch.zeros(12, 3, 24, 32), "flat or black"),
        (torch.full((12, 3, 24, 32), 0.7) + 0.004 * torch.rand(12, 3, 24, 32), "flat or black"),
        (moving_blobs(3, 24, 32), "has 3 frames, and Sharpener needs 3 to learn from and 1 to be judged by"),
        (moving_blobs(12, 3, 32), "too small to be shrunk 2 times"),
    ],
)
def test_flat_short_and_small_scenes_are_verdicts(scene: Tensor, words: str) -> None:
    verdict = judge(0.4, scene)
    assert not verdict.kept
    assert words in verdict.reason


def test_scene_that_fades_in_from_black_is_accepted() -> None:
    scene = torch.cat((torch.zeros(6, 3, 24, 32), moving_blobs(6, 24, 32)))
    assert len(split_scene(Sharpener(), scene)[0]) == 8


@pytest.mark.parametrize("name", ["edvr", "rbpn", "toflow", pytest.param("tmnet", marks=pytest.mark.slow), "fourier-s"])
def test_networks_of_every_window_are_judged(name: str) -> None:
    network = small_networks()[name].eval()
    measure, frames = self_consistency(flow=zero_flow), moving_blobs(8, 64, 64)
    first = measure(network, frames)
    assert first.again_db is not None
    assert 5 < first.below_db < first.again_db < 80
    assert measure(network, frames) == first
    assert measure(network, 1 - frames) != first


def test_doubled_rate_is_judged_by_the_halves_of_exposures() -> None:
    frames = moving_blobs(9, 24, 32)
    network = DeepTemporalSR(DTSR_S).eval()
    moving = self_consistency()(network, frames)
    still = self_consistency()(network, frames[:1].expand_as(frames))
    assert moving.again_db is None
    assert still.below_db > moving.below_db + 3


def consistency(*below: float, again: float = 40.0, **changes: Any) -> Consistency:
    return Consistency(below, again_db=again, **changes)


@pytest.mark.parametrize(
    ("gains", "again", "kept"),
    [
        ((0.05, 0.06, 0.05, 0.06), -0.9, True),
        ((0.05, 0.06, 0.05, 0.06), -1.1, False),
        ((0.3, -0.2, 0.25, -0.15), 0.0, False),  # a gain of 0.05 dB in the mean, by chance
        ((0.012, 0.013, 0.012, 0.013), 0.0, False),  # significant, and too small to be sure of the true gain
        ((0.5,), 0.0, False),  # nothing to compare it with
        ((float("nan"),) * 4, 0.0, False),
        ((-0.1, -0.12, -0.1, -0.12), 5.0, False),
    ],
)
def test_only_significant_gains_are_kept(gains: tuple[float, ...], again: float, kept: bool) -> None:
    before = consistency(20.0, 25.0, 30.0, 22.0)
    after = consistency(*(db + gain for db, gain in zip(before.below, gains, strict=False)), again=40 + again)
    results = iter((Consistency(before.below[: len(gains)], again_db=40.0), after))
    method: Method = FixedResult({"amount": torch.tensor(0.1)})
    verdict = adapt_guarded(
        method, Sharpener(), moving_blobs(12, 24, 32), Budget(steps=1), measure=lambda *_: next(results)
    )
    assert verdict.kept == kept
    assert verdict.adapted is not None


def test_lower_bound_is_that_of_the_t_distribution() -> None:
    assert lower_bound((1.0, 2.0, 3.0)) == pytest.approx(2.0 - 4.3 / 3**0.5)
    assert lower_bound((0.1,) * 60) == pytest.approx(0.1)
    assert lower_bound((5.0,)) == -float("inf")


def test_frames_between_that_gain_less_are_not_taken_for_chance() -> None:
    """Frames of one kind gain 2 dB and those of the other 0.3 dB; without kinds the same gains could be chance."""
    gains, kinds = (2.0, 0.3, 2.1, 0.35, 1.9), (False, True, False, True, False)
    assert lower_bound(gains) < 0.3
    assert 1.1 < lower_bound(gains, kinds) < 1.33
    before = consistency(20.0, 25.0, 30.0, 22.0, 21.0, is_between=kinds)
    after = consistency(*(db + gain for db, gain in zip(before.below, gains, strict=True)))
    assert refusal(before, after, 1.0) is None
    assert lower_bound(gains[:2], kinds[:2]) == -float("inf")


@pytest.mark.parametrize(("between", "kept"), [(-0.06, True), (-0.5, False)])
def test_frames_of_one_kind_may_lose_a_little_of_what_others_gain(between: float, kept: bool) -> None:
    kinds, gains = (False, True) * 3, (1.7, between) * 3
    before = consistency(*(20.0, 25.0, 30.0) * 2, is_between=kinds)
    after = consistency(*(db + gain for db, gain in zip(before.below, gains, strict=True)))
    reason = refusal(before, after, 1.0)
    assert (reason is None) == kept
    assert kept or "frames between those of the clip became worse by 0.50 dB" in str(reason)


def test_uncertain_blur_is_kept_only_if_it_would_pay() -> None:
    """Without the blur 2 dB would be lost, and with it 1 dB is gained."""
    before = consistency(20.0, 21.0, plain=(30.0, 30.0))
    after = consistency(21.0, 22.0, plain=(28.0, 28.0))
    assert refusal(before, after, 0.99) is None
    reason = refusal(before, after, 0.6)
    assert reason is not None
    assert "certain to 60% only" in reason
    assert "2.00 dB would be lost" in reason


def test_noise_that_is_undone_may_be_missed_when_frames_are_shrunk_again() -> None:
    before, gains = consistency(20.0, 21.0, again=45.0), (20.5, 21.5)
    assert refusal(before, consistency(*gains, again=35.0), 1.0) is not None
    assert refusal(before, consistency(*gains, again=35.0, again_floor_db=34.5), 1.0) is None
    assert refusal(before, consistency(*gains, again=30.0, again_floor_db=34.5), 1.0) is not None


def test_noise_that_is_taken_away_counts_where_it_is_small_one_scale_below() -> None:
    before = consistency(20.0, 21.0, 20.5, cleaned=(30.0, 31.0, 29.0))
    for below, cleaned, kept in (
        ((20.01, 21.0, 20.5), (20.0, 22.0, 19.0), True),
        ((20.01, 21.0, 20.5), (29.0, 30.0, 28.0), False),
        ((20.01, 21.0, 20.5), (10.0, 40.0, 20.0), False),
        ((19.9, 20.9, 20.4), (20.0, 22.0, 19.0), False),
    ):
        assert (refusal(before, consistency(*below, cleaned=cleaned), 1.0) is None) == kept


def test_error_from_clean_frames_is_estimated_from_noisy_ones() -> None:
    """A network that blurs noise away has a smaller error than one that keeps it; both errors are known here."""
    clean = moving_blobs(6, 96, 96)
    noisy = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)) * 8 / 255
    measured = self_consistency(Degradation(noise=8.0))(Sharpener(0.0), noisy)
    shrunk = [bicubic(frame[None], 2)[0] for frame in restored_frames(Sharpener(0.0), noisy, range(5))]
    true = [float((a - b).square().mean()) * 255**2 for a, b in zip(shrunk, clean, strict=False)]
    assert sum(measured.cleaned) / 5 == pytest.approx(sum(true) / 5 * 1.25, rel=0.15)


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        (Looks(0.6, 0.03, -13.0), None),
        (Looks(0.6, 0.06, -14.5), None),
        (Looks(2.0, 0.03, -15.0), "became noisier: 0.5 grey levels before and 2.0 after"),
        (Looks(0.6, 0.06, -13.0), "ring more, by 0.010 before and 0.060 after"),
        (Looks(0.6, 0.06, -13.0), "stronger than is natural, by 1.0 dB"),
    ],
)
def test_frames_that_look_worse_at_their_own_scale_are_refused(looks: Looks, words: str | None) -> None:
    before = consistency(20.0, 21.0, looks=Looks(0.5, 0.01, -15.0))
    reason = refusal(before, consistency(21.0, 22.0, looks=looks), 1.0)
    assert (reason is None) == (words is None)
    assert words is None or words in str(reason)


@pytest.mark.parametrize(
    ("ringing", "before_db", "after_db", "kept"),
    [
        (0.099, -21.3, -14.6, True),  # edvr-s that learned the blur of its clip: +2.1 dB
        (0.068, -21.8, -15.8, True),  # fourier-s, the same: +2.0 dB
        (0.027, -14.8, -14.2, True),  # +0.6 dB
        (0.090, -24.8, -18.3, True),  # +1.8 dB
        (0.030, -16.2, -17.2, True),  # +1.6 dB
        (0.060, -16.7, -14.4, True),  # edvr-s, the same: +1.2 dB
        (0.087, -21.5, -16.1, True),  # +1.1 dB
        (0.116, -19.8, -15.3, True),  # +1.7 dB
        (0.083, -14.2, -11.6, False),  # edvr-s that learned a blur from a clip without any: -3.1 dB
        (0.065, -14.0, -11.7, False),  # fourier-s, the same: -2.7 dB
        (0.082, -15.8, -12.7, False),  # a clip without any: -5.9 dB
        (0.070, -15.8, -13.0, False),  # edvr-s, the same: -5.2 dB
        (0.083, -16.7, -13.1, False),  # a clip without any: -4.2 dB
        (0.053, -15.8, -12.3, False),  # a clip without any: -6.8 dB
        (0.054, -13.7, -11.8, False),  # a clip without any: -2.0 dB
        (0.063, -14.8, -11.9, False),  # a blur across that of the clip: -1.5 dB
        (0.102, -12.7, -10.5, False),  # a blur that is wider than that of the clip: -0.5 dB
    ],
)
def test_right_blurs_end_in_natural_frames_and_wrong_ones_in_sharper_ones(
    ringing: float, before_db: float, after_db: float, kept: bool
) -> None:
    """Looks at the frames' own scale, which were measured on clips with known truth."""
    before = consistency(20.0, 21.0, looks=Looks(0.5, 0.01, before_db))
    after = consistency(21.0, 22.0, looks=Looks(0.5, 0.01 + ringing, after_db))
    assert (refusal(before, after, 1.0) is None) == kept


def test_oversharpened_frames_ring() -> None:
    """Sharpening far beyond what the blur of the clip asks for shows at the frames' own scale."""
    measure, frames = self_consistency(), moving_blobs(6, 48, 64)
    looks = [measure(Sharpener(amount), frames).looks for amount in (0.0, 0.6, 8.0)]
    ringing = [0.0 if found is None else found.ringing for found in looks]
    assert ringing[0] < ringing[1] < 0.2 * ringing[2]


@pytest.mark.slow
def test_self_supervised_adaptation_under_a_blur_is_kept() -> None:
    torch.manual_seed(0)
    network = small_edvr()
    kernel = gaussian_kernel((3.0, 1.5), 0.4)
    blur, measure = blurring(kernel), self_consistency(Degradation(kernel))
    frames = blur(moving_blobs(10, 192, 256, seed=3), 4).clamp(0, 1)
    method = SelfSupervised(rate=1e-3, batch=2, patch=16, degrade=blur)
    verdict = adapt_guarded(method, network, frames, Budget(steps=25), measure=measure)
    assert verdict.kept
    assert verdict.gain_db is not None
    assert verdict.gain_db > 0.05
    wild = SelfSupervised(rate=10.0, batch=1, patch=16, degrade=blur)
    assert "diverged" in adapt_guarded(wild, network, frames, Budget(steps=40)).reason
