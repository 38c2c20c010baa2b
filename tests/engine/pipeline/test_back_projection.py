"""Back-projection from coarse to fine: agreement with the method in PyTorch, and the record of `coarse` in bundles."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stvsr import Backend, Bundle, InputFrame, one_scene
from stvsr.engine.contract.manifest import FixedFactors, Manifest
from stvsr.engine.contract.picture import FULL_SCALE
from stvsr.engine.contract.resize import resized, shrink
from stvsr.engine.pipeline.back_projection import back_projected, doubled
from stvsr.engine.pipeline.chain import Chain
from stvsr.engine.pipeline.plan import plan_passes
from stvsr.export.bundle_network import load_network, write_adapted
from stvsr.export.exporter import export_bundle
from stvsr.training.adapt.coarse_to_fine import coarse_by_motion, upscale_time
from stvsr.training.adapt.video_resize import back_project, expose, resize_space
from stvsr.training.networks.base import Network
from stvsr.training.networks.registry import NetworkEntry, configured, find_network
from stvsr.training.resize import imresize
from torch import Tensor

CPU = Backend(device="cpu")
HALVES = (Fraction(0), Fraction(1, 2))


def clip(frames: int, height: int, width: int) -> Tensor:
    """Return smooth frames, (frames, 3, height, width), in the middle of the range so that nothing is clipped."""
    generator = torch.Generator().manual_seed(height)
    coarse = torch.rand(frames, 3, height // 3, width // 3, generator=generator)
    return 0.4 + 0.2 * torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def dtsr(coarse: int) -> tuple[NetworkEntry, Network]:
    """Return a small network that does more than interpolate, and its entry in the list."""
    entry = configured(find_network("dtsr-s"), {"width": "6", "coarse": str(coarse)})
    torch.manual_seed(0)
    network = entry.build(entry.config)
    with torch.no_grad():
        last = network.get_parameter("L8.weight")
        last.add_(0.01 * torch.randn(last.shape))
    return entry, network.eval()


def imresized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a frame, (3, h, w), by training's `imresize`."""
    return imresize(frame.transpose(1, 2, 0).astype(float), size).transpose(2, 0, 1)


# --- agreement with training ---


@pytest.mark.parametrize("size", [(9, 14), (40, 52), (19, 26), (7, 60)])
def test_resized_equals_imresize_of_training(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).random((2, 3, 19, 26)).astype(np.float32)
    expected = np.stack([imresized(frame, size) for frame in frames])
    assert np.abs(resized(frames, size) - expected).max() < 1e-6


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_shrink_equals_imresize_of_training(factor: int) -> None:
    frame = np.random.default_rng(factor).random((3, 5 * factor, 7 * factor)).astype(np.float32)
    expected = imresized(frame, (5, 7)).clip(0, 1)
    assert np.abs(shrink(frame, factor) - expected).max() < 1e-6


