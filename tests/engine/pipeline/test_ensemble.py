"""Presets: frames are the mean of the network's frames over mirrorings, for every kind of window."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import Backend, Bundle, InputFrame, RequestError, Upscaler, UpscaleRequest, one_scene, upscale
from stvsr.engine.pipeline.chain import Chain
from stvsr.engine.pipeline.inference import MIRRORINGS, PRESETS, Inference, Mirroring, Preset
from stvsr.engine.pipeline.plan import plan_passes

from tests.support.network_bundles import ANY_TIME, DOUBLED_X1, RUN, SLIDING_X4, network_bundle
from tests.support.toy import write_toy

H, W = 13, 21
CPU = Backend(device="cpu")
TIMES = (Fraction(0), Fraction(1, 3))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy with a decoder for integer factors that adds more to the pixels below and to the right."""
    return write_toy(tmp_path_factory.mktemp("bundles") / "uneven", integer=True)


def frames_of(count: int) -> np.ndarray:
    return np.random.default_rng(3).random((count, 3, H, W), np.float32) / 2


def flip(frames: np.ndarray, mirroring: Mirroring) -> np.ndarray:
    axes = [axis for axis, is_reversed in ((-2, mirroring.rows), (-1, mirroring.columns)) if is_reversed]
    return np.flip(frames, tuple(axes))


def mean_over_mirrorings(frames: np.ndarray, preset: Preset, run: Any) -> np.ndarray:
    """Return the mean of what `run` makes of mirrored frames, mirrored back."""
    mirrored = [flip(np.stack(list(run(flip(frames, one)))), one).astype(float) for one in MIRRORINGS[preset]]
    return np.mean(mirrored, axis=0)


@pytest.mark.parametrize("tile", [0, 16])
@pytest.mark.parametrize("preset", ["balanced", "best"])
def test_frames_of_a_pair_are_the_mean_over_mirrorings(uneven: Path, preset: Preset, tile: int) -> None:
    frames, size = frames_of(3), (2 * H, 2 * W)
    with Upscaler(uneven, CPU, tile=tile) as plain:
        expected = mean_over_mirrorings(frames, preset, lambda inputs: plain.frames(one_scene(inputs, TIMES), size))
        unchanged = np.stack(list(plain.frames(one_scene(frames, TIMES), size)))
    with Upscaler(uneven, CPU, tile=tile, preset=preset) as upscaler:
        actual = np.stack(list(upscaler.frames(one_scene(frames, TIMES), size)))
    assert np.abs(actual - expected).max() <= 0.5
    assert np.abs(actual.astype(int) - unchanged).max() > 100  # the toy is not symmetric


@pytest.mark.parametrize(
    "bundle", [SLIDING_X4, DOUBLED_X1, network_bundle(RUN, 2, ANY_TIME)], ids=["sliding", "doubled", "run"]
)
def test_every_kind_of_window_has_presets(bundle: Bundle, runs: list[Any]) -> None:
    (scale,) = bundle.manifest.space.factors  # type: ignore[union-attr]
    factor = 1 if bundle is SLIDING_X4 else 2
    passes = plan_passes([bundle], (H, W), (scale * H, scale * W), factor)
    times = tuple(Fraction(n, factor) for n in range(factor))

    def run(frames: np.ndarray, preset: Preset = "fast") -> Iterator[np.ndarray]:
        with Chain(passes, CPU, Inference(preset=preset)) as chain:
            last = len(frames) - 1
            yield from chain.frames(InputFrame(frame, times, number == last) for number, frame in enumerate(frames))

    frames = frames_of(6)
    expected = mean_over_mirrorings(frames, "best", run)
    runs.clear()
    actual = np.stack(list(run(frames, "best")))
    assert np.abs(actual - expected).max() <= 0.5
    runs_of_best = len(runs)
    runs.clear()
    list(run(frames))
    assert runs_of_best == 4 * len(runs)


def test_an_input_frame_passes_through_unchanged(uneven: Path) -> None:
    frames = frames_of(2)
    with Upscaler(uneven, CPU) as plain, Upscaler(uneven, CPU, preset="best") as best:
        first, ours = (next(one.frames(one_scene(frames), (H, W))) for one in (plain, best))
    np.testing.assert_array_equal(ours, first)


def test_a_request_has_a_preset_that_the_report_names(toy: Path, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="Unknown preset 'slow': use fast, balanced or best"):
        upscale(UpscaleRequest(input=clip, output=tmp_path / "x.mp4", model=toy, preset="slow"))  # type: ignore[arg-type]
    request = UpscaleRequest(input=clip, output=tmp_path / "out.mp4", model=toy, preset="balanced", backend=CPU)
    assert upscale(request).preset == "balanced"
    assert UpscaleRequest(input=clip).preset == PRESETS[0]
