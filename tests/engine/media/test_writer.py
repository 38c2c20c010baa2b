"""Writing: what goes in beside the picture comes out, at exact times, and a file is whole or not there."""

import errno
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.encoder import choose
from stvsr.engine.media.probe import probe
from stvsr.engine.media.reader import VideoReader
from stvsr.engine.media.writer import VideoWriter

from tests.support.media import BT2020, NTSC, SAMPLE, make_clip, make_folder, packets_of, rewrite, times

TICK = Fraction(1, 30000)
FAST = {"preset": "ultrafast"}
IRREGULAR = [0, 2002, 2500, 9009, 9100, 9200, 30000, 31001, 40000, 40200, 40201, 45000]


def expected_times(stamps: list[int], last: int, factor: int = 1) -> list[tuple[Fraction, Fraction]]:
    """Return the times of frames made of a clip, `factor` of each."""
    made = []
    for start, stop in zip(stamps, [*stamps[1:], stamps[-1] + last], strict=True):
        step = Fraction(stop - start, factor)
        made += [((start + n * step) * TICK, step * TICK) for n in range(factor)]
    return made


def one_writer(path: Path, **options: Any) -> VideoWriter:
    settings: dict[str, Any] = {"source": None, "size": (64, 48), "rate": Fraction(25), "time_base": Fraction(1, 25)}
    return VideoWriter(path, **{**settings, **options})


def write_frames(writer: VideoWriter, count: int = 3, size: tuple[int, int] = (64, 48)) -> None:
    for n in range(count):
        rgb = np.full((3, size[1], size[0]), 1000 * n, np.uint16)
        writer.write(rgb, Fraction(n, 25), Fraction(1, 25))


class TestTimes:
    @pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v"])
    def test_the_sample_twice_as_fast(self, tmp_path: Path, suffix: str) -> None:
        out = tmp_path / f"out{suffix}"
        rewrite(SAMPLE, out, factor=2)
        assert times(out) == [(n * 1001 * TICK / 2, 1001 * TICK / 2) for n in range(120)]
        info = probe(out)
        assert (info.rate, info.duration, info.frames) == (NTSC * 2, 60 / NTSC, 120)

    @pytest.mark.parametrize("start", [0, 7007])
    @pytest.mark.parametrize("last", [1001, 9, 90000])
    @pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9"])
    @pytest.mark.parametrize("backwards", [False, True])
    def test_variable_rate(self, tmp_path: Path, start: int, last: int, codec: str, backwards: bool) -> None:
        stamps = [IRREGULAR[-1] - n for n in reversed(IRREGULAR)] if backwards else IRREGULAR
        stamps = [start + n for n in stamps]
        writer = VideoWriter(
            tmp_path / "out.mp4", source=None, size=(64, 48), rate=NTSC, time_base=TICK / 2, codec=codec
        )
        expected = expected_times(stamps, last, factor=2)
        with writer:
            for n, (pts, duration) in enumerate(expected):
                writer.write(np.full((3, 48, 64), 2000 * n, np.uint16), pts, duration)
        assert times(tmp_path / "out.mp4") == expected

    @pytest.mark.parametrize("suffix", [".mkv", ".webm"])
    def test_matroska_rounds_to_milliseconds(self, tmp_path: Path, suffix: str) -> None:
        clip = make_clip(tmp_path / "v.mp4", pts=IRREGULAR[:8], options={"bf": "0"})
        out = tmp_path / f"out{suffix}"
        rewrite(clip, out)
        stamps = [pts for pts, _ in times(out)]
        assert [round(n * TICK * 1000) for n in IRREGULAR[:8]] == [1000 * pts for pts in stamps]
        pts, duration = times(out)[-1]
        assert abs(pts + duration - (IRREGULAR[7] + 1001) * TICK) <= Fraction(1, 1000)

    def test_one_frame(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "one.mp4", pts=[500], last_duration=20000)
        rewrite(clip, tmp_path / "out.mp4")
        assert times(tmp_path / "out.mp4") == [(500 * TICK, 20000 * TICK)]

    def test_a_time_base_that_is_too_fine(self, tmp_path: Path) -> None:
        with one_writer(tmp_path / "out.mp4", time_base=Fraction(1, 30000 * 1_000_003)) as writer:
            write_frames(writer)
        assert [pts for pts, _ in times(tmp_path / "out.mp4")] == [Fraction(n, 25) for n in range(3)]

    def test_time_must_grow(self, tmp_path: Path) -> None:
        def go_back() -> None:
            with one_writer(tmp_path / "out.mp4") as writer:
                write_frames(writer)
                write_frames(writer)

        with pytest.raises(MediaError, match="does not follow"):
            go_back()
        assert not list(tmp_path.iterdir())


