"""Zero-shot temporal super-resolution: examples, their places, the learning rate, resumption, and coarse to fine."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from stvsr.engine.contract.errors import AdaptationError
from stvsr.training.adapt.coarse_to_fine import doubled, upscale_time
from stvsr.training.adapt.examples import Examples, Sources, Volume, gradient_magnitude, turned
from stvsr.training.adapt.protocol import Budget
from stvsr.training.adapt.video_resize import back_project, back_project_time, expose, resize_space
from stvsr.training.adapt.zeroshot import AdaptiveRate, ZeroShot, fresh, take_statistics
from stvsr.training.clips import read_clip
from stvsr.training.networks.dtsr import DeepTemporalSR, DeepTemporalSRConfig
from stvsr.training.networks.edvr import EDVR
from stvsr.training.networks.ops import upsample_cubic
from torch import Tensor

from tests.support.paths import SAMPLE

TINY = DeepTemporalSRConfig(width=4)
SIDE = 8
BEE = SAMPLE


def clip(frames: int = 20, height: int = 18, width: int = 24, seed: int = 0) -> Tensor:
    """Noise that is stronger to the right. (T, 3, H, W)"""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(frames, 3, height, width, generator=generator) - 0.5
    return 0.5 + noise * torch.linspace(0.1, 1, width)


def trained(seed: int = 0, coarse: int = 1) -> DeepTemporalSR:
    """A network that does more than interpolate."""
    network = fresh(DeepTemporalSR(replace(TINY, coarse=coarse)), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        last = network.get_parameter("L8.weight")
        last.add_(0.02 * torch.randn(last.shape, generator=generator))
    return network


@pytest.mark.parametrize("symmetry", range(16))
def test_augmentations_are_permutations_and_come_back(symmetry):
    cubes = torch.arange(2 * 4 * 3 * 5 * 5).view(2, 4, 3, 5, 5)
    out = turned(cubes, symmetry)
    assert torch.equal(out.flatten(1).sort(1).values, cubes.flatten(1))
    # Frames stay frames, and colours colours.
    assert torch.equal(out.flatten(3).sort(3).values, (cubes.flip(1) if symmetry & 8 else cubes).flatten(3))
    order = 4 if symmetry & 1 and not symmetry & 4 else 2
    again = cubes
    for _ in range(order):
        again = turned(again, symmetry)
    assert torch.equal(again, cubes)


def test_no_two_augmentations_are_the_same():
    cube = torch.rand(4, 3, 5, 5)
    made = [turned(cube, symmetry) for symmetry in range(16)]
    assert all(not torch.equal(a, b) for k, a in enumerate(made) for b in made[:k])


@pytest.mark.parametrize("symmetry", range(16))
def test_augmentation_and_exposure_commute(symmetry):
    cube = torch.rand(4, 3, 5, 5)
    torch.testing.assert_close(expose(turned(cube, symmetry), 2), turned(expose(cube, 2), symmetry))


def test_gradient_magnitude_is_that_of_a_ramp():
    t, y, x = torch.meshgrid(*(torch.arange(n).double() for n in (5, 6, 7)), indexing="ij")
    grey = (0.02 * t + 0.03 * y + 0.06 * x)[:, None].expand(-1, 3, -1, -1)
    expected = torch.full((5, 6, 7), 0.07).double()
    torch.testing.assert_close(gradient_magnitude(grey), expected)


@pytest.mark.parametrize(("axis", "slower"), [(0, 1), (0, 2), (2, 1), (3, 1), (3, 2)])
def test_a_cube_is_the_clip_read_along_its_axis(axis, slower):
    video = clip()
    volume = Volume(video, axis, slower, SIDE)
    place = (2, 4, 2)
    start = dict(zip((0, 2, 3), place, strict=True))
    start[axis] *= slower
    rows = []
    for step in range(SIDE):
        first = start[axis] + step * slower
        sides = [range(start[dim], start[dim] + SIDE) for dim in (0, 2, 3)]
        sides[(0, 2, 3).index(axis)] = range(first, first + slower)
        t, y, x = sides
        cut = video[t.start : t.stop, :, y.start : y.stop, x.start : x.stop].mean(axis, keepdim=True)
        rows.append(cut.transpose(0, axis)[0])
    torch.testing.assert_close(volume.cube(place), torch.stack(rows))


@pytest.mark.parametrize(("axis", "slower"), [(0, 1), (0, 2), (3, 1)])
def test_cubes_are_drawn_in_proportion_to_their_gradient(axis, slower):
    video = clip()
    volume = Volume(video, axis, slower, SIDE)
    magnitude = gradient_magnitude(expose(video, slower, axis))
    places = [range(0, n - SIDE + 1, 2) for n in magnitude.shape]
    means = torch.tensor(
        [
            [[magnitude[t : t + SIDE, y : y + SIDE, x : x + SIDE].mean() for x in places[2]] for y in places[1]]
            for t in places[0]
        ]
    ).double()
    expected = means / means.sum()
    torch.testing.assert_close(volume.probability, expected, atol=1e-7, rtol=1e-4)

    draws = 6000
    generator = torch.Generator().manual_seed(0)
    seen = torch.zeros_like(expected)
    for _ in range(draws):
        t, y, x = volume.place(generator)
        seen[t // 2, y // 2, x // 2] += 1
    chi_square = float(((seen - draws * expected).square() / (draws * expected)).sum())
    freedom = expected.numel() - 1
    # Wilson and Hilferty's approximation of the 99.9th percentile
    bound = freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3
    assert chi_square < bound
    uniform = draws / expected.numel()
    assert float(((seen - uniform).square() / uniform).sum()) > bound


def test_what_the_network_sees_is_the_truth_exposed_for_twice_as_long():
    generator = torch.Generator().manual_seed(0)
    seen, truth = Examples(clip(), Sources(side=SIDE, scales=(1.0, 0.66), within=(1, 2), across=(1, 2))).draw(
        5, generator
    )
    assert seen.shape == (5, SIDE // 2, 3, SIDE, SIDE)
    assert truth.shape == (5, SIDE, 3, SIDE, SIDE)
    for low, high in zip(seen, truth, strict=True):
        torch.testing.assert_close(expose(high, 2), low)


@pytest.mark.parametrize(("share", "lowest"), [(0.0, 1), (1.0, 2)])
def test_examples_are_of_the_dimensions_that_are_asked_for(share, lowest):
    """Of a clip that moves by one level a frame, and by two a pixel."""
    t, y, x = torch.meshgrid(*(torch.arange(n).float() for n in (20, 20, 20)), indexing="ij")
    ramp = ((t + 2 * y + 2 * x) / 200)[:, None].expand(-1, 3, -1, -1)
    sources = Sources(side=SIDE, scales=(1.0,), within=(1,), across=(1,), across_share=share)
    _, truth = Examples(ramp, sources).draw(20, torch.Generator().manual_seed(0))
    steps = (truth[:, 1:] - truth[:, :-1]).abs().mean((1, 2, 3, 4)) * 200
    torch.testing.assert_close(steps, torch.full((20,), float(lowest)), atol=1e-3, rtol=0)


@pytest.mark.parametrize("frames", [clip(frames=7), clip(height=6), torch.full((20, 3, 18, 24), 0.3)])
def test_a_clip_with_nothing_to_learn_from_is_an_error(frames):
    with pytest.raises(AdaptationError, match=r"longer or larger|nothing that changes"):
        ZeroShot().adapt(DeepTemporalSR(TINY), frames, Budget(steps=1))


def losses(start: float, slope: float, noise: float, count: int, seed: int = 0) -> np.ndarray:
    return start + slope * np.arange(count) + noise * np.random.default_rng(seed).standard_normal(count)


def test_the_rate_stays_while_the_loss_falls():
    rate = AdaptiveRate(1e-3)
    for loss in losses(1.0, -1e-3, 0.05, 600):
        rate.add(loss)
    assert rate.rate == 1e-3


@pytest.mark.parametrize("slope", [0.0, 1e-3])
def test_the_rate_falls_when_the_loss_does_not(slope):
    rate = AdaptiveRate(1e-3, every=50, window=200)
    for k, loss in enumerate(losses(1.0, slope, 0.05, 400)):
        rate.add(loss)
        expected = 1e-3 if k < 199 else 1e-4 if k < 399 else 1e-5
        assert rate.rate == pytest.approx(expected)
    assert not rate.spent


def test_a_rate_that_came_to_its_end_is_spent():
    rate = AdaptiveRate(1e-4, final=1e-6, every=50, window=100)
    for loss in losses(1.0, 0.0, 0.05, 199):
        rate.add(loss)
    assert not rate.spent
    rate.add(1.0)
    assert rate.spent


def method(**options) -> ZeroShot:
    return ZeroShot(sources=Sources(side=SIDE, scales=(1.0, 0.73)), batch=2, **options)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_network():
    network = DeepTemporalSR(TINY)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first, second, other = (method().adapt(network, clip(), Budget(steps=3), seed) for seed in (1, 1, 2))
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    assert first.record.losses == second.record.losses
    assert first.record.steps == len(first.record.losses) == 3
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in before)
    assert not torch.equal(first.weights["L8.weight"], other.weights["L8.weight"])


class KilledError(Exception):
    pass


def test_a_run_that_was_killed_ends_at_the_same_weights(tmp_path):
    network, steps = DeepTemporalSR(TINY), Budget(steps=9)
    whole = method().adapt(network, clip(), steps)

    def kill(clock, loss):
        if clock.steps == 6:
            raise KilledError

    kept = method(checkpoint=tmp_path / "run" / "last.pt", checkpoint_every=4)
    with pytest.raises(KilledError):
        kept.adapt(network, clip(), steps, on_step=kill)
    seen = []
    resumed = kept.adapt(network, clip(), steps, on_step=lambda clock, loss: seen.append(clock.steps))
    assert seen == [5, 6, 7, 8, 9]
    assert resumed.record.losses == whole.record.losses
    assert all(torch.equal(value, whole.weights[name]) for name, value in resumed.weights.items())

    again = kept.adapt(network, clip(), steps, on_step=lambda clock, loss: seen.append(clock.steps))
    assert len(seen) == 5
    assert all(torch.equal(value, whole.weights[name]) for name, value in again.weights.items())


def test_a_checkpoint_of_another_clip_is_an_error(tmp_path):
    kept = method(checkpoint=tmp_path / "last.pt")
    kept.adapt(DeepTemporalSR(TINY), clip(), Budget(steps=1))
    with pytest.raises(AdaptationError, match="another clip"):
        kept.adapt(DeepTemporalSR(TINY), clip(seed=1), Budget(steps=2))


def test_a_budget_of_seconds_counts_those_before_the_kill(tmp_path):
    kept = method(checkpoint=tmp_path / "last.pt")
    first = kept.adapt(DeepTemporalSR(TINY), clip(), Budget(seconds=0.2))
    assert first.record.seconds >= 0.2
    second = kept.adapt(DeepTemporalSR(TINY), clip(), Budget(seconds=0.2))
    assert second.record.steps == first.record.steps


def test_it_is_for_networks_of_its_kind():
    with pytest.raises(AdaptationError, match="dtsr"):
        method().adapt(EDVR(), clip(), Budget(steps=1))


@pytest.mark.parametrize(("factor", "coarse"), [(2, 1), (2, 4), (4, 1), (4, 2), (8, 4)])
def test_chunks_and_tiles_do_not_change_the_result(factor, coarse):
    network, frames = trained(coarse=coarse).double(), clip(14, 20, 26).double()
    whole = torch.stack(list(upscale_time(network, frames, factor, chunk=14, tile_px=100)))
    parts = torch.stack(list(upscale_time(network, frames, factor, chunk=5, tile_px=12)))
    assert whole.shape == (14 * factor, 3, 20, 26)
    torch.testing.assert_close(parts, whole, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("factor", "coarse"), [(2, 1), (2, 2), (4, 2), (8, 8)])
def test_what_is_made_agrees_with_its_input(factor, coarse):
    """Exposed again it is the input, where no result left the range of frames."""
    frames = 0.3 + 0.4 * clip(6, 21, 26)
    made = torch.stack(list(upscale_time(trained(coarse=coarse), frames, factor)))
    assert made.min() > 0
    assert made.max() < 1
    torch.testing.assert_close(expose(made, factor), frames, atol=1e-5, rtol=0)


@torch.no_grad()
def test_from_coarse_to_fine():
    network, frames = trained(coarse=2), clip(6, 20, 23)
    twice = back_project(network(resize_space(frames, (10, 12))[None])[0].clamp(0, 1), frames)
    made = torch.stack(list(upscale_time(network, frames, 2)))
    torch.testing.assert_close(made, twice.clamp(0, 1))
    four_times = back_project_time(network(twice[None])[0].clamp(0, 1), twice)
    made = torch.stack(list(upscale_time(network, frames, 4)))
    torch.testing.assert_close(made, four_times.clamp(0, 1))


def test_before_training_it_interpolates_and_its_layers_are_normalized():
    network, frames = fresh(DeepTemporalSR(TINY), seed=0), clip(8)[None]
    take_statistics(network, frames)
    assert torch.equal(network(frames), upsample_cubic(frames, 1, 2))
    outputs = []
    for n in range(1, 8):
        network.get_submodule(f"L{n}_b").register_forward_hook(lambda *call: outputs.append(call[-1]))
    network(frames)
    assert len(outputs) == 7
    for out in outputs:
        torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(4), atol=1e-3, rtol=0)
        torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(4), atol=1e-2, rtol=0)


def test_a_scene_of_one_frame_stands_still():
    frame = clip(1)
    made = list(upscale_time(trained(), frame, 4))
    assert len(made) == 4
    torch.testing.assert_close(torch.stack(made).mean(0), frame[0], atol=0.05, rtol=0)


def test_frames_stream_through_in_bounded_memory():
    taken = 0

    def frames():
        nonlocal taken
        for frame in clip(40, 8, 8):
            taken += 1
            yield frame

    made = upscale_time(trained(), frames(), 2, chunk=4)
    for k in range(40):
        next(made), next(made)
        assert taken <= k + 4 + 3


@pytest.mark.parametrize("factor", [3, 1, 0])
def test_other_factors_are_errors(factor):
    with pytest.raises(ValueError, match="times"):
        list(upscale_time(trained(), clip(), factor))


@pytest.mark.parametrize("coarse", [3, 0, -2])
def test_frames_are_made_smaller_by_powers_of_two(coarse):
    with pytest.raises(ValueError, match="times smaller"):
        trained(coarse=coarse)


def psnr(video: Tensor, truth: Tensor) -> float:
    return -10 * math.log10(float((video - truth).square().mean()))


def drift(frames: int, size: int) -> Tensor:
    """A pattern with a period of 12 pixels that moves by one a frame, exposed all the while. (T, 3, S, S)"""
    y, x = torch.meshgrid(*[torch.arange(size).float()] * 2, indexing="ij")
    times = torch.arange(8 * frames)[:, None, None] / 8
    wave = torch.sin(2 * math.pi / 12 * (x - times)) * torch.sin(2 * math.pi / 12 * (0.3 * x + 0.6 * y))
    return expose(0.5 + 0.4 * torch.tanh(2 * wave), 8)[:, None].expand(-1, 3, -1, -1).contiguous()


def test_motion_is_learned_better_than_interpolated():
    """A clip at half its rate becomes the clip that was learned from."""
    clip = drift(48, 24)
    seen = expose(clip, 2)
    sources = Sources(side=12, scales=(1.0,), across_share=0)
    network = DeepTemporalSR(DeepTemporalSRConfig(width=12))
    adapted = ZeroShot(sources=sources).adapt(network, clip, Budget(steps=80))
    network.load_state_dict(adapted.weights)
    network.eval()
    with torch.no_grad():
        direct = network(seen[None])[0]
    cubic = upsample_cubic(seen[None], 1, 2)[0]
    assert np.mean(adapted.record.losses[-10:]) < 0.5
    assert psnr(direct, clip) > psnr(cubic, clip) + 2
    for end in (slice(0, 2), slice(-2, None)):
        assert psnr(direct[end], clip[end]) > psnr(cubic[end], clip[end])
    made = torch.stack(list(upscale_time(network, seen, 2)))
    assert psnr(made, clip) > psnr(back_project_time(cubic, seen), clip) + 2


@pytest.mark.slow
def test_a_rate_that_was_never_seen_is_learned_better_than_interpolated():
    """From frames averaged in pairs alone; the wings of the bee beat."""
    full = [torch.from_numpy(frame) for frame in read_clip(BEE)][:56]
    truth = resize_space(torch.stack(full).permute(0, 3, 1, 2) / 255, (90, 160)).clamp(0, 1)
    frames = expose(truth, 2)
    network = DeepTemporalSR(DeepTemporalSRConfig(width=32))
    adapted = ZeroShot().adapt(network, frames, Budget(steps=150))
    network.load_state_dict(adapted.weights)
    network.eval()
    direct = doubled(network, frames, 160).detach()
    made = torch.stack(list(upscale_time(network, frames, 2)))
    cubic = upsample_cubic(frames[None], 1, 2)[0]
    assert psnr(direct, truth) > psnr(cubic, truth) + 0.05
    assert psnr(made, truth) > psnr(cubic, truth) + 0.3
