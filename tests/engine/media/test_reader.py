"""Times, frames and descriptions of video files."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.boxes import edited_duration
from stvsr.engine.media.frame import FrameReader
from stvsr.engine.media.probe import probe
from stvsr.engine.media.reader import VideoReader, describe, open_reader
from stvsr.training.clips import read_clip

from tests.support.media import BT2020, NTSC, TICK, make_clip, make_folder, remux, rewrite, sample_frames, times
from tests.support.paths import SAMPLE
from tests.support.sources import make_source


def reader_with_timestamps(clip: Path, timestamps: list[int | None]) -> VideoReader:
    """Return a reader of a 64x48 clip whose decoder yields frames with these timestamps, in ticks."""
    decoded = sample_frames(len(timestamps), (64, 48))
    for frame, ticks in zip(decoded, timestamps, strict=True):
        frame.pts = ticks
    reader = VideoReader(clip)
    reader._decode = lambda stream: iter(decoded)  # type: ignore[method-assign]
    return reader


class TestSample:
    def test_every_frame_has_its_time(self) -> None:
        expected = [(1001 * n * TICK, 1001 * TICK) for n in range(60)]
        assert times(SAMPLE) == expected

    def test_frames_are_float_rgb_and_iterations_restart(self) -> None:
        with VideoReader(SAMPLE) as reader:
            for frame in reader:
                assert frame.rgb.shape == (3, 136, 240)
                assert frame.rgb.dtype == np.float32
                assert 0 <= frame.rgb.min() < frame.rgb.max() <= 1
                break
            assert len(list(reader)) == 60

    def test_probe_describes_the_sample(self) -> None:
        info = probe(SAMPLE)
        assert (info.width, info.height, info.rotation) == (240, 136, 0)
        assert (info.codec, info.pix_fmt, info.bit_depth) == ("h264", "yuv420p", 8)
        assert (info.rate, info.time_base, info.frames) == (NTSC, TICK, 60)
        assert info.duration == 60 / NTSC
        assert info.sample_aspect_ratio == Fraction(136, 135)
        assert info.variable_rate is False
        assert (info.color.matrix, info.color.primaries, info.color.transfer, info.color.range) == (1, 1, 1, 1)
        assert [(s.kind, s.codec, s.detail) for s in info.streams] == [("audio", "aac", "48000 Hz stereo")]


class TestTimes:
    def test_variable_rate_is_read_exactly(self, tmp_path: Path) -> None:
        timestamps = [0, 1001, 1501, 6006, 6500, 9009, 9010, 12000]
        clip = make_clip(tmp_path / "v.mp4", pts=timestamps, options={"bf": "0"})
        pts, durations = zip(*times(clip), strict=True)
        assert pts == tuple(n * TICK for n in timestamps)
        assert durations == tuple((b - a) * TICK for a, b in zip(timestamps, [*timestamps[1:], 13001], strict=True))
        assert probe(clip).variable_rate is True

    def test_times_count_from_the_earliest_stream(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "late.mp4", pts=[7007, 8008, 9009])
        assert [pts for pts, _ in times(clip)] == [0, 1001 * TICK, 2002 * TICK]
        assert (probe(clip).start, probe(clip).origin) == (0, 7007 * TICK)
        clip = make_clip(tmp_path / "sound.mp4", pts=[7007, 8008, 9009], languages=["eng"])
        assert [pts for pts, _ in times(clip)] == [7007 * TICK, 8008 * TICK, 9009 * TICK]
        assert (probe(clip).start, probe(clip).origin) == (7007 * TICK, 0)

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_single_frame_keeps_its_duration(self, tmp_path: Path, suffix: str) -> None:
        clip = make_clip(tmp_path / f"one{suffix}", count=1, time_base=Fraction(1, 1000), pts=[0], last_duration=500)
        assert times(clip) == [(Fraction(0), Fraction(1, 2))]

    def test_input_rate_replaces_timestamps(self, tmp_path: Path) -> None:
        clip = tmp_path / "raw.h264"
        remux(make_clip(tmp_path / "c.mp4", count=6), clip)
        with open_reader(clip, fps=Fraction(24)) as reader:
            assert reader.info.rate == 24
            assert [(f.pts, f.duration) for f in reader] == [(Fraction(n, 24), Fraction(1, 24)) for n in range(6)]
        assert len(times(clip)) == 6, "without a rate the frames still have increasing times"

    def test_repeated_and_missing_timestamps_keep_their_frames(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "c.mp4", count=6, options={"bf": "0"})
        with reader_with_timestamps(clip, [0, 1001, 1001, 3003, None, 5005]) as reader:
            pts = [frame.pts / TICK for frame in reader]
        assert pts[:4] == [0, 1001, 1002, 3003]
        assert 3003 < pts[4] < pts[5]

    def test_large_step_back_is_an_error(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "c.mp4", count=4)
        with (
            reader_with_timestamps(clip, [90000, 91001, 0, 1001]) as reader,
            pytest.raises(MediaError, match=r"fall from 3\.033 s"),
        ):
            list(reader)


class TestRates:
    @pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_keyframe", "dash", "empty_moov"])
    @pytest.mark.parametrize("rate", [Fraction(7), Fraction(24000, 1001), Fraction(60)])
    def test_a_fragmented_file_has_the_rate_of_its_frames(self, tmp_path: Path, flags: str, rate: Fraction) -> None:
        """The lead-in of the sound makes its first frame longer, which the average counts."""
        clip = make_source(
            tmp_path / "fragments.mp4",
            video="libx264",
            audio="aac",
            count=8,
            rate=rate,
            options={"g": "3", "bf": "0"},
            muxer={"movflags": flags},
        )
        info = probe(clip)
        assert info.rate == rate
        assert info.fragmented or info.frames == 8
        assert len(times(clip)) == 8

    def test_a_fragment_from_the_middle_is_no_damaged_file(self, tmp_path: Path) -> None:
        clip = make_source(
            tmp_path / "clip.mp4",
            video="libx264",
            count=30,
            options={"g": "10", "sc_threshold": "0"},
            muxer={"movflags": "frag_keyframe+empty_moov+default_base_moof"},
        )
        data = clip.read_bytes()
        first, second = (data.index(b"moof", start) - 4 for start in (0, data.index(b"moof") + 4))
        part = tmp_path / "part.mp4"
        part.write_bytes(data[:first] + data[second:])
        assert times(part)[0][0] == 0
        assert len(times(part)) == 20

    def test_a_clock_instead_of_a_rate_is_not_believed(self, tmp_path: Path) -> None:
        clip = make_source(tmp_path / "tape.dv", video="dvvideo", size=(720, 576), pix_fmt="yuv420p", count=3)
        assert probe(clip).rate == 25


class TestFormats:
    def test_ten_bits_are_read(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "ten.mp4", pix_fmt="yuv420p10le", tags=BT2020)
        info = probe(clip)
        assert (info.bit_depth, info.pix_fmt) == (10, "yuv420p10le")
        assert (info.color.matrix, info.color.primaries, info.color.transfer) == (9, 9, 16)
        with VideoReader(clip) as reader:
            levels = np.unique(np.concatenate([frame.rgb for frame in reader]))
        assert len(levels) > 256

    def test_full_and_limited_range_give_the_same_frame(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "full.mp4", pix_fmt="yuvj420p", options={"crf": "1"})
        assert probe(clip).color.range == 2
        limited = make_clip(tmp_path / "limited.mp4", options={"crf": "1"})
        with VideoReader(clip) as full_reader, VideoReader(limited) as limited_reader:
            full, plain = next(iter(full_reader)).rgb, next(iter(limited_reader)).rgb
        assert abs(float(full.mean() - plain.mean())) < 0.01

    def test_odd_sizes_are_read(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "odd.mp4", size=(63, 47), pix_fmt="yuv444p")
        with VideoReader(clip) as reader:
            assert {frame.rgb.shape for frame in reader} == {(3, 47, 63)}

    @pytest.mark.parametrize(("degrees", "mirrored"), [(90, False), (180, False), (-90, False), (90, True)])
    def test_rotation_is_reported_and_not_applied(self, tmp_path: Path, degrees: int, mirrored: bool) -> None:
        clip = make_clip(tmp_path / "rot.mp4", rotation=(degrees, mirrored))
        info = probe(clip)
        assert (info.rotation - degrees) % 360 == 0
        assert info.display_matrix is not None
        with VideoReader(clip) as reader:
            assert next(iter(reader)).rgb.shape == (3, 48, 64)

    def test_streams_and_chapters_are_reported(self, tmp_path: Path) -> None:
        clip = make_clip(
            tmp_path / "rich.mkv",
            languages=["eng", "deu"],
            subtitles=[(0, 100, "one")],
            chapters=[(0, 100, "first"), (100, 266, "second")],
        )
        info = probe(clip)
        assert [(s.kind, s.codec, s.language) for s in info.streams] == [
            ("audio", "aac", "eng"),
            ("audio", "aac", "deu"),
            ("subtitle", "subrip", "fra"),
        ]
        facts = json.loads(json.dumps(info.as_dict()))
        assert facts["streams"][0].startswith("1 audio aac 48000 Hz stereo eng")
        assert facts["chapters"][0] == "0.000 to 0.100 s first"
        assert facts["color"]["matrix"] == "untagged"
        assert [(c.start, c.end, c.title) for c in info.chapters][1] == (Fraction(1, 10), Fraction(133, 500), "second")


def test_metadata_that_are_no_utf8_are_shown_as_text(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", chapters=[(0, 100, "Bees")])
    clip.write_bytes(clip.read_bytes().replace(b"Bees", b"B\xe9\xe8s"))
    assert probe(clip).chapters[0].title == "B\ufffd\ufffds"
    rewrite(clip, tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").chapters[0].title == "B\ufffd\ufffds"


def test_the_edit_list_says_how_long_the_frames_are_shown(tmp_path: Path) -> None:
    """The duration of the media is that of its decoding, which may end later."""
    clip = make_clip(tmp_path / "clip.mp4", options={"bf": "2"})
    expected, duration = times(clip), probe(clip).duration
    content = bytearray(clip.read_bytes())
    media = content.index(b"mdhd") + 20  # bytes: the type, version and flags, two dates, and the timescale
    longer = int.from_bytes(content[media : media + 4], "big") + 500
    content[media : media + 4] = longer.to_bytes(4, "big")
    clip.write_bytes(content)
    assert times(clip) == expected
    assert probe(clip).duration == duration

    entries = content.index(b"elst") + 8  # the type, version and flags
    content[entries : entries + 4] = b"\xff" * 4  # more than the list has
    assert edited_duration(clip, 1) is not None
    clip.write_bytes(content)
    assert edited_duration(clip, 1) is None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_a_part_has_the_frames_of_a_whole_iteration(suffix: str, tmp_path: Path) -> None:
    options = {"bf": "2" if suffix != ".avi" else "0", "g": "6", "sc_threshold": "0"}
    time_base = Fraction(1, 24) if suffix == ".avi" else TICK
    step = 1 if suffix == ".avi" else 1001
    clip = make_clip(
        tmp_path / f"clip{suffix}",
        count=20,
        pts=[step * n for n in range(20)],
        last_duration=step,
        options=options,
        time_base=time_base,
    )
    with open_reader(clip) as reader:
        frames = list(reader)
        for low, high in ((0, 20), (0, 1), (5, 9), (6, 12), (7, 8), (13, 20), (19, 20)):
            part = list(reader.between(frames[low].pts, frames[high].pts if high < 20 else frames[-1].pts + 1))
            assert [frame.pts for frame in part] == [frame.pts for frame in frames[low:high]]
            for frame, expected in zip(part, frames[low:high], strict=True):
                np.testing.assert_array_equal(frame.rgb, expected.rgb)


def test_a_part_is_read_from_the_keyframe_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "clip.mp4", count=40, options={"g": "5", "bf": "0", "sc_threshold": "0"})
    with open_reader(clip) as reader:
        pts = [frame.pts for frame in reader]
        whole: list[Any] = []

        def from_the_beginning(*arguments: Any) -> list[Any]:
            whole.append(arguments)
            return []

        monkeypatch.setattr(FrameReader, "between", from_the_beginning)
        assert [frame.pts for frame in reader.between(pts[31], pts[34])] == pts[31:34]
        assert whole == [], "the file was not read from its beginning"
        list(reader.between(pts[31] + Fraction(1, 10**6), pts[34]))
        assert len(whole) == 1, "a time that is no frame's is looked for from the beginning"


@pytest.mark.parametrize(
    "name", ["12:30.mp4", "concat:a|b.mp4", "http:x.mp4", "-i.mp4", "pipe:0.mp4", "50%d.mp4", "a b?.mp4"]
)
def test_names_that_look_like_something_else_are_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make_clip(tmp_path / "clip.mp4", count=2).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for path in (name, Path(name)):
        assert probe(path).codec == "h264"
        assert len(list(read_clip(Path(path)))) == 2
    rewrite(Path(name), Path(f"out {name}"))
    assert len(times(Path(f"out {name}"))) == 2


PLAYLISTS = [
    ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nclip.mp4\n#EXT-X-ENDLIST\n"),
    ("list.mp4", "ffconcat version 1.0\nfile clip.mp4\n"),
    ("list.mkv", "#EXTM3U\n#EXTINF:5,\nclip.mp4\n"),
    ("list.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"),
    ("list.mpd", '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>'),
]


@pytest.mark.parametrize(("name", "content"), PLAYLISTS)
def test_a_file_that_names_other_files_is_refused(tmp_path: Path, name: str, content: str) -> None:
    make_clip(tmp_path / "clip.mp4")
    (tmp_path / name).write_text(content)
    with pytest.raises(MediaError, match=r"never opened\. Convert it to MP4|is not a readable video"):
        probe(tmp_path / name)
    with pytest.raises(MediaError, match="cannot be decoded"):
        list(read_clip(tmp_path / name))


def test_an_image_is_never_a_pattern(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", 2)
    (folder / "frame9.png").rename(folder / "a%d.png")
    (folder / "frame10.png").rename(folder / "a1.png")
    assert [frame.shape for frame in read_clip(folder)] == [(24, 32, 3)] * 2


def test_an_animated_webp_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(b"RIFF\x26\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\x1f\0\0\x1f\0\0ANIM\0\0\0\0")
    with pytest.raises(MediaError, match="is an animated WebP, which FFmpeg does not decode: convert it to GIF"):
        probe(tmp_path / "a.webp")
    (tmp_path / "cut.webp").write_bytes((tmp_path / "a.webp").read_bytes()[:18])
    with pytest.raises(MediaError, match=r"cut\.webp is not"):
        probe(tmp_path / "cut.webp")


def test_a_folder_is_described_without_times(tmp_path: Path) -> None:
    facts = describe(make_folder(tmp_path / "images", 3))
    assert (facts["frames"], facts["width"], facts["height"], facts["pix_fmt"]) == (3, 32, 24, "rgb24")
    assert not {"rate", "duration", "start"} & facts.keys()
    assert describe(SAMPLE)["rate"] == "30000/1001"