@pytest.mark.parametrize("coarse", [1, 2, 8])
def test_one_exposure_is_back_projected_as_in_training(coarse: int) -> None:
    frame = clip(1, 21, 30)
    h, w = (-(-side // coarse) for side in (21, 30))
    pair = clip(2, max(h, 3), max(w, 3))[..., :h, :w]
    expected = pair
    if coarse == 1:
        expected = pair + (frame - pair.mean(0))
    for level in reversed(range(coarse.bit_length() - 1)):
        small = resize_space(frame, (-(-21 // 2**level), -(-30 // 2**level)))
        expected = back_project(expected, small)
    actual = back_projected(pair.numpy(), frame[0].numpy(), coarse)
    np.testing.assert_allclose(actual, expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(actual.mean(0), frame[0].numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("coarse", "factor"),
    [(2, 2), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((1, 2), (4, 4), (2, 8)))],
)
def test_a_chain_upscales_in_time_as_in_training(coarse: int, factor: int, tmp_path: Path) -> None:
    entry, network = dtsr(coarse)
    bundle = export_bundle(entry, network, tmp_path / "dtsr")
    frames = clip(11, 34, 45)
    passes = plan_passes([Bundle.load(bundle)], (34, 45), (34, 45), factor)
    assert [one.coarse for one in passes] == [max(1, coarse >> number) for number in range(len(passes))]
    times = tuple(Fraction(part, factor) for part in range(factor))
    with Chain(passes, CPU) as chain:
        actual = np.stack(list(chain.frames(one_scene(frames.numpy(), times)))) / FULL_SCALE
    expected = torch.stack(list(upscale_time(network, frames, factor))).numpy()
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < 1e-4
    assert np.abs(expose(torch.from_numpy(actual), factor).numpy() - frames.numpy()).max() < 1e-4


# --- streaming ---


def test_only_requested_times_are_yielded_and_few_frames_are_buffered() -> None:
    read: list[int] = []

    def inputs() -> Iterator[InputFrame]:
        for number in range(9):
            read.append(number)
            yield InputFrame(np.full((3, 4, 6), number / 10, np.float32), (HALVES[number % 2],), number == 8)

    def repeat_frames(frames: Iterable[InputFrame], size: tuple[int, int]) -> Iterator[np.ndarray]:
        for frame in frames:
            assert frame.times == HALVES
            yield from [np.full((3, *size), round(frame.rgb.mean() * FULL_SCALE), np.uint16)] * 2

    for number, frame in enumerate(doubled(repeat_frames, inputs(), (4, 6), 2)):
        assert frame.shape == (3, 4, 6)
        assert np.abs(frame / FULL_SCALE - number / 10).max() < 1e-4
        assert len(read) <= number + 2
    assert len(read) == 9


# --- the size of the network's input ---


def test_a_manifest_refuses_a_coarse_that_back_projection_cannot_reach(tmp_path: Path) -> None:
    entry, network = dtsr(1)
    folder = export_bundle(entry, network, tmp_path / "dtsr")
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
    for changes, words in (
        ({"window": manifest.window.model_copy(update={"coarse": 3})}, "1, 2, 4"),
        ({"space": FixedFactors(factors=(2,))}, "keep the size"),
    ):
        with pytest.raises(ValueError, match=words):
            Manifest.model_validate(manifest.model_copy(update=changes).model_dump())


def test_an_adapted_bundle_records_the_coarse_that_its_network_learned(tmp_path: Path) -> None:
    entry, network = dtsr(1)
    parent = Bundle.load(export_bundle(entry, network, tmp_path / "dtsr"))
    _, trained = dtsr(4)
    weights = {name: value.clone() for name, value in trained.state_dict().items()}
    weights["L8.bias"] += 0.01
    weights["L1_b.num_batches_tracked"] += 1  # a counter that no graph stores
    adapted = write_adapted(parent, trained, weights, clip(6, 32, 32), tmp_path / "adapted", {})
    assert adapted.manifest.window.model_dump()["coarse"] == 4
    assert load_network(adapted).window.model_dump()["coarse"] == 4
    assert parent.manifest.window.model_dump()["coarse"] == 1


@pytest.mark.parametrize(("motion_px", "size", "expected"), [(0.5, 256, 1), (4, 256, 1), (6, 256, 2), (13, 256, 4)])
def test_frames_with_larger_motion_are_made_smaller(motion_px: float, size: int, expected: int) -> None:
    def flow(first: np.ndarray, second: np.ndarray, method: str) -> np.ndarray:
        assert first.shape == (size, size, 3)
        assert (first.dtype, method) == (np.uint8, "farneback")
        return np.full((2, size, size), motion_px / 2**0.5, np.float32)

    assert coarse_by_motion(torch.rand(5, 3, size, size), flow) == expected


def test_frames_are_not_made_smaller_than_32_px_or_without_motion() -> None:
    def far(*_: Any) -> np.ndarray:
        return np.full((2, 70, 90), 100.0, np.float32)

    assert coarse_by_motion(torch.rand(5, 3, 70, 90), far) == 2
    assert coarse_by_motion(torch.rand(1, 3, 70, 90), far) == 1
