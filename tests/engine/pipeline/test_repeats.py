"""Repeated frames: found, left out of the network's inputs, and interpolated over at the times that they had."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stvsr import Backend, RequestError, UpscaleRequest, upscale
from stvsr.engine.media.frame import Frame
from stvsr.engine.media.reader import open_reader
from stvsr.engine.pipeline import run
from stvsr.engine.pipeline.repeats import LONGEST_S, RepeatDetector, block_change, steps
from stvsr.engine.pipeline.scenes import CutDetector
from stvsr.engine.pipeline.survey import Survey, survey
from stvsr.engine.pipeline.timeline import Slot, Timeline, slots_over

from tests.support.media import make_video, pan, picture
from tests.support.network_bundles import RUN_X2_ANY_TIME, SLIDING_X4
from tests.support.paths import SAMPLE

CPU = Backend(device="cpu")
RATE = Fraction(24)


def stream(pictures: Sequence[np.ndarray], order: str, ticks: Sequence[int] | None = None) -> list[Frame]:
    """Return frames of the pictures named by the letters of `order`, at 24 frames a second or at some ticks of them."""
    times = [Fraction(tick) / RATE for tick in (ticks or range(len(order)))]
    ends = [*times[1:], times[-1] + 1 / RATE]
    return [
        Frame(pictures[ord(letter) - ord("a")], time, end - time)
        for letter, time, end in zip(order, times, ends, strict=True)
    ]


def merged(frames: Sequence[Frame], threshold: float | None = None) -> list[tuple[int, list[int], bool]]:
    """Return the number of each frame that the network sees, those of its repetitions, and whether it is still."""
    numbers = {frame.pts: number for number, frame in enumerate(frames)}
    found = steps(frames, CutDetector(threshold), dedup=True)
    return [(numbers[one.frame.pts], [numbers[pts] for pts in one.repeats], one.is_still) for one in found]


PICTURES = pan(12)


class TestDetection:
    def test_exact_and_compressed_repetitions_are_found(self) -> None:
        rng = np.random.default_rng(3)
        first, second = pan(2, (64, 96))
        detector = RepeatDetector()
        assert detector.is_repeat(first, first)
        assert detector.is_repeat(first, (first + rng.normal(0, 0.002, first.shape)).astype(np.float32))
        assert not detector.is_repeat(first, second)
        blurred = (first + rng.normal(0, 0.02, first.shape)).astype(np.float32)  # less than a fifth of the motion
        assert detector.is_repeat(first, blurred)
        detector.begin_scene()
        assert not detector.is_repeat(first, blurred)

    def test_a_small_thing_that_moves_is_no_repetition(self) -> None:
        """A mouse pointer on a screen that stands still."""
        screen = picture(2, (270, 480))
        pointer = screen.copy()
        pointer[:, 100:112, 200:208] = 1 - pointer[:, 100:112, 200:208].round()
        assert not RepeatDetector().is_repeat(screen, pointer)

    @pytest.mark.parametrize("shape", [(1, 1), (3, 70), (16, 16), (17, 40), (48, 33)])
    def test_every_pixel_counts_whatever_the_size(self, shape: tuple[int, int]) -> None:
        black = np.zeros((3, *shape), np.float32)
        for corner in ((0, 0), (-1, -1), (0, -1), (-1, 0)):
            changed = black.copy()
            changed[(1, *corner)] = 1
            assert block_change(black, changed) > 0
        assert block_change(black, black.copy()) == 0


class TestMerging:
    def test_animation_on_twos_and_threes(self) -> None:
        assert merged(stream(PICTURES, "aabbccc")) == [(0, [1], False), (2, [3], False), (4, [5, 6], False)]

    def test_without_repetitions_nothing_changes(self) -> None:
        frames = stream(PICTURES, "abcdef")
        assert merged(frames) == [(number, [], False) for number in range(6)]

    def test_a_pause_stays_as_long_as_it_lasts(self) -> None:
        """The motion begins at the last frame of the pause, and not before."""
        order = "ab" + "c" * 20 + "def"
        found = merged(stream(PICTURES, order))
        assert [one[0] for one in found] == [0, 1, 2, 8, 14, 20, 21, 22, 23, 24]
        assert [number for one in found for number in (one[0], *one[1])] == list(range(25)), (
            "every frame once, in order"
        )
        assert [one[2] for one in found] == [False, False, True, True, True, True, False, False, False, False]

    def test_the_limit_is_in_seconds(self) -> None:
        count = int(LONGEST_S * RATE)
        assert merged(stream(PICTURES, "a" * count + "bc"))[0] == (0, list(range(1, count)), False)
        pause = merged(stream(PICTURES, "a" * (count + 1) + "bc"))
        assert pause[0][2]
        assert pause[1] == (count, [], False)

    def test_a_variable_rate(self) -> None:
        frames = stream(PICTURES, "aabbc", [0, 1, 3, 4, 30])
        assert merged(frames) == [(0, [1], False), (2, [], True), (3, [], False), (4, [], False)]

    def test_no_repetition_reaches_over_a_cut(self) -> None:
        scenes = [*pan(3), *(1 - one for one in pan(3))]
        frames = stream(scenes, "aabbddeeff")
        found = list(steps(frames, CutDetector(), dedup=True))
        assert [one.starts_scene for one in found] == [False, False, True, False, False]
        assert [one.count for one in found] == [2, 2, 2, 2, 2]

    def test_slow_motion_is_not_taken_for_repetitions(self) -> None:
        """Each frame is compared with the one that would be repeated, so that small changes add up."""
        wide = picture(5, (48, 200))
        columns = np.arange(64)
        moved = [
            np.stack([[np.interp(columns + 0.05 * n, np.arange(200), row) for row in channel] for channel in wide])
            for n in range(12)
        ]
        frames = stream([one.astype(np.float32) for one in moved], "abcdefghijkl")
        assert max(len(one[1]) for one in merged(frames)) <= 2

    def test_a_video_that_ends_in_a_repetition_keeps_its_end(self) -> None:
        assert merged(stream(PICTURES, "abb")) == [(0, [], False), (1, [2], False)]
        assert merged(stream(PICTURES, "a")) == [(0, [], False)]
        assert list(steps([], CutDetector(), dedup=True)) == []

    def test_without_dedup_every_frame_is_a_step(self) -> None:
        frames = stream(PICTURES, "aab")
        found = list(steps(frames, CutDetector(None), dedup=False))
        assert [(one.frame, one.starts_scene, one.repeats, one.is_still) for one in found] == [
            (frame, False, (), False) for frame in frames
        ]


class TestTimes:
    def test_outputs_keep_their_timestamps_and_move_evenly(self) -> None:
        times = [Fraction(n, 24) for n in range(4)]
        slots = slots_over(Timeline(factor=2), times[:3], times[3], is_still=False)
        assert slots == [Slot(Fraction(n, 6), Fraction(n, 48)) for n in range(6)]

    def test_outputs_of_a_still_show_its_first_frame(self) -> None:
        times = [Fraction(n, 24) for n in range(4)]
        slots = slots_over(Timeline(fps=Fraction(60)), times[:3], times[3], is_still=True)
        assert [slot.pts for slot in slots] == [Fraction(n, 60) for n in range(8)]
        assert {slot.time for slot in slots} == {0}

    def test_a_survey_keeps_the_repetitions(self, tmp_path: Path) -> None:
        frames = stream(PICTURES, "aabb" + "c" * 9 + "d")
        clip = make_video(tmp_path / "clip.mp4", [frame.rgb for frame in frames])
        with open_reader(clip) as reader:
            found = survey(reader, CutDetector(), dedup=True)
            plain = survey(reader, CutDetector())
        assert (found.frame_count, plain.frame_count) == (14, 14)
        assert found.repeat_counts == (2, 6)
        assert plain.repeat_counts == (0, 0)
        assert Survey.from_dict(found.as_dict()) == found
        slots = [slot.pts for group in found.slots(Timeline(factor=3)) for slot in group]
        assert slots == [slot.pts for group in plain.slots(Timeline(factor=3)) for slot in group]


def outputs(clip: Path, folder: Path, toy: Path, **options: Any) -> tuple[Any, list[Fraction], np.ndarray]:
    """Upscale a clip without loss, and return the report, the times and the pictures."""
    target = folder / f"out{len(list(folder.iterdir()))}.mp4"
    request = UpscaleRequest(
        input=clip,
        output=target,
        model=toy,
        scale=1,
        backend=CPU,
        encoder_options={"qp": "0"},
        pix_fmt="yuv444p",
        **options,
    )
    report = upscale(request)
    with open_reader(target) as reader:
        frames = list(reader)
    return report, [frame.pts for frame in frames], np.stack([frame.rgb for frame in frames])


def test_a_run_interpolates_over_repetitions(tmp_path: Path, toy: Path) -> None:
    """The toy blends linearly, so that the pictures between are known."""
    keys = [np.full((3, 32, 32), level, np.float32) for level in (0.2, 0.4, 0.8, 0.5)]
    clip = make_video(tmp_path / "clip.mp4", [key for key in keys for _ in range(2)])
    report, times, pictures = outputs(clip, tmp_path, toy, time_factor=2, dedup=True)
    plain, plain_times, plain_pictures = outputs(clip, tmp_path, toy, time_factor=2)
    assert times == plain_times == [Fraction(n, 48) for n in range(16)]
    levels = pictures.mean((1, 2, 3))
    np.testing.assert_allclose(levels[:13], np.interp(np.arange(13) / 4, range(4), (0.2, 0.4, 0.8, 0.5)), atol=0.01)
    np.testing.assert_allclose(levels[12:], 0.5, atol=0.01)
    np.testing.assert_allclose(plain_pictures.mean((1, 2, 3))[:5], (0.2, 0.2, 0.2, 0.3, 0.4), atol=0.01)
    assert (report.frames_in, report.frames_out, report.repeated_frames, report.still_frames) == (8, 16, 4, 0)
    assert (plain.repeated_frames, plain.still_frames) == (0, 0)


def test_at_the_input_rate_repetitions_become_motion(tmp_path: Path, toy: Path) -> None:
    keys = [np.full((3, 32, 32), level, np.float32) for level in (0.2, 0.4, 0.8)]
    clip = make_video(tmp_path / "clip.mp4", [keys[0], keys[0], keys[1], keys[1], keys[2]])
    _, times, pictures = outputs(clip, tmp_path, toy, time_factor=1, dedup=True)
    assert times == [Fraction(n, 24) for n in range(5)]
    np.testing.assert_allclose(pictures.mean((1, 2, 3)), (0.2, 0.3, 0.4, 0.6, 0.8), atol=0.01)


def test_a_pause_is_reported_and_stays(tmp_path: Path, toy: Path) -> None:
    keys = [np.full((3, 32, 32), level, np.float32) for level in (0.2, 0.6, 0.4)]
    clip = make_video(tmp_path / "clip.mp4", [keys[0], *[keys[1]] * 12, keys[2]])
    report, times, pictures = outputs(clip, tmp_path, toy, time_factor=2, dedup=True)
    assert times == [Fraction(n, 48) for n in range(28)]
    levels = pictures.mean((1, 2, 3))
    np.testing.assert_allclose(levels[2:25], 0.6, atol=0.01)
    np.testing.assert_allclose(levels[25], 0.5, atol=0.01)
    assert report.repeated_frames == 0
    assert report.still_frames == 9  # of eleven; two begin a part of the pause


def test_a_network_with_windows_of_more_frames_sees_no_repetitions(
    tmp_path: Path, runs: list[dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "find_bundles", lambda _: (RUN_X2_ANY_TIME,))
    clip = make_video(tmp_path / "clip.mp4", [one for one in pan(6) for _ in range(2)])
    request = UpscaleRequest(input=clip, output=tmp_path / "out.mp4", backend=CPU, dedup=True)
    report = upscale(request)
    assert (report.frames_in, report.frames_out, report.repeated_frames) == (12, 24, 6)
    for inputs in runs:
        (frames,) = (value for value in inputs.values() if value.ndim == 5)
        assert all(np.abs(one - two).max() > 0.1 for one, two in pairwise(frames[0]))


def test_a_network_of_fixed_times_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "find_bundles", lambda _: (SLIDING_X4,))
    clip = make_video(tmp_path / "clip.mp4", pan(3))
    request = UpscaleRequest(input=clip, output=tmp_path / "out.mp4", backend=CPU, dedup=True)
    with pytest.raises(RequestError, match=r"does not make frames at any time.*or leave out --dedup"):
        upscale(request)


@pytest.mark.parametrize("crf", ["18", "28"])
def test_repetitions_are_found_in_compressed_animation(tmp_path: Path, crf: str) -> None:
    with av.open(str(SAMPLE)) as sample:
        frames = [frame.to_ndarray(format="rgb24", threads=1) for frame in sample.decode(video=0)][::3]
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as container:
        coded = container.add_stream("libx264", rate=24, options={"crf": crf})
        coded.height, coded.width = frames[0].shape[:2]
        coded.pix_fmt = "yuv420p"
        for number in range(2 * len(frames)):
            frame = av.VideoFrame.from_ndarray(frames[number // 2], format="rgb24")
            frame.pts = number
            container.mux(coded.encode(frame))
        container.mux(coded.encode(None))
    with open_reader(clip) as reader:
        found = survey(reader, CutDetector(), dedup=True)
    assert found.frame_count == 40
    assert found.repeat_counts[0] >= 18, "of twenty"
    assert all(len(times) == 1 for times in found.repeats.values())
