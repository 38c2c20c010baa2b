"""Reading: exact timestamps, every frame, and an error for every damaged or foreign file."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.probe import probe
from stvsr.engine.media.reader import ImageFolderReader, VideoReader, open_reader

from tests.support.media import BT2020, NTSC, SAMPLE, cut, make_clip, make_folder, pictures, remux, times, write_png

TICK = Fraction(1, 30000)


class TestSample:
    def test_every_frame_at_its_time(self) -> None:
        expected = [(1001 * n * TICK, 1001 * TICK) for n in range(60)]
        assert times(SAMPLE) == expected

    def test_frames(self) -> None:
        with VideoReader(SAMPLE) as reader:
            for frame in reader:
                assert frame.rgb.shape == (3, 136, 240)
                assert frame.rgb.dtype == np.float32
                assert 0 <= frame.rgb.min() < frame.rgb.max() <= 1
                break
            assert len(list(reader)) == 60, "every iteration starts anew"

    def test_info(self) -> None:
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
    def test_variable_rate(self, tmp_path: Path) -> None:
        stamps = [0, 1001, 1501, 6006, 6500, 9009, 9010, 12000]
        clip = make_clip(tmp_path / "v.mp4", pts=stamps, options={"bf": "0"})
        pts, durations = zip(*times(clip), strict=True)
        assert pts == tuple(n * TICK for n in stamps)
        assert durations == tuple((b - a) * TICK for a, b in zip(stamps, [*stamps[1:], 13001], strict=True))
        assert probe(clip).variable_rate is True

    def test_late_start(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "late.mp4", pts=[7007, 8008, 9009])
        assert [pts for pts, _ in times(clip)] == [7007 * TICK, 8008 * TICK, 9009 * TICK]
        assert probe(clip).start == 7007 * TICK

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_one_frame(self, tmp_path: Path, suffix: str) -> None:
        clip = make_clip(tmp_path / f"one{suffix}", count=1, time_base=Fraction(1, 1000), pts=[0], last_duration=500)
        assert times(clip) == [(Fraction(0), Fraction(1, 2))]

    def test_a_rate_for_a_stream_without_timestamps(self, tmp_path: Path) -> None:
        clip = tmp_path / "raw.h264"
        remux(make_clip(tmp_path / "c.mp4", count=6), clip)
        with open_reader(clip, fps=Fraction(24)) as reader:
            assert reader.info.rate == 24
            assert [(f.pts, f.duration) for f in reader] == [(Fraction(n, 24), Fraction(1, 24)) for n in range(6)]
        assert len(times(clip)) == 6, "without a rate, the frames still come at growing times"

    def test_repeated_timestamps_keep_their_frames(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "c.mp4", count=6, options={"bf": "0"})
        with VideoReader(clip) as reader:
            decoded = pictures(6, (64, 48))
            for picture, ticks in zip(decoded, [0, 1001, 1001, 3003, None, 5005], strict=True):
                picture.pts = ticks
            reader._pictures = lambda stream: iter(decoded)  # type: ignore[method-assign]
            pts = [frame.pts / TICK for frame in reader]
        assert pts[:4] == [0, 1001, 1002, 3003]
        assert 3003 < pts[4] < pts[5]

    def test_a_jump_back_is_an_error(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "c.mp4", count=4)
        with VideoReader(clip) as reader:
            decoded = pictures(4, (64, 48))
            for picture, ticks in zip(decoded, [90000, 91001, 0, 1001], strict=True):
                picture.pts = ticks
            reader._pictures = lambda stream: iter(decoded)  # type: ignore[method-assign]
            with pytest.raises(MediaError, match=r"fall from 3\.033 s"):
                list(reader)


class TestKinds:
    def test_ten_bits(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "ten.mp4", pix_fmt="yuv420p10le", tags=BT2020)
        info = probe(clip)
        assert (info.bit_depth, info.pix_fmt) == (10, "yuv420p10le")
        assert (info.color.matrix, info.color.primaries, info.color.transfer) == (9, 9, 16)
        with VideoReader(clip) as reader:
            levels = np.unique(np.concatenate([frame.rgb for frame in reader]))
        assert len(levels) > 256

    def test_full_range(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "full.mp4", pix_fmt="yuvj420p", options={"crf": "1"})
        assert probe(clip).color.range == 2
        limited = make_clip(tmp_path / "limited.mp4", options={"crf": "1"})
        with VideoReader(clip) as full_reader, VideoReader(limited) as limited_reader:
            full, plain = next(iter(full_reader)).rgb, next(iter(limited_reader)).rgb
        assert abs(float(full.mean() - plain.mean())) < 0.01, "the same picture in either range"

    def test_odd_sizes(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "odd.mp4", size=(63, 47), pix_fmt="yuv444p")
        with VideoReader(clip) as reader:
            assert {frame.rgb.shape for frame in reader} == {(3, 47, 63)}

    @pytest.mark.parametrize(("degrees", "mirrored"), [(90, False), (180, False), (-90, False), (90, True)])
    def test_rotation_is_told_and_not_applied(self, tmp_path: Path, degrees: int, mirrored: bool) -> None:
        clip = make_clip(tmp_path / "rot.mp4", rotation=(degrees, mirrored))
        info = probe(clip)
        assert (info.rotation - degrees) % 360 == 0
        assert info.display_matrix is not None
        with VideoReader(clip) as reader:
            assert next(iter(reader)).rgb.shape == (3, 48, 64)

    def test_streams_and_chapters(self, tmp_path: Path) -> None:
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


class TestDamage:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match="does not exist"):
            open_reader(tmp_path / "none.mp4")

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "empty.mp4").touch()
        with pytest.raises(MediaError, match="is empty"):
            open_reader(tmp_path / "empty.mp4")

    def test_no_video(self, tmp_path: Path) -> None:
        (tmp_path / "notes.mp4").write_text("These are notes, and no video at all.\n" * 20)
        with pytest.raises(MediaError, match="not a video"):
            open_reader(tmp_path / "notes.mp4")

    def test_audio_only(self, tmp_path: Path) -> None:
        clip = tmp_path / "audio.m4a"
        with av.open(str(SAMPLE)) as sample, av.open(str(clip), "w") as output:
            stream = output.add_stream_from_template(sample.streams.audio[0], opaque=True)
            for packet in sample.demux(sample.streams.audio[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    output.mux(packet)
        with pytest.raises(MediaError, match="no video stream"):
            open_reader(clip)

    def test_an_index_that_is_cut_off(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match="cut short or damaged"):
            open_reader(cut(SAMPLE, tmp_path / "cut.mp4", 0.6))

    @pytest.mark.parametrize("share", [0.6, 0.9])
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("front.mp4", {"movflags": "+faststart"}),
            ("fragments.mp4", {"movflags": "frag_keyframe+empty_moov"}),
            ("clip.mkv", {}),
        ],
    )
    def test_frames_that_are_cut_off(self, tmp_path: Path, name: str, options: dict[str, str], share: float) -> None:
        whole = remux(SAMPLE, tmp_path / name, **options)
        assert len(times(whole)) == 60
        with pytest.raises(MediaError, match=r"(damaged at|ends at) [01]\.\d{3} s"):
            times(cut(whole, tmp_path / f"cut_{name}", share))

    def test_one_lost_frame_of_matroska(self, tmp_path: Path) -> None:
        whole = remux(SAMPLE, tmp_path / "clip.mkv")
        with pytest.raises(MediaError, match=r"ends at 1\.9\d\d s and says 2\.0\d\d s"):
            times(cut(whole, tmp_path / "cut.mkv", 0.97))

    def test_overwritten_bytes(self, tmp_path: Path) -> None:
        broken = bytearray(remux(SAMPLE, tmp_path / "front.mp4", movflags="+faststart").read_bytes())
        middle = len(broken) // 2
        broken[middle : middle + 4000] = bytes(np.random.default_rng(2).integers(0, 256, 4000, np.uint8))
        (tmp_path / "broken.mp4").write_bytes(broken)
        with pytest.raises(MediaError, match=r"damaged at [01]\.\d{3} s"):
            times(tmp_path / "broken.mp4")

    def test_no_frame_can_be_decoded(self, tmp_path: Path) -> None:
        data = bytearray(remux(SAMPLE, tmp_path / "front.mp4", movflags="+faststart").read_bytes())
        start = data.index(b"mdat") + 4
        data[start:] = b"\xff" * (len(data) - start)
        (tmp_path / "void.mp4").write_bytes(data)
        with pytest.raises(MediaError, match="can be decoded"):
            open_reader(tmp_path / "void.mp4")


class TestFolder:
    def test_natural_order_and_times(self, tmp_path: Path) -> None:
        folder = make_folder(tmp_path / "images", 3)
        shutil.copy(SAMPLE, folder / "notes.txt")
        with open_reader(folder, fps=NTSC) as reader:
            assert isinstance(reader, ImageFolderReader)
            assert [file.name for file in reader.files] == ["frame9.png", "frame10.png", "frame11.png"]
            frames = list(reader)
        assert [(f.pts, f.duration) for f in frames] == [(n / NTSC, 1 / NTSC) for n in range(3)]
        expected = pictures(1, (32, 24), "rgb24")[0].to_ndarray().transpose(2, 0, 1) / 255
        assert np.allclose(frames[0].rgb, expected, atol=1e-6)

    @pytest.mark.parametrize(
        ("pix_fmt", "bits"), [("rgba", 8), ("rgb48be", 16), ("gray", 8), ("gray16be", 16), ("ya8", 8)]
    )
    def test_kinds_of_png(self, tmp_path: Path, pix_fmt: str, bits: int) -> None:
        reader = open_reader(make_folder(tmp_path / "images", 1, pix_fmt=pix_fmt), fps=Fraction(24))
        assert reader.info.bit_depth == bits
        (frame,) = reader
        assert frame.rgb.shape == (3, 24, 32)
        if "gray" in pix_fmt:
            assert np.array_equal(frame.rgb[0], frame.rgb[2])

    def test_no_rate(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match="no frame rate"):
            open_reader(make_folder(tmp_path / "images"))

    def test_no_images(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match="no PNG"):
            open_reader(tmp_path, fps=Fraction(24))

    def test_another_size(self, tmp_path: Path) -> None:
        folder = make_folder(tmp_path / "images", 2)
        write_png(folder / "frame10.png", pictures(1, (30, 24), "rgb24")[0])
        with pytest.raises(MediaError, match=r"frame10\.png is 30x24"):
            list(open_reader(folder, fps=Fraction(24)))

    def test_a_damaged_image(self, tmp_path: Path) -> None:
        folder = make_folder(tmp_path / "images", 2)
        cut(folder / "frame10.png", folder / "frame10.png", 0.02)
        with pytest.raises(MediaError, match=r"frame10\.png"):
            list(open_reader(folder, fps=Fraction(24)))
