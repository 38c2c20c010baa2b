"""Frames whose rate was doubled, from coarse to fine: the engine's are those of the method in PyTorch."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stvsr.engine.contract.bundle import Bundle
from stvsr.engine.contract.manifest import FixedFactors, Manifest
from stvsr.engine.contract.picture import FULL_SCALE
from stvsr.engine.contract.resize import resized
from stvsr.engine.contract.windows import InputFrame, one_scene
from stvsr.engine.pipeline.back_projection import agreeing, doubled
from stvsr.engine.pipeline.chain import Route, plan_route
from stvsr.export.bundle_network import network_of, write_adapted
from stvsr.export.exporter import export_bundle
from stvsr.training.adapt.coarse_to_fine import coarse_by_motion, upscale_time
from stvsr.training.adapt.video_resize import back_project, expose, resize_space
from stvsr.training.networks.registry import configured, find_network
from stvsr.training.resize import imresize
from torch import Tensor

HALVES = (Fraction(0), Fraction(1, 2))


def clip(frames: int, height: int, width: int) -> Tensor:
    """Soft shapes in the middle of the range, so that nothing is clipped."""
    generator = torch.Generator().manual_seed(height)
    few = torch.rand(frames, 3, height // 3, width // 3, generator=generator)
    return 0.4 + 0.2 * torch.nn.functional.interpolate(few, (height, width), mode="bilinear")


def network(coarse: int) -> Any:
    """One that does more than interpolate, and its entry."""
    entry = configured(find_network("dtsr-s"), {"width": "6", "coarse": str(coarse)})
    torch.manual_seed(0)
    made: Any = entry.build(entry.config)
    with torch.no_grad():
        last = made.get_parameter("L8.weight")
        last.add_(0.01 * torch.randn(last.shape))
    return entry, made.eval()


@pytest.mark.parametrize("size", [(9, 14), (40, 52), (19, 26), (7, 60)])
def test_frames_are_resized_as_training_resizes_them(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).random((2, 3, 19, 26)).astype(np.float32)
    expected = np.stack([imresize(f.transpose(1, 2, 0).astype(float), size).transpose(2, 0, 1) for f in frames])
    assert np.abs(resized(frames, size) - expected).max() < 1e-6


@pytest.mark.parametrize("coarse", [1, 2, 8])
def test_one_exposure_is_back_projected_as_in_training(coarse: int) -> None:
    frame = clip(1, 21, 30)
    h, w = (-(-n // coarse) for n in (21, 30))
    pair = clip(2, max(h, 3), max(w, 3))[..., :h, :w]
    expected = pair
    if coarse == 1:
        expected = pair + (frame - pair.mean(0))
    for level in reversed(range(coarse.bit_length() - 1)):
        seen = resize_space(frame, (-(-21 // 2**level), -(-30 // 2**level)))
        expected = back_project(expected, seen)
    made = agreeing(pair.numpy(), frame[0].numpy(), coarse)
    np.testing.assert_allclose(made, expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(made.mean(0), frame[0].numpy(), atol=1e-6)


@pytest.mark.parametrize(("coarse", "factor"), [(1, 2), (2, 2), (4, 4), (2, 8)])
def test_the_engine_makes_what_the_method_makes(coarse: int, factor: int, tmp_path: Path) -> None:
    entry, made = network(coarse)
    bundle = export_bundle(entry, made, tmp_path / "dtsr")
    frames = clip(11, 34, 45)
    legs = plan_route([Bundle.load(bundle)], (34, 45), (34, 45), factor)
    assert [leg.coarse for leg in legs] == [max(1, coarse >> number) for number in range(len(legs))]
    times = tuple(Fraction(part, factor) for part in range(factor))
    with Route(legs, device="cpu") as route:
        found = np.stack(list(route.frames(one_scene(frames.numpy(), times)))) / FULL_SCALE
    expected = torch.stack(list(upscale_time(made, frames, factor))).numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4
    assert np.abs(expose(torch.from_numpy(found), factor).numpy() - frames.numpy()).max() < 1e-4


def test_times_that_are_not_wanted_are_left_out_and_few_frames_are_held() -> None:
    taken: list[int] = []

    def inputs() -> Iterator[InputFrame]:
        for number in range(9):
            taken.append(number)
            yield InputFrame(np.full((3, 4, 6), number / 10, np.float32), HALVES[number % 2 :][:1], number == 8)

    def repeated(frames: Iterable[InputFrame], size: tuple[int, int]) -> Iterator[np.ndarray]:
        for frame in frames:
            assert frame.times == HALVES
            yield from [np.full((3, *size), round(frame.rgb.mean() * FULL_SCALE), np.uint16)] * 2

    for number, made in enumerate(doubled(repeated, inputs(), (4, 6), 2)):
        assert made.shape == (3, 4, 6)
        assert np.abs(made / FULL_SCALE - number / 10).max() < 1e-4
        assert len(taken) <= number + 2
    assert len(taken) == 9


def test_a_manifest_says_what_can_be_done(tmp_path: Path) -> None:
    entry, made = network(1)
    folder = export_bundle(entry, made, tmp_path / "dtsr")
    told = Manifest.model_validate_json((folder / "manifest.json").read_text())
    for changes, words in (
        ({"window": told.window.model_copy(update={"coarse": 3})}, "1, 2, 4"),
        ({"space": FixedFactors(factors=(2,))}, "keep the size"),
    ):
        with pytest.raises(ValueError, match=words):
            Manifest.model_validate(told.model_copy(update=changes).model_dump())


def test_an_adapted_bundle_says_how_small_its_network_sees_frames(tmp_path: Path) -> None:
    entry, plain = network(1)
    parent = Bundle.load(export_bundle(entry, plain, tmp_path / "dtsr"))
    _, learnt = network(4)
    weights = {name: value.clone() for name, value in learnt.state_dict().items()}
    weights["L8.bias"] += 0.01
    weights["L1_b.num_batches_tracked"] += 1  # which no graph holds
    adapted = write_adapted(parent, learnt, weights, clip(6, 32, 32), tmp_path / "adapted", {})
    assert adapted.manifest.window.model_dump()["coarse"] == 4
    assert network_of(adapted).window.coarse == 4
    assert parent.manifest.window.model_dump()["coarse"] == 1


@pytest.mark.parametrize(("motion", "size", "expected"), [(0.5, 256, 1), (4, 256, 1), (6, 256, 2), (13, 256, 4)])
def test_what_moves_far_is_seen_small(motion: float, size: int, expected: int) -> None:
    def flow(first: np.ndarray, second: np.ndarray, method: str) -> np.ndarray:
        assert first.shape == (size, size, 3)
        assert (first.dtype, method) == (np.uint8, "farneback")
        return np.full((2, size, size), motion / 2**0.5, np.float32)

    assert coarse_by_motion(torch.rand(5, 3, size, size), flow) == expected


def test_frames_that_are_small_stay_as_large_as_learning_needs() -> None:
    def far(*_: Any) -> np.ndarray:
        return np.full((2, 70, 90), 100.0, np.float32)

    assert coarse_by_motion(torch.rand(5, 3, 70, 90), far) == 2
    assert coarse_by_motion(torch.rand(1, 3, 70, 90), far) == 1
