"""Clips to samples, samples to steps, steps to checkpoints that resume, and the judge of what came of it."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from stvsr.engine.contract.errors import CheckpointError
from stvsr.engine.contract.manifest import (
    ContinuousTime,
    DoubledWindow,
    FixedFactors,
    FlowInput,
    RunWindow,
    SizeConstraint,
    SlidingWindow,
)
from stvsr.training.checkpoints import begin_with, load_weights
from stvsr.training.clips import cached_clip, find_clips, read_clip
from stvsr.training.data import ClipSampler, Sampling
from stvsr.training.evaluation import Protocol, evaluate
from stvsr.training.metrics import luma, psnr
from stvsr.training.networks.base import Network
from stvsr.training.networks.dtsr import DeepTemporalSR, DeepTemporalSRConfig
from stvsr.training.networks.edvr import EDVR, EDVRConfig
from stvsr.training.networks.losses import Judged, MotionConsistency
from stvsr.training.networks.motion import warp_pair
from stvsr.training.networks.registry import NetworkEntry, find_network
from stvsr.training.networks.spynet import SpyNet
from stvsr.training.networks.videoinr_s import VideoINRS, VideoINRSConfig
from stvsr.training.resize import imresize, to_uint8
from stvsr.training.saving import appearing
from stvsr.training.teacher import MotionTeacher
from stvsr.training.trainer import Schedule, Trainer
from torch import nn
from torch.nn import functional as F

from tests.support.paths import SAMPLE

TINY = VideoINRSConfig(width=8, encoder_blocks=1, trunk_blocks=1, decoder_width=8)
QUICK = Sampling(patch=16, batch=2)
PAIR = VideoINRS(TINY)  # what samplers of a pair draw for


class Toy(Network):
    """The smallest network of each kind: enlarged frames, mixed by a convolution that sees all of its inputs."""

    def __init__(self, window, scale=1, time=FixedFactors(factors=(1,)), flows=()):  # noqa: B008
        super().__init__()
        self.window, self.space, self.time, self.flows = window, FixedFactors(factors=(scale,)), time, flows
        self.size = SizeConstraint(minimum=2, multiple_of=4 if scale > 1 else 1)
        n = window.frames
        self.made = {"run": 2 * n - 1, "sliding": 1, "doubled": 2 * n}[window.kind]
        seen = 3 * n + sum(2 * len(f.pairs) for f in flows) + isinstance(time, ContinuousTime)
        self.norm = nn.BatchNorm2d(seen)
        self.mix = nn.Conv2d(seen, 3 * self.made, 3, padding=1)
        self.again = self.mix  # two names in the state dict, one set of weights

    def forward(self, frames, *others):
        B, _, _, h, w = frames.shape
        flows = others[: len(self.flows)]
        assert [f.shape for f in flows] == [(B, len(f.pairs), 2, h, w) for f in self.flows]
        planes = [frames.flatten(1, 2), *(f.flatten(1, 2) for f in flows)]
        if isinstance(self.time, ContinuousTime):
            planes.append(others[-1].view(B, 1, 1, 1).expand(B, 1, h, w))
        mixed = F.interpolate(self.mix(self.norm(torch.cat(planes, 1))), scale_factor=self.space.factors[0])
        return mixed.unflatten(1, (self.made, 3))


def shift(first, second, method):
    """A flow for networks that take one."""
    assert first.dtype == second.dtype == np.uint8
    assert method == "dis"
    return np.full((2, *first.shape[:2]), first.mean() / 255 - second.mean() / 255, np.float32)


FLOWS = (
    FlowInput(name="there", pairs=((0, 1), (0, 2)), method="dis"),
    FlowInput(name="back", pairs=((1, 0),), method="dis"),
)
TOYS = {
    "run": (RunWindow(frames=3), 4, FixedFactors(factors=(2,))),
    "run at a time": (RunWindow(frames=2), 2, ContinuousTime()),
    "run with flows": (RunWindow(frames=3), 2, FixedFactors(factors=(2,)), FLOWS),
    "sliding": (SlidingWindow(frames=5, padding="replicate"), 4),
    "sliding with flows": (SlidingWindow(frames=3, padding="replicate"), 4, FixedFactors(factors=(1,)), FLOWS),
    "doubled": (DoubledWindow(frames=4, overlap=1), 1, FixedFactors(factors=(2,))),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return cached_clip(SAMPLE, tmp_path_factory.mktemp("cache"))


def test_a_clip_is_decoded_once_and_then_mapped(tmp_path):
    first = cached_clip(SAMPLE, tmp_path)
    (kept,) = tmp_path.iterdir()
    stamp = kept.stat().st_mtime_ns
    again = cached_clip(SAMPLE, tmp_path)
    assert isinstance(again, np.memmap)
    assert kept.stat().st_mtime_ns == stamp
    assert np.array_equal(first[3], again[3])
    assert np.array_equal(next(read_clip(SAMPLE)), again[0])


def test_two_runs_may_decode_one_clip_at_once(tmp_path, monkeypatch):
    def meanwhile(path):
        monkeypatch.setattr("stvsr.training.clips.read_clip", read_clip)
        cached_clip(path, tmp_path)
        return read_clip(path)

    monkeypatch.setattr("stvsr.training.clips.read_clip", meanwhile)
    decoded = cached_clip(SAMPLE, tmp_path)
    assert np.array_equal(decoded[0], next(read_clip(SAMPLE)))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_text("old")

    def fail() -> None:
        with appearing(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("weights.pt", "old")]


def test_folders_are_searched_and_an_empty_one_is_an_error(tmp_path):
    assert find_clips(SAMPLE.parent) == [SAMPLE]
    with pytest.raises(FileNotFoundError, match="no clip"):
        find_clips(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        find_clips(tmp_path / "gone.mp4")


@pytest.mark.parametrize("scales", [(4.0, 4.0), (1.0, 4.0)])
def test_samples_are_what_the_network_takes(clip, scales):
    batch = ClipSampler([clip], PAIR, Sampling(patch=24, batch=3, scales=scales), seed=1).batch()
    assert batch.frames.shape == (3, 2, 3, 24, 24)
    assert batch.time.shape == batch.truth.shape[:2] == (3, 2)
    assert 0 <= batch.frames.min() <= batch.frames.max() <= 1
    assert set(batch.time[:, 0].tolist()) <= {0.0, 1.0}


def test_a_sample_small_frame_is_the_resized_truth_of_its_time(clip):
    sampler = ClipSampler([clip], PAIR, Sampling(patch=24, batch=1), seed=5)
    for _ in range(4):
        batch = sampler.batch()
        end = int(batch.time[0, 0])
        small = imresize(batch.truth[0, 0].permute(1, 2, 0).numpy(), (24, 24))
        assert np.abs(small.clip(0, 1) - batch.frames[0, end].permute(1, 2, 0).numpy()).max() < 0.51 / 255 + 1e-4


def test_the_same_seed_draws_the_same_samples(clip):
    first, second = (ClipSampler([clip], PAIR, QUICK, seed=3).batch() for _ in range(2))
    assert torch.equal(first.truth, second.truth)


def numbered(count):
    """A clip whose frames are twice as bright as their numbers, so that means of two are whole."""
    return 2 * np.arange(count, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 96, 96, 3), np.uint8)


@pytest.mark.parametrize("kind", TOYS)
def test_each_kind_of_window_gets_its_frames_and_times(kind):
    network = Toy(*TOYS[kind])
    sampler = ClipSampler([numbered(40)], network, Sampling(patch=16, batch=32), seed=0, flow=shift)
    batch = sampler.batch()
    side, n = 16 * network.space.factors[0], network.window.frames
    assert batch.frames.shape == (32, n, 3, 16, 16)
    assert batch.truth.shape == (32, network.made, 3, side, side)
    small, true = ((255 / 2 * x).mean((2, 3, 4)) for x in (batch.frames, batch.truth))  # numbers of frames
    steps, times = true.diff(dim=1), batch.time
    if network.window.kind == "sliding":
        assert (small.diff(dim=1).abs() - 1).abs().max() < 1e-3
        torch.testing.assert_close(true[:, 0], small[:, n // 2])
    elif network.window.kind == "doubled":
        assert (steps.abs() - 1).abs().max() < 1e-3
        torch.testing.assert_close(small, true.unflatten(1, (n, 2)).mean(2))  # exposed over two
    else:
        torch.testing.assert_close(true[:, ::2], small)
        gaps = small.diff(dim=1)
        assert (gaps - gaps[:, :1]).abs().max() < 1e-3
        expected = (steps[:, ::2] / gaps).round(decimals=3)
        if isinstance(network.time, FixedFactors):
            assert times is None
            assert (expected == 0.5).all()
            assert set(gaps.abs().round().flatten().tolist()) == {2.0, 4.0}
        else:
            assert ((expected - times[:, None]).abs() < 2e-3).all()
            assert {3, 4, 6, 8, 9} >= set((12 * times).round().int().tolist()) > {6}
    for asked, given in zip(network.flows, batch.flows, strict=True):
        for place, (a, b) in enumerate(asked.pairs):
            expected = 2 * (small[:, a] - small[:, b]) / 255
            torch.testing.assert_close(given[:, place], expected.view(-1, 1, 1, 1).expand(-1, 2, 16, 16))


@pytest.mark.parametrize(
    ("network", "sampling", "said"),
    [
        (Toy(SlidingWindow(frames=41, padding="replicate")), QUICK, "41 frames of 16 pixels"),
        (Toy(SlidingWindow(frames=3, padding="replicate"), 8), QUICK, "3 frames of 128 pixels"),
        (Toy(SlidingWindow(frames=3, padding="replicate"), 4), Sampling(patch=18), "multiples of 4"),
        (
            Toy(RunWindow(frames=3), 1, FixedFactors(factors=(2,))),
            Sampling(patch=16, gaps=((3, 1.0),)),
            "between its inputs",
        ),
    ],
)
def test_what_cannot_be_sampled_is_an_error_that_says_why(network, sampling, said):
    with pytest.raises(ValueError, match=said):
        ClipSampler([numbered(40)], network, sampling, seed=0)


def test_rates_warm_up_and_then_fall_to_the_end():
    schedule = Schedule(steps=100, warmup=10, learning_rate=1e-3, final_rate=1e-6)
    rates = [schedule.rate(step) for step in range(101)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[9] == pytest.approx(1e-3)
    assert rates[100] == pytest.approx(1e-6)


def _trainer(run, steps):
    torch.manual_seed(0)
    schedule = Schedule(
        steps=steps, stage_two_at=6, learning_rate=2e-3, warmup=2, checkpoint_every=4, validate_every=8, ema=0.9
    )
    return Trainer(VideoINRS(TINY), {"width": 8}, schedule, QUICK, run)


def test_training_lowers_the_loss_and_a_stopped_run_goes_on(tmp_path):
    run, cache = tmp_path / "run", tmp_path / "cache"
    losses: list[float] = []
    trainer = _trainer(run, 8)
    scores = trainer.fit(SAMPLE.parent, SAMPLE.parent, cache, lambda step, loss: losses.append(loss))
    assert trainer.step == len(losses) == 8
    assert scores.keys() == {"psnr_at", "psnr_between"}
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == [4, 8]

    resumed = _trainer(run, 12)
    assert resumed.step == 8
    assert all(torch.equal(a, b) for a, b in zip(resumed.average.values(), trainer.average.values(), strict=True))
    steps: list[int] = []
    resumed.fit(SAMPLE.parent, None, cache, lambda step, loss: steps.append(step))
    assert steps == [9, 10, 11, 12]
    assert not list(run.glob("*.part"))


@pytest.mark.parametrize("kind", TOYS)
def test_each_kind_of_network_trains_and_is_validated(kind, tmp_path, clip):
    torch.manual_seed(0)
    network = Toy(*TOYS[kind])
    schedule = Schedule(steps=30, learning_rate=2e-2, warmup=2, checkpoint_every=15, validate_every=30, ema=0.8)
    trainer = Trainer(network, {}, schedule, QUICK, tmp_path, flow=shift)
    untrained = trainer.validate([clip])
    losses: list[float] = []
    scores = trainer.fit(SAMPLE.parent, SAMPLE.parent, tmp_path / "cache", lambda step, loss: losses.append(loss))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    whens = {"run": {"psnr_at", "psnr_between"}, "sliding": {"psnr_at"}, "doubled": {"psnr_between"}}
    assert scores.keys() == whens[network.window.kind]
    assert all(scores[when] > untrained[when] + 3 for when in scores)
    # Counters are not averaged, weights of two names are the same, and what was trained was not left in evaluation.
    assert trainer.average["norm.num_batches_tracked"] == 30
    assert torch.equal(trainer.average["mix.weight"], trainer.average["again.weight"])
    assert network.training

    resumed = Trainer(Toy(*TOYS[kind]), {}, schedule, QUICK, tmp_path, flow=shift)
    assert resumed.step == 30
    assert resumed.validate([clip]) == scores


class Repeat(Toy):
    """Shows every frame that it is given for as long as it is the latest."""

    def forward(self, frames, *others):
        large = F.interpolate(frames.flatten(0, 1), scale_factor=self.space.factors[0]).unflatten(0, frames.shape[:2])
        if self.window.kind == "sliding":
            return large[:, self.window.frames // 2 :][:, :1]
        twice = large.repeat_interleave(2, 1)
        return twice if self.window.kind == "doubled" else twice[:, :-1]


@pytest.mark.parametrize(("kind", "at", "between"), [("run", 100, True), ("sliding", 100, False), ("doubled", None, 1)])
def test_validation_compares_with_the_frames_of_the_right_times(kind, at, between, tmp_path):
    # Frames are two levels apart, and 90 rows are no whole number of size multiples when made four times smaller.
    trainer = Trainer(Repeat(*TOYS[kind]), {}, Schedule(), QUICK, tmp_path)
    scores = trainer.validate([numbered(40)[:, :90]])
    assert scores.get("psnr_at") == at
    # One frame, of two levels, aside; of an exposure half as much.
    level = (1 if kind == "doubled" else 2) * (65.481 + 128.553 + 24.966) / 255
    expected = pytest.approx(20 * np.log10(255 / level), abs=1e-3)
    assert scores.get("psnr_between") == (expected if between else None)


def test_validation_judges_the_average_in_evaluation_and_leaves_the_network_as_it_was(tmp_path, clip):
    trainer = Trainer(Toy(*TOYS["sliding"]), {}, Schedule(), QUICK, tmp_path)
    before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    scores = [trainer.validate([clip])]
    for name in ("norm.bias", "norm.running_var"):  # batch statistics would not show the second
        trainer.average[name] += 0.1
        scores.append(trainer.validate([clip]))
    assert len({score["psnr_at"] for score in scores}) == 3
    after = trainer.network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_a_network_of_3d_weights_trains(tmp_path, clip):
    network = DeepTemporalSR(DeepTemporalSRConfig(width=4))
    losses: list[float] = []
    trainer = Trainer(network, {}, Schedule(steps=2, warmup=0), Sampling(patch=16, batch=1), tmp_path)
    trainer.fit(SAMPLE.parent, on_step=lambda step, loss: losses.append(loss))
    assert len(losses) == 2
    assert network.get_parameter("L8.weight").abs().max() > 0  # where it began


def test_a_network_with_flows_is_refused_without_any(tmp_path):
    with pytest.raises(ValueError, match="Toy takes optical flow"):
        Trainer(Toy(*TOYS["run with flows"]), {}, Schedule(), QUICK, tmp_path)


def test_validation_clips_that_are_all_too_short_are_refused_at_once(tmp_path):
    trainer = Trainer(Toy(SlidingWindow(frames=1001, padding="replicate")), {}, Schedule(), QUICK, tmp_path)
    with pytest.raises(ValueError, match="1001 frames"):
        trainer.fit(SAMPLE.parent, SAMPLE.parent)


class Judge(Toy):
    """A network that judges more than its output."""

    def loss(self, frames, truth):
        made = self(frames)
        return Judged((made - truth).abs().mean(), made.new_ones(()), made)


def test_a_network_may_judge_more_than_its_output(tmp_path, clip):
    trainer = Trainer(Judge(*TOYS["run"]), {}, Schedule(steps=4), QUICK, tmp_path)
    batch = ClipSampler([clip], trainer.network, QUICK, seed=0).batch()
    losses = []
    for trainer.step in (0, 2):
        losses.append(trainer._loss(batch).item())
    assert losses[0] - losses[1] == pytest.approx(0.5 - 0.125)  # halved every quarter of the steps


@pytest.mark.parametrize("network", [Toy, Judge])
def test_penalties_are_of_the_output_and_have_weights(network, tmp_path, clip):
    plain = Trainer(network(*TOYS["run"]), {}, Schedule(steps=4), QUICK, tmp_path / "plain")
    penalized = Trainer(
        plain.network, {}, Schedule(steps=4), QUICK, tmp_path / "more", penalties=[(torch.nn.L1Loss(), 0.25)]
    )
    batch = ClipSampler([clip], plain.network, QUICK, seed=0).batch()
    added = penalized._loss(batch) - plain._loss(batch)
    assert added.item() == pytest.approx(0.25 * (plain.network(batch.frames) - batch.truth).abs().mean().item())


def test_motion_consistency_trains_a_run_and_refuses_single_frames(tmp_path, clip):
    penalty = MotionConsistency(SpyNet(width=4, levels=2))
    run = Trainer(Toy(*TOYS["run"]), {}, Schedule(steps=4), QUICK, tmp_path / "run", penalties=[(penalty, 0.1)])
    loss = run._loss(ClipSampler([clip], run.network, QUICK, seed=0).batch())
    loss.backward()
    assert loss.isfinite()
    single = Trainer(
        Toy(SlidingWindow(frames=3, padding="replicate")),
        {},
        Schedule(),
        QUICK,
        tmp_path / "one",
        penalties=[(penalty, 0.1)],
    )
    with pytest.raises(ValueError, match="three frames or more"):
        single._loss(ClipSampler([clip], single.network, QUICK, seed=0).batch())


def test_a_network_learns_one_sample_by_heart(clip):
    torch.manual_seed(0)
    network = VideoINRS(TINY)
    batch = ClipSampler([clip], network, QUICK, seed=0).batch()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        judged = network.loss(batch.frames, batch.time, batch.truth, batch.motion)
        optimizer.zero_grad()
        (judged.reconstruction + judged.auxiliary).backward()
        optimizer.step()
        losses.append(float(judged.reconstruction.detach()))
    assert np.mean(losses[-5:]) < 0.9 * losses[0]


def test_a_run_of_another_configuration_is_refused(tmp_path):
    _trainer(tmp_path, 4).fit(SAMPLE.parent, None, tmp_path / "cache")
    with pytest.raises(ValueError, match="another configuration"):
        Trainer(VideoINRS(TINY), {"width": 9}, Schedule(steps=4), QUICK, tmp_path)


def test_weights_of_a_run_come_back_with_their_configuration(tmp_path):
    torch.manual_seed(0)
    network = VideoINRS(TINY)
    config = {"width": 8, "encoder_blocks": 1, "trunk_blocks": 1, "search_radius": 2, "decoder_width": 8}
    path = tmp_path / "weights.pt"
    torch.save({"config": config, "step": 7, "state_dict": network.state_dict()}, path)
    entry = NetworkEntry("tiny", VideoINRS, VideoINRSConfig(), "")
    loaded, training = load_weights(entry, path)
    assert training == {"step": 7}
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), network.state_dict().values(), strict=True)
    )
    (tmp_path / "broken.pt").write_bytes(path.read_bytes()[:1000])
    for wrong in ("gone.pt", "broken.pt"):
        with pytest.raises(CheckpointError, match=wrong):
            load_weights(entry, tmp_path / wrong)


def test_evaluation_scores_bicubic_as_bicubic(tmp_path):
    def bicubic(frames, factor, size):
        large = [imresize(frame.transpose(1, 2, 0).astype(float), size).transpose(2, 0, 1) for frame in frames]
        for first, second in pairwise([*large, large[-1]]):
            yield from ((1 - k / factor) * first + k / factor * second for k in range(factor))

    scores = evaluate([SAMPLE], bicubic, Protocol(scale=4, factor=2))
    for when in ("at", "between"):
        figures = scores["clips"]["sample_bee_240"][when]
        assert figures["stvsr"]["psnr_y_db"] == pytest.approx(figures["bicubic+blend"]["psnr_y_db"], abs=2e-3)
        assert figures["stvsr"]["frames"] == figures["bicubic+repeat"]["frames"]
    assert abs(scores["gain_db"]["at"]) < 2e-3

    frames = list(read_clip(SAMPLE))[:3]
    small = to_uint8(imresize(frames[0] / 255.0, (34, 60))) / 255.0
    alone = psnr(luma(to_uint8(imresize(small, (136, 240)))), luma(frames[0]))
    count = scores["clips"]["sample_bee_240"]["at"]["stvsr"]["frames"]
    assert count == len(list(read_clip(SAMPLE))[::2])
    assert alone == pytest.approx(scores["clips"]["sample_bee_240"]["at"]["bicubic+repeat"]["psnr_y_db"], abs=3)


def test_a_clip_too_short_to_be_judged_is_an_error():
    with pytest.raises(ValueError, match="too short"):
        evaluate([SAMPLE], lambda *_: [], Protocol(scale=4, factor=1000))


def test_the_teacher_tells_motion_over_the_whole_interval():
    scene = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    scene = to_uint8(imresize(imresize(scene / 255.0, (20, 30)), (80, 120)))
    first, frame, second = (np.roll(scene, shift, 1) for shift in (0, 2, 8))  # 2 of 8 pixels: time 1/4
    told = MotionTeacher().motion(first, frame, second, 0.25)
    inside = (slice(None), slice(20, 60), slice(30, 90))
    assert np.median(told[:4][inside], axis=(1, 2)) == pytest.approx([-8, 0, 8, 0], abs=0.7)
    assert told[4:][inside].min() == 1
    own = MotionTeacher().motion(first, first, second, 0.0)
    assert not own[4].any()  # a flow to itself tells nothing


def test_told_motion_warps_the_small_frames_onto_the_truth(clip):
    sampler = ClipSampler([clip], PAIR, Sampling(patch=32, batch=4), seed=2)
    plain, warped = [], []
    for _ in range(3):
        batch = sampler.batch()
        t = batch.time[:, 1].view(-1, 1, 1, 1)
        small = torch.nn.functional.interpolate(batch.truth[:, 1], (32, 32), mode="area")
        first, second = batch.frames[:, 0], batch.frames[:, 1]
        plain.append(((1 - t) * first + t * second - small).abs().mean())
        first, second = warp_pair(first, second, batch.motion[:, 1], t)
        warped.append(((1 - t) * first + t * second - small).abs().mean())
    assert sum(warped) < sum(plain)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    network = DeepTemporalSR(DeepTemporalSRConfig(width=8))
    torch.save({"config": {"width": 8, "upsampling": "cubic"}, "state_dict": network.state_dict()}, path)
    assert load_weights(find_network("dtsr-s"), path)[0].config.width == 8
    with pytest.raises(CheckpointError, match="of another network than edvr-s"):
        load_weights(find_network("edvr-s"), path)
    with pytest.raises(CheckpointError, match="should be"):
        load_weights(find_network("dtsr-s"), path, {"width": "16"})


def test_a_deeper_network_begins_with_a_smaller_ones_layers(tmp_path):
    torch.manual_seed(0)
    size = EDVRConfig(num_feat=8, num_frame=3, deformable_groups=2, num_extract_block=1, num_reconstruct_block=1)
    small, deep = EDVR(size), EDVR(replace(size, num_reconstruct_block=2))
    path = tmp_path / "weights.pt"
    torch.save({"config": {}, "state_dict": small.state_dict()}, path)
    new = begin_with(deep, path)
    assert new == [name for name in deep.state_dict() if name.startswith("reconstruction.1.")]
    assert all(torch.equal(value, deep.state_dict()[name]) for name, value in small.state_dict().items())
    with pytest.raises(CheckpointError, match=r"weights\.pt has no weight that fits DeepTemporalSR"):
        begin_with(DeepTemporalSR(DeepTemporalSRConfig(width=8)), path)