class TestPicture:
    def test_lossless_frames_come_back(self, tmp_path: Path) -> None:
        with VideoReader(SAMPLE) as reader:
            before = [frame.rgb for frame in reader][:5]
        rewrite(SAMPLE, tmp_path / "out.mkv", codec="ffv1", pix_fmt="bgr0")
        with VideoReader(tmp_path / "out.mkv") as reader:
            after = [frame.rgb for frame in reader][:5]
        assert max(np.abs(a - b).max() for a, b in zip(before, after, strict=True)) <= 0.501 / 255

    def test_quality(self, tmp_path: Path) -> None:
        rewrite(SAMPLE, tmp_path / "out.mp4")
        with VideoReader(SAMPLE) as source, VideoReader(tmp_path / "out.mp4") as result:
            errors = [float(((a.rgb - b.rgb) ** 2).mean()) for a, b in zip(source, result, strict=True)]
        assert -10 * np.log10(np.mean(errors)) > 38

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_colour_tags(self, tmp_path: Path, suffix: str) -> None:
        clip = make_clip(tmp_path / "hdr.mp4", pix_fmt="yuv420p10le", tags=BT2020)
        out = tmp_path / f"out{suffix}"
        writer = rewrite(clip, out, scale=2)
        assert writer.pix_fmt == "yuv420p10le"
        assert probe(out).color == probe(clip).color
        assert probe(out).bit_depth == 10

    def test_full_range(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "full.mp4", pix_fmt="yuvj420p")
        rewrite(clip, tmp_path / "out.mp4")
        assert probe(tmp_path / "out.mp4").color.range == 2
        with VideoReader(clip) as source, VideoReader(tmp_path / "out.mp4") as result:
            difference = next(iter(source)).rgb.mean() - next(iter(result)).rgb.mean()
        assert abs(float(difference)) < 0.005

    def test_untagged_sources_get_the_matrix_that_was_meant(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "plain.mp4")
        assert probe(clip).color.matrix == 2
        rewrite(clip, tmp_path / "out.mp4", scale=16, encoder_options=FAST)
        info = probe(tmp_path / "out.mp4")
        assert info.height >= 720
        assert info.color.matrix == 6, "by the source's lines, not the output's"

    @pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
    @pytest.mark.parametrize("rotation", [(90, False), (180, False), (-90, False), (90, True), (0, True)])
    def test_rotation(self, tmp_path: Path, suffix: str, rotation: tuple[int, bool]) -> None:
        clip = make_clip(tmp_path / "rot.mp4", count=2, rotation=rotation)
        out = tmp_path / f"out{suffix}"
        rewrite(clip, out)
        assert probe(clip).display_matrix is not None
        assert probe(out).display_matrix == probe(clip).display_matrix

    def test_aspect(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "wide.mp4", aspect=Fraction(16, 15))
        for suffix in (".mp4", ".mov", ".mkv"):
            rewrite(clip, tmp_path / f"out{suffix}", scale=2)
            assert probe(tmp_path / f"out{suffix}").sample_aspect_ratio == Fraction(16, 15)
        assert "pixel aspect" in rewrite(clip, tmp_path / "out.webm").warnings[0]

    def test_another_shape_keeps_the_proportions(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "wide.mp4", aspect=Fraction(16, 15))  # 64x48: shown as 64:45
        with one_writer(tmp_path / "out.mp4", source=clip, size=(128, 90)) as writer:
            write_frames(writer, size=(128, 90))
        assert probe(tmp_path / "out.mp4").sample_aspect_ratio == 1

    @pytest.mark.parametrize("suffix", [".mp4", ".webm"])
    def test_odd_sizes(self, tmp_path: Path, suffix: str) -> None:
        out = tmp_path / f"odd{suffix}"
        with one_writer(out, size=(63, 47)) as writer:
            write_frames(writer, size=(63, 47))
        assert writer.pix_fmt == ("yuv444p" if suffix == ".mp4" else "yuv420p")
        assert (probe(out).width, probe(out).height) == (63, 47)

    def test_images(self, tmp_path: Path) -> None:
        folder = make_folder(tmp_path / "images", 3, pix_fmt="rgb48be")
        with one_writer(tmp_path / "out.mp4", source=str(folder), size=(32, 24)) as writer:
            write_frames(writer, size=(32, 24))
        info = probe(tmp_path / "out.mp4")
        assert (info.bit_depth, info.color.range, info.color.matrix) == (10, 1, 6)


