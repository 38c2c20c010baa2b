"""Resizing of videos and back-projection, compared with the official code."""

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
from tests.support.oracle import Oracle, load_oracle


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return load_oracle("dtsr_pipeline")


def channels_second(video: Tensor) -> Tensor:
    """(T, H, W, C) -> (T, C, H, W)."""
    return video.permute(0, 3, 1, 2)


def time_first(video: Tensor) -> Tensor:
    """(H, W, T, C) -> (T, C, H, W)."""
    return video.permute(2, 3, 0, 1)


@pytest.mark.parametrize("space", ["0.5", "0.9", "0.34", "2"])
def test_scale_space_matches_the_official_code(oracle: Oracle, space: str) -> None:
    video = channels_second(oracle.tensor("in/v_thwc"))
    output = scale_space(video, float(space))
    name = f"1x{space}x{space}x1"
    expected = channels_second(oracle.tensor(f"resizer32/{name}"))
    assert_close_to_range(output, expected, mean=1e-7, max=3e-7)
    # The surrounding official code clamps, in half precision.
    halved = channels_second(oracle.tensor(f"resize_tensor_fp16/{name}"))
    assert_close_to_range(output.clamp(0, 1), halved, mean=1e-4, max=4e-4)


def test_resize_axis_doubles_time_as_the_official_code(oracle: Oracle) -> None:
    output = resize_axis(channels_second(oracle.tensor("in/v_thwc")), 0, 16)
    expected = channels_second(oracle.tensor("resizer32/2x1x1x1"))
    assert_close_to_range(output, expected, mean=1e-7, max=3e-7)


@pytest.mark.parametrize(("scale", "name"), [(0.5, "0.5x0.5x1"), (2.0, "2x2x1")])
def test_scale_space_matches_the_official_image_resizing_inside_the_frame(
    oracle: Oracle, scale: float, name: str
) -> None:
    """At the border the official code ignores missing pixels, and this one mirrors."""
    video = channels_second(oracle.tensor("in/v_thwc"))
    inner = (..., slice(4, -4), slice(4, -4))
    expected = oracle.tensor(f"imresize_np/{name}").permute(2, 0, 1)
    assert_close_to_range(scale_space(video[:1], scale)[0][inner], expected[inner], mean=1e-12, max=1e-12)


@pytest.mark.parametrize(("jump", "whole"), [(2, 4), (3, 2)])
def test_exposure_matches_the_official_code(oracle: Oracle, jump: int, whole: int) -> None:
    video = channels_second(oracle.tensor("in/v_thwc"))
    expected = channels_second(oracle.tensor(f"blur_sample/axis0_jump{jump}_blurTrue"))
    assert_close_to_range(expose(video, jump), expected[:whole], mean=1e-12, max=1e-12)
    for dark in expected[whole:]:  # the official code averages an incomplete exposure with zeros: two frames over three
        torch.testing.assert_close(dark, video[whole * jump :].sum(0) / jump)


def test_exposure_along_another_axis() -> None:
    video = torch.rand(4, 3, 5, 6)
    assert torch.equal(expose(video, 2, dim=-1), expose(video.transpose(0, 3), 2).transpose(0, 3))


def test_back_projection_in_time_matches_the_official_code(oracle: Oracle) -> None:
    coarse = channels_second(oracle.tensor("in/v_thwc"))
    output = back_project_time(time_first(oracle.tensor("in/hfr_hwtc")), coarse)
    assert_close_to_range(output, time_first(oracle.tensor("temporal_bp_np")), mean=1e-12, max=1e-12)


def test_back_projection_in_space_and_time_matches_the_official_code(oracle: Oracle) -> None:
    coarse = channels_second(oracle.tensor("in/v_thwc"))
    small = time_first(oracle.tensor("in/hfr_lr_hwtc")).double()
    output = back_project(small, coarse).clamp(0, 1)
    # The official code runs in half precision.
    assert_close_to_range(output, time_first(oracle.tensor("space_time_bp")), mean=2e-4, max=1e-3)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_exposure_after_back_projection_in_time_gives_the_input(factor: int) -> None:
    coarse, video = torch.rand(3, 3, 6, 7).double(), torch.rand(3 * factor, 3, 6, 7).double()
    output = back_project_time(video, coarse)
    torch.testing.assert_close(expose(output, factor), coarse)
    torch.testing.assert_close(back_project_time(output, coarse), output)


@pytest.mark.parametrize("size", [(12, 16), (11, 15)])
def test_back_projection_in_space_improves_with_every_round(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    small, video = torch.rand(4, 3, 6, 8).double(), torch.rand(4, 3, *size).double()

    def error(rounds: int) -> float:
        return float((resize_space(back_project_space(video, small, rounds), (6, 8)) - small).abs().max())

    errors = [error(rounds) for rounds in (0, 1, 2, 4, 30)]
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.5 * errors[0]
    assert errors[-1] < 0.01 * errors[0]


def test_back_projection_agrees_with_both_consistent_videos() -> None:
    """A smooth video halved in space and the same video halved in time are consistent."""
    t, y, x = torch.meshgrid(*(torch.arange(n).double() for n in (8, 24, 32)), indexing="ij")
    fine = (0.5 + 0.4 * torch.sin(0.2 * x + 0.3 * y - 0.35 * t))[:, None]
    small, coarse = resize_space(fine, (12, 16)), expose(fine, 2)
    output = back_project(small, coarse)
    torch.testing.assert_close(expose(output, 2), coarse)
    assert (resize_space(output, (12, 16)) - small).abs().max() < 1e-3
    assert (output - fine).abs().max() < 0.5 * (resize_space(small, (24, 32)) - fine).abs().max()


@pytest.mark.parametrize("shape", [(9, 14), (24, 10), (8, 8)])
def test_resize_space_to_a_size_is_imresize(shape: tuple[int, int]) -> None:
    image = torch.rand(1, 3, 16, 20).double()
    expected = imresize(image[0].permute(1, 2, 0).numpy(), size=shape).transpose(2, 0, 1)
    torch.testing.assert_close(resize_space(image, shape)[0], torch.from_numpy(expected))


def test_back_projection_refuses_a_length_that_is_not_a_multiple() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        back_project_time(torch.rand(5, 3, 4, 4), torch.rand(2, 3, 4, 4))
