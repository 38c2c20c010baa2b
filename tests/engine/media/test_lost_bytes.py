"""Frames that lack where bytes of a file are missing are damage; gaps in a file that is whole are none."""

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.lost_bytes import LostBytes, ends_within_packet
from stvsr.engine.media.opening import open_video
from stvsr.engine.media.options import ReadOptions
from stvsr.engine.media.reader import open_reader

from tests.support.faulty import damage_packet, smooth_pan, write_gray

COUNT = 24
FRAMES = smooth_pan(COUNT, (48, 64))
KINDS: list[tuple[str, str, dict[str, str]]] = [
    ("libx264", ".ts", {"g": "8", "bf": "2", "aud": "1"}),
    ("mpeg2video", ".ts", {"g": "8", "bf": "2"}),
    ("libx264", ".flv", {"g": "8", "bf": "2"}),
    ("mjpeg", ".mkv", {}),
    ("libx264", ".mkv", {"g": "8", "bf": "2"}),
    ("mjpeg", ".avi", {}),
    ("mpeg4", ".avi", {"g": "8"}),
]
IDS = [f"{codec}{suffix}" for codec, suffix, _ in KINDS]


def clip(folder: Path, codec: str, suffix: str, options: dict[str, str], ticks: Sequence[int] | None = None) -> Path:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    return write_gray(folder / f"clip{suffix}", FRAMES, codec=codec, options=options, pix_fmt=pix_fmt, ticks=ticks)


def are_damaged(path: Path) -> bool:
    container, stream = open_video(path)
    with container:
        return LostBytes(path, container.format.name, stream.id).are_between(0, math.inf)


@pytest.mark.parametrize(("codec", "suffix", "options"), KINDS, ids=IDS)
def test_a_hole_never_makes_a_shorter_video_without_a_word(
    tmp_path: Path, codec: str, suffix: str, options: dict[str, str]
) -> None:
    whole = clip(tmp_path, codec, suffix, options)
    assert not are_damaged(whole)
    data, hole = whole.read_bytes(), tmp_path / f"hole{suffix}"
    named = 0
    for part in range(12):
        start = len(data) * (6 + part) // 24
        for rest in (data[start + len(data) // 10 :], bytes(400) + data[start + 400 :]):
            hole.write_bytes(data[:start] + rest)
            try:
                with open_reader(hole) as reader:
                    count = len(list(reader))
                    assert count >= COUNT or reader.warnings, f"{count} frames, from byte {start}"
            except MediaError:
                named += 1
    assert named >= 4


@pytest.mark.parametrize(("codec", "suffix", "options"), KINDS[:4], ids=IDS[:4])
def test_the_repair_of_a_hole_keeps_the_timeline(
    tmp_path: Path, codec: str, suffix: str, options: dict[str, str]
) -> None:
    whole = clip(tmp_path, codec, suffix, options)
    data, hole = whole.read_bytes(), tmp_path / f"hole{suffix}"
    middle = len(data) // 2
    hole.write_bytes(data[:middle] + data[middle + len(data) // 10 :])
    with open_reader(whole) as reader:
        end = max(frame.pts + frame.duration for frame in reader)
    with open_reader(hole, options=ReadOptions(on_damage="repeat")) as reader:
        frames = list(reader)
        assert reader.repairs
    assert max(frame.pts + frame.duration for frame in frames) == pytest.approx(end, abs=0.09)
    assert all(frame.duration < Fraction(3, 25) for frame in frames)


@pytest.mark.parametrize(("codec", "suffix", "options"), KINDS[:5], ids=IDS[:5])
def test_gaps_of_a_whole_file_are_no_damage(tmp_path: Path, codec: str, suffix: str, options: dict[str, str]) -> None:
    ticks = [number + 3 * (number // 5) for number in range(COUNT)]
    with open_reader(clip(tmp_path, codec, suffix, options, ticks)) as reader:
        frames = list(reader)
        assert reader.warnings == []
    assert [round((frame.pts - frames[0].pts) * 25) for frame in frames] == ticks


def test_a_transport_stream_that_is_broken_off_says_so(tmp_path: Path) -> None:
    whole = clip(tmp_path, *KINDS[0])
    assert not ends_within_packet(whole)
    assert not ends_within_packet(tmp_path / "none.ts")
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole.read_bytes()[:-100])
    with open_reader(cut) as reader:
        list(reader)
        assert any("ends within a packet" in sentence for sentence in reader.warnings)


def test_packets_of_blu_ray_are_followed(tmp_path: Path) -> None:
    plain = clip(tmp_path, *KINDS[0]).read_bytes()
    whole = b"".join(bytes(4) + plain[start : start + 188] for start in range(0, len(plain), 188))
    path = tmp_path / "clip.m2ts"
    path.write_bytes(whole)
    assert not are_damaged(path)
    assert not ends_within_packet(path)
    path.write_bytes(whole[: 192 * 30] + whole[192 * 34 :])
    assert are_damaged(path)


def test_a_live_recording_in_matroska_that_is_broken_off_says_so(tmp_path: Path) -> None:
    whole = clip(tmp_path, *KINDS[3])
    live = tmp_path / "live.mkv"
    with av.open(str(whole)) as source, av.open(str(live), "w", options={"live": "1"}) as output:
        stream = output.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    with open_reader(live) as reader:
        assert len(list(reader)) == COUNT
        assert reader.warnings == []
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(live.read_bytes()[:-20])
    with open_reader(cut) as reader:
        assert len(list(reader)) == COUNT - 1
        assert any("ends within a packet" in sentence for sentence in reader.warnings)


@pytest.mark.parametrize(("codec", "suffix"), [("prores_ks", ".mov"), ("mjpeg", ".mov"), ("mjpeg", ".mkv")])
def test_a_damaged_first_frame_is_named(tmp_path: Path, codec: str, suffix: str) -> None:
    pix_fmt = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    whole = write_gray(tmp_path / f"clip{suffix}", FRAMES[:8], codec=codec, pix_fmt=pix_fmt)
    damaged = tmp_path / f"damaged{suffix}"
    damage_packet(whole, damaged, 0, "all")
    with pytest.raises(MediaError, match=r"is damaged at 0\.0\d\d s"), open_reader(damaged) as reader:
        list(reader)
    with open_reader(damaged, options=ReadOptions(on_damage="repeat")) as reader:
        assert len(list(reader)) == 7
        assert [(one.action, one.lost) for one in reader.repairs] == [("left out", 1)]


def test_a_cut_index_is_named(tmp_path: Path) -> None:
    whole = write_gray(tmp_path / "clip.mp4", FRAMES[:8])
    with open_reader(whole) as reader:
        assert reader.warnings == []
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:-40])
    with open_reader(cut) as reader:
        assert len(list(reader)) == 8
        assert any("index" in sentence and "audio" in sentence for sentence in reader.warnings)
