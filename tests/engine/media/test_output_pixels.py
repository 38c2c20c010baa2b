"""Pixel formats of outputs: no less than the source where the encoder takes it, and playable by default."""

from pathlib import Path

import av
import pytest
from stvsr.engine.media.encoder import choose_encoding
from stvsr.engine.media.probe import VideoInfo, probe

from tests.support.media import new_writer, write_frames
from tests.support.pictures import source_of

PLAYERS = "most phones, televisions and browsers do not play"


def images_of(pix_fmt: str) -> VideoInfo:
    return source_of(pix_fmt, container="images")


@pytest.mark.parametrize(
    ("suffix", "source", "codec", "pix_fmt", "note"),
    [
        (".mp4", source_of("yuv420p"), "libx264", "yuv420p", None),
        (".mp4", source_of("yuvj420p"), "libx264", "yuv420p", None),
        (".mp4", source_of("yuv422p"), "libx264", "yuv422p", PLAYERS),
        (".mp4", source_of("yuv444p"), "libx264", "yuv444p", PLAYERS),
        (".mp4", source_of("yuv420p10le"), "libx265", "yuv420p10le", None),
        (".mov", source_of("yuv422p10le"), "libx265", "yuv422p10le", PLAYERS),
        (".mkv", source_of("yuv444p12le"), "libx265", "yuv444p12le", PLAYERS),
        (".mp4", source_of("yuv444p16le"), "libx265", "yuv444p12le", "16 bits of the source were reduced to 12"),
        (".webm", source_of("yuv422p"), "libvpx-vp9", "yuv422p", None),
        (".webm", source_of("yuv422p10le"), "libsvtav1", "yuv420p10le", "(4:2:2) was reduced to 4:2:0"),
        (".mp4", source_of("yuv411p"), "libx264", "yuv420p", None),
        (".mp4", source_of("gray"), "libx264", "yuv420p", None),
        (".mp4", source_of("rgb24"), "libx264", "yuv420p", "--pix-fmt yuv444p keeps it"),
        (".mp4", images_of("rgb48be"), "libx265", "yuv420p10le", "16 bits"),
        (".mp4", images_of("yuvj444p"), "libx264", "yuv420p", "(4:4:4) was reduced to 4:2:0"),
        (".mp4", source_of("yuva420p"), "libx264", "yuv420p", None),
        (".webm", source_of("yuva420p"), "libvpx-vp9", "yuva420p", None),
        (".mov", source_of("yuva444p12le"), "prores_ks", "yuva444p10le", "12 bits"),
        (".mkv", source_of("yuva444p12le"), "ffv1", "yuva444p16le", None),
        (".mkv", source_of("rgba"), "ffv1", "bgra", None),
        (".png", source_of("yuv420p10le"), "png", "rgb48be", None),
        (".png", source_of("ya8"), "png", "rgba", None),
        (".jpg", source_of("yuv420p"), "mjpeg", "yuvj420p", None),
        (".jpg", source_of("rgb24"), "mjpeg", "yuvj444p", None),
        (".tif", source_of("rgba64be"), "tiff", "rgba64le", None),
        (".gif", source_of("yuv420p"), "gif", "pal8", None),
        (".y4m", source_of("yuv422p10le"), "rawvideo", "yuv422p10le", None),
        (".y4m", source_of("rgb24"), "rawvideo", "yuv444p", None),
        (".raw", source_of("rgb48be"), "rawvideo", "rgb48le", None),
    ],
    ids=lambda value: value.pix_fmt if isinstance(value, VideoInfo) else str(value),
)
def test_an_output_is_no_less_than_its_source_or_a_note_says_so(
    suffix: str, source: VideoInfo, codec: str, pix_fmt: str, note: str | None
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no {codec}")
    encoding = choose_encoding(suffix, (64, 48), source)
    assert (encoding.codec, encoding.pix_fmt) == (codec, pix_fmt)
    assert any(note in text for text in encoding.notes) if note else encoding.notes == ()


@pytest.mark.parametrize(
    ("codec", "source", "pix_fmt"),
    [
        ("libx264", "yuv420p12le", "yuv420p10le"),
        ("prores_ks", "rgb24", "yuv444p10le"),
        ("ffv1", "rgb24", "bgr0"),
        ("ffv1", "rgba64be", "gbrap16le"),
        ("utvideo", "rgba", "gbrap"),
        ("mpeg4", "yuv444p10le", "yuv420p"),
    ],
)
def test_masters_keep_rgb_and_the_nearest_format_is_taken(codec: str, source: str, pix_fmt: str) -> None:
    assert choose_encoding(".mkv", (64, 48), source_of(source), codec=codec).pix_fmt == pix_fmt


def test_h264_is_never_444_by_accident() -> None:
    """Neither for an odd size, nor for a source of RGB."""
    for size in ((85, 64), (64, 63), (63, 63)):
        for source in (source_of("yuv420p"), source_of("rgb24"), images_of("rgba"), images_of("yuvj444p")):
            assert choose_encoding(".mp4", size, source).pix_fmt == "yuv420p"


@pytest.mark.parametrize(
    ("suffix", "options", "size", "words"),
    [
        (".mp4", {}, (86, 64), "The size 85x63 was made even, 86x64, by repeating the last column and row"),
        (".mp4", {"pix_fmt": "yuv420p"}, (86, 64), "made even"),
        (".mov", {"pix_fmt": "yuv422p"}, (86, 63), "86x63"),
        (".mp4", {"pix_fmt": "yuv444p"}, (85, 63), None),
        (".webm", {}, (85, 63), None),
        (".mkv", {"codec": "ffv1"}, (85, 63), None),
    ],
)
def test_odd_sizes_become_even_where_they_must(
    tmp_path: Path, suffix: str, options: dict[str, str], size: tuple[int, int], words: str | None
) -> None:
    with new_writer(tmp_path / f"odd{suffix}", size=(85, 63), **options) as writer:
        assert writer.coded_size == size
        write_frames(writer, size=(85, 63))
    info = probe(tmp_path / f"odd{suffix}")
    assert (info.width, info.height) == size
    assert [words in warning for warning in writer.warnings] == [True] if words else writer.warnings == []
