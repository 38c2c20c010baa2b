"""Alpha in runs: it passes through the network beside the colors, and opaque frames cost nothing."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stvsr import Backend, Bundle, Report, UpscaleRequest, upscale, upscale_resumable
from stvsr.engine.contract.windows import InputFrame
from stvsr.engine.media.reader import open_reader
from stvsr.engine.pipeline import resume, run
from stvsr.engine.pipeline.adaptation import Adapting, AdaptSettings, SceneAdaptation
from stvsr.engine.pipeline.alpha import pictures_with_alpha

from tests.support.learners import KnownLearner, with_eighth
from tests.support.media import pan, picture
from tests.support.network_bundles import DOUBLED_X1, RUN_X1, RUN_X2_ANY_TIME, SLIDING_X4
from tests.support.pictures import RATE, half_transparent, write_frames_rgba
from tests.support.toy import blend_and_sample, write_toy

CPU = Backend(device="cpu")


def moving_hole(count: int, opaque: range = range(0)) -> list[np.ndarray]:
    """Return frames (h, w, 4) uint8 with a window of alpha that moves; some frames are opaque."""
    frames = []
    for number, rgb in enumerate(pan(count)):
        rgba = np.full((48, 64, 4), 255, np.uint8)
        rgba[..., :3] = np.rint(rgb.transpose(1, 2, 0) * 255)
        if number not in opaque:
            rgba[8:24, 4 + 3 * number : 20 + 3 * number, 3] = 40
        frames.append(rgba)
    return frames


@pytest.fixture
def hole(tmp_path: Path) -> Path:
    """Write a clip of FFV1 whose second and third frames are opaque."""
    return write_frames_rgba(tmp_path / "hole.mkv", moving_hole(7, range(1, 3)), "ffv1", "bgra")


def as_array(alpha: np.ndarray | None) -> np.ndarray:
    assert alpha is not None
    return alpha


def alphas(path: Path) -> np.ndarray:  # (n, h, w)
    with open_reader(path) as reader:
        return np.stack([frame.alpha for frame in reader if frame.alpha is not None])


def test_alpha_is_computed_by_the_network(hole: Path, toy: Path, tmp_path: Path) -> None:
    report = upscale(UpscaleRequest(input=hole, output=tmp_path / "out.mkv", model=toy, backend=CPU, scale=2))
    assert (report.frames_out, report.warnings) == (14, ())
    source, result = alphas(hole), alphas(tmp_path / "out.mkv")
    assert result.shape == (14, 96, 128)
    for number in range(14):
        first, second = (np.stack([source[min(6, number // 2 + step)]] * 3) for step in (0, 1))
        expected = blend_and_sample(first, second, number % 2 / 2, (96, 128))[1]
        assert np.abs(result[number] - expected).max() <= 3 / 255 + 1e-3
    assert (result[2:5] == 1).all(), "opaque frames, and one between two of them, are exactly opaque"
    assert result[5].min() < 1


@pytest.mark.parametrize(("rate", "cut"), [({"time_factor": 2}, 10), ({"fps": RATE / 3}, 2)], ids=["twice", "a third"])
def test_scenes_with_weights_of_their_own_have_alpha(tmp_path: Path, rate: dict[str, Any], cut: int) -> None:
    """Give the colors and the alpha of each scene its weights; at a low rate a scene's last frames have no output."""
    frames = moving_hole(10)
    for rgba in frames[5:]:
        rgba[..., :3] = 255 - rgba[..., :3]
    clip = write_frames_rgba(tmp_path / "clip.mkv", frames, "ffv1", "bgra")
    toy = Bundle.load(write_toy(tmp_path / "toy", integer=True))
    learned = [(with_eighth(toy, value, tmp_path / str(value)),) for value in (0.5, 0.75)]
    results = []
    for name, bundles in (("plain", [(), ()]), ("first", [learned[0], ()]), ("both", learned)):
        wanted = UpscaleRequest(
            input=clip, output=tmp_path / f"{name}.mkv", model=toy.folder, backend=CPU, scale=2, **rate
        )
        adapting = Adapting(AdaptSettings("scene"), lambda *_, known=bundles: KnownLearner(known))
        with SceneAdaptation(wanted, adapting) as adaptation:
            report = upscale(wanted, adaptation=adaptation)
        assert report.cuts_s == (pytest.approx(5 / float(RATE)),)
        with open_reader(tmp_path / f"{name}.mkv") as reader:
            results.append(np.stack([np.stack([*frame.rgb, as_array(frame.alpha)]) for frame in reader]))
    plain, first, both = results
    for scene, (before, after) in ((slice(0, cut), (plain, first)), (slice(cut, None), (first, both))):
        assert (before[scene] != after[scene]).any(axis=(0, 2, 3)).all(), "every color, and the alpha"
    assert np.array_equal(plain[cut:], first[cut:])
    assert np.array_equal(first[:cut], both[:cut])


