"""Compressed inputs are those of the crop, in every sampler, and are made once."""

import numpy as np
import pytest
import torch
from stvsr.engine.contract.metrics import psnr
from stvsr.training.clips import cached_clip
from stvsr.training.compressed_clips import (
    CRFS,
    CompressedClips,
    Degradation,
    compressed_version,
    degradation,
    small_clip,
)
from stvsr.training.data import ClipSampler, Sampling
from stvsr.training.device_data import DeviceClips, DeviceSampler
from stvsr.training.networks.base import Network
from stvsr.training.networks.videoinr_s import VideoINRS
from stvsr.training.resize import downscale, imresize, to_uint8

from tests.support.paths import SAMPLE
from tests.support.toy_networks import TINY_PAIR, TOYS, ToyNetwork


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> CompressedClips:
    return CompressedClips([SAMPLE], tmp_path_factory.mktemp("cache"), versions=2)


@pytest.fixture(scope="module")
def bee(versions: CompressedClips) -> np.ndarray:
    return cached_clip(SAMPLE, versions.cache)


def test_a_version_is_the_clip_compressed_in_its_own_order(bee: np.ndarray) -> None:
    small = downscale(bee / np.float32(255), (34, 60))
    for gap in (1, 3):
        version = compressed_version(small_clip(bee), gap, Degradation(20, "libx264"))
        assert version.shape == small.shape
        for index in (0, 7, 59):
            assert psnr(version[index], small[index]) > 28.5


def test_degradations_vary_and_depend_only_on_their_arguments() -> None:
    drawn = [degradation("bee", gap, version) for gap in (1, 2, 3, 4) for version in range(8)]
    assert drawn == [degradation("bee", gap, version) for gap in (1, 2, 3, 4) for version in range(8)]
    assert {d.codec for d in drawn} == {"libx264", "libx265"}
    assert CRFS[0] <= min(d.crf for d in drawn) < max(d.crf for d in drawn) <= CRFS[1]
    assert 0.2 < sum(d.noise > 0 for d in drawn) / len(drawn) < 0.8
    assert all((d.noise > 0) == (d.blur_px > 0) for d in drawn)


def test_a_degraded_version_is_blurred_and_noisy(bee: np.ndarray) -> None:
    small = small_clip(bee[:12])
    settings = Degradation(1, "libx264", blur_px=0.8, noise=0.0)
    detail = [np.abs(np.diff(c.astype(float), axis=2)).mean() for c in (small, compressed_version(small, 1, settings))]
    assert detail[1] < 0.85 * detail[0]
    noisy = compressed_version(small, 1, Degradation(1, "libx264", noise=4.0))
    luma = (noisy.astype(float) - small).mean(-1)  # noise of three channels; chroma is subsampled
    assert 1.5 < luma.std() < 3.5
    again = compressed_version(small, 1, Degradation(1, "libx264", noise=4.0))
    assert np.array_equal(noisy, again)


def test_a_small_clip_has_whole_pixels(bee: np.ndarray) -> None:
    small = small_clip(bee[:2, :135])
    assert small.shape == (2, 33, 60, 3)
    assert np.abs(small[1].astype(int) - to_uint8(imresize(bee[1, :132] / 255, (33, 60)))).max() <= 1


def test_versions_are_made_once(versions: CompressedClips) -> None:
    versions.prepare([1], workers=2)
    files = {path: path.stat().st_mtime_ns for path in versions.cache.glob("*gap1*")}
    assert len(files) == 2
    assert isinstance(versions.frames(0, 1, 0), np.memmap)
    assert {path: path.stat().st_mtime_ns for path in files} == files


@pytest.mark.parametrize("network", [VideoINRS(TINY_PAIR), *(ToyNetwork(*TOYS[k]) for k in ("run", "sliding"))])
def test_both_samplers_cut_the_same_compressed_inputs(
    network: Network, bee: np.ndarray, versions: CompressedClips
) -> None:
    sampling = Sampling(patch=16, batch=16, gaps=((1, 0.3), (2, 0.7)), compressed=0.5)
    clips = ClipSampler([bee], network, sampling, 3, compressed=versions)
    device = DeviceSampler(ClipSampler([bee], network, sampling, 3, compressed=versions), DeviceClips([bee], "cpu"))
    expected, batch = clips.batch(0), device.batch(0)
    torch.testing.assert_close(batch.truth, expected.truth)
    assert (batch.frames - expected.frames).abs().max() <= 1.01 / 255
    clean = ClipSampler([bee], network, Sampling(patch=16, batch=16, gaps=sampling.gaps), 3)
    assert not torch.equal(clean.batch(0).frames, expected.frames)


def test_compressed_inputs_show_the_same_crop_as_the_truth(bee: np.ndarray, versions: CompressedClips) -> None:
    sampling = Sampling(patch=16, batch=12, gaps=((2, 1.0),), compressed=1.0)
    batch = ClipSampler([bee], VideoINRS(TINY_PAIR), sampling, 5, compressed=versions).batch(0)
    assert batch.time is not None
    for sample in range(12):
        end = int(batch.time[sample, 0])
        truth = torch.nn.functional.interpolate(batch.truth[sample, :1], (16, 16), mode="area")[0]
        errors = [
            float((batch.frames[sample, end].roll((dy, dx), (1, 2)) - truth)[:, 3:-3, 3:-3].abs().mean())
            for dy in (-2, 0, 2)
            for dx in (-2, 0, 2)
        ]
        assert int(np.argmin(errors)) == 4, errors


def test_a_doubled_window_is_never_compressed(bee: np.ndarray, versions: CompressedClips) -> None:
    network = ToyNetwork(*TOYS["doubled"])
    with_versions, without = (
        ClipSampler([bee], network, Sampling(patch=16, batch=4, compressed=share), 3, compressed=versions).batch(0)
        for share in (1.0, 0.0)
    )
    torch.testing.assert_close(with_versions.frames, without.frames)
