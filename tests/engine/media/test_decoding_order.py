"""Frames of AVI files, which store no times, are shown in their order, whatever the order of decoding is."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.options import ReadOptions
from stvsr.engine.media.probe import probe
from stvsr.engine.media.reader import open_reader

from tests.support.faulty import damage_packet, smooth_pan, write_gray

FRAMES = smooth_pan(30, (48, 64))
KINDS = [("libx264", {"g": "10", "bf": "2", "preset": "medium"}), ("mpeg4", {"g": "10", "bf": "2"})]


@pytest.mark.parametrize(("codec", "options"), KINDS, ids=["h264", "mpeg4"])
def test_reordered_frames_have_the_times_of_their_order(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    timed = write_gray(tmp_path / "clip.mp4", FRAMES, codec=codec, options=options)
    source = write_gray(tmp_path / "clip.avi", FRAMES, codec=codec, options=options)
    assert probe(source).start == 0
    with open_reader(timed) as expected, open_reader(source) as reader:
        frames, shown = list(reader), list(expected)
        assert not reader.is_seekable
        assert len(frames) == len(shown) == 30
        for number, (frame, other) in enumerate(zip(frames, shown, strict=True)):
            assert frame.pts == Fraction(number, 25)
            np.testing.assert_array_equal(frame.rgb, other.rgb)
        part = list(reader.between(frames[13].pts, frames[22].pts))
        rest = list(reader.from_time(frames[13].pts))
    for read, wanted in ((part, frames[13:22]), (rest, frames[13:])):
        assert [frame.pts for frame in read] == [frame.pts for frame in wanted]
        assert all(np.array_equal(one.rgb, other.rgb) for one, other in zip(read, wanted, strict=True))


@pytest.mark.parametrize(("codec", "options"), KINDS, ids=["h264", "mpeg4"])
@pytest.mark.parametrize("number", [11, 12, 13])
def test_times_are_right_again_after_damage(tmp_path: Path, codec: str, options: dict[str, str], number: int) -> None:
    source = write_gray(tmp_path / "clip.avi", FRAMES, codec=codec, options=options)
    damaged = tmp_path / "damaged.avi"
    damage_packet(source, damaged, number, "all")
    with pytest.raises(MediaError, match="is damaged at"), open_reader(damaged) as reader:
        list(reader)
    with open_reader(damaged, options=ReadOptions(on_damage="repeat")) as reader, open_reader(source) as whole:
        frames, expected = {frame.pts: frame.rgb for frame in reader}, list(whole)
        assert sum(one.lost for one in reader.repairs) <= 3
    assert len(frames) in (29, 30)
    same = [frame.pts in frames and np.array_equal(frames[frame.pts], frame.rgb) for frame in expected]
    assert all(same[:7]), "before the damage"
    assert all(same[-5:]), "after the next keyframe"
