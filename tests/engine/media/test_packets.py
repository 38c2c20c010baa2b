"""The timeline of a file: clocks that begin far from zero, fall back, leap ahead, or are wrong once."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from av.packet import Packet
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.opening import open_video
from stvsr.engine.media.packets import SourcePackets
from stvsr.engine.media.probe import probe
from stvsr.engine.media.reader import open_reader

from tests.support.media import make_clip, new_writer, rewrite, times
from tests.support.sources import click_of, joined, make_source, packet_times, sound_of

FAST = {"preset": "ultrafast"}
COUNT, RATE = 30, Fraction(25)
TEN_HOURS_S = Fraction(36000)
# Containers that store the clock of a recording, with codecs that they take.
RECORDINGS = {
    ".ts": ("mpeg2video", "mp2"),
    ".mpg": ("mpeg2video", "mp2"),
    ".mkv": ("libx264", "aac"),
    ".webm": ("libvpx", "libopus"),
}


def recording(path: Path, start: Fraction = Fraction(0), count: int = COUNT, **options: Any) -> Path:
    """Write 1.2 seconds whose clock begins at `start`."""
    video, audio = RECORDINGS[path.suffix]
    return make_source(path, video=video, audio=audio, count=count, rate=RATE, start=start, **options)


def distance(path: Path) -> float:
    """Return the seconds from the first frame to the tone."""
    info = probe(path)
    return float(click_of(path) - info.origin - info.start)


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
@pytest.mark.parametrize("target", [".mp4", ".mkv"])
def test_a_clock_far_from_zero_begins_at_zero(tmp_path: Path, suffix: str, target: str) -> None:
    video, audio = ("mpeg2video", "mp2") if suffix == ".ts" else ("libx264", "aac")
    source = make_source(
        tmp_path / f"late{suffix}", video=video, audio=audio, start=TEN_HOURS_S, sound_start=Fraction(-1, 10)
    )
    with av.open(str(source)) as container:
        assert container.start_time > 35_999 * av.time_base
    out = tmp_path / f"out{target}"
    rewrite(source, out, encoder_options=FAST)
    with av.open(str(out)) as container:
        assert container.start_time == pytest.approx(0, abs=0.05 * av.time_base)
        assert container.duration == pytest.approx(0.5 * av.time_base, abs=0.05 * av.time_base)
    assert distance(out) == pytest.approx(distance(source), abs=0.01)


@pytest.mark.parametrize(
    ("suffix", "start"),
    [
        *((suffix, start) for suffix in RECORDINGS for start in (Fraction(0), Fraction(9, 10))),
        *((suffix, TEN_HOURS_S) for suffix in (".ts", ".mpg")),  # in Matroska a gap is a gap
        (".ts", Fraction(11, 10)),
    ],
)
def test_joined_recordings_go_on_with_every_frame(tmp_path: Path, suffix: str, start: Fraction) -> None:
    parts = recording(tmp_path / f"a{suffix}"), recording(tmp_path / f"b{suffix}", start)
    clip = joined(tmp_path / f"clip{suffix}", *parts)
    with open_reader(clip) as reader:
        frames = [(frame.pts, frame.duration) for frame in reader]
        (warning,) = reader.warnings
    assert len(frames) == 2 * COUNT
    gaps = [second - first for (first, _), (second, _) in pairwise(frames)]
    # FFmpeg guesses the time of the last frame before the joint in a program stream.
    usual = [*gaps[: COUNT - 2], *gaps[COUNT:]]
    assert all(abs(gap - 1 / RATE) <= Fraction(1, 900) for gap in usual)
    assert min(gaps) > 0
    assert 2 / RATE - Fraction(1, 45) <= sum(gaps[COUNT - 2 : COUNT]) < Fraction(7, 50), "the second part goes on"
    assert "as where recordings are joined" in warning

    out = tmp_path / "out.mp4"
    rewrite(clip, out, encoder_options=FAST)
    assert len(times(out)) == 2 * COUNT
    _, samples, rate = sound_of(out)
    assert samples.shape[1] / rate == pytest.approx(2 * COUNT / RATE, abs=0.15)
    for packets in packet_times(out).values():
        assert all(first < second for (first, _), (second, _) in pairwise(packets))
    # The tone of each part is as far from its first frame as in the recording.
    loud = abs(samples[0]) > 0.1
    second = int(loud[round(1.25 * rate) :].argmax()) + round(1.25 * rate)
    begin = sound_of(out)[0] - probe(out).origin
    assert float(begin) + second / rate - float(times(out)[COUNT][0]) == pytest.approx(distance(clip), abs=0.03)


class Altered(SourcePackets):
    """Packets of a file; a function changes the timestamps of those of a kind before anything else sees them."""

    kind: str
    alter: Callable[[int, Packet], None]

    def _demuxed(self) -> Iterator[Packet]:
        number = 0
        for packet in super()._demuxed():
            if packet.stream.type == self.kind and packet.size:
                self.alter(number, packet)
                number += 1
            yield packet


def altered_times(path: Path, alter: Callable[[int, Packet], None], kind: str = "video") -> tuple[list[int], int]:
    """Return the presentation times of a kind's packets in ticks, and the number of changes of the clock."""
    container, video = open_video(path)
    with container:
        packets = Altered(container, video)
        packets.kind, packets.alter = kind, alter
        found = [packet.pts for packet in packets if packet.size and packet.stream.type == kind]
    return [pts for pts in found if pts is not None], len(packets.joints)


