"""Evaluation: bicubic resizing scores as bicubic resizing, and clips that cannot be judged are refused."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError, RequestError
from stvsr.engine.contract.further_metrics import FurtherMetric
from stvsr.engine.contract.metrics import luma, psnr
from stvsr.training.clips import read_clip
from stvsr.training.evaluation import Protocol, differences, evaluate
from stvsr.training.resize import imresize, to_uint8

from tests.support.media import write_images
from tests.support.paths import SAMPLE


def bicubic(frames: Iterable[np.ndarray], factor: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Upscale by bicubic resizing, and blend in time."""
    large = [imresize(frame.transpose(1, 2, 0).astype(float), size).transpose(2, 0, 1) for frame in frames]
    for first, second in pairwise([*large, large[-1]]):
        yield from ((1 - k / factor) * first + k / factor * second for k in range(factor))


def test_bicubic_scores_as_bicubic() -> None:
    scores = evaluate([SAMPLE], bicubic, Protocol(scale=4, factor=2))
    for when in ("at", "between"):
        figures = scores["clips"]["sample_bee_240"][when]
        assert figures["stvsr"]["psnr_y_db"] == pytest.approx(figures["bicubic+blend"]["psnr_y_db"], abs=2e-3)
        assert figures["stvsr"]["frames"] == figures["bicubic+repeat"]["frames"]
    assert abs(scores["gain_db"]["at"]) < 2e-3

    frames = list(read_clip(SAMPLE))[:3]
    small = to_uint8(imresize(frames[0] / 255.0, (34, 60))) / 255.0
    first_db = psnr(luma(to_uint8(imresize(small, (136, 240)))), luma(frames[0]))
    count = scores["clips"]["sample_bee_240"]["at"]["stvsr"]["frames"]
    assert count == len(list(read_clip(SAMPLE))[::2])
    assert first_db == pytest.approx(scores["clips"]["sample_bee_240"]["at"]["bicubic+repeat"]["psnr_y_db"], abs=3)


def test_a_clip_that_is_too_short_is_refused() -> None:
    with pytest.raises(RequestError, match=r"sample_bee_240\.mp4 has fewer than 1001 frames, too short"):
        evaluate([SAMPLE], lambda *_: [], Protocol(scale=4, factor=1000))


def test_a_clip_that_is_too_small_is_refused() -> None:
    with pytest.raises(RequestError, match=r"sample_bee_240\.mp4 have fewer than 11 pixels"):
        evaluate([SAMPLE], bicubic, Protocol(scale=200, factor=2))


def test_a_clip_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("not a video")
    with pytest.raises(MediaError, match=r"text\.mp4"):
        evaluate([path], bicubic, Protocol())


def test_compressed_clips_score_lower_for_every_method() -> None:
    clean, compressed = (evaluate([SAMPLE], bicubic, Protocol(crf=crf)) for crf in (None, 35))
    assert compressed["protocol"]["crf"] == 35
    for when in ("at", "between"):
        for method in ("stvsr", "bicubic+blend", "bicubic+repeat"):
            before, after = (scores["mean"][when][method]["psnr_y_db"] for scores in (clean, compressed))
            assert after < before - 0.3
        frames = [scores["clips"]["sample_bee_240"][when]["stvsr"]["frames"] for scores in (clean, compressed)]
        assert frames[0] == frames[1]


