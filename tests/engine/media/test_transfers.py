"""Streams that an output refuses, converts or stores in another way: sound, covers, fonts, data, timecodes."""

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.container import OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Disposition
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media import remux
from stvsr.engine.media.metadata import timecode_at_rate
from stvsr.engine.media.muxer_trial import refusal
from stvsr.engine.media.probe import probe
from stvsr.engine.media.transfers import Copy
from stvsr.engine.media.video_stream import EncodedStream

from tests.support.media import make_clip, packets_of, rewrite, times
from tests.support.paths import SAMPLE
from tests.support.sources import CLICK_S, add_sound, click_of, joined, make_source, sound_of, tone

TARGETS = (".mp4", ".mov", ".mkv", ".webm")
FAST: dict[str, Any] = {"encoder_options": {"preset": "ultrafast"}}


def fast(target: str) -> dict[str, Any]:
    return {"codec": "libvpx"} if target == ".webm" else FAST


def picture_bytes() -> bytes:
    """Return a blue JPEG image."""
    file = io.BytesIO()
    with av.open(file, "w", format="mjpeg") as output:
        stream = output.add_stream("mjpeg", width=40, height=40)
        stream.pix_fmt = "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.full((40, 40, 3), (0, 0, 255), np.uint8), "rgb24")
        output.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def film(path: Path, fill: Any = None) -> Path:
    """Write three frames of the sample; `fill` adds streams to the output and yields their packets."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=25, width=64, height=48)
        packets = [] if fill is None else list(fill(output))
        for number in range(3):
            frame = av.VideoFrame(64, 48, "yuv420p")
            for plane in frame.planes:
                # A transport stream of less is too short to be recognized.
                plane.update(np.random.default_rng(number).bytes(plane.buffer_size))
            frame.pts, frame.time_base = number, Fraction(1, 25)
            packets += stream.encode(frame)
        for packet in [*packets, *stream.encode(None)]:
            output.mux(packet)
    return path


def cover(path: Path, data: bytes) -> Path:
    """Write a film with a cover: a picture stream in MP4, an attachment in Matroska."""

    def fill(output: OutputContainer) -> Iterator[Packet]:
        if path.suffix == ".mkv":
            output.add_attachment("front.jpg", "image/jpeg", data)
            return
        stream = output.add_mux_stream("mjpeg", width=40, height=40)
        stream.disposition = Disposition.attached_pic
        packet = Packet(data)
        packet.stream, packet.pts, packet.dts = stream, 0, 0
        yield packet

    return film(path, fill)


@pytest.mark.parametrize("source", ["in.mp4", "in.mkv"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_cover_stays_a_cover_or_is_named(tmp_path: Path, source: str, target: str) -> None:
    data = picture_bytes()
    clip, out = cover(tmp_path / source, data), tmp_path / f"out{target}"
    assert (probe(clip).width, probe(clip).codec) == (64, "mpeg4"), "the film is upscaled, and not its cover"
    warnings = rewrite(clip, out, scale=2, **fast(target)).warnings
    assert (probe(out).width, len(times(out))) == (128, 3)
    with av.open(str(out)) as container:
        covers = [stream for stream in container.streams.video if stream.disposition & Disposition.attached_pic]
        pictures = [bytes(p) for p in container.demux() if p.size and p.stream.index in [s.index for s in covers]]
        assert len(container.streams.video) == 1 + len(covers)
    if target in (".mp4", ".mkv"):
        assert pictures == [data]
        assert warnings == []
    else:
        assert pictures == []
        assert warnings == [f"The cover 1 (mjpeg) was left out: {target[1:]} does not support it."]


def test_the_largest_of_several_films_is_upscaled(tmp_path: Path) -> None:
    def fill(output: OutputContainer) -> Iterator[Packet]:
        stream = output.add_stream("mpeg4", rate=25, width=96, height=80)
        frame = av.VideoFrame(96, 80, "yuv420p")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        yield from [*stream.encode(frame), *stream.encode(None)]

    clip = film(tmp_path / "two.avi", fill)
    assert (probe(clip).width, probe(clip).height) == (96, 80)
    writer = rewrite(clip, tmp_path / "out.mp4", **FAST)
    assert writer.warnings == ["The video stream 0 (mpeg4) was left out: only one video stream is upscaled."]


@pytest.mark.parametrize("target", TARGETS)
def test_fonts_stay_or_are_named(tmp_path: Path, target: str) -> None:
    data = bytes(range(256)) * 20

    def fill(output: OutputContainer) -> Iterator[Packet]:
        output.add_attachment("f.ttf", "application/x-truetype-font", data)
        yield from ()

    clip, out = film(tmp_path / "fonts.mkv", fill), tmp_path / f"out{target}"
    warnings = rewrite(clip, out, **fast(target)).warnings
    with av.open(str(out)) as container:
        attachments = [stream.data for stream in container.streams if isinstance(stream, AttachmentStream)]
    if target == ".mkv":
        assert attachments == [data]
        assert warnings == []
    else:
        assert attachments == []
        assert warnings == [f"The attachment stream 1 (f.ttf) was left out: {target[1:]} does not support it."]


@pytest.mark.parametrize(("codec", "target"), [("klv", ".mov"), ("timed_id3", ".mp4"), ("scte_35", ".mkv")])
def test_data_that_would_lose_its_kind_is_named(tmp_path: Path, codec: str, target: str) -> None:
    def fill(output: OutputContainer) -> Iterator[Packet]:
        stream = output.add_data_stream(codec)
        packet = Packet(b"where and when")
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, 25)
        yield packet

    clip = film(tmp_path / "clip.ts", fill)
    (warning,) = rewrite(clip, tmp_path / f"out{target}", **FAST).warnings
    assert warning.startswith("The data stream 1 (")
    assert "was left out" in warning


def test_data_beside_chapters_is_kept_or_named(tmp_path: Path) -> None:
    def fill(output: OutputContainer) -> Iterator[Packet]:
        stream = output.add_data_stream("bin_data")
        output.set_chapters(
            [{"id": 0, "start": 0, "end": 100, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}}]
        )
        packet = Packet(b"telemetry")
        packet.stream, packet.pts, packet.dts, packet.duration = stream, 0, 0, 1
        packet.time_base = Fraction(1, 25)
        yield packet

    clip = film(tmp_path / "camera.mp4", fill)
    assert [stream.kind for stream in probe(clip).streams] == ["data", "data"], "the telemetry, and the chapters' text"
    writer = rewrite(clip, tmp_path / "out.mkv", **FAST)
    assert writer.warnings == ["The data stream 1 (bin_data) was left out: matroska does not support it."]
    assert [chapter.title for chapter in probe(tmp_path / "out.mkv").chapters] == ["one"]
    writer = rewrite(clip, tmp_path / "out.mp4", **FAST)
    assert writer.warnings == []
    assert [data for _, data in packets_of(tmp_path / "out.mp4", "data")[0]] == [b"telemetry"]


@pytest.mark.parametrize(("target", "kinds"), [(".mov", ["data"]), (".mp4", ["data"]), (".mkv", [])])
def test_a_timecode_is_kept(tmp_path: Path, target: str, kinds: list[str]) -> None:
    clip, out = make_clip(tmp_path / "camera.mov", metadata={"timecode": "01:02:03;04"}), tmp_path / f"out{target}"
    writer = rewrite(clip, out, factor=2, **FAST)
    assert [stream.kind for stream in probe(out).streams] == kinds
    with av.open(str(out)) as container:
        tags = {key.lower(): value for key, value in container.streams.video[0].metadata.items()}
    assert tags["timecode"] == "01:02:03;08", "the eighth frame at 59.94 frames a second"
    if target == ".mkv":
        assert writer.warnings == ["The timecode stream 1 became the tag 'timecode', 01:02:03;04."]
    else:
        assert writer.warnings == []


def test_packets_that_are_shorter_than_a_tick_do_not_lag_behind() -> None:
    """As those of TrueHD, of 5/6 ms, in Matroska; others that share a time are moved apart."""
    short, exact = remux._OutputClock(0), remux._OutputClock(0)
    stamps = [round(number * 5 / 6) for number in range(60)]
    assert [short.following(stamp, allows_equal=True) for stamp in stamps] == stamps
    assert [exact.following(stamp, allows_equal=False) for stamp in stamps] == list(range(60))
    usual = remux._OutputClock(0)
    assert [usual.following(stamp, allows_equal=True) for stamp in (0, 21, 43, 43, 85, 80)] == [0, 21, 43, 44, 85, 86]


@pytest.mark.parametrize(
    ("timecode", "rate", "new_rate", "expected"),
    [
        ("10:00:00:12", 25, 50, "10:00:00:24"),
        ("10:00:00:12", 25, 25, "10:00:00:12"),
        ("00:00:00;29", Fraction(30000, 1001), Fraction(60000, 1001), "00:00:00;58"),
        ("00:00:00;28", Fraction(30000, 1001), 24, "00:00:00:22"),
        ("noon", 25, 50, "noon"),
    ],
)
def test_a_timecode_counts_frames_of_the_new_rate(timecode: str, rate: Any, new_rate: Any, expected: str) -> None:
    assert timecode_at_rate(timecode, Fraction(rate), Fraction(new_rate)) == expected


class TestConvertedSound:
    @pytest.mark.parametrize("target", [".mp4", ".mkv", ".webm"])
    @pytest.mark.parametrize(("layout", "channels"), [("5.0", 5), ("quad", 4), ("7.1", 8), ("2.1", 3)])
    def test_unusual_layouts_are_taken_or_mixed(self, tmp_path: Path, target: str, layout: str, channels: int) -> None:
        clip = make_source(tmp_path / "in.avi", audio="pcm_u8" if target == ".mkv" else "pcm_s16le", layout=layout)
        out = tmp_path / f"out{target}"
        rewrite(clip, out, **fast(target))
        _, samples, rate = sound_of(out)
        assert samples.shape[0] in (channels, 2)
        assert samples.shape[1] / rate == pytest.approx(0.4, abs=0.03)

    @pytest.mark.parametrize("start", [Fraction(0), Fraction(1, 2)])
    @pytest.mark.parametrize("target", [".mp4", ".webm"])
    def test_the_encoder_s_delay_moves_nothing(self, tmp_path: Path, target: str, start: Fraction) -> None:
        clip = make_source(tmp_path / "in.mkv", audio="wavpack", sound_start=start, count=20)
        out = tmp_path / f"out{target}"
        assert "was converted" in rewrite(clip, out, **fast(target)).warnings[0]
        found = click_of(out) - probe(out).origin - probe(out).start
        assert float(found) == pytest.approx(float(start + CLICK_S), abs=0.01)

    def test_a_gap_stays_a_gap(self, tmp_path: Path) -> None:
        clip = tmp_path / "gap.mkv"
        with av.open(str(clip), "w") as output:
            stream = output.add_stream("mpeg4", rate=25, width=64, height=48)
            sound = add_sound(output, "pcm_s16le", "mono")
            for number in range(50):
                frame = av.VideoFrame(64, 48, "yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                output.mux(stream.encode(frame))
            for start in (Fraction(0), Fraction(1)):
                for piece in tone(sound, Fraction(2, 5), start):
                    output.mux(sound.encode(piece))
            output.mux([*sound.encode(None), *stream.encode(None)])
        rewrite(clip, tmp_path / "out.webm", codec="libvpx")
        with av.open(str(tmp_path / "out.webm")) as container:
            loud = [
                frame.pts * frame.time_base
                for frame in container.decode(audio=0)
                if np.abs(frame.to_ndarray()).max() > 0.3 and frame.pts is not None and frame.time_base is not None
            ]
        assert float(min(loud)) == pytest.approx(0.2, abs=0.03)
        assert not [time for time in loud if 0.45 < time < 1.15]
        assert float(min(time for time in loud if time > 1)) == pytest.approx(1.2, abs=0.03)

    def test_the_layout_may_change(self, tmp_path: Path) -> None:
        """As at the beginning of a film in a broadcast."""
        parts = [
            make_source(tmp_path / f"{layout}.ts", video="mpeg2video", audio="mp2", layout=layout)
            for layout in ("stereo", "mono")
        ]
        clip = joined(tmp_path / "clip.ts", *parts)
        assert "was converted to opus" in rewrite(clip, tmp_path / "out.webm", codec="libvpx").warnings[0]
        _, samples, rate = sound_of(tmp_path / "out.webm")
        assert samples.shape[0] in (1, 2), "that of the part by which FFmpeg describes the stream"
        assert samples.shape[1] / rate == pytest.approx(0.8, abs=0.1)

    def test_packets_that_cannot_be_decoded_are_named(self, tmp_path: Path) -> None:
        clip = make_source(tmp_path / "in.mkv", audio="flac", count=25)
        with av.open(str(clip)) as container:
            packets = [packet for packet in container.demux(audio=0) if packet.size]
        data = bytearray(clip.read_bytes())
        start = data.index(bytes(packets[5]))
        data[start : start + packets[5].size] = bytes(packets[5].size)
        clip.write_bytes(data)
        writer = rewrite(clip, tmp_path / "out.webm", codec="libvpx")
        assert len(writer.warnings) == 2
        assert (
            "audio stream 1 (flac) is incomplete: 1 of its packets cannot be decoded, the first at 0."
            in (writer.warnings[1])
        )


class TestTrial:
    def test_a_muxer_that_refuses_the_index_is_found_first(self, tmp_path: Path) -> None:
        """MP4 needs to know where the channels are, and finds that out at the end of the file."""
        clip = make_source(tmp_path / "pcm.avi", audio="pcm_s16le")
        with av.open(str(clip)) as container:
            stream = container.streams.audio[0]
            assert stream.layout.name == "2 channels"
            first = [packet for packet in container.demux(stream) if packet.size][:1]

            class Unnamed(Copy):
                def __init__(self, output: OutputContainer) -> None:
                    super().__init__(stream, output, first)
                    self._target.codec_context.layout = stream.layout

            assert refusal("mp4", Unnamed, stream) is not None
            assert refusal("mp4", lambda output: Copy(stream, output, first), stream) is None
        rewrite(clip, tmp_path / "out.mp4", **FAST)
        assert [s.codec for s in probe(tmp_path / "out.mp4").streams] == ["pcm_s16le"]

    def test_refusals_are_found_before_the_first_frame(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stream that nothing can be made of is left out, and the run goes on."""
        monkeypatch.setattr(remux, "refusal", lambda *arguments: "no room")
        writer = rewrite(SAMPLE, tmp_path / "out.mp4", **FAST)
        assert writer.warnings == ["The audio stream 1 (aac) was left out: it cannot be converted (no room)."]
        assert len(times(tmp_path / "out.mp4")) == 60

    def test_a_packet_that_is_refused_late_ends_no_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clip = make_source(tmp_path / "in.mkv", audio="aac")

        class Refusing:
            def __init__(self, output: OutputContainer) -> None:
                self._output = output

            def mux_one(self, packet: Packet) -> None:
                assert packet.pts is not None
                if packet.pts * packet.time_base > 0.38:
                    raise av.error.ArgumentError(22, "Invalid argument")
                self._output.mux_one(packet)

        opened = remux.CopiedStreams.__init__

        def with_refusals(self: Any, *arguments: Any) -> None:
            opened(self, *arguments)
            self._output = Refusing(self._output)

        monkeypatch.setattr(remux.CopiedStreams, "__init__", with_refusals)
        writer = rewrite(clip, tmp_path / "out.mp4", **FAST)
        assert len(times(tmp_path / "out.mp4")) == 10
        (warning,) = writer.warnings
        assert "audio stream 1 (aac) is incomplete: the output format refuses 1 of its packets" in warning

    def test_a_video_that_the_muxer_refuses_fails_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoded: list[Any] = []

        def encode(*arguments: Any) -> Iterator[Packet]:
            encoded.append(arguments)
            return iter(())

        monkeypatch.setattr(EncodedStream, "encode", encode)
        with pytest.raises(MediaError):
            rewrite(SAMPLE, tmp_path / "out.mp4", codec="huffyuv", pix_fmt="yuv422p", encoder_options={})
        assert encoded == []
        assert not list(tmp_path.iterdir())
