"""Clips to samples, samples to steps, steps to checkpoints that resume, and the judge of what came of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from stvsr.training.checkpoints import CheckpointError, load_weights
from stvsr.training.clips import cached_clip, find_clips, read_clip
from stvsr.training.data import ClipSampler, Sampling
from stvsr.training.evaluation import Protocol, evaluate
from stvsr.training.metrics import luma, psnr
from stvsr.training.motion import warp_pair
from stvsr.training.networks import NetworkEntry
from stvsr.training.resize import imresize, to_uint8
from stvsr.training.teacher import MotionTeacher
from stvsr.training.trainer import Schedule, Trainer
from stvsr.training.videoinr_s import VideoINRS, VideoINRSConfig

SAMPLE = Path(__file__).parent / "data" / "sample_bee_240.mp4"
TINY = VideoINRSConfig(width=8, encoder_blocks=1, trunk_blocks=1, decoder_width=8)
QUICK = Sampling(patch=16, batch=2)


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


def test_folders_are_searched_and_an_empty_one_is_an_error(tmp_path):
    assert find_clips(SAMPLE.parent) == [SAMPLE]
    with pytest.raises(FileNotFoundError, match="no clip"):
        find_clips(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        find_clips(tmp_path / "gone.mp4")


@pytest.mark.parametrize("scales", [(4.0, 4.0), (1.0, 4.0)])
def test_samples_are_what_the_network_takes(clip, scales):
    batch = ClipSampler([clip], Sampling(patch=24, batch=3, scales=scales), seed=1).batch()
    assert batch.frames.shape == (3, 2, 3, 24, 24)
    assert batch.time.shape == batch.truth.shape[:2] == (3, 2)
    assert 0 <= batch.frames.min() <= batch.frames.max() <= 1
    assert set(batch.time[:, 0].tolist()) <= {0.0, 1.0}


def test_a_sample_small_frame_is_the_resized_truth_of_its_time(clip):
    sampler = ClipSampler([clip], Sampling(patch=24, batch=1), seed=5)
    for _ in range(4):
        batch = sampler.batch()
        end = int(batch.time[0, 0])
        small = imresize(batch.truth[0, 0].permute(1, 2, 0).numpy(), (24, 24))
        assert np.abs(small.clip(0, 1) - batch.frames[0, end].permute(1, 2, 0).numpy()).max() < 0.51 / 255 + 1e-4


def test_the_same_seed_draws_the_same_samples(clip):
    first, second = (ClipSampler([clip], QUICK, seed=3).batch() for _ in range(2))
    assert torch.equal(first.truth, second.truth)


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


def test_a_network_learns_one_sample_by_heart(clip):
    torch.manual_seed(0)
    network = VideoINRS(TINY)
    batch = ClipSampler([clip], QUICK, seed=0).batch()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        reconstruction, motion = network.loss(batch.frames, batch.time, batch.truth, batch.motion)
        optimizer.zero_grad()
        (reconstruction + motion).backward()
        optimizer.step()
        losses.append(float(reconstruction.detach()))
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
    entry = NetworkEntry("tiny", VideoINRS, VideoINRSConfig(), (1, 8), 64, "", "")
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
    def bicubic(first, second, times, size):
        large = [imresize(frame.transpose(1, 2, 0).astype(float), size).transpose(2, 0, 1) for frame in (first, second)]
        return [(1 - t) * large[0] + t * large[1] for t in times]

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
    assert count == (len(list(read_clip(SAMPLE))) - 1) // 2
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
    sampler = ClipSampler([clip], Sampling(patch=32, batch=4), seed=2)
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
