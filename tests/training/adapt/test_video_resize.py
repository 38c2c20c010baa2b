"""Resizing and blurring of videos, and back-projection, beside the official code's."""

import pytest
import torch
from stvsr.training.adapt.video_resize import (
    back_project,
    back_project_space,
    back_project_time,
    expose,
    resize_axis,
    resize_space,
    scale_space,
)
from stvsr.training.resize import imresize
from torch import Tensor

from tests.support.compare import assert_close_to_range
from tests.support.oracle import load_oracle


@pytest.fixture(scope="module")
def oracle():
    return load_oracle("dtsr_pipeline")


def channels_second(video: Tensor) -> Tensor:
    """(T, H, W, C) -> (T, C, H, W)"""
    return video.permute(0, 3, 1, 2)


def time_first(video: Tensor) -> Tensor:
    """(H, W, T, C) -> (T, C, H, W)"""
    return video.permute(2, 3, 0, 1)


@pytest.mark.parametrize("space", ["0.5", "0.9", "0.34", "2"])
def test_frames_are_resized_as_officially(oracle, space):
    video = channels_second(oracle.tensor("in/v_thwc"))
    made = scale_space(video, float(space))
    name = f"1x{space}x{space}x1"
    expected = channels_second(oracle.tensor(f"resizer32/{name}"))
    assert_close_to_range(made, expected, mean=1e-7, max=3e-7)
    # The code around it clamps, in half precision.
    halved = channels_second(oracle.tensor(f"resize_tensor_fp16/{name}"))
    assert_close_to_range(made.clamp(0, 1), halved, mean=1e-4, max=4e-4)


def test_time_is_doubled_as_officially(oracle):
    made = resize_axis(channels_second(oracle.tensor("in/v_thwc")), 0, 16)
    expected = channels_second(oracle.tensor("resizer32/2x1x1x1"))
    assert_close_to_range(made, expected, mean=1e-7, max=3e-7)


@pytest.mark.parametrize(("scale", "name"), [(0.5, "0.5x0.5x1"), (2.0, "2x2x1")])
def test_inside_a_frame_it_is_the_official_resizing_of_images(oracle, scale, name):
    """At its border that one leaves out what lies beyond, and this one mirrors."""
    video = channels_second(oracle.tensor("in/v_thwc"))
    inner = (..., slice(4, -4), slice(4, -4))
    expected = oracle.tensor(f"imresize_np/{name}").permute(2, 0, 1)
    assert_close_to_range(scale_space(video[:1], scale)[0][inner], expected[inner], mean=1e-12, max=1e-12)


@pytest.mark.parametrize(("jump", "whole"), [(2, 4), (3, 2)])
def test_exposure_is_the_official_one(oracle, jump, whole):
    video = channels_second(oracle.tensor("in/v_thwc"))
    expected = channels_second(oracle.tensor(f"blur_sample/axis0_jump{jump}_blurTrue"))
    assert_close_to_range(expose(video, jump), expected[:whole], mean=1e-12, max=1e-12)
    for dark in expected[whole:]:  # two frames over three: the official code's last exposure of what is too short
        torch.testing.assert_close(dark, video[whole * jump :].sum(0) / jump)


def test_exposure_along_another_axis():
    video = torch.rand(4, 3, 5, 6)
    assert torch.equal(expose(video, 2, dim=-1), expose(video.transpose(0, 3), 2).transpose(0, 3))


def test_back_projection_in_time_is_the_official_one(oracle):
    coarse = channels_second(oracle.tensor("in/v_thwc"))
    made = back_project_time(time_first(oracle.tensor("in/hfr_hwtc")), coarse)
    assert_close_to_range(made, time_first(oracle.tensor("temporal_bp_np")), mean=1e-12, max=1e-12)


def test_back_projection_in_space_and_time_is_the_official_one(oracle):
    coarse = channels_second(oracle.tensor("in/v_thwc"))
    small = time_first(oracle.tensor("in/hfr_lr_hwtc")).double()
    made = back_project(small, coarse).clamp(0, 1)
    # The official one is in half precision.
    assert_close_to_range(made, time_first(oracle.tensor("space_time_bp")), mean=2e-4, max=1e-3)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_after_back_projection_in_time_exposure_gives_the_input(factor):
    coarse, video = torch.rand(3, 3, 6, 7).double(), torch.rand(3 * factor, 3, 6, 7).double()
    made = back_project_time(video, coarse)
    torch.testing.assert_close(expose(made, factor), coarse)
    torch.testing.assert_close(back_project_time(made, coarse), made)


@pytest.mark.parametrize("size", [(12, 16), (11, 15)])
def test_back_projection_in_space_comes_nearer_with_every_round(size):
    torch.manual_seed(0)
    small, video = torch.rand(4, 3, 6, 8).double(), torch.rand(4, 3, *size).double()

    def error(rounds: int) -> float:
        return float((resize_space(back_project_space(video, small, rounds), (6, 8)) - small).abs().max())

    errors = [error(rounds) for rounds in (0, 1, 2, 4, 30)]
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.5 * errors[0]
    assert errors[-1] < 0.01 * errors[0]


def test_back_projection_agrees_with_both_videos_where_they_agree():
    """Halves of a smooth finer video, in space and in time, give a video with the same halves."""
    t, y, x = torch.meshgrid(*(torch.arange(n).double() for n in (8, 24, 32)), indexing="ij")
    fine = (0.5 + 0.4 * torch.sin(0.2 * x + 0.3 * y - 0.35 * t))[:, None]
    small, coarse = resize_space(fine, (12, 16)), expose(fine, 2)
    made = back_project(small, coarse)
    torch.testing.assert_close(expose(made, 2), coarse)
    assert (resize_space(made, (12, 16)) - small).abs().max() < 1e-3
    assert (made - fine).abs().max() < 0.5 * (resize_space(small, (24, 32)) - fine).abs().max()


@pytest.mark.parametrize("shape", [(9, 14), (24, 10), (8, 8)])
def test_to_a_size_it_is_the_resizing_of_the_field(shape):
    image = torch.rand(1, 3, 16, 20).double()
    expected = imresize(image[0].permute(1, 2, 0).numpy(), size=shape).transpose(2, 0, 1)
    torch.testing.assert_close(resize_space(image, shape)[0], torch.from_numpy(expected))


def test_a_video_of_another_rate_is_an_error():
    with pytest.raises(ValueError, match="not a multiple"):
        back_project_time(torch.rand(5, 3, 4, 4), torch.rand(2, 3, 4, 4))