def test_a_lost_alpha_is_a_warning_of_runs_that_had_any(hole: Path, toy: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": toy, "backend": CPU, "scale": 1, "time_factor": 1}
    for run_one, name in ((upscale, "whole.mp4"), (upscale_resumable, "parts.mp4")):
        report: Report = run_one(UpscaleRequest(input=hole, output=tmp_path / name, **options))
        lost = [warning for warning in report.warnings if "transparency of the source is lost" in warning]
        assert len(lost) == 1
        assert ".webm, .mov, .mkv, .gif, .apng and .png" in lost[0]
    opaque = write_frames_rgba(tmp_path / "opaque.mkv", moving_hole(3, range(3)), "ffv1", "bgra")
    report = upscale(UpscaleRequest(input=opaque, output=tmp_path / "opaque.mp4", **options))
    assert not any("transparency" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("bundles", "factor"),
    [(None, 3), ((SLIDING_X4,), 1), ((RUN_X1, SLIDING_X4), 2), ((DOUBLED_X1,), 2), ((RUN_X2_ANY_TIME,), 3)],
    ids=["pair", "sliding", "chain", "doubled", "any time"],
)
def test_segments_give_the_alpha_of_one_run(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    toy: Path,
    tmp_path: Path,
    bundles: tuple[Bundle, ...] | None,
    factor: int,
) -> None:
    if bundles is not None:
        request.getfixturevalue("runs")
        for module in (run, resume):
            monkeypatch.setattr(module, "find_bundles", lambda _: bundles)
    frames = [*moving_hole(9, range(2, 5)), *(255 - frame for frame in half_transparent(4))]
    clip = write_frames_rgba(tmp_path / "clip.mkv", frames, "ffv1", "bgra")
    options: dict[str, Any] = {"model": toy, "backend": CPU, "time_factor": factor}
    upscale(UpscaleRequest(input=clip, output=tmp_path / "whole.mkv", **options))
    upscale_resumable(UpscaleRequest(input=clip, output=tmp_path / "parts.mkv", **options), segment_frames=4)
    with open_reader(tmp_path / "whole.mkv") as whole, open_reader(tmp_path / "parts.mkv") as parts:
        for one, other in zip(whole, parts, strict=True):
            assert (one.pts, one.duration) == (other.pts, other.duration)
            assert one.alpha is not None
            assert other.alpha is not None
            np.testing.assert_array_equal(one.alpha, other.alpha)
            np.testing.assert_array_equal(one.rgb, other.rgb)


def test_segments_of_vp9_are_joined_with_their_alpha(hole: Path, toy: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"input": hole, "model": toy, "backend": CPU, "scale": 2}
    upscale(UpscaleRequest(output=tmp_path / "whole.webm", **options))
    upscale_resumable(UpscaleRequest(output=tmp_path / "parts.webm", **options), segment_frames=3)
    whole, parts = alphas(tmp_path / "whole.webm"), alphas(tmp_path / "parts.webm")
    assert whole.shape == parts.shape == (14, 96, 128)
    assert np.abs(whole - parts).mean() < 0.01


class _Chains:
    """Returns each requested frame, and counts what it computes beside the colors."""

    def __init__(self) -> None:
        self.beside = 0

    def pictures(self, inputs: Iterable[InputFrame], picture_format: None) -> Iterator[np.ndarray]:
        for frame in inputs:
            for _ in frame.times:
                yield np.rint(frame.rgb * 65535).astype(np.uint16)

    def pictures_beside(self, inputs: Iterable[InputFrame]) -> Iterator[np.ndarray]:
        for one in self.pictures(inputs, None):
            self.beside += 1
            yield one


@pytest.mark.parametrize("transparent", [range(0), range(99, 100), range(50, 53), range(100)])
def test_opaque_frames_are_hardly_computed_and_never_wait(transparent: range) -> None:
    pulled = 0

    def inputs() -> Iterator[InputFrame]:
        nonlocal pulled
        for number in range(100):
            pulled += 1
            alpha = np.full((4, 4), 0.5 if number in transparent else 1, np.float32)
            rgb = np.full((3, 4, 4), number / 100, np.float32)
            yield InputFrame(rgb, (Fraction(0), Fraction(1, 2)), number == 99, alpha)

    chains = _Chains()
    for number, one in enumerate(pictures_with_alpha(chains, inputs())):  # type: ignore[arg-type]
        assert one.shape == (4, 4, 4)
        assert one[0, 0, 0] == round(number // 2 / 100 * 65535)
        between = number % 2 == 1 and number // 2 + 1 in transparent
        assert (one[3, 0, 0] < 65535) == (number // 2 in transparent) or between
        assert pulled <= number // 2 + 3, "no more than the next frame is read ahead"
    assert number == 199
    assert 2 * len(transparent) <= chains.beside <= 2 * len(transparent) + 6


def test_hidden_colors_leave_no_fringe(toy: Path, tmp_path: Path) -> None:
    """The transparent half is black behind its alpha, which must not darken the edge."""
    clip = write_frames_rgba(tmp_path / "in.mkv", half_transparent(3), "ffv1", "bgra")
    upscale(UpscaleRequest(input=clip, output=tmp_path / "out.mkv", model=toy, backend=CPU, scale=4))
    with open_reader(tmp_path / "out.mkv") as reader:
        for frame in reader:
            assert np.abs(frame.rgb[0] - 200 / 255).max() < 0.01


def test_alpha_of_a_gif_comes_out_of_a_gif(toy: Path, tmp_path: Path) -> None:
    frames = [
        np.dstack([np.rint(picture(1, (48, 64)).transpose(1, 2, 0) * 255), f[..., 3:]]) for f in half_transparent(3)
    ]
    clip = write_frames_rgba(tmp_path / "in.apng", [frame.astype(np.uint8) for frame in frames], "apng", "rgba")
    report = upscale(UpscaleRequest(input=clip, output=tmp_path / "out.gif", model=toy, backend=CPU, scale=2))
    assert (report.frames_out, report.rate_out) == (6, str(2 * RATE))
    with av.open(str(tmp_path / "out.gif")) as container:
        decoded = [frame.to_ndarray(format="rgba") for frame in container.decode(video=0)]
    assert len(decoded) == 6
    assert all(frame[:, :56, 3].min() == 255 and frame[:, 72:, 3].max() == 0 for frame in decoded)
