"""Damage: named at its time and in its file, or repaired, with the timeline as it is and a list of the repairs."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError, RequestError
from stvsr.engine.media.damage import OnDamage, Repair, RepairLog, repair_sentences
from stvsr.engine.media.decode import StreamDecoder
from stvsr.engine.media.frame import Frame
from stvsr.engine.media.opening import open_video
from stvsr.engine.media.options import ReadOptions
from stvsr.engine.media.probe import probe
from stvsr.engine.media.reader import VideoReader, open_reader
from stvsr.engine.media.writer import VideoWriter

from tests.support.faulty import damage_packet, interlaced, smooth_pan, write_gray
from tests.support.media import remux, truncate
from tests.support.paths import SAMPLE

FRAMES = smooth_pan(30, (64, 96))
X264 = {"g": "10", "bf": "0", "sc_threshold": "0", "qp": "20"}
KINDS: list[tuple[str, str, dict[str, str]]] = [
    ("libx264", ".mp4", X264),
    ("libx264", ".mkv", X264),
    ("libx264", ".ts", {**X264, "aud": "1"}),
    ("libx264", ".mp4", {**X264, "bf": "2", "preset": "medium"}),
    ("libx265", ".mp4", {"x265-params": "log-level=none:keyint=10:min-keyint=10:scenecut=0"}),
    ("libvpx-vp9", ".webm", {"g": "10", "deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
    ("mpeg2video", ".ts", {"g": "10"}),
    ("mpeg4", ".avi", {"g": "10"}),
    ("wmv2", ".wmv", {"g": "10"}),
    ("ffv1", ".mkv", {}),
    ("prores_ks", ".mov", {}),
]


def clip_of(folder: Path, codec: str, suffix: str, options: dict[str, str]) -> Path:
    pix_fmt = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    return write_gray(folder / f"clip{suffix}", FRAMES, codec=codec, options=options, pix_fmt=pix_fmt)


def read(path: Path, on_damage: OnDamage) -> tuple[list[Frame], list[Repair]]:
    with open_reader(path, options=ReadOptions(on_damage=on_damage)) as reader:
        frames = list(reader)
        said = [sentence for sentence in reader.warnings if "ends within a packet" not in sentence]
        assert said == [repair.sentence for repair in reader.repairs]
        return frames, list(reader.repairs)


def times(frames: list[Frame]) -> list[Fraction]:
    return [frame.pts for frame in frames]


@pytest.mark.parametrize(("codec", "suffix", "options"), KINDS, ids=[f"{c}{s}-{len(o)}" for c, s, o in KINDS])
@pytest.mark.parametrize("number", [13, 20])  # a frame that refers to others, and a keyframe
def test_a_damaged_packet_ends_no_film(
    tmp_path: Path, codec: str, suffix: str, options: dict[str, str], number: int
) -> None:
    whole = clip_of(tmp_path, codec, suffix, options)
    damaged = tmp_path / f"damaged{suffix}"
    time = damage_packet(whole, damaged, number, "middle" if suffix == ".ts" else "all") - probe(whole).origin
    expected, _ = read(whole, "stop")
    with pytest.raises(MediaError, match=rf"{damaged} is damaged at \d\.\d{{3}} s.*by --on-damage repeat") as caught:
        read(damaged, "stop")
    named = float(str(caught.value).split(" damaged at ")[1].split(" s")[0])
    assert abs(named - float(time)) < 0.09, "at most two frames away"

    repeated, repairs = read(damaged, "repeat")
    assert times(repeated) == times(expected)
    assert [frame.duration for frame in repeated] == [frame.duration for frame in expected]
    assert repairs
    assert abs(repairs[0].start_s - float(time)) < 0.09
    assert {repair.action for repair in repairs} == {"repeated"}
    lost = sum(repair.lost for repair in repairs)
    same = sum(np.array_equal(one.rgb, two.rgb) for one, two in pairwise(repeated))
    assert same >= lost

    skipped, left_out = read(damaged, "skip")
    assert set(times(skipped)) <= set(times(expected))
    assert len(skipped) == len(expected) - sum(repair.lost for repair in left_out)
    assert skipped[-1].pts + skipped[-1].duration == expected[-1].pts + expected[-1].duration
    assert {repair.action for repair in left_out} == {"left out"}


def test_traces_of_damage_end_at_the_next_keyframe(tmp_path: Path) -> None:
    whole = clip_of(tmp_path, "libx264", ".mp4", X264)
    damage_packet(whole, tmp_path / "damaged.mp4", 13, "all")
    frames, repairs = read(tmp_path / "damaged.mp4", "repeat")
    assert repairs == [
        Repair("video", 0.52, 0.56, 1, "repeated", "Invalid data found when processing input", traces_until_s=0.8)
    ]
    assert repairs[0].sentence == (
        "1 frame of the video from 0.520 to 0.560 s was damaged, and the frame before was repeated (Invalid data found"
        " when processing input). Frames up to 0.800 s refer to damaged ones, and may show traces of it."
    )
    expected, _ = read(whole, "stop")
    for number, (frame, other) in enumerate(zip(frames, expected, strict=True)):
        assert np.array_equal(frame.rgb, other.rgb) == (not 13 <= number < 20), number


@pytest.mark.parametrize("on_damage", ["repeat", "skip"])
@pytest.mark.parametrize(("codec", "suffix", "options"), KINDS[:8], ids=[f"{c}{s}-{len(o)}" for c, s, o in KINDS[:8]])
@pytest.mark.parametrize("number", [13, 20])
def test_a_part_is_repaired_as_the_whole(
    tmp_path: Path, codec: str, suffix: str, options: dict[str, str], number: int, on_damage: OnDamage
) -> None:
    """A part near the damage is read from the beginning: what the decoder makes of it depends on the frames before."""
    damaged = tmp_path / f"damaged{suffix}"
    damage_packet(clip_of(tmp_path, codec, suffix, options), damaged, number, "middle", seed=number)
    with open_reader(damaged, options=ReadOptions(on_damage=on_damage)) as reader:
        whole = list(reader)
        for low, high in ((0, 5), (12, 15), (13, 14), (14, 22), (20, 21), (21, len(whole))):
            end = whole[high].pts if high < len(whole) else whole[-1].pts + 1
            for seek in (True, False):
                part = list(reader.between(whole[low].pts, end, seek=seek))
                assert times(part) == times(whole[low:high])
            for frame, expected in zip(part, whole[low:high], strict=True):
                np.testing.assert_array_equal(frame.rgb, expected.rgb)


@pytest.mark.parametrize(
    ("name", "share"), [("clip.ts", 0.6), ("clip.mkv", 0.6), ("front.mp4", 0.7), ("clip.flv", 0.7)]
)
def test_a_file_that_is_cut_short_ends_where_it_ends(tmp_path: Path, name: str, share: float) -> None:
    options = {"movflags": "+faststart"} if name == "front.mp4" else {}
    source = clip_of(tmp_path, "libx264", ".mp4", X264)
    whole = remux(source, tmp_path / name, **options)
    cut = truncate(whole, tmp_path / f"cut_{name}", share)
    expected, _ = read(whole, "stop")
    for on_damage in ("repeat", "skip"):
        frames, repairs = read(cut, on_damage)
        assert 5 < len(frames) < len(expected)
        assert times(frames) == times(expected)[: len(frames)]
        if name in ("clip.mkv", "front.mp4"):  # the others do not declare their length, or not exactly
            assert repairs[-1].action == "missing"
            assert repairs[-1].end_s == pytest.approx(float(expected[-1].pts + expected[-1].duration), abs=0.05)
            assert "The end of the video from" in repairs[-1].sentence


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
def test_overwritten_bytes_of_a_file_are_repaired(tmp_path: Path, suffix: str) -> None:
    """The borders of packets are overwritten too, so that some are lost without a word from FFmpeg."""
    rng = np.random.default_rng(4)
    whole = remux(SAMPLE, tmp_path / f"whole{suffix}", **({"movflags": "+faststart"} if suffix == ".mp4" else {}))
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(rng.integers(0, 256, 4000, np.uint8))
    (tmp_path / f"damaged{suffix}").write_bytes(data)
    expected, _ = read(whole, "stop")
    frames, repairs = read(tmp_path / f"damaged{suffix}", "repeat")
    assert repairs
    assert all(0.4 < repair.start_s < 1.6 for repair in repairs)
    assert frames[0].pts == expected[0].pts
    if suffix == ".mkv":  # which FFmpeg reads on only from the next cluster, and the clip has one
        assert repairs[-1].action == "missing"
        assert repairs[-1].end_s == pytest.approx(2.0, abs=0.1)
        expected = expected[: len(frames)]
    for frame, other in zip(frames, expected, strict=True):
        assert abs(frame.pts - other.pts) <= Fraction(2, 1000)  # Matroska rounds times


def test_a_repaired_frame_of_interlaced_video_has_no_second_field(tmp_path: Path) -> None:
    clip = write_gray(tmp_path / "clip.mp4", interlaced(smooth_pan(40)), flags="tff", options={"g": "5", "bf": "0"})
    damage_packet(clip, tmp_path / "damaged.mp4", 8, "all")
    with open_reader(tmp_path / "damaged.mp4", options=ReadOptions("auto", on_damage="repeat")) as reader:
        frames = list(reader)
        assert len(reader.repairs) == 1
    assert times(frames) == [Fraction(n, 50) for n in range(40) if n != 17]
    np.testing.assert_array_equal(frames[15].rgb, frames[16].rgb)


def test_second_fields_in_packets_of_their_own_are_no_missing_frames(tmp_path: Path) -> None:
    """Broadcasts in H.264 code each field as a picture, and two packets make one frame."""

    class Fields(StreamDecoder):
        def _packets(self) -> Iterator[Any]:
            for packet in super()._packets():
                yield packet
                if packet.size and packet.pts is not None:
                    second = av.Packet(b"a second field")
                    second.pts, second.time_base = packet.pts + (packet.duration or 0) // 2, packet.time_base
                    yield second

        def _decode(self, packet: Any) -> list[av.VideoFrame]:
            return [] if packet is not None and bytes(packet) == b"a second field" else super()._decode(packet)

    for flags, whole in (("tff", True), (None, False)):
        clip = write_gray(tmp_path / "clip.mp4", interlaced(FRAMES), flags=flags, options={"bf": "0"})
        container, stream = open_video(clip)
        with container:
            decoder = Fields(container, stream, probe(clip))
            if whole:
                assert len(list(decoder)) == 15
                continue
            with pytest.raises(MediaError, match=r"damaged at 0\.0\d0 s"):
                list(decoder)


ENDLESS = 10**9


def test_errors_of_reading_the_file_are_passed_over(tmp_path: Path) -> None:
    """FFmpeg's demuxers return errors, and go on with what follows."""
    clip = clip_of(tmp_path, "libx264", ".mp4", X264)

    class Failing:
        def __init__(self, container: Any, times: int) -> None:
            self._container, self._times, self._begins = container, times, True

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def demux(self) -> Iterator[av.Packet]:
            packets = self._container.demux()
            if self._times < ENDLESS or self._begins:
                self._begins = False
                yield from islice(packets, 4)
            if self._times:
                self._times -= self._times < ENDLESS
                next(packets, None)  # is lost
                raise av.error.InvalidDataError(1, "the disk has a scratch")
            yield from packets

    def frames_of(on_damage: OnDamage, times: int) -> tuple[int, list[Repair]]:
        container, stream = open_video(clip)
        log = RepairLog()
        with container:
            failing: Any = Failing(container, times)
            return len(list(StreamDecoder(failing, stream, probe(clip), on_damage, log))), log.repairs

    with pytest.raises(MediaError, match=r"is damaged at 0\.\d\d0 s \(the disk has a scratch\)"):
        frames_of("stop", 1)
    count, repairs = frames_of("repeat", 1)
    assert count == 30
    assert [(repair.start_s, repair.lost) for repair in repairs] == [(0.16, 1)]
    assert repairs[0].reason == "the disk has a scratch"
    with pytest.raises(MediaError, match="the disk has a scratch"):
        frames_of("skip", ENDLESS)


