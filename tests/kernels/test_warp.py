"""Warping against PyTorch and against the oracle."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose, assert_array_equal
from stvsr.kernels import launcher, reference
from stvsr.kernels.launcher import Launch
from stvsr.kernels.variants import text_of
from stvsr.kernels.warp import PLANAR_VARIANTS, Border, Layout, Variant, channels_launch, planes_launch, warp
from stvsr.training.networks import ops
from stvsr.training.networks.videoinr import VideoINR

from tests.support.cuda_cpu import Run, assert_errs_at_most_twice, everywhere
from tests.support.kernel_scenes import GRID_LIMIT, from_layout, to_layout, warp_scene


@pytest.mark.parametrize("border", ["zeros", "clamp"])
def test_the_reference_agrees_with_pytorch(border: Border) -> None:
    features, flows = warp_scene(count=2)
    inputs = torch.from_numpy(features).double(), torch.from_numpy(flows).double()
    expected = torch.cat([ops.warp(inputs[0], inputs[1][:, i : i + 2], border) for i in (0, 2)], 1)
    assert_allclose(reference.warp(features, flows, border), expected.numpy(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("limit", [None, 0.9])
@pytest.mark.parametrize("align_corners", [True, False])
def test_the_reference_supports_both_corner_conventions(align_corners: bool, limit: float | None) -> None:
    features, flows = warp_scene()
    height, width = features.shape[2:]
    x = 2 * (np.arange(width) + flows[:, 0].astype(float)) / (width - 1) - 1
    y = 2 * (np.arange(height)[:, None] + flows[:, 1].astype(float)) / (height - 1) - 1
    grid = torch.from_numpy(np.stack((x, y), -1))
    grid = grid if limit is None else grid.clamp(-limit, limit)
    expected = F.grid_sample(torch.from_numpy(features).double(), grid, align_corners=align_corners).numpy()
    out = reference.warp(features, flows, "zeros", align_corners, limit)
    assert_allclose(out, expected, rtol=0, atol=1e-9)


@everywhere
def test_two_warps_in_one_pass_read_the_same_as_videoinr(run: Run) -> None:
    features, flows = warp_scene(count=2)
    network, (height, width) = VideoINR(), features.shape[2:]
    expected = []
    for i in (0, 2):
        dx, dy = torch.from_numpy(flows[:, i]), torch.from_numpy(flows[:, i + 1])
        x = network._displaced(torch.arange(float(width)), torch.tensor(width), dx)
        y = network._displaced(torch.arange(float(height))[:, None], torch.tensor(height), dy)
        expected.append(ops.sample(torch.from_numpy(features), x, y, "zeros"))
    out = run(warp, features, flows, align_corners=False, grid_limit=GRID_LIMIT)
    assert_allclose(out, torch.cat(expected, 1).numpy(), rtol=0, atol=1e-5)


@everywhere
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("border", ["zeros", "clamp"])
@pytest.mark.parametrize(("align_corners", "limit"), [(True, None), (False, None), (False, GRID_LIMIT), (True, 0.8)])
@pytest.mark.parametrize("channels", [5, 8])
def test_the_kernel_agrees_with_the_reference(
    run: Run, layout: Layout, border: Border, align_corners: bool, limit: float | None, channels: int
) -> None:
    features, flows = warp_scene(channels=channels, count=2)
    options: dict[str, Any] = {"align_corners": align_corners, "grid_limit": limit}
    out = run(warp, to_layout(features, layout), to_layout(flows, layout), border, layout=layout, **options)
    expected = reference.warp(features, flows, border, **options)
    assert out.dtype == np.float32
    assert_allclose(from_layout(out, layout), expected, rtol=0, atol=1e-5)


@everywhere
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("channels", "size", "out"),
    [(1, (1, 9), (1, 9)), (3, (9, 1), (9, 1)), (37, (5, 34), (5, 34)), (16, (4, 6), (11, 35)), (4, (20, 33), (3, 2))],
)
def test_sizes_that_do_not_fill_a_block_agree(
    run: Run, layout: Layout, channels: int, size: tuple[int, int], out: tuple[int, int]
) -> None:
    features, flows = warp_scene(1, channels, size, out)
    warped = run(warp, to_layout(features, layout), to_layout(flows, layout), "clamp", layout=layout)
    assert_allclose(from_layout(warped, layout), reference.warp(features, flows, "clamp"), rtol=0, atol=1e-5)


def marks_of(variant: Variant) -> Any:
    """Mark all variants as slow but one that reads two pixels and one that reads strips."""
    return () if variant in (PLANAR_VARIANTS[3], PLANAR_VARIANTS[-1]) else pytest.mark.slow


@everywhere
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "variant",
    [pytest.param(variant, id=text_of(variant), marks=marks_of(variant)) for variant in PLANAR_VARIANTS],
)
@pytest.mark.parametrize(("channels", "out"), [(37, (6, 35)), (64, (3, 70))])
def test_every_variant_agrees_with_the_reference(
    run: Run, variant: Variant, dtype: str, channels: int, out: tuple[int, int]
) -> None:
    features, flows = warp_scene(2, channels, (7, 13), out, count=2)
    features = features.astype(dtype)
    truth = reference.warp(features, flows, "clamp")
    warped = run(warp, features, flows, "clamp", variant=variant)
    if dtype == "float32":
        assert_allclose(warped, truth, rtol=0, atol=1e-5)
    else:
        assert_errs_at_most_twice(warped, truth.astype(np.float16), truth)


@everywhere
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", [5, 16])
def test_half_precision_rounds_once(run: Run, layout: Layout, channels: int) -> None:
    features, flows = warp_scene(channels=channels)
    half = features.astype(np.float16)
    truth = reference.warp(half, flows)
    out = run(warp, to_layout(half, layout), to_layout(flows, layout), layout=layout)
    assert out.dtype == np.float16
    assert_errs_at_most_twice(from_layout(out, layout), truth.astype(np.float16), truth)


@everywhere
def test_half_precision_reads_the_right_position_in_wide_frames(run: Run) -> None:
    features = np.arange(4096, dtype=np.float32)[None, None, None].astype(np.float16) / 2048
    flows = np.zeros((1, 2, 1, 4096), np.float32)
    flows[:, 0] = 0.5
    out = run(warp, features, flows)[0, 0, 0, :-1]
    assert_allclose(out.astype(np.float32), (np.arange(4095) + 0.5) / 2048, rtol=2**-10)


@everywhere
def test_nan_and_infinite_flows_read_zero_or_the_edge(run: Run) -> None:
    features, flows = warp_scene()
    flows[0, :, 2, 3] = np.nan
    flows[1, :, 4, 5] = np.inf
    out = run(warp, features, flows)
    assert np.isfinite(out).all()
    assert_array_equal(out[0, :, 2, 3], 0)
    assert_array_equal(out[1, :, 4, 5], 0)
    assert_array_equal(run(warp, features, flows, "clamp")[1, :, 4, 5], features[1, :, -1, -1])


@everywhere
def test_the_result_is_written_into_out(run: Run) -> None:
    features, flows = warp_scene()
    out = np.empty_like(features)

    def into(features: np.ndarray, flows: np.ndarray, out: np.ndarray) -> tuple[bool, np.ndarray]:
        return warp(features, flows, out=out) is out, out

    is_out, written = run(into, features, flows, out)
    assert is_out
    assert_allclose(written, reference.warp(features, flows), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 4, 5, 6), (2, 0, 5, 6)])
def test_empty_features_need_no_launch(shape: tuple[int, ...]) -> None:
    # Without `run` there is no device: a launch would fail.
    out = warp(np.ones(shape, np.float32), np.ones((shape[0], 4, 3, 7), np.float32))
    assert out.shape == (shape[0], 2 * shape[1], 3, 7)


def test_wrong_shapes_and_dtypes_are_refused() -> None:
    features, flows = warp_scene()
    for wrong, message in (
        ((features, flows[:1]), "do not fit"),
        ((features, flows[:, :1]), "do not fit"),
        ((features, flows.astype(np.float16)), "float32"),
        ((features[0], flows), "four axes"),
        ((features[:, :, :0], flows), "no pixels"),
        ((features, flows, "reflect"), "no border"),
    ):
        with pytest.raises(ValueError, match=message):
            warp(*wrong)
    with pytest.raises(ValueError, match="float32 or float16"):
        warp(features.astype(np.float64), flows)
    with pytest.raises(ValueError, match="out must be"):
        warp(features, flows, out=features[:1])
    with pytest.raises(ValueError, match="two rows"):
        warp(features[:, :, :1], flows, align_corners=False)


def test_launches_cover_every_pixel_and_channel() -> None:
    for variant, grid in ((Variant(0, 16, 4, 1, 6), (16, 34, 3 * 3)), (Variant(0, 64, 8, 2, 2), (8, 34, 3))):
        assert planes_launch(3, 37, 270, 481, variant) == Launch(grid, (32, 8, 1))
    assert channels_launch(3, 8, 270, 481, 2) == Launch((4059, 2, 3), (256, 1, 1))
    with pytest.raises(ValueError, match="too many"):
        channels_launch(1, 64, 8192, 8192, 1)


@pytest.mark.parametrize(
    ("channels", "first", "function"),
    [(8, 0, "warp_channel_vectors"), (6, 0, "warp_channels"), (8, 1, "warp_channels")],
)
def test_vectors_are_read_only_if_they_are_whole_and_aligned(
    channels: int, first: int, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = np.zeros(2 * 3 * channels + 1, np.float32)
    features = memory[first : first + 6 * channels].reshape(1, 2, 3, channels)
    called: list[str] = []
    monkeypatch.setattr(launcher, "launch", lambda name, defines, function, *_: called.append(function))
    warp(features, np.zeros((1, 2, 3, 2), np.float32), layout="nhwc")
    assert called == [function]