def test_a_clip_that_cannot_be_judged_does_not_end_the_list(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("not a video")
    scores = evaluate([path, SAMPLE], bicubic, Protocol())
    assert list(scores["clips"]) == ["sample_bee_240"]
    assert list(scores["errors"]) == ["text"]
    assert "text.mp4 cannot be decoded" in scores["errors"]["text"]


def test_clips_of_one_name_keep_their_own_scores(tmp_path: Path) -> None:
    copy = tmp_path / SAMPLE.name
    copy.write_bytes(SAMPLE.read_bytes())
    assert set(evaluate([SAMPLE, copy], bicubic, Protocol())["clips"]) == {str(SAMPLE), str(copy)}


def test_a_folder_of_images_scores_like_its_clip(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "frames", list(read_clip(SAMPLE))[:9])
    figures = evaluate([folder], bicubic, Protocol())["clips"]["frames"]
    assert (figures["at"]["stvsr"]["frames"], figures["between"]["stvsr"]["frames"]) == (5, 4)
    bicubic_db = figures["at"]["bicubic+blend"]["psnr_y_db"]
    assert figures["at"]["stvsr"]["psnr_y_db"] == pytest.approx(bicubic_db, abs=2e-3)


def test_means_have_intervals_over_clips_and_one_clip_has_none(tmp_path: Path) -> None:
    frames = list(read_clip(SAMPLE))
    clips = [write_images(tmp_path / name, frames[start : start + 5]) for name, start in (("a", 0), ("b", 30))]
    scores = evaluate(clips, bicubic, Protocol())
    values = [clip["at"]["stvsr"]["psnr_y_db"] for clip in scores["clips"].values()]
    low, high = scores["interval_95"]["at"]["stvsr"]["psnr_y_db"]
    assert (low + high) / 2 == pytest.approx(scores["mean"]["at"]["stvsr"]["psnr_y_db"], abs=1e-3)
    assert (high - low) / 2 == pytest.approx(12.7062 * abs(values[0] - values[1]) / 2, rel=1e-3)
    gains = [
        clip["between"]["stvsr"]["psnr_y_db"] - clip["between"]["bicubic+blend"]["psnr_y_db"]
        for clip in scores["clips"].values()
    ]
    low, high = scores["gain_interval_95_db"]["between"]
    assert (high - low) / 2 == pytest.approx(12.7062 * abs(gains[0] - gains[1]) / 2, abs=2e-4)
    one = evaluate(clips[:1], bicubic, Protocol())
    assert one["interval_95"]["at"]["stvsr"] == {"psnr_y_db": None, "ssim_y": None}
    assert one["gain_interval_95_db"] == {"at": None, "between": None}


def test_differences_are_paired_by_clip() -> None:
    def clip(at_db: float, ssim: float) -> dict[str, dict[str, dict[str, float]]]:
        return {"at": {"stvsr": {"psnr_y_db": at_db, "ssim_y": ssim}}, "between": {}}

    first = {"easy": clip(40.0, 0.9), "hard": clip(20.0, 0.5), "alone": clip(1.0, 0.1)}
    second = {"easy": clip(40.4, 0.91), "hard": clip(20.6, 0.52), "other": clip(90.0, 0.99)}
    found = differences(second, first)
    assert list(found) == ["at"]
    assert found["at"]["clips"] == 2
    assert found["at"]["psnr_y_db"]["mean"] == pytest.approx(0.5)
    low, high = found["at"]["psnr_y_db"]["interval_95"]
    assert (high - low) / 2 == pytest.approx(12.7062 * 0.1, abs=1e-3), "the difference of the clips themselves cancels"
    assert differences({"easy": clip(1, 0.1)}, first)["at"]["psnr_y_db"]["interval_95"] is None
    assert differences({}, first) == {}


def test_further_metrics_see_the_frames_in_order_and_are_split_by_kind(tmp_path: Path) -> None:
    class Count:
        def __init__(self) -> None:
            self.values: list[float] = []

        def add(self, actual: np.ndarray, expected: np.ndarray) -> None:
            self.values.append(len(self.values))

        def finish(self) -> list[float]:
            return self.values

    frames = [np.full((44, 44, 3), 20 * number, np.uint8) for number in range(5)]
    scores = evaluate(
        [write_images(tmp_path / "clip", frames)], bicubic, Protocol(), metrics=[FurtherMetric("lpips", Count)]
    )
    (clip,) = scores["clips"].values()
    assert clip["at"]["bicubic+blend"]["lpips"] == 2, "of the frames 0, 2 and 4"
    assert scores["mean"]["between"]["stvsr"]["lpips"] == 2, "of the frames 1 and 3"
    assert differences(scores["clips"], scores["clips"])["at"]["lpips"]["mean"] == 0
