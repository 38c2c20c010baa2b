"""Interlaced and telecined video: found by flags and by the picture, and made progressive at exact times."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stvsr import Backend, UpscaleRequest, upscale
from stvsr.engine.contract.errors import MediaError, RequestError
from stvsr.engine.media.combing import combing
from stvsr.engine.media.deinterlace import deinterlacer
from stvsr.engine.media.frame import Frame
from stvsr.engine.media.interlacing import judge
from stvsr.engine.media.options import FILTERS, ReadOptions
from stvsr.engine.media.pixel_format import repack
from stvsr.engine.media.reader import open_reader

from tests.support.faulty import gray_of, interlaced, psnr, smooth_pan, soft_telecine, telecined, weave, write_gray
from tests.support.media import make_clip, picture
from tests.support.toy import write_toy

AUTO = ReadOptions(deinterlace="auto")
FRAMES = smooth_pan(32)


def verdicts(frames: Sequence[np.ndarray]) -> set[str]:
    return {combing(*frames[number - 1 : number + 2]).verdict for number in range(1, len(frames) - 1)}


def read(path: Path, options: ReadOptions = AUTO) -> tuple[list[Frame], list[str]]:
    with open_reader(path, options=options) as reader:
        return list(reader), reader.warnings


def rows_differ(frames: Sequence[np.ndarray]) -> float:
    """Return the mean difference of neighbouring rows, by which combing shows."""
    return float(np.mean([np.abs(np.diff(frame, axis=0)).mean() for frame in frames]))


class TestCombing:
    def test_progressive_motion_is_not_combed(self) -> None:
        assert verdicts(FRAMES) == {"progressive"}
        assert verdicts(smooth_pan(8, step=0.7)) == {"progressive"}

    @pytest.mark.parametrize("top_first", [True, False])
    def test_fields_of_two_moments_are_combed_in_their_order(self, top_first: bool) -> None:
        woven = interlaced(FRAMES, top_first)
        assert verdicts(woven) == {"interlaced"}
        assert (combing(*woven[:3]).order > 0) == top_first

    def test_fields_of_two_film_frames_differ_from_those_of_video(self) -> None:
        found = [combing(*telecined(FRAMES)[n - 1 : n + 2]).verdict for n in range(1, 11)]
        assert found == ["progressive", "telecined", "telecined", "progressive", "progressive"] * 2

    def test_nothing_is_known_of_stills_and_noise(self) -> None:
        noise = np.random.default_rng(1).normal(128, 20, (4, 96, 128)).astype(np.float32)
        assert verdicts(list(noise)) == {"unclear"}
        assert verdicts([FRAMES[0]] * 4) == {"unclear"}
        assert verdicts([frame[:8] for frame in FRAMES[:4]]) == {"unclear"}

    def test_hard_edges_that_move_are_not_combed(self) -> None:
        wide = picture(3, (96, 200)).mean(0) * 255
        assert "interlaced" not in verdicts([wide[:, 5 * n : 5 * n + 128] for n in range(10)])


class TestJudgement:
    @pytest.mark.parametrize("flags", ["tff", "bff", None])
    @pytest.mark.parametrize("top_first", [True, False])
    def test_the_picture_decides_over_the_flags(self, tmp_path: Path, flags: str | None, top_first: bool) -> None:
        found = judge(write_gray(tmp_path / "clip.mp4", interlaced(FRAMES, top_first), flags=flags))
        assert (found.kind, found.first_field) == ("interlaced", "top" if top_first else "bottom")
        assert found.flagged == (flags is not None)

    def test_film_that_is_flagged_as_interlaced_passes_as_it_is(self, tmp_path: Path) -> None:
        clip = write_gray(tmp_path / "clip.mp4", FRAMES[:12], flags="tff")
        frames, warnings = read(clip)
        assert len(frames) == 12
        assert warnings == [
            "The video is flagged as interlaced, but its picture is progressive: it was not deinterlaced, as it is by"
            " --deinterlace bwdif."
        ]
        assert min(psnr(gray_of(frame.rgb), expected) for frame, expected in zip(frames, FRAMES, strict=False)) > 38

    def test_flags_decide_where_nothing_moves(self, tmp_path: Path) -> None:
        assert judge(write_gray(tmp_path / "still.mp4", [FRAMES[0]] * 12, flags="tff")).kind == "interlaced"
        assert judge(write_gray(tmp_path / "plain.mp4", [FRAMES[0]] * 12)).kind == "progressive"

    def test_ordinary_video_is_left_alone(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "clip.mp4", count=12)
        frames, warnings = read(clip)
        assert (len(frames), warnings) == (12, [])
        with open_reader(clip) as plain, open_reader(clip, options=AUTO) as found:
            assert plain.info == found.info

    def test_without_deinterlacing_a_warning_names_the_remedy(self, tmp_path: Path) -> None:
        clip = write_gray(tmp_path / "clip.mp4", interlaced(FRAMES), flags="tff")
        frames, warnings = read(clip, ReadOptions(deinterlace="off"))
        assert len(frames) == 16
        assert "its fields stay woven: --deinterlace auto" in warnings[0]

    def test_combed_frames_that_come_late_are_named(self, tmp_path: Path) -> None:
        """Frames between those that were judged first are compared while the video is read."""
        frames = [FRAMES[0]] * 240
        for start in (50, 100):
            frames[start : start + 12] = interlaced(FRAMES)[:12]
        clip = write_gray(tmp_path / "clip.mp4", frames, options={"g": "1"})
        assert judge(clip).kind == "progressive"
        _, warnings = read(clip)
        assert warnings == [
            "Some frames seem to be interlaced, the first at 2.160 s, and their fields stay woven: --deinterlace bwdif"
            " makes progressive frames."
        ]


class TestDeinterlacing:
    @pytest.mark.parametrize("method", ["auto", *FILTERS])
    @pytest.mark.parametrize("top_first", [True, False])
    def test_each_field_becomes_a_frame_at_its_time(self, tmp_path: Path, method: str, top_first: bool) -> None:
        clip = write_gray(tmp_path / "clip.mp4", interlaced(FRAMES, top_first), flags="tff")  # true or not
        with open_reader(clip, options=ReadOptions(deinterlace=method)) as reader:
            frames = list(reader)
            assert (reader.info.rate, reader.info.frames, reader.info.interlaced) == (50, 32, False)
            assert all((frame.pts / reader.info.time_base).denominator == 1 for frame in frames)
        assert [frame.pts for frame in frames] == [Fraction(n, 50) for n in range(32)]
        assert {frame.duration for frame in frames} == {Fraction(1, 50)}
        pictures = [gray_of(frame.rgb) for frame in frames]
        assert min(map(psnr, pictures, FRAMES)) > 30
        assert rows_differ(pictures) < 1.15 * rows_differ(FRAMES)

    def test_at_the_single_rate_the_first_field_counts(self, tmp_path: Path) -> None:
        clip = write_gray(tmp_path / "clip.mp4", interlaced(FRAMES), flags="tff")
        frames, warnings = read(clip, ReadOptions(deinterlace="auto", field_rate="single"))
        assert [(frame.pts, frame.duration) for frame in frames] == [
            (Fraction(n, 25), Fraction(1, 25)) for n in range(16)
        ]
        assert min(map(psnr, [gray_of(frame.rgb) for frame in frames], FRAMES[::2])) > 30
        assert warnings == [
            "The video is interlaced, by its flags: bwdif made a progressive frame of each frame, 25 frames a second."
        ]

    def test_a_variable_rate_has_its_second_fields_half_a_frame_later(self, tmp_path: Path) -> None:
        ticks = [0, 1, 2, 6, 7, 8, 10, 11]
        clip = write_gray(tmp_path / "clip.mkv", interlaced(FRAMES[:16]), flags="tff", ticks=ticks)
        frames, _ = read(clip)
        times = [frame.pts for frame in frames]
        assert times[::2] == [Fraction(n, 25) for n in ticks]
        assert times[1::2] == [Fraction(2 * n + 1, 50) for n in ticks]
        with open_reader(clip, options=AUTO) as reader:
            part = list(reader.between(frames[5].pts, frames[11].pts))
        assert [frame.pts for frame in part] == times[5:11]

    @pytest.mark.parametrize(
        ("codec", "suffix", "pix_fmt"),
        [("mpeg2video", ".mpg", "yuv420p"), ("prores_ks", ".mov", "yuv422p10le"), ("ffv1", ".mkv", "gray")],
    )
    def test_other_codecs_and_formats_too(self, tmp_path: Path, codec: str, suffix: str, pix_fmt: str) -> None:
        clip = write_gray(tmp_path / f"clip{suffix}", interlaced(FRAMES), flags="tff", codec=codec, pix_fmt=pix_fmt)
        frames, _ = read(clip)
        assert len(frames) == 32
        assert min(psnr(gray_of(frame.rgb), expected) for frame, expected in zip(frames, FRAMES, strict=True)) > 29

    def test_progressive_frames_among_flagged_ones_pass(self, tmp_path: Path) -> None:
        options: dict[str, Any] = {"codec": "mpeg2video", "options": {"bf": "0", "g": "4"}}
        first = write_gray(tmp_path / "first.m2v", interlaced(FRAMES[:16]), flags="tff", **options)
        second = write_gray(tmp_path / "second.m2v", FRAMES[16:24], **options)
        clip = tmp_path / "clip.m2v"
        clip.write_bytes(first.read_bytes() + second.read_bytes())
        found = judge(clip)
        assert (found.kind, found.only_flagged) == ("interlaced", True)
        made, _ = read(clip)
        assert len(made) == 16 + 8
        assert {frame.duration for frame in made[:14]} == {Fraction(1, 50)}
        assert {frame.duration for frame in made[17:]} == {Fraction(1, 25)}
        assert min(map(psnr, [gray_of(frame.rgb) for frame in made], FRAMES[:24])) > 30

    @pytest.mark.parametrize("size", [(8, 64), (64, 12)])
    def test_frames_that_are_too_small_for_fields_pass(self, tmp_path: Path, size: tuple[int, int]) -> None:
        frames = [frame[: size[0], : size[1]] for frame in FRAMES[:4]]
        clip = write_gray(tmp_path / "clip.mkv", frames, codec="ffv1")
        assert len(read(clip, ReadOptions(deinterlace="bwdif"))[0]) == 4

    @pytest.mark.parametrize(
        ("options", "name"),
        [({"deinterlace": "magic"}, "--deinterlace"), ({"field_rate": "triple"}, "--field-rate")],
    )
    def test_unknown_values_are_refused_by_name(self, options: dict[str, str], name: str) -> None:
        with pytest.raises(RequestError, match=f"{name} is '.*': choose one of"):
            ReadOptions(**options)  # type: ignore[arg-type]


class TestTelecine:
    def test_film_is_put_together_again_at_even_times(self, tmp_path: Path) -> None:
        clip = write_gray(tmp_path / "clip.mp4", telecined(FRAMES), flags="tff", time_base=Fraction(1, 30))
        with open_reader(clip, options=AUTO) as reader:
            frames = list(reader)
            assert (reader.info.rate, reader.info.frames) == (24, 32)
            assert all((frame.pts / reader.info.time_base).denominator == 1 for frame in frames)
            film = "The video is telecined film, by its picture: the frames of the film were put together again"
            assert reader.warnings == [f"{film}, 24 frames a second."]
        assert [(frame.pts, frame.duration) for frame in frames] == [
            (Fraction(n, 24), Fraction(1, 24)) for n in range(32)
        ]
        assert min(map(psnr, [gray_of(frame.rgb) for frame in frames], FRAMES)) > 36

    def test_video_among_film_loses_no_frame(self, tmp_path: Path) -> None:
        later = smooth_pan(24)[4:]
        frames = [*telecined(FRAMES), *interlaced(later)]
        clip = write_gray(tmp_path / "clip.mp4", frames, flags="tff", time_base=Fraction(1, 30))
        made, _ = read(clip, ReadOptions(deinterlace="ivtc"))
        assert len(made) == 32 + 10
        assert [frame.pts for frame in made[32:]] == [Fraction(n, 30) for n in range(40, 50)]
        assert rows_differ([gray_of(frame.rgb) for frame in made]) < 1.1 * rows_differ(FRAMES)

    def test_ten_bits_are_not_reduced_to_eight(self, tmp_path: Path) -> None:
        clip = write_gray(
            tmp_path / "clip.mkv",
            telecined(FRAMES),
            flags="tff",
            codec="ffv1",
            pix_fmt="yuv420p10le",
            time_base=Fraction(1, 30),
        )
        frames, warnings = read(clip)
        assert len(frames) == 80
        assert warnings[0].startswith(
            "The video is telecined film, whose frames are not put together again in yuv420p10le."
        )
        with pytest.raises(MediaError, match=r"is yuv420p10le: choose another --deinterlace"):
            read(clip, ReadOptions(deinterlace="ivtc"))

    def test_film_frames_that_are_repeated_by_flags_are_shown_evenly(self, tmp_path: Path) -> None:
        clip = soft_telecine(tmp_path / "clip.m2v", FRAMES)
        with open_reader(clip, options=ReadOptions(deinterlace="off")) as reader:
            uneven = [frame.pts for frame in reader]
        assert len({after - before for before, after in pairwise(uneven)}) > 1
        with open_reader(clip, options=AUTO) as reader:
            frames = list(reader)
            assert "telecined film, by its flags: the frames of the film are shown evenly, 23.976" in reader.warnings[0]
        gaps = [after.pts - before.pts for before, after in pairwise(frames)]
        assert len(frames) == 32
        assert set(gaps[:-1]) == {Fraction(1001, 24000)}  # FFmpeg does not know how long the last one is


def test_a_timecode_counts_the_frames_that_are_stored(tmp_path: Path) -> None:
    source = write_gray(tmp_path / "source.mov", interlaced(FRAMES), flags="tff")
    clip = tmp_path / "clip.mov"
    with av.open(str(source)) as reader, av.open(str(clip), "w") as target:
        stream = target.add_stream_from_template(reader.streams.video[0], opaque=True)
        stream.metadata["timecode"] = "01:00:00:05"
        for packet in reader.demux(reader.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    options: dict[str, Any] = {"model": write_toy(tmp_path / "toy"), "scale": 1, "backend": Backend(device="cpu")}
    for factor, expected in ((1, "01:00:00:10"), (2, "01:00:00:20")):
        out = tmp_path / f"{factor}.mov"
        upscale(UpscaleRequest(input=clip, output=out, time_factor=factor, **options))
        with av.open(str(out)) as container:
            assert container.streams.video[0].metadata["timecode"] == expected


@pytest.mark.parametrize("kind", ["interlaced", "telecined", "single"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_part_has_the_frames_of_a_whole_iteration(tmp_path: Path, kind: str, suffix: str) -> None:
    film = [*FRAMES, *FRAMES[::-1]]
    frames = telecined(film) if kind == "telecined" else interlaced(film)
    rate = 30 if kind == "telecined" else 25
    options = {"g": "6", "bf": "0", "sc_threshold": "0"}
    clip = write_gray(tmp_path / f"clip{suffix}", frames, flags="tff", time_base=Fraction(1, rate), options=options)
    field_rate = "single" if kind == "single" else "double"
    with open_reader(clip, options=ReadOptions(deinterlace="auto", field_rate=field_rate)) as reader:
        whole = list(reader)
        end = whole[-1].pts + 1
        for low, high in ((0, 3), (1, 9), (11, 13), (20, len(whole)), (len(whole) - 1, len(whole))):
            part = list(reader.between(whole[low].pts, whole[high].pts if high < len(whole) else end))
            assert [frame.pts for frame in part] == [frame.pts for frame in whole[low:high]]
            for frame, expected in zip(part, whole[low:high], strict=True):
                np.testing.assert_array_equal(frame.rgb, expected.rgb)


def test_a_repeated_frame_is_shown_again_and_not_woven(tmp_path: Path) -> None:
    """A frame that stands for a damaged one has no second field of its own."""
    clip = write_gray(tmp_path / "clip.mp4", interlaced(FRAMES[:8]), flags="tff")
    with av.open(str(clip)) as container:
        decoded = [repack(frame, "yuv420p") for frame in container.decode(video=0)]
    tick = Fraction(1, 25)
    timed = [(decoded[n], index * tick, tick) for n, index in ((0, 0), (1, 1), (1, 2), (1, 3), (2, 4))]
    made = list(deinterlacer("bwdif", double=True).frames(timed))
    assert [pts / tick for _, pts, _ in made] == [0, Fraction(1, 2), 1, Fraction(3, 2), 2, 3, 4, Fraction(9, 2)]
    assert made[3][0] is made[4][0] is made[5][0]


def test_woven_rows_are_what_the_measure_of_the_tests_finds() -> None:
    assert rows_differ([weave(FRAMES[0], FRAMES[1])]) > 1.3 * rows_differ(FRAMES[:2])
