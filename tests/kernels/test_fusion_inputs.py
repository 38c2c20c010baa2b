"""The inputs of Fourier-S's fusion: the kernel against the oracle, and the oracle against the network."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from stvsr.kernels import reference
from stvsr.kernels.fusion_inputs import PLANAR_VARIANTS, STRIP_VARIANTS, candidates, fusion_inputs
from stvsr.kernels.variants import text_of
from stvsr.kernels.warp import Variant
from stvsr.training.networks.fourier_s import FourierS
from stvsr.training.networks.motion import finer

from tests.support.cuda_cpu import Run, assert_errs_at_most_twice, everywhere, on_cpu
from tests.support.kernel_scenes import fusion_scene


def test_the_oracle_is_the_network() -> None:
    """The fusion's convolution sees the inputs, and the network returns the blend."""
    torch.manual_seed(0)
    network, seen = FourierS().eval(), []
    for parameter in network.motion_half.conv3.parameters():  # of several pixels
        torch.nn.init.normal_(parameter, std=2.0)
    network.fuse.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    frames, time = torch.rand(2, 2, 3, 32, 64), torch.tensor([0.2, 0.7])
    with torch.no_grad():
        features = network.encode(frames)
        _, base = network.refine(*features, time)
        motion = network.motions(*features, time.view(-1, 1, 1, 1))[-1]
        full = finer(motion).numpy()
    assert np.abs(full[:, :4]).max() > 3
    expected, blended = reference.fusion_inputs(features[0].numpy(), full, time.numpy())
    assert_allclose(expected, seen[0].numpy(), rtol=0, atol=2e-4)
    assert_allclose(blended, base.numpy(), rtol=0, atol=1e-4)


@everywhere
@pytest.mark.parametrize(
    ("count", "size", "times"),
    [(4, (7, 13), (0.0, 0.4, 0.5, 1.0)), (3, (1, 1), (0.3, 0.6)), (0, (3, 2), (0.5, 0.2)), (8, (9, 65), (0.1, 0.9))],
)
def test_sizes_that_do_not_fill_a_block_agree(
    run: Run, count: int, size: tuple[int, int], times: tuple[float, ...]
) -> None:
    """Two pairs, at one or two times each; some of the motion leads far outside."""
    features, motion = fusion_scene(count, size, times=len(times))
    time = np.array(times, np.float32)
    inputs, base = run(fusion_inputs, features, motion, time)
    expected, blended = reference.fusion_inputs(features, motion, time)
    assert inputs.dtype == base.dtype == np.float32
    assert_allclose(inputs, expected, rtol=1e-6, atol=2e-5)
    assert_allclose(base, blended, rtol=0, atol=1e-5)


def marks_of(variant: Variant) -> Any:
    """Mark all variants as slow but one that reads strips."""
    return () if variant == STRIP_VARIANTS[0] else pytest.mark.slow


@everywhere
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, id=text_of(variant), marks=marks_of(variant))
        for variant in (*PLANAR_VARIANTS, *STRIP_VARIANTS)
    ],
)
def test_every_variant_agrees_with_the_oracle(run: Run, variant: Variant, dtype: str) -> None:
    features, motion = fusion_scene(24, (9, 71), times=3, far=False)
    features = features[:1].astype(dtype)
    time = np.array([0.25, 0.5, 1.0], np.float32)
    inputs, base = run(fusion_inputs, features, motion, time, variant=variant)
    expected, blended = reference.fusion_inputs(features, motion, time)
    assert_allclose(base, blended, rtol=0, atol=1e-5)
    if dtype == "float32":
        assert_allclose(inputs, expected, rtol=1e-6, atol=2e-5)
    else:
        assert_errs_at_most_twice(inputs, expected.astype(np.float16), expected)


@everywhere
@pytest.mark.parametrize("variant", [PLANAR_VARIANTS[0], STRIP_VARIANTS[0]], ids=text_of)
def test_motion_that_is_no_number_reads_inside_of_the_frame(run: Run, variant: Variant) -> None:
    """An infinite flow reads the edge; a NaN, as infinity times 0 is, reads the first row or column."""
    features, motion = fusion_scene(8, (5, 6), far=False)
    motion[0, 0, 2, 3], motion[0, 3, 1, 1], motion[1, :4, 3, 4], motion[1, 2, 0, 0] = np.inf, -np.inf, np.nan, np.inf
    warped = slice(0, 2 * 8 + 6)
    time = np.array([0.5, 0.75], np.float32)
    inputs, base = run(fusion_inputs, features, motion, time, variant=variant)
    expected, blended = reference.fusion_inputs(
        features, np.nan_to_num(motion, nan=-1e9, posinf=1e9, neginf=-1e9), time
    )
    assert_allclose(inputs[:, warped], expected[:, warped], rtol=0, atol=1e-5)
    assert_allclose(base, blended, rtol=0, atol=1e-5)
    inputs, base = run(fusion_inputs, features, motion, np.array([0, 1], np.float32), variant=variant)
    assert np.isfinite(inputs[:, warped]).all()
    assert_allclose(inputs[0, :11, 2, 3], features[0, [*range(8), 16, 17, 18], 2, 0], rtol=0, atol=1e-5)


def test_strips_hold_channels_of_one_frame() -> None:
    assert STRIP_VARIANTS[0] in candidates(32, np.float16)
    assert STRIP_VARIANTS[0] in candidates(4, np.float32)
    assert candidates(4, np.float16) == candidates(3, np.float32) == PLANAR_VARIANTS


def test_wrong_shapes_and_no_pairs() -> None:
    features, motion = fusion_scene(4, (3, 5), times=2)
    time = np.array([0.5, 0.5], np.float32)
    for wrong in (motion[:, :4], motion[:, :, 1:], motion.astype(np.float64)):
        with pytest.raises(ValueError, match="do not fit features"):
            on_cpu(fusion_inputs, features, wrong, time)
    with pytest.raises(ValueError, match="do not fit features"):
        on_cpu(fusion_inputs, features, motion[:1], time[:1])
    with pytest.raises(ValueError, match="not those of a pair"):
        on_cpu(fusion_inputs, features[:, 1:], motion, time)
    inputs, base = on_cpu(fusion_inputs, features[:0], motion[:0], time[:0])
    assert (inputs.shape, base.shape) == ((0, 24, 3, 5), (0, 3, 3, 5))
