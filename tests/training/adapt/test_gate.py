"""The gate: what helps is kept, what harms or fails is not, and the original weights serve."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from stvsr.engine.contract.errors import AdaptationError
from stvsr.engine.contract.manifest import FixedFactors, SlidingWindow
from stvsr.training.adapt.blur import gaussian_kernel
from stvsr.training.adapt.gate import Consistency, Verdict, guarded, kept_out, self_consistency
from stvsr.training.adapt.protocol import Adapted, Budget, Method, OnStep, Record
from stvsr.training.adapt.pseudo import Degrade, bicubic, blurring
from stvsr.training.adapt.selfsupervised import SelfSupervised
from stvsr.training.networks.base import Network
from stvsr.training.networks.dtsr import DTSR_S, DeepTemporalSR
from test_selfsupervised import small_edvr, small_networks, video
from torch import Tensor, nn


class Sharpener(Network):
    """Enlarges the middle of three frames, with as much sharpening as its only weight says."""

    def __init__(self, amount: float = 0.0) -> None:
        super().__init__()
        self.window, self.space = SlidingWindow(frames=3, padding="replicate"), FixedFactors(factors=(2,))
        self.amount = nn.Parameter(torch.tensor(amount))

    def forward(self, frames: Tensor) -> Tensor:
        large = F.interpolate(frames[:, 1], scale_factor=2, mode="bicubic")
        soft = F.avg_pool2d(F.pad(large, (2, 2, 2, 2), mode="replicate"), 5, 1)
        return (large + self.amount * (large - soft))[:, None]


@dataclass(frozen=True)
class Setting:
    """A method that sets weights, or does what it is told to."""

    weights: dict[str, Tensor]
    losses: tuple[float, ...] = (1.0,)
    act: Callable[[], Any] = lambda: None
    degrade: Degrade | None = bicubic
    name: str = "setting"

    def adapt(
        self, network: Network, frames: Tensor, budget: Budget, seed: int = 0, on_step: OnStep | None = None
    ) -> Adapted:
        self.act()
        return Adapted(self.weights, Record(self.name, len(self.losses), 0.5, self.losses, {"frames": len(frames)}))


def judged(amount: float, scene: Tensor | None = None, **changes: Any) -> Verdict:
    method: Method = Setting({"amount": torch.tensor(amount)}, **changes)
    return guarded(method, Sharpener(), video(12, 48, 64) if scene is None else scene, Budget(steps=1))


def test_what_helps_is_kept_and_what_harms_is_not() -> None:
    better, worse = judged(0.4), judged(-0.9)
    assert better.kept
    assert better.gain_db is not None
    assert better.gain_db > 0.1
    assert worse.gain_db is not None
    assert worse.gain_db < -0.1
    assert not worse.kept
    assert "did not rise (from" in worse.reason


def test_what_changes_nothing_is_not_kept() -> None:
    verdict = judged(0.0)
    assert (verdict.kept, verdict.gain_db) == (False, 0.0)


def test_more_blur_asks_for_more_sharpening() -> None:
    frames = video(6, 48, 64)
    blur = blurring(gaussian_kernel((2.0, 2.0), 0.0, 12))
    for degrade, better in ((bicubic, False), (blur, True)):
        measure = self_consistency(degrade)
        sharper, softer = measure(Sharpener(2.0), frames), measure(Sharpener(0.6), frames)
        assert (sharper.below_db > softer.below_db) == better


def test_the_verdict_is_on_frames_that_were_not_learned_from() -> None:
    seen: list[Tensor] = []

    class Watching(Setting):
        def adapt(self, network: Network, frames: Tensor, *rest: Any, **named: Any) -> Adapted:
            seen.append(frames)
            return super().adapt(network, frames, *rest, **named)

    judged_by: list[Tensor] = []

    def measure(_: Network, frames: Tensor) -> Consistency:
        judged_by.append(frames)
        return Consistency(0.0)

    scene = video(12, 24, 32)
    method = Watching({"amount": torch.tensor(0.1)})
    guarded(method, Sharpener(), scene, Budget(steps=1), measure=measure)
    assert [len(frames) for frames in judged_by] == [3, 3]
    assert torch.equal(torch.cat((seen[0], judged_by[0])), scene)


def test_the_record_says_what_happened() -> None:
    told = judged(0.4, losses=(3.0, 2.0)).record()
    assert json.loads(json.dumps(told)) == told
    assert (told["kept"], told["method"], told["steps"], told["frames"]) == (True, "setting", 2, 9)
    assert (told["first_loss"], told["last_loss"]) == (3.0, 2.0)
    assert told["gain_db"] == pytest.approx(told["after"]["below_db"] - told["before"]["below_db"], abs=2e-4)


def test_an_estimated_blur_is_judged_by_another_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []

    def estimate(frames: Tensor, factor: int) -> Tensor:
        asked.append(frames)
        return gaussian_kernel((2.0, 2.0), 0.0, 12)

    monkeypatch.setattr("stvsr.training.adapt.gate.estimate_kernel", estimate)
    scene = video(12, 48, 64)
    verdict = judged(1.0, scene, degrade=None)
    assert [len(frames) for frames in asked] == [3]
    assert torch.equal(asked[0], scene[-3:])
    given = judged(1.0, scene, degrade=blurring(gaussian_kernel((2.0, 2.0), 0.0, 12)))
    assert len(asked) == 1
    assert verdict.after == given.after != judged(1.0, scene).after


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"losses": (1.0, float("nan"))}, "the loss is no longer a number"),
        ({"losses": (1.0,) * 5 + (9.0,) * 5}, "the loss rose from 1.00e+00 to 9.00e+00"),
        ({"act": raising(AdaptationError("the clip is odd"))}, "The clip is odd."),
        ({"act": raising(MemoryError())}, "memory does not hold"),
        ({"act": raising(torch.OutOfMemoryError("CUDA out of memory."))}, "memory does not hold"),
        (
            {"act": raising(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))},
            "memory does not hold",
        ),
    ],
)
def test_what_fails_is_a_verdict(changes: dict[str, Any], words: str) -> None:
    verdict = judged(0.4, **changes)
    assert not verdict.kept
    assert words in verdict.reason
    assert verdict.before is not None
    assert verdict.reason.endswith(".")


def test_weights_that_are_no_numbers_are_not_kept() -> None:
    verdict = judged(float("inf"))
    assert not verdict.kept
    assert "amount holds what is no number" in verdict.reason


def test_an_error_that_is_a_bug_is_raised() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        judged(0.4, act=raising(RuntimeError("shapes do not match")))


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (torch.zeros(12, 3, 24, 32), "flat or black"),
        (torch.full((12, 3, 24, 32), 0.7) + 0.004 * torch.rand(12, 3, 24, 32), "flat or black"),
        (video(3, 24, 32), "has 3 frames, and Sharpener takes 3 to learn from and 1 to be judged by"),
        (video(12, 3, 32), "too small to be made 2 times smaller"),
    ],
)
def test_scenes_that_hold_nothing_to_learn_are_verdicts(scene: Tensor, words: str) -> None:
    verdict = judged(0.4, scene)
    assert not verdict.kept
    assert words in verdict.reason


def test_a_scene_that_fades_in_from_black_is_learned_from() -> None:
    scene = torch.cat((torch.zeros(6, 3, 24, 32), video(6, 24, 32)))
    assert len(kept_out(Sharpener(), scene)[0]) == 9


@pytest.mark.parametrize("name", ["edvr", "rbpn", "toflow", "tmnet", "videoinr-s"])
def test_networks_of_every_window_are_judged(name: str) -> None:
    network = small_networks()[name].eval()
    flow = lambda a, b, method: np.zeros((2, *a.shape[:2]), np.float32)  # noqa: E731
    measure, frames = self_consistency(flow=flow), video(8, 64, 64)
    first = measure(network, frames)
    assert first.again_db is not None
    assert 5 < first.below_db < first.again_db < 80
    assert measure(network, frames) == first
    assert measure(network, 1 - frames) != first


def test_in_time_halves_of_an_exposure_are_judged() -> None:
    frames = video(9, 24, 32)
    network = DeepTemporalSR(DTSR_S).eval()
    moving = self_consistency()(network, frames)
    still = self_consistency()(network, frames[:1].expand_as(frames))
    assert moving.again_db is None
    assert still.below_db > moving.below_db + 3


@pytest.mark.parametrize(
    ("below", "again", "kept"), [(0.01, -0.9, True), (0.01, -1.1, False), (-0.01, 5.0, False), (float("nan"), 0, False)]
)
def test_both_measures_are_asked(below: float, again: float, kept: bool) -> None:
    found = iter((Consistency(20.0, 40.0), Consistency(20.0 + below, 40.0 + again)))
    method: Method = Setting({"amount": torch.tensor(0.1)})
    verdict = guarded(method, Sharpener(), video(12, 24, 32), Budget(steps=1), measure=lambda *_: next(found))
    assert verdict.kept == kept
    assert verdict.adapted is not None


def test_self_supervised_adaptation_under_a_blur_is_kept() -> None:
    torch.manual_seed(0)
    network = small_edvr()
    blur = blurring(gaussian_kernel((3.0, 1.5), 0.4))
    frames = blur(video(10, 192, 256, seed=3), 4).clamp(0, 1)
    method = SelfSupervised(rate=1e-3, batch=2, patch=16, degrade=blur)
    verdict = guarded(method, network, frames, Budget(steps=25))
    assert verdict.kept
    assert verdict.gain_db is not None
    assert verdict.gain_db > 0.05
    wild = SelfSupervised(rate=10.0, batch=1, patch=16, degrade=blur)
    assert "went astray" in guarded(wild, network, frames, Budget(steps=40)).reason
