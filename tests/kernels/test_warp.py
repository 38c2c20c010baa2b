import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose, assert_array_equal
from stvsr.kernels import launcher as module
from stvsr.kernels import reference
from stvsr.kernels.launcher import Launch
from stvsr.kernels.warp import Border, Layout, launch_pixels, launch_planes, warp
from stvsr.training.networks import ops
from stvsr.training.networks.videoinr import VideoINR

from tests.support.cuda_cpu import assert_errs_at_most_twice, everywhere

GRID_LIMIT = 1 - 1e-6  # VideoINR's


def scene(
    batch: int = 2,
    channels: int = 5,
    size: tuple[int, int] = (7, 13),
    out: tuple[int, int] | None = None,
    count: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Features, and flows of which some lead far outside."""
    random = np.random.default_rng(channels)
    features = random.standard_normal((batch, channels, *size)).astype(np.float32)
    flows = random.normal(0, 3, (batch, 2 * count, *(out or size))).astype(np.float32)
    far = random.random(flows.shape) < 0.05
    return features, np.where(far, flows * 1e4, flows)


def to_layout(array: np.ndarray, layout: Layout) -> np.ndarray:
    return array if layout == "nchw" else np.ascontiguousarray(array.transpose(0, 2, 3, 1))


def from_layout(array: np.ndarray, layout: Layout) -> np.ndarray:
    return array if layout == "nchw" else array.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("border", ["zeros", "clamp"])
def test_the_reference_agrees_with_pytorch(border: Border) -> None:
    features, flows = scene(count=2)
    inputs = torch.from_numpy(features).double(), torch.from_numpy(flows).double()
    expected = torch.cat([ops.warp(inputs[0], inputs[1][:, i : i + 2], border) for i in (0, 2)], 1)
    assert_allclose(reference.warp(features, flows, border), expected.numpy(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("limit", [None, 0.9])
@pytest.mark.parametrize("align_corners", [True, False])
def test_the_reference_knows_both_corner_conventions(align_corners: bool, limit: float | None) -> None:
    features, flows = scene()
    height, width = features.shape[2:]
    x = 2 * (np.arange(width) + flows[:, 0].astype(float)) / (width - 1) - 1
    y = 2 * (np.arange(height)[:, None] + flows[:, 1].astype(float)) / (height - 1) - 1
    grid = torch.from_numpy(np.stack((x, y), -1))
    grid = grid if limit is None else grid.clamp(-limit, limit)
    expected = F.grid_sample(torch.from_numpy(features).double(), grid, align_corners=align_corners).numpy()
    out = reference.warp(features, flows, "zeros", align_corners, limit)
    assert_allclose(out, expected, rtol=0, atol=1e-9)


@everywhere
def test_two_warps_in_one_pass_read_as_videoinr_does(run) -> None:
    features, flows = scene(count=2)
    network, (height, width) = VideoINR(), features.shape[2:]
    expected = []
    for i in (0, 2):
        dx, dy = torch.from_numpy(flows[:, i]), torch.from_numpy(flows[:, i + 1])
        x = network._moved(torch.arange(float(width)), torch.tensor(width), dx)
        y = network._moved(torch.arange(float(height))[:, None], torch.tensor(height), dy)
        expected.append(ops.sample(torch.from_numpy(features), x, y, "zeros"))
    out = run(warp, features, flows, align_corners=False, grid_limit=GRID_LIMIT)
    assert_allclose(out, torch.cat(expected, 1).numpy(), rtol=0, atol=1e-5)


@everywhere
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("border", ["zeros", "clamp"])
@pytest.mark.parametrize(("align_corners", "limit"), [(True, None), (False, None), (False, GRID_LIMIT), (True, 0.8)])
@pytest.mark.parametrize("channels", [5, 8])
def test_warping_agrees(
    run, layout: Layout, border: Border, align_corners: bool, limit: float | None, channels
) -> None:
    features, flows = scene(channels=channels, count=2)
    options = {"align_corners": align_corners, "grid_limit": limit}
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
def test_sizes_that_fill_no_block_agree(run, layout: Layout, channels: int, size, out) -> None:
    features, flows = scene(1, channels, size, out)
    made = run(warp, to_layout(features, layout), to_layout(flows, layout), "clamp", layout=layout)
    assert_allclose(from_layout(made, layout), reference.warp(features, flows, "clamp"), rtol=0, atol=1e-5)


@everywhere
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", [5, 16])
def test_half_precision_rounds_once(run, layout: Layout, channels: int) -> None:
    features, flows = scene(channels=channels)
    half = features.astype(np.float16)
    truth = reference.warp(half, flows)
    out = run(warp, to_layout(half, layout), to_layout(flows, layout), layout=layout)
    assert out.dtype == np.float16
    assert_errs_at_most_twice(from_layout(out, layout), truth.astype(np.float16), truth)


@everywhere
def test_half_precision_reads_the_right_place_in_wide_frames(run) -> None:
    features = np.arange(4096, dtype=np.float32)[None, None, None].astype(np.float16) / 2048
    flows = np.zeros((1, 2, 1, 4096), np.float32)
    flows[:, 0] = 0.5
    out = run(warp, features, flows)[0, 0, 0, :-1]
    assert_allclose(out.astype(np.float32), (np.arange(4095) + 0.5) / 2048, rtol=2**-10)


@everywhere
def test_where_flows_are_no_numbers_nothing_is_read(run) -> None:
    features, flows = scene()
    flows[0, :, 2, 3] = np.nan
    flows[1, :, 4, 5] = np.inf
    out = run(warp, features, flows)
    assert np.isfinite(out).all()
    assert_array_equal(out[0, :, 2, 3], 0)
    assert_array_equal(out[1, :, 4, 5], 0)
    assert_array_equal(run(warp, features, flows, "clamp")[1, :, 4, 5], features[1, :, -1, -1])


@everywhere
def test_a_given_output_is_written(run) -> None:
    features, flows = scene()
    out = np.empty_like(features)

    def into(features, flows, out):
        return warp(features, flows, out=out) is out, out

    is_out, written = run(into, features, flows, out)
    assert is_out
    assert_allclose(written, reference.warp(features, flows), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 4, 5, 6), (2, 0, 5, 6)])
def test_without_features_nothing_is_launched(shape: tuple[int, ...]) -> None:
    # No device is at hand here: a launch would fail.
    out = warp(np.ones(shape, np.float32), np.ones((shape[0], 4, 3, 7), np.float32))
    assert out.shape == (shape[0], 2 * shape[1], 3, 7)


def test_what_does_not_fit_is_refused() -> None:
    features, flows = scene()
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


def test_every_pixel_and_channel_has_its_thread() -> None:
    launch = launch_planes(3, 37, 270, 481)
    assert launch.block == (32, 8, 1)
    assert launch.grid == (16, 34, 3 * 3)
    assert launch_pixels(3, 8, 270, 481, 2) == Launch((4059, 2, 3), (256, 1, 1))
    with pytest.raises(ValueError, match="too many"):
        launch_pixels(1, 64, 8192, 8192, 1)


@pytest.mark.parametrize(
    ("channels", "first", "function"),
    [(8, 0, "warp_channel_vectors"), (6, 0, "warp_channels"), (8, 1, "warp_channels")],
)
def test_vectors_are_read_only_where_they_are_whole(
    channels: int, first: int, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = np.zeros(2 * 3 * channels + 1, np.float32)
    features = memory[first : first + 6 * channels].reshape(1, 2, 3, channels)
    called: list[str] = []
    monkeypatch.setattr(module, "launch", lambda name, defines, function, *_: called.append(function))
    warp(features, np.zeros((1, 2, 3, 2), np.float32), layout="nhwc")
    assert called == [function]
