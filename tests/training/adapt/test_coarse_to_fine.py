"""Temporal super-resolution from coarse to fine: chunks and tiles, agreement with the input, bounded memory."""

from collections.abc import Iterator

import pytest
import torch
from stvsr.training.adapt.coarse_to_fine import upscale_time
from stvsr.training.adapt.video_resize import back_project, back_project_time, expose, resize_space
from torch import Tensor

from tests.support.small_networks import noise_clip, small_dtsr


@pytest.mark.parametrize(("factor", "coarse"), [(2, 1), (2, 4), (4, 1), (4, 2), (8, 4)])
def test_chunks_and_tiles_do_not_change_the_result(factor: int, coarse: int) -> None:
    network, frames = small_dtsr(coarse=coarse).double(), noise_clip(14, 20, 26).double()
    whole = torch.stack(list(upscale_time(network, frames, factor, chunk=14, tile_px=100)))
    parts = torch.stack(list(upscale_time(network, frames, factor, chunk=5, tile_px=12)))
    assert whole.shape == (14 * factor, 3, 20, 26)
    torch.testing.assert_close(parts, whole, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("factor", "coarse"), [(2, 1), (2, 2), (4, 2), (8, 8)])
def test_exposing_the_result_again_gives_the_input(factor: int, coarse: int) -> None:
    frames = 0.3 + 0.4 * noise_clip(6, 21, 26)
    output = torch.stack(list(upscale_time(small_dtsr(coarse=coarse), frames, factor)))
    assert output.min() > 0  # no result was clamped
    assert output.max() < 1
    torch.testing.assert_close(expose(output, factor), frames, atol=1e-5, rtol=0)


@torch.no_grad()
def test_each_doubling_works_on_larger_frames() -> None:
    network, frames = small_dtsr(coarse=2), noise_clip(6, 20, 23)
    twice = back_project(network(resize_space(frames, (10, 12))[None])[0].clamp(0, 1), frames)
    output = torch.stack(list(upscale_time(network, frames, 2)))
    torch.testing.assert_close(output, twice.clamp(0, 1))
    four_times = back_project_time(network(twice[None])[0].clamp(0, 1), twice)
    output = torch.stack(list(upscale_time(network, frames, 4)))
    torch.testing.assert_close(output, four_times.clamp(0, 1))


def test_scene_of_one_frame_stays_still() -> None:
    frame = noise_clip(1)
    output = list(upscale_time(small_dtsr(), frame, 4))
    assert len(output) == 4
    torch.testing.assert_close(torch.stack(output).mean(0), frame[0], atol=0.05, rtol=0)


def test_frames_stream_through_in_bounded_memory() -> None:
    read = 0

    def frames() -> Iterator[Tensor]:
        nonlocal read
        for frame in noise_clip(40, 8, 8):
            read += 1
            yield frame

    outputs = upscale_time(small_dtsr(), frames(), 2, chunk=4)
    for k in range(40):
        next(outputs), next(outputs)
        assert read <= k + 4 + 3


@pytest.mark.parametrize("factor", [3, 1, 0])
def test_other_factors_are_refused(factor: int) -> None:
    with pytest.raises(ValueError, match="2, 4 or 8 times"):
        list(upscale_time(small_dtsr(), noise_clip(), factor))


@pytest.mark.parametrize("coarse", [3, 0, -2])
def test_coarse_must_be_a_power_of_two(coarse: int) -> None:
    with pytest.raises(ValueError, match="'coarse' must be a power of two"):
        small_dtsr(coarse=coarse)