@pytest.mark.parametrize("ticks", [-45_000, -3_601, 36_000 * 90_000])
def test_a_single_wrong_timestamp_is_no_change_of_the_clock(tmp_path: Path, ticks: int) -> None:
    clip = recording(tmp_path / "clip.ts")

    def alter(number: int, packet: Packet) -> None:
        if number == 12 and packet.pts is not None and packet.dts is not None:
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks

    usual, _ = altered_times(clip, lambda number, packet: None)
    found, joints = altered_times(clip, alter)
    assert joints == 0
    assert found[:12] + found[13:] == usual[:12] + usual[13:]
    assert max(found) == max(usual)


def test_sound_that_overlaps_keeps_its_distance_from_the_picture(tmp_path: Path) -> None:
    """As where a broadcast changes from one film to the next; the clock of the picture goes on."""
    clip = recording(tmp_path / "clip.ts", count=60)

    def alter(number: int, packet: Packet) -> None:
        if number >= 12 and packet.pts is not None and packet.dts is not None:
            packet.pts, packet.dts = packet.pts - 2700, packet.dts - 2700  # 30 ms

    usual, _ = altered_times(clip, lambda number, packet: None, "audio")
    found, joints = altered_times(clip, alter, "audio")
    assert joints == 0
    assert found == [*usual[:12], *(pts - 2700 for pts in usual[12:])]


def test_a_clock_that_falls_back_by_two_frames_goes_on(tmp_path: Path) -> None:
    clip = make_source(tmp_path / "clip.ts", video="mpeg2video", count=COUNT)

    def alter(number: int, packet: Packet) -> None:
        if number >= 12 and packet.pts is not None and packet.dts is not None:
            packet.pts, packet.dts = packet.pts - 7200, packet.dts - 7200

    usual, _ = altered_times(clip, lambda number, packet: None)
    found, joints = altered_times(clip, alter)
    assert joints == 1
    assert found == usual


