"""The choice of encoder, pixel format and options."""

from pathlib import Path
from typing import Any

import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.encoder import choose_encoding

from tests.support.media import new_writer
from tests.support.pictures import source_of


@pytest.mark.parametrize(
    ("extension", "bits", "codec", "pix_fmt"),
    [
        (".mp4", 8, "libx264", "yuv420p"),
        (".mkv", 10, "libx265", "yuv420p10le"),
        (".mov", 12, "libx265", "yuv420p12le"),
        (".webm", 8, "libvpx-vp9", "yuv420p"),
    ],
)
def test_default_codec_and_pixel_format(extension: str, bits: int, codec: str, pix_fmt: str) -> None:
    encoding = choose_encoding(extension, (64, 48), source_of(f"yuv420p{bits}le" if bits > 8 else "yuv420p"))
    assert (encoding.codec, encoding.pix_fmt) == (codec, pix_fmt)


def test_custom_options_replace_the_defaults() -> None:
    encoding = choose_encoding(".mp4", (64, 48), None, options={"preset": "slow", "qp": "20"})
    assert encoding.options == {"preset": "slow", "qp": "20"}
    assert choose_encoding(".mp4", (64, 48), None, crf=30).options["crf"] == "30"


def test_large_frames_get_options_that_save_memory() -> None:
    assert "x264-params" not in choose_encoding(".mp4", (3840, 2160), None).options
    encoding = choose_encoding(".mp4", (7680, 4320), None, options={"x264-params": "rc-lookahead=9"})
    assert encoding.options["x264-params"] == "rc-lookahead=4:sync-lookahead=0:sliced-threads=1:rc-lookahead=9"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("out.mp4", {"codec": "libx999"}, "no encoder 'libx999'"),
        ("out.mp4", {"codec": "aac"}, "'aac' is not a video encoder"),
        ("out.mp4", {"pix_fmt": "yuv999p"}, "no pixel format 'yuv999p'"),
        ("out.mp4", {"pix_fmt": "rgb24"}, "does not take the pixel format 'rgb24'"),
        ("out.mp4", {"encoder_options": {"prezet": "slow"}}, "no option 'prezet'"),
        ("out.mp4", {"encoder_options": {"preset": "slowish"}}, "refuses"),
        ("out.mp4", {"codec": "ffv1", "crf": 20}, "no option 'crf'"),
        ("out.webm", {"codec": "libx264"}, "do not support libx264"),
        ("out.xyz", {}, "must end in"),
        ("out.avi", {}, "must end in"),
    ],
)
def test_unsupported_encodings_are_refused_and_leave_no_file(
    tmp_path: Path, name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(MediaError, match=message):
        new_writer(tmp_path / name, **options)
    assert not list(tmp_path.iterdir())
