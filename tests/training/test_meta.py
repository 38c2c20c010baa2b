"""Meta-transfer learning: tasks, gradients through the inner loop, and runs that go on where they were stopped."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from stvsr.training.adapt.blur import gaussian_kernel, shrink
from stvsr.training.checkpoints import load_weights
from stvsr.training.clips import cached_clip
from stvsr.training.data import Sampling
from stvsr.training.large_scale import ModuleTrainer, small_clip
from stvsr.training.meta import Task, inner_loop, loss_of, meta_gradient, random_task, sample_of
from stvsr.training.meta_trainer import MetaSchedule, MetaTrainer, middle_of, train_adavsr, video_psnr
from stvsr.training.networks.adavsr import SpatialModule, SpatialModuleConfig, TemporalModule, TemporalModuleConfig
from stvsr.training.networks.cascade import AdaVSR
from stvsr.training.networks.registry import find_network
from stvsr.training.resize import imresize, to_uint8
from stvsr.training.trainer import Schedule
from torch.func import grad

from tests.support.paths import SAMPLE

TINY_TEMPORAL, TINY_SPATIAL = TemporalModuleConfig(width=2, blocks=1), SpatialModuleConfig(width=2, blocks=1)
KERNEL = gaussian_kernel((2.5, 1.2), 0.5)
RATE, STEPS = 0.05, 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return cached_clip(SAMPLE, tmp_path_factory.mktemp("cache"))


def tiny():
    """Both modules past their start at an interpolation, and without the kinks of their rectifiers nearby."""
    torch.manual_seed(0)
    network = AdaVSR(TemporalModule(TINY_TEMPORAL), SpatialModule(TINY_SPATIAL))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def large_video(seed=0, side=32):
    return torch.rand(1, 5, 3, side, side, generator=torch.Generator().manual_seed(seed))


def precise(sample):
    """A sample in double precision."""
    return type(sample)(*(type(videos)(*(v.double() for v in videos)) for videos in sample))


def two_samples():
    return [precise(sample_of(large_video(seed), Task(KERNEL, bool(seed)))) for seed in (0, 1)]


def test_frames_are_lost_in_two_ways():
    video = torch.arange(5.0).view(1, 5, 1, 1, 1) ** 2
    assert Task(KERNEL, averaged=False).slow(video).flatten().tolist() == [0, 4, 16]
    means = [(0 + 0 + 1) / 3, (1 + 4 + 9) / 3, (9 + 16 + 16) / 3]
    assert Task(KERNEL, averaged=True).slow(video).flatten().tolist() == pytest.approx(means)


def test_a_task_degrades_in_space_and_then_in_time():
    large, task = large_video(), Task(KERNEL, averaged=True)
    videos = task.videos(large)
    torch.testing.assert_close(videos.small, shrink(large, KERNEL, 4))
    torch.testing.assert_close(videos.slow_small, shrink(task.slow(large), KERNEL, 4))
    assert videos.large is large
    assert [v.shape[1:] for v in videos] == [(3, 3, 8, 8), (5, 3, 8, 8), (5, 3, 32, 32)]


def test_a_task_is_learnt_one_scale_below_the_one_it_is_judged_at():
    large, task = large_video(), Task(KERNEL, averaged=False)
    sample = sample_of(large, task)
    assert torch.equal(sample.train.large, sample.test.slow_small)
    assert torch.equal((sample.train.large * 255).round() / 255, sample.train.large)
    assert [v.shape[1:] for v in sample.train] == [(2, 3, 2, 2), (3, 3, 2, 2), (3, 3, 8, 8)]
    torch.testing.assert_close(sample.train.small, shrink(sample.train.large, KERNEL, 4))
    other = Task(gaussian_kernel((1.2, 1.2), 0), averaged=True)
    across = sample_of(large, task, other)
    torch.testing.assert_close(across.train, sample.train)
    torch.testing.assert_close(across.test.small, other.videos(large).small)


def test_tasks_are_drawn_evenly_and_by_seed():
    random = np.random.default_rng(0)
    tasks = [random_task(random) for _ in range(400)]
    assert sum(task.averaged for task in tasks) == pytest.approx(200, abs=40)  # four deviations
    assert len({tuple(task.kernel[0].tolist()) for task in tasks}) == 400
    first, second = (random_task(np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(first.kernel, second.kernel)
    assert first.averaged == second.averaged


def moved(weights, directions, distance):
    return {name: value + distance * directions[name] for name, value in weights.items()}


def test_second_order_gradients_are_those_of_finite_differences():
    network, samples = tiny().double(), two_samples()
    weights = {name: value.detach() for name, value in network.named_parameters()}
    slopes, loss = meta_gradient(network, weights, samples, RATE, STEPS)
    generator = torch.Generator().manual_seed(0)
    assert slopes.keys() == weights.keys()

    def outer(weights):
        """The mean loss after adaptation, without any gradient but the inner one."""
        return np.mean(
            [
                loss_of(network, s.test)(inner_loop(loss_of(network, s.train), weights, RATE, STEPS)).item()
                for s in samples
            ]
        )

    assert outer(weights) == pytest.approx(loss, rel=1e-12)
    for part in ("temporal.", "spatial."):
        directions = {
            name: torch.randn(value.shape, generator=generator, dtype=torch.float64) * name.startswith(part)
            for name, value in weights.items()
        }
        e = 1e-7  # short: the loss has kinks
        difference = (outer(moved(weights, directions, e)) - outer(moved(weights, directions, -e))) / (2 * e)
        slope = sum((slopes[name] * directions[name]).sum().item() for name in weights)
        assert slope == pytest.approx(difference, rel=1e-4)


def test_first_order_gradients_are_those_at_the_adapted_weights():
    network, samples = tiny().double(), two_samples()
    weights = {name: value.detach() for name, value in network.named_parameters()}
    first, loss = meta_gradient(network, weights, samples, RATE, STEPS, first_order=True)
    second, same_loss = meta_gradient(network, weights, samples, RATE, STEPS)
    assert loss == pytest.approx(same_loss, rel=1e-12)
    parts = []
    for sample in samples:
        adapted = inner_loop(loss_of(network, sample.train), weights, RATE, STEPS)
        parts.append(grad(loss_of(network, sample.test))({name: w.detach() for name, w in adapted.items()}))
    for name, slope in first.items():
        torch.testing.assert_close(slope, (parts[0][name] + parts[1][name]) / 2, rtol=1e-9, atol=1e-12)
    apart = sum((first[name] - second[name]).square().sum() for name in first).sqrt()
    assert apart > 1e-3 * sum(value.square().sum() for value in second.values()).sqrt()


def test_the_inner_loop_is_gradient_descent():
    network, (sample, _) = tiny().double(), two_samples()
    loss = loss_of(network, sample.train)
    weights = {name: value.detach() for name, value in network.named_parameters()}
    descended = inner_loop(loss, weights, RATE, 4)
    optimizer = torch.optim.SGD(network.parameters(), RATE)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        value = loss(dict(network.named_parameters()))
        value.backward()
        optimizer.step()
        losses.append(value.item())
    for name, value in network.named_parameters():
        torch.testing.assert_close(descended[name], value.detach())
    assert losses[-1] < losses[0]


QUICK = MetaSchedule(steps=4, tasks=2, patch=3, frames=2, inner_steps=2, validate_every=4, checkpoint_every=2)


def test_a_meta_run_that_was_stopped_ends_at_the_same_weights(tmp_path, clip):
    whole = MetaTrainer(tiny(), QUICK, tmp_path / "whole")
    losses = []
    scores = whole.fit([clip], [clip], lambda step, loss: losses.append(loss))
    assert whole.step == len(losses) == 4
    assert scores.keys() == {"psnr_before", "psnr_adapted"}
    begun = tiny().state_dict()
    assert all(not torch.equal(begun[k], v) for k, v in whole.network.state_dict().items())

    run = tmp_path / "run"
    MetaTrainer(tiny(), replace(QUICK, steps=2), run).fit([clip], [])
    resumed = MetaTrainer(tiny(), QUICK, run)
    assert resumed.step == 2
    resumed.fit([clip], [])
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [2, 4]
    assert not list(run.glob("*.part"))
    with pytest.raises(ValueError, match="another configuration"):
        MetaTrainer(tiny(), replace(QUICK, inner_rate=0.02), run)


def test_first_order_and_across_tasks_are_other_runs(tmp_path, clip):
    weights = []
    for name in ("first_order", "across", "seed"):
        trainer = MetaTrainer(tiny(), replace(QUICK, steps=1, **{name: 1}), tmp_path / name)
        trainer.fit([clip], [])
        weights.append(trainer.network.temporal.conv_last.weight.detach())
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_middle_of_a_clip_is_what_tasks_take(clip):
    video = middle_of(clip)
    assert video.shape == (1, 13, 3, 128, 240)
    first = (len(clip) - 13) // 2
    frame = torch.from_numpy(clip[first, 4:132].copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(video[0, 0], frame)
    with pytest.raises(ValueError, match="8 frames of 240x136 is too small"):
        middle_of(clip[:8])


def test_scores_are_of_every_frame_as_eight_bits():
    class Steady:
        def __call__(self, frames):
            return torch.full((1, 3, 3, 8, 8), 100 / 255)

    truth = torch.full((3, 3, 8, 8), 100 / 255) + torch.tensor([10.0, 20.0, 40.0]).view(3, 1, 1, 1) / 255
    level = 219 / 255  # of luma, for one of RGB
    expected = np.mean([20 * np.log10(255 / (level * n)) for n in (10, 20, 40)])
    assert video_psnr(Steady(), torch.zeros(2, 3, 2, 2), truth) == pytest.approx(expected, rel=1e-3)


def test_a_clip_is_made_small_by_whole_pixels(clip):
    small = small_clip(clip[:2, :135])
    assert small.shape == (2, 33, 60, 3)
    assert np.abs(small[1].astype(int) - to_uint8(imresize(clip[1, :132] / 255, (33, 60)))).max() <= 1


@pytest.mark.parametrize("part", ["temporal", "spatial"])
def test_a_run_of_one_module_that_was_stopped_ends_at_the_same_weights(part, tmp_path):
    entry = replace(find_network(f"adavsr-{part}-s"), config={"temporal": TINY_TEMPORAL, "spatial": TINY_SPATIAL}[part])

    def fit(run, stops):
        for steps in stops:
            torch.manual_seed(0)
            schedule = Schedule(steps=4, warmup=1, checkpoint_every=2, validate_every=4)
            trainer = ModuleTrainer(entry.build(entry.config), {}, schedule, Sampling(patch=8, batch=2), run)
            on_step = None if steps == 4 else stop
            try:
                scores = trainer.fit(SAMPLE.parent, SAMPLE.parent, tmp_path / "cache", on_step)
            except KeyboardInterrupt:
                continue
        return trainer, scores

    def stop(step, loss):
        if step == 3:  # what came after the checkpoint is lost
            raise KeyboardInterrupt

    (whole, scores), (resumed, _) = fit(tmp_path / "whole", [4]), fit(tmp_path / "stopped", [3, 4])
    assert set(scores) == ({"psnr_at", "psnr_between"} if part == "temporal" else {"psnr_at"})
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name


def test_one_call_trains_all_of_it_and_goes_on(tmp_path):
    temporal = replace(find_network("adavsr-temporal-s"), config=TINY_TEMPORAL)
    spatial = replace(find_network("adavsr-spatial-s"), config=TINY_SPATIAL)
    told = []

    def train(meta):
        return train_adavsr(
            temporal,
            spatial,
            Schedule(steps=2, checkpoint_every=2, validate_every=2),
            meta,
            Sampling(patch=8, batch=1),
            SAMPLE.parent,
            tmp_path / "run",
            SAMPLE.parent,
            on_step=lambda part, step, loss: told.append((part, step)),
        )

    scores = train(replace(QUICK, steps=1))
    assert scores.keys() == {"spatial", "temporal", "meta"}
    assert told == [("spatial", 1), ("spatial", 2), ("temporal", 1), ("temporal", 2), ("meta", 1)]
    assert train(replace(QUICK, steps=2)).keys() == {"meta"}
    assert told[5:] == [("meta", 2)]
    for entry in (temporal, spatial):
        part = entry.name.split("-")[1]
        plain, _ = load_weights(entry, tmp_path / "run" / part / "weights.pt")
        learnt, record = load_weights(entry, tmp_path / "run" / "meta" / f"{part}.pt")
        assert (record["step"], record["meta"]) == (2, asdict(replace(QUICK, steps=2)))
        assert not torch.equal(plain.conv_last.weight, learnt.conv_last.weight)