def test_a_pause_of_the_picture_is_kept(tmp_path: Path) -> None:
    """Other than a change of the clock, which all streams see."""
    clip = make_source(tmp_path / "clip.ts", video="mpeg2video", audio="mp2", count=COUNT, sound_s=Fraction(14))

    def alter(number: int, packet: Packet) -> None:
        if number >= 25 and packet.pts is not None and packet.dts is not None:
            packet.pts, packet.dts = packet.pts + 11 * 90_000, packet.dts + 11 * 90_000

    found, joints = altered_times(clip, alter)
    assert joints == 0
    assert max(found) - min(found) > 11 * 90_000


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.mp4", {"video": "libx264", "audio": "aac"}, "holds 2 files one after the other"),
        ("a.mov", {"video": "mjpeg", "pix_fmt": "yuvj420p"}, "holds 2 files one after the other"),
        (
            "f.mp4",
            {"video": "libx264", "muxer": {"movflags": "frag_keyframe+empty_moov"}},
            "holds 2 files one after the other",
        ),
        ("a.flv", {"video": "flv", "audio": "libmp3lame", "sound_rate": 44100}, "holds another file after 0"),
        ("a.wmv", {"video": "wmv2", "audio": "wmav2"}, "holds another file after 0"),
        ("a.nut", {"video": "mpeg4", "audio": "libmp3lame"}, "holds another file after 0"),
        ("a.ogv", {"video": "libvpx", "audio": "flac", "format": "ogg"}, "holds another file after 0"),
        ("a.ivf", {"video": "libvpx-vp9"}, "holds another file after frame 10"),
        ("a.y4m", {"video": "wrapped_avframe"}, "holds another file after frame 10, at 0.400 s"),
    ],
)
def test_joined_files_that_cannot_be_read_are_refused(
    tmp_path: Path, name: str, options: dict[str, Any], message: str
) -> None:
    part = make_source(tmp_path / name, **options)
    clip = joined(tmp_path / f"clip{part.suffix}", part, part)
    assert len(times(part)) == 10
    with pytest.raises(MediaError, match=rf"{message}.*ffmpeg -f concat"):
        times(clip)


def test_a_recording_that_begins_between_key_frames_is_joined(tmp_path: Path) -> None:
    whole = make_source(tmp_path / "a.ts", video="libx264", count=18, options={"g": "6"})
    with av.open(str(whole)) as container:
        positions = [packet.pos for packet in container.demux() if packet.size]
    assert positions[2] is not None
    (tmp_path / "b.ts").write_bytes(whole.read_bytes()[positions[2] :])
    clip = joined(tmp_path / "clip.ts", whole, tmp_path / "b.ts")
    with open_reader(clip) as reader:
        found = [frame.pts for frame in reader]
        assert len(reader.warnings) == 2
        assert "4 frames after a joint need others that are not there, and were left out" in reader.warnings[1]
    assert len(found) == 18 + 12
    assert all(first < second for first, second in pairwise(found))


def test_damage_after_a_joint_names_the_joint(tmp_path: Path) -> None:
    whole = make_source(tmp_path / "a.ts", video="libx264", options={"g": "5"})
    clip = joined(tmp_path / "clip.ts", whole, whole)
    data = bytearray(clip.read_bytes())
    with av.open(str(whole)) as container:
        position = [packet.pos for packet in container.demux() if packet.size][5]
    assert position is not None
    start = len(data) // 2 + position + 188
    data[start : start + 100] = bytes(100)
    clip.write_bytes(data)
    with pytest.raises(MediaError, match=r"damaged at 0\.\d+ s.* near 0\.400 s, where its clock .* cut it there"):
        times(clip)


def test_frames_that_are_closer_than_a_millisecond_follow_each_other(tmp_path: Path) -> None:
    pts = [0, 8, 16, 24, 1001, 1002, 2002]  # ticks of 1/30000 s
    clip = make_clip(tmp_path / "clip.mp4", pts=pts, options={"bf": "0"})
    rewrite(clip, tmp_path / "out.mkv")
    found = [round(pts * 1000) for pts, _ in times(tmp_path / "out.mkv")]
    assert found == [0, 1, 2, 3, 33, 34, 67]


def test_more_frames_than_milliseconds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"1200 frames per second, as Matroska counts milliseconds: choose \.mp4"):
        new_writer(tmp_path / "out.mkv", rate=Fraction(1200), time_base=Fraction(1, 1200))
    assert not list(tmp_path.iterdir())
