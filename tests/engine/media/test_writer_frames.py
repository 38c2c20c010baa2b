"""Frames, colors and geometry of written files."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from stvsr.engine.media.probe import probe
from stvsr.engine.media.reader import VideoReader

from tests.support.media import BT2020, make_clip, make_folder, new_writer, rewrite, write_frames
from tests.support.paths import SAMPLE


def test_lossless_codec_keeps_frames(tmp_path: Path) -> None:
    with VideoReader(SAMPLE) as reader:
        before = [frame.rgb for frame in reader][:5]
    rewrite(SAMPLE, tmp_path / "out.mkv", codec="ffv1", pix_fmt="bgr0")
    with VideoReader(tmp_path / "out.mkv") as reader:
        after = [frame.rgb for frame in reader][:5]
    assert max(np.abs(a - b).max() for a, b in zip(before, after, strict=True)) <= 0.501 / 255


def test_default_encoding_exceeds_38_db(tmp_path: Path) -> None:
    rewrite(SAMPLE, tmp_path / "out.mp4")
    with VideoReader(SAMPLE) as source, VideoReader(tmp_path / "out.mp4") as result:
        errors = [float(((a.rgb - b.rgb) ** 2).mean()) for a, b in zip(source, result, strict=True)]
    assert -10 * np.log10(np.mean(errors)) > 38


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_color_tags_and_bit_depth_are_kept(tmp_path: Path, suffix: str) -> None:
    clip = make_clip(tmp_path / "hdr.mp4", pix_fmt="yuv420p10le", tags=BT2020)
    out = tmp_path / f"out{suffix}"
    writer = rewrite(clip, out, scale=2)
    assert writer.pix_fmt == "yuv420p10le"
    assert probe(out).color == probe(clip).color
    assert probe(out).bit_depth == 10


def test_full_range_is_kept(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "full.mp4", pix_fmt="yuvj420p")
    rewrite(clip, tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").color.range == 2
    with VideoReader(clip) as source, VideoReader(tmp_path / "out.mp4") as result:
        difference = next(iter(source)).rgb.mean() - next(iter(result)).rgb.mean()
    assert abs(float(difference)) < 0.005


def test_untagged_source_is_tagged_with_the_matrix_of_its_own_height(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "plain.mp4")
    assert probe(clip).color.matrix == 2
    rewrite(clip, tmp_path / "out.mp4", scale=16, encoder_options={"preset": "ultrafast"})
    info = probe(tmp_path / "out.mp4")
    assert info.height >= 720
    assert info.color.matrix == 6, "by the height of the source, not of the output"


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("rotation", [(90, False), (180, False), (-90, False), (90, True), (0, True)])
def test_rotation_and_mirroring_are_kept(tmp_path: Path, suffix: str, rotation: tuple[int, bool]) -> None:
    clip = make_clip(tmp_path / "rot.mp4", count=2, rotation=rotation)
    out = tmp_path / f"out{suffix}"
    rewrite(clip, out)
    assert probe(clip).display_matrix is not None
    assert probe(out).display_matrix == probe(clip).display_matrix


def test_pixel_aspect_is_kept_or_reported(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "wide.mp4", aspect=Fraction(16, 15))
    for suffix in (".mp4", ".mov", ".mkv"):
        rewrite(clip, tmp_path / f"out{suffix}", scale=2)
        assert probe(tmp_path / f"out{suffix}").sample_aspect_ratio == Fraction(16, 15)
    assert "pixel aspect" in rewrite(clip, tmp_path / "out.webm").warnings[0]


def test_output_of_another_shape_keeps_the_displayed_proportions(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "wide.mp4", aspect=Fraction(16, 15))  # 64x48 px, displayed as 64:45
    with new_writer(tmp_path / "out.mp4", source=clip, size=(128, 90)) as writer:
        write_frames(writer, size=(128, 90))
    assert probe(tmp_path / "out.mp4").sample_aspect_ratio == 1


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_odd_sizes_are_written_as_they_are_or_made_even(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"odd{suffix}"
    with new_writer(out, size=(63, 47)) as writer:
        write_frames(writer, size=(63, 47))
    assert writer.pix_fmt == "yuv420p"
    assert (probe(out).width, probe(out).height) == ((64, 48) if suffix == ".mp4" else (63, 47))
    assert [note for note in writer.warnings if "63x47 was made even, 64x48" in note] == writer.warnings
    assert len(writer.warnings) == (suffix == ".mp4")


def test_images_of_16_bits_become_10_bit_limited_range_video(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", 3, pix_fmt="rgb48be")
    with new_writer(tmp_path / "out.mp4", source=str(folder), size=(32, 24)) as writer:
        write_frames(writer, size=(32, 24))
    info = probe(tmp_path / "out.mp4")
    assert (info.bit_depth, info.color.range, info.color.matrix) == (10, 1, 6)