@pytest.mark.parametrize("on_damage", ["stop", "repeat"])
def test_damaged_audio_is_not_blamed_on_the_output(tmp_path: Path, on_damage: OnDamage) -> None:
    source = tmp_path / "source.mkv"
    with av.open(str(SAMPLE)) as sample, av.open(str(source), "w") as output:
        video = output.add_stream_from_template(sample.streams.video[0], opaque=True)
        audio = output.add_stream("flac", rate=48000, layout="stereo")
        packets = [packet for packet in sample.demux(sample.streams.video[0]) if packet.size]
        for packet in packets:
            packet.stream = video
        tone = (np.sin(np.arange(96000) / 20) * 9000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.stack([tone, tone]), format="s16p", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        sound = [*audio.encode(frame), *audio.encode(None)]
        for number in (5, 6):
            broken = av.Packet(b"\xff" * 400)
            broken.pts = broken.dts = sound[number].pts
            broken.duration, broken.time_base, broken.stream = sound[number].duration, sound[number].time_base, audio
            sound[number] = broken
        for packet in sorted([*packets, *sound], key=lambda p: (p.dts or 0) * p.time_base):
            output.mux(packet)
    target = tmp_path / "out.webm"
    with VideoReader(source) as reader:
        info = reader.info
        writer = VideoWriter(
            target,
            source=reader,
            size=(info.width, info.height),
            rate=info.rate,
            time_base=info.time_base,
            on_damage=on_damage,
        )
        with writer:
            for picture in reader:
                writer.write((picture.rgb * 65535).round().astype(np.uint16), picture.pts, picture.duration)
    assert [warning for warning in writer.warnings if "audio stream 1 (flac) is incomplete" in warning]
    assert [(repair.stream, repair.lost, repair.action) for repair in writer.repairs] == [
        ("audio stream 1 (flac)", 2, "left out")
    ]
    assert writer.repairs[0].start_s == pytest.approx(5 * 4608 / 48000, abs=0.03)


def test_neighbouring_repairs_are_one() -> None:
    log = RepairLog()
    tick = Fraction(1, 25)
    for number in (3, 4, 5, 9):
        log.add("video", number * tick, (number + 1) * tick, "repeated", "it is broken")
    log.add("audio stream 1 (aac)", Fraction(0), Fraction(1, 50), "left out", "it is broken")
    log.trace(Fraction(1, 2))
    assert [(repair.start_s, repair.lost, repair.traces_until_s) for repair in log.repairs] == [
        (0.12, 3, None),
        (0.36, 1, 0.5),
        (0.0, 1, None),
    ]
    assert log.repairs[2].sentence == (
        "1 packet of the audio stream 1 (aac) from 0.000 to 0.020 s was damaged, and left out (it is broken)."
    )
    many = log.repairs[:1] * 20
    assert len(repair_sentences(many)) == 9
    assert repair_sentences(many)[-1] == "12 more spans were damaged, which the JSON report lists."


def test_an_unknown_treatment_is_refused() -> None:
    with pytest.raises(RequestError, match="--on-damage is 'ignore': choose one of stop, repeat, skip"):
        ReadOptions(on_damage="ignore")  # type: ignore[arg-type]