class TestCompany:
    """Audio, subtitles, chapters and metadata."""

    def rich(self, path: Path) -> Path:
        return make_clip(
            path,
            languages=["eng", "deu"],
            subtitles=[(0, 100, "one"), (120, 100, "zwei <i>ü</i>")] if path.suffix == ".mkv" else (),
            chapters=[(0, 100, "first"), (100, 266, "second")],
            metadata={"language": "jpn", "title": "The picture"},
        )

    @pytest.mark.parametrize("suffix", [".mp4", ".mov"])
    def test_audio_is_copied_to_the_byte(self, tmp_path: Path, suffix: str) -> None:
        out = tmp_path / f"out{suffix}"
        writer = rewrite(SAMPLE, out, factor=2)
        assert writer.warnings == []
        assert packets_of(out, "audio") == packets_of(SAMPLE, "audio")

    @pytest.mark.parametrize("source", ["in.mp4", "in.mkv"])
    @pytest.mark.parametrize("target", ["out.mp4", "out.mkv", "out.mov"])
    def test_everything(self, tmp_path: Path, source: str, target: str) -> None:
        clip, out = self.rich(tmp_path / source), tmp_path / target
        writer = rewrite(clip, out, factor=2)
        before, after = probe(clip), probe(out)
        german = "ger" if target == "out.mov" else "deu"  # QuickTime has the one code alone
        assert [s.language for s in after.streams if s.kind == "audio"] == ["eng", german]
        for old, new in zip(packets_of(clip, "audio"), packets_of(out, "audio"), strict=True):
            assert [data for _, data in new] == [data for _, data in old]
            shift = after.start - before.start  # Matroska starts at zero, all streams alike
            assert all(abs(b[0] - a[0] - shift) <= Fraction(1, 900) for a, b in zip(old, new, strict=True))
        assert [(c.title, c.start) for c in after.chapters] == [("first", 0), ("second", Fraction(1, 10))]
        assert after.metadata["title"] == "Bees"
        with av.open(str(out)) as container:
            picture = container.streams.video[0]
            assert picture.metadata["language"] == "jpn"
        subtitles = [s for s in after.streams if s.kind == "subtitle"]
        if source == "in.mkv":
            assert [s.language for s in subtitles] == ["fra"]
            assert subtitles[0].codec == ("subrip" if target == "out.mkv" else "mov_text")
            assert len(writer.warnings) == (0 if target == "out.mkv" else 1)
            lines = [(pts, data) for pts, data in packets_of(out, "subtitle")[0] if len(data) > 2]
            assert [abs(a - b) < Fraction(1, 100) for (a, _), b in zip(lines, (0, Fraction(12, 100)), strict=True)]
            assert "ü".encode() in lines[1][1]
        else:
            assert writer.warnings == []

    def test_text_comes_back_from_mp4(self, tmp_path: Path) -> None:
        rewrite(self.rich(tmp_path / "in.mkv"), tmp_path / "mid.mp4")
        writer = rewrite(tmp_path / "mid.mp4", tmp_path / "out.mkv")
        assert "converted to subrip" in writer.warnings[0]
        assert [data.decode() for _, data in packets_of(tmp_path / "out.mkv", "subtitle")[0]] == [
            "one",
            "zwei <i>ü</i>",
        ]

    def test_webm_gets_opus_and_webvtt(self, tmp_path: Path) -> None:
        writer = rewrite(self.rich(tmp_path / "in.mkv"), tmp_path / "out.webm")
        assert [(s.kind, s.codec) for s in probe(tmp_path / "out.webm").streams] == [
            ("audio", "opus"),
            ("audio", "opus"),
            ("subtitle", "webvtt"),
        ]
        assert len(writer.warnings) == 3
        with av.open(str(tmp_path / "out.webm")) as container:
            heard = sum(frame.samples for frame in container.decode(audio=0))
        assert abs(heard / 48000 - 1 / 3) < 0.05

    def test_pcm_in_every_container(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "pcm.mkv", pcm=True)
        samples = b"".join(data for _, data in packets_of(clip, "audio")[0])
        for suffix in (".mkv", ".mov", ".mp4", ".webm"):
            out = tmp_path / f"out{suffix}"
            writer = rewrite(clip, out)
            copied = b"".join(data for _, data in packets_of(out, "audio")[0])
            assert copied == samples or "converted" in writer.warnings[0]

    def test_sound_that_outlasts_the_picture(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "short.mp4", count=2, languages=["eng"])
        rewrite(clip, tmp_path / "out.mp4")
        assert packets_of(tmp_path / "out.mp4", "audio") == packets_of(clip, "audio")

    def test_streams_are_written_in_step(self, tmp_path: Path) -> None:
        rewrite(SAMPLE, tmp_path / "out.mp4", factor=2)
        with av.open(str(tmp_path / "out.mp4")) as container:
            places = sorted((p.pos, p.stream.type) for p in container.demux() if p.pos is not None)
        kinds = [kind for _, kind in places]
        halves = kinds[: len(kinds) // 2].count("audio"), kinds[len(kinds) // 2 :].count("audio")
        assert min(halves) > 0.3 * sum(halves), "audio lies between the pictures, not at the end"


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("out.mp4", {"codec": "libx999"}, "no encoder 'libx999'"),
            ("out.mp4", {"codec": "aac"}, "no video encoder"),
            ("out.mp4", {"pix_fmt": "yuv999p"}, "no pixel format 'yuv999p'"),
            ("out.mp4", {"pix_fmt": "rgb24"}, "does not take the pixel format 'rgb24'"),
            ("out.mp4", {"pix_fmt": "yuv420p", "size": (63, 48)}, "odd size 63x48"),
            ("out.mp4", {"encoder_options": {"prezet": "slow"}}, "no option 'prezet'"),
            ("out.mp4", {"encoder_options": {"preset": "slowish"}}, "refuses"),
            ("out.mp4", {"codec": "ffv1", "crf": 20}, "no option 'crf'"),
            ("out.webm", {"codec": "libx264"}, "do not hold libx264"),
            ("out.xyz", {}, "must end in"),
            ("out.avi", {}, "must end in"),
            ("none/out.mp4", {}, "folder .* does not exist"),
        ],
    )
    def test_are_clear_and_leave_nothing(
        self, tmp_path: Path, name: str, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(MediaError, match=message):
            one_writer(tmp_path / name, **options)
        assert not list(tmp_path.iterdir())

    def test_an_existing_file(self, tmp_path: Path) -> None:
        out = tmp_path / "out.mp4"
        out.write_bytes(b"precious")
        with pytest.raises(MediaError, match="is there already"):
            one_writer(out)
        assert out.read_bytes() == b"precious"
        with one_writer(out, overwrite=True) as writer:
            write_frames(writer)
            assert out.read_bytes() == b"precious", "until the new one is whole"
        assert len(times(out)) == 3
        assert list(tmp_path.iterdir()) == [out]

    def test_the_input_itself(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "in.mp4")
        with pytest.raises(MediaError, match="is the input itself"):
            one_writer(clip, source=clip, overwrite=True)

    def test_a_folder_that_may_not_be_written(self, tmp_path: Path) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        tmp_path.chmod(0o500)
        with pytest.raises(MediaError, match="cannot be written"):
            one_writer(tmp_path / "out.mp4")

    def test_no_frames(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match="No frame"), one_writer(tmp_path / "out.mp4"):
            pass
        assert not list(tmp_path.iterdir())


class TestAtomicity:
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_an_exception_leaves_nothing(self, tmp_path: Path, error: type[BaseException]) -> None:
        def fail() -> None:
            with one_writer(tmp_path / "out.mp4", source=SAMPLE) as writer:
                write_frames(writer, 60)
                assert [file.name[:5] for file in tmp_path.iterdir()] == [".out."]
                raise error

        with pytest.raises(error):
            fail()
        assert not list(tmp_path.iterdir())

    def test_a_file_that_appears_meanwhile_is_kept(self, tmp_path: Path) -> None:
        out = tmp_path / "out.mp4"

        def interfere() -> None:
            with one_writer(out) as writer:
                write_frames(writer)
                out.write_bytes(b"precious")

        with pytest.raises(MediaError, match="has appeared meanwhile"):
            interfere()
        assert out.read_bytes() == b"precious"
        assert list(tmp_path.iterdir()) == [out]

    def test_a_file_system_without_links(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
        with one_writer(tmp_path / "out.mp4") as writer:
            write_frames(writer)
        assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The muxer's error is made up here: a small file system cannot be mounted on every machine."""

        def full(self: VideoWriter, packet: object) -> None:
            raise av.error.OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(VideoWriter, "_write_packet", full)

        def fill_up() -> None:
            with one_writer(tmp_path / "out.mp4") as writer:
                write_frames(writer)

        with pytest.raises(MediaError, match=r"disk .* is full"):
            fill_up()
        assert not list(tmp_path.iterdir())

    def test_a_file_that_may_not_grow(self, tmp_path: Path) -> None:
        """A real failure of the system under the muxer: the limit of a file's size."""
        script = (
            "import resource, signal, sys\n"
            "from fractions import Fraction\n"
            "from pathlib import Path\n"
            "import numpy as np\n"
            "from stvsr.engine.contract.errors import MediaError\n"
            "from stvsr.engine.media.writer import VideoWriter\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
            "noise = np.random.default_rng(0)\n"
            "try:\n"
            "    with VideoWriter(Path(sys.argv[1]) / 'out.mp4', source=None, size=(256, 192), rate=Fraction(25),\n"
            "                     time_base=Fraction(1, 25), encoder_options={'preset': 'ultrafast'}) as writer:\n"
            "        for n in range(40):\n"
            "            rgb = noise.integers(0, 65536, (3, 192, 256), np.uint16)\n"
            "            writer.write(rgb, Fraction(n, 25), Fraction(1, 25))\n"
            "except MediaError as error:\n"
            "    print(error)\n"
        )
        run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
        assert "cannot be written" in run.stdout, run.stderr
        assert not list(tmp_path.iterdir())


class TestChoices:
    @pytest.mark.parametrize(
        ("extension", "bits", "codec", "pix_fmt"),
        [
            (".mp4", 8, "libx264", "yuv420p"),
            (".mkv", 10, "libx265", "yuv420p10le"),
            (".mov", 16, "libx265", "yuv420p10le"),
            (".webm", 8, "libvpx-vp9", "yuv420p"),
        ],
    )
    def test_defaults(self, extension: str, bits: int, codec: str, pix_fmt: str) -> None:
        chosen = choose(extension, (64, 48), bits)
        assert (chosen.codec, chosen.pix_fmt) == (codec, pix_fmt)

    def test_options_that_are_given_win(self) -> None:
        chosen = choose(".mp4", (64, 48), 8, options={"preset": "slow", "qp": "20"})
        assert chosen.options == {"preset": "slow", "qp": "20"}
        assert choose(".mp4", (64, 48), 8, crf=30).options["crf"] == "30"

    def test_large_frames_are_encoded_in_little_memory(self) -> None:
        assert "x264-params" not in choose(".mp4", (3840, 2160), 8).options
        given = {"x264-params": "rc-lookahead=9"}
        chosen = choose(".mp4", (7680, 4320), 8, options=given)
        assert chosen.options["x264-params"] == "rc-lookahead=4:sync-lookahead=0:sliced-threads=1:rc-lookahead=9"
