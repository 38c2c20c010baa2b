"""Parts of videos, and slow motion: frame-exact, with sound, subtitles and chapters that are cut alike."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.frame import Frame
from stvsr.engine.media.options import Part
from stvsr.engine.media.reader import open_reader
from stvsr.engine.media.writer import VideoWriter

from tests.support.media import NTSC, make_clip, make_folder, packets_of, truncate
from tests.support.paths import SAMPLE

STEP = Fraction(1001, 30000)
GOP = {"g": "8", "bf": "2"}


def frames_of(path: Path, part: Part | None = None) -> list[Frame]:
    with open_reader(path, fps=NTSC if path.is_dir() else None, part=part) as reader:
        return list(reader)


PARTS = [
    (Part(start=Fraction("0.3")), range(9, 20)),
    (Part(start=Fraction("0.334")), range(10, 20)),  # 10 * 1001 / 30000 is 0.33367, typed with three decimals
    (Part(start=Fraction("0.335"), end=Fraction("0.5005")), range(11, 15)),
    (Part(end=Fraction("0.3")), range(9)),
    (Part(frames=7), range(7)),
    (Part(start=Fraction("0.6"), frames=1), range(18, 19)),
    (Part(start=Fraction(0), end=Fraction(100)), range(20)),
]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "folder"])
def test_a_part_has_exactly_its_frames_from_0_on(tmp_path: Path, name: str) -> None:
    is_folder = name == "folder"
    path = make_folder(tmp_path / name, 20) if is_folder else make_clip(tmp_path / name, count=20, options=GOP)
    whole = frames_of(path)
    for part, numbers in PARTS:
        found = frames_of(path, part)
        assert len(found) == len(numbers), part
        shift = whole[numbers[0]].pts if part.start is not None else 0
        for frame, number in zip(found, numbers, strict=True):
            assert np.array_equal(frame.rgb, whole[number].rgb)
            assert (frame.pts, frame.duration) == (whole[number].pts - shift, whole[number].duration)
    with open_reader(path, fps=NTSC if is_folder else None, part=PARTS[2][0]) as reader:
        assert reader.info.frames == 4
        times = [frame.pts for frame in reader]
        assert [frame.pts for frame in reader.between(times[2], times[3])] == [times[2]]


def test_slow_motion_stretches_every_time(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", pts=[0, 1001, 3003, 4004])
    plain, slow = frames_of(clip), frames_of(clip, Part(slowness=Fraction(5, 2)))
    assert [(f.pts, f.duration) for f in slow] == [(f.pts * 5 / 2, f.duration * 5 / 2) for f in plain]
    with open_reader(clip) as one, open_reader(clip, part=Part(slowness=Fraction(5, 2))) as other:
        assert other.info.rate == one.info.rate * 2 / 5
        assert all((frame.pts / other.info.time_base).denominator == 1 for frame in slow)


def test_a_still_picture_ends_with_the_part(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", pts=[0, 1001, 300_000])
    (_, last) = frames_of(clip, Part(end=Fraction(2)))
    assert last.pts + last.duration == 2


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Part(start=Fraction(60)), "no frame from 60 s on: choose an earlier start"),
        (Part(end=Fraction(0)), "later end"),
    ],
)
def test_a_part_without_frames_is_refused(part: Part, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        frames_of(SAMPLE, part)


def test_damage_in_a_part_is_found_and_damage_behind_it_does_not_matter(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mkv", count=40, options=GOP)
    cut = truncate(clip, tmp_path / "cut.mkv", 0.7)
    assert len(frames_of(cut, Part(start=Fraction(1, 4), end=Fraction(1, 2)))) == 7
    with pytest.raises(MediaError, match=r"cut short|damaged"):
        frames_of(cut, Part(start=Fraction(1, 2)))


def rewritten(source: Path, target: Path, part: Part) -> VideoWriter:
    """Write a part of a video without changing its frames."""
    with open_reader(source, part=part) as reader:
        info = reader.info
        writer = VideoWriter(
            target, source=reader, size=(info.width, info.height), rate=info.rate, time_base=info.time_base
        )
        with writer:
            for frame in reader:
                writer.write(np.rint(frame.rgb * 65535).astype(np.uint16), frame.pts, frame.duration)
    return writer


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_sound_is_cut_with_the_picture(tmp_path: Path, suffix: str) -> None:
    writer = rewritten(SAMPLE, tmp_path / f"part{suffix}", Part(Fraction(1, 2), Fraction(3, 2)))
    assert writer.warnings == []
    origin = 15 * STEP
    (whole,), (cut,) = packets_of(SAMPLE, "audio"), packets_of(tmp_path / f"part{suffix}", "audio")
    wanted = [(pts - origin, data) for pts, data in whole if origin - Fraction(1, 1000) <= pts < 45 * STEP]
    assert [data for _, data in cut] == [data for _, data in wanted]
    for (pts, _), (expected, _) in zip(cut, wanted, strict=True):
        assert abs(pts - expected) <= Fraction(1, 1000)
    assert 0 <= cut[0][0] < Fraction(1024, 48000) + Fraction(1, 1000)


def test_converted_sound_is_cut_too(tmp_path: Path) -> None:
    rewritten(SAMPLE, tmp_path / "part.webm", Part(Fraction(1, 2), Fraction(3, 4)))
    with av.open(str(tmp_path / "part.webm")) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples / 48000 == pytest.approx(8 * float(STEP), abs=0.045)


def test_subtitles_and_chapters_are_cut_and_stretched(tmp_path: Path) -> None:
    lines = ((0, 100, "before"), (300, 500, "into"), (700, 200, "in"), (1300, 100, "after"))
    chapters = ((0, 400, "first"), (400, 900, "second"), (900, 1400, "third"))
    clip = make_clip(tmp_path / "in.mkv", count=42, languages=("deu",), subtitles=lines, chapters=chapters, options=GOP)
    part = Part(Fraction("0.5005"), Fraction("1.001"))  # frames 15 to 29
    for slowness in (1, 3):
        out = tmp_path / f"{slowness}.mkv"
        writer = rewritten(clip, out, Part(part.start, part.end, slowness=Fraction(slowness)))
        left_out = ["The audio stream 1 (aac) was left out: it does not follow slow motion."]
        assert writer.warnings == (left_out if slowness > 1 else [])
        ((first, text), (second, other)) = packets_of(out, "subtitle")[0]
        assert (text, other) == (b"into", b"in")
        assert first == 0
        assert second == pytest.approx(slowness * (0.7 - 0.5005), abs=0.1)
        with av.open(str(out)) as container:
            found = [
                (float(c["start"] * base), float(c["end"] * base), c["metadata"]["title"])
                for c in container.chapters()
                if (base := c["time_base"]) is not None
            ]
        with open_reader(clip) as reader:  # sound that begins before the picture moves it
            start = 0.5005 + float(reader.info.start)
        expected = [(0, 0.9 - start, "second"), (0.9 - start, 1.001 - start, "third")]
        for (start, end, title), (low, high, name) in zip(found, expected, strict=True):
            assert title == name
            assert (start, end) == pytest.approx((slowness * low, slowness * high), abs=0.004)
