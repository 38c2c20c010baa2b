"""Examples of zero-shot learning: symmetries, gradients, the cubes of a volume, and the pairs that are drawn."""

import math

import pytest
import torch
from stvsr.training.adapt.examples import Examples, Sources, Volume, apply_symmetry, gradient_magnitude
from stvsr.training.adapt.video_resize import expose

from tests.support.small_networks import noise_clip

SIDE = 8


@pytest.mark.parametrize("symmetry", range(16))
def test_symmetries_permute_samples_and_have_a_finite_order(symmetry: int) -> None:
    cubes = torch.arange(2 * 4 * 3 * 5 * 5).view(2, 4, 3, 5, 5)
    out = apply_symmetry(cubes, symmetry)
    assert torch.equal(out.flatten(1).sort(1).values, cubes.flatten(1))
    # Frames stay frames, and colours colours.
    assert torch.equal(out.flatten(3).sort(3).values, (cubes.flip(1) if symmetry & 8 else cubes).flatten(3))
    order = 4 if symmetry & 1 and not symmetry & 4 else 2
    repeated = cubes
    for _ in range(order):
        repeated = apply_symmetry(repeated, symmetry)
    assert torch.equal(repeated, cubes)


def test_no_two_symmetries_are_the_same() -> None:
    cube = torch.rand(4, 3, 5, 5)
    results = [apply_symmetry(cube, symmetry) for symmetry in range(16)]
    assert all(not torch.equal(a, b) for k, a in enumerate(results) for b in results[:k])


@pytest.mark.parametrize("symmetry", range(16))
def test_symmetry_and_exposure_commute(symmetry: int) -> None:
    cube = torch.rand(4, 3, 5, 5)
    torch.testing.assert_close(expose(apply_symmetry(cube, symmetry), 2), apply_symmetry(expose(cube, 2), symmetry))


def test_gradient_magnitude_of_a_ramp() -> None:
    t, y, x = torch.meshgrid(*(torch.arange(n).double() for n in (5, 6, 7)), indexing="ij")
    grey = (0.02 * t + 0.03 * y + 0.06 * x)[:, None].expand(-1, 3, -1, -1)
    expected = torch.full((5, 6, 7), 0.07).double()
    torch.testing.assert_close(gradient_magnitude(grey), expected)


@pytest.mark.parametrize(("axis", "slower"), [(0, 1), (0, 2), (2, 1), (3, 1), (3, 2)])
def test_cube_is_the_clip_read_along_its_axis(axis: int, slower: int) -> None:
    video = noise_clip()
    volume = Volume(video, axis, slower, SIDE)
    position = (2, 4, 2)
    start = dict(zip((0, 2, 3), position, strict=True))
    start[axis] *= slower
    rows = []
    for step in range(SIDE):
        first = start[axis] + step * slower
        sides = [range(start[dim], start[dim] + SIDE) for dim in (0, 2, 3)]
        sides[(0, 2, 3).index(axis)] = range(first, first + slower)
        t, y, x = sides
        cut = video[t.start : t.stop, :, y.start : y.stop, x.start : x.stop].mean(axis, keepdim=True)
        rows.append(cut.transpose(0, axis)[0])
    torch.testing.assert_close(volume.cube(position), torch.stack(rows))


@pytest.mark.parametrize(("axis", "slower"), [(0, 1), (0, 2), (3, 1)])
def test_cubes_are_drawn_in_proportion_to_their_gradient(axis: int, slower: int) -> None:
    video = noise_clip()
    volume = Volume(video, axis, slower, SIDE)
    magnitude = gradient_magnitude(expose(video, slower, axis))
    starts = [range(0, n - SIDE + 1, 2) for n in magnitude.shape]
    means = torch.tensor(
        [
            [[magnitude[t : t + SIDE, y : y + SIDE, x : x + SIDE].mean() for x in starts[2]] for y in starts[1]]
            for t in starts[0]
        ]
    ).double()
    expected = means / means.sum()
    torch.testing.assert_close(volume.probability, expected, atol=1e-7, rtol=1e-4)

    draws = 6000
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros_like(expected)
    for _ in range(draws):
        t, y, x = volume.draw(generator)
        counts[t // 2, y // 2, x // 2] += 1
    chi_square = float(((counts - draws * expected).square() / (draws * expected)).sum())
    freedom = expected.numel() - 1
    # Wilson and Hilferty's approximation of the 99.9th percentile
    bound = freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3
    assert chi_square < bound
    uniform = draws / expected.numel()
    assert float(((counts - uniform).square() / uniform).sum()) > bound


def test_inputs_are_the_targets_exposed_for_twice_as_long() -> None:
    generator = torch.Generator().manual_seed(0)
    sources = Sources(side=SIDE, scales=(1.0, 0.66), within=(1, 2), across=(1, 2))
    inputs, targets = Examples(noise_clip(), sources).draw(5, generator)
    assert inputs.shape == (5, SIDE // 2, 3, SIDE, SIDE)
    assert targets.shape == (5, SIDE, 3, SIDE, SIDE)
    for slow, fast in zip(inputs, targets, strict=True):
        torch.testing.assert_close(expose(fast, 2), slow)


@pytest.mark.parametrize(("share", "step"), [(0.0, 1), (1.0, 2)])
def test_across_share_selects_the_dimensions_of_examples(share: float, step: int) -> None:
    """The clip changes by one level per frame, and by two per pixel."""
    t, y, x = torch.meshgrid(*(torch.arange(n).float() for n in (20, 20, 20)), indexing="ij")
    ramp = ((t + 2 * y + 2 * x) / 200)[:, None].expand(-1, 3, -1, -1)
    sources = Sources(side=SIDE, scales=(1.0,), within=(1,), across=(1,), across_share=share)
    _, targets = Examples(ramp, sources).draw(20, torch.Generator().manual_seed(0))
    steps = (targets[:, 1:] - targets[:, :-1]).abs().mean((1, 2, 3, 4)) * 200
    torch.testing.assert_close(steps, torch.full((20,), float(step)), atol=1e-3, rtol=0)
