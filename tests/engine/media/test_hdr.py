"""HDR: static metadata are carried or named, and PQ and HLG are never processed without a word."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from stvsr.engine.media.encoder import choose_encoding
from stvsr.engine.media.hdr import HdrMetadata, hdr_options, hdr_warnings
from stvsr.engine.media.probe import probe
from stvsr.engine.media.segment_file import JoinedVideo, SegmentWriter
from stvsr.engine.media.tags import ColorTags
from stvsr.engine.media.video_stream import output_time_base

from tests.support.media import BT2020, Tags, make_clip, rewrite, write_frames

DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
PARAMETERS = f"log-level=error:master-display={DISPLAY}:max-cll=1000,400"
EXPECTED = HdrMetadata(
    primaries=(
        (Fraction(34000, 50000), Fraction(16000, 50000)),
        (Fraction(13250, 50000), Fraction(34500, 50000)),
        (Fraction(7500, 50000), Fraction(3000, 50000)),
        (Fraction(15635, 50000), Fraction(16450, 50000)),
    ),
    luminance=(Fraction(50, 10000), Fraction(1000)),
    content_light=(1000, 400),
)
PQ = "The video is HDR with the PQ transfer"


def hdr10(path: Path) -> Path:
    """Write three frames of HDR10; libx265 leaves times undefined in fewer."""
    return make_clip(
        path,
        count=3,
        codec="libx265",
        pix_fmt="yuv420p10le",
        tags=BT2020,
        encoder_options={"x265-params": PARAMETERS, "preset": "ultrafast"},
    )


@pytest.mark.parametrize("source", ["in.mp4", "in.mkv"])
@pytest.mark.parametrize("target", ["out.mp4", "out.mkv", "out.mov"])
def test_hdr10_metadata_are_carried(tmp_path: Path, source: str, target: str) -> None:
    clip, out = hdr10(tmp_path / source), tmp_path / target
    assert probe(clip).hdr == EXPECTED
    writer = rewrite(clip, out, scale=2, encoder_options={"preset": "ultrafast"})
    assert writer.codec == "libx265"
    assert probe(out).hdr == EXPECTED
    assert (probe(out).color.primaries, probe(out).color.transfer) == (9, 16)
    (warning,) = writer.warnings
    assert warning.startswith(PQ)


@pytest.mark.parametrize(
    ("target", "codec", "options"),
    [
        ("out.mp4", "libx264", {"preset": "ultrafast"}),
        ("out.mkv", "libx265", {"preset": "ultrafast", "x265-params": "max-cll=10,4"}),
        ("out.webm", "libsvtav1", {"preset": "12"}),
    ],
)
def test_other_encoders_and_the_user_s_own_options(
    tmp_path: Path, target: str, codec: str, options: dict[str, str]
) -> None:
    writer = rewrite(hdr10(tmp_path / "in.mkv"), tmp_path / target, codec=codec, encoder_options=options)
    assert len(writer.warnings) == 1
    hdr = probe(tmp_path / target).hdr
    assert hdr is not None
    assert hdr.content_light == ((10, 4) if "x265-params" in options else (1000, 400))
    assert hdr.primaries is not None
    for point, expected in zip(hdr.primaries, EXPECTED.primaries or (), strict=True):
        assert point == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("target", "codec"), [("out.webm", "libvpx-vp9"), ("out.mkv", "ffv1")])
def test_an_encoder_that_cannot_carry_them_is_named(tmp_path: Path, target: str, codec: str) -> None:
    options: dict[str, str] = {} if codec == "ffv1" else {"cpu-used": "8"}
    writer = rewrite(hdr10(tmp_path / "in.mkv"), tmp_path / target, codec=codec, encoder_options=options)
    assert [warning.split(":")[0] for warning in writer.warnings] == [
        PQ,
        "The metadata of the mastering display were left out",
        "The content light level was left out",
    ]
    assert codec in writer.warnings[1]


def test_joined_segments_carry_and_name_the_same(tmp_path: Path) -> None:
    info = probe(hdr10(tmp_path / "in.mkv"))
    for codec, names in (
        ("libx265", [PQ]),
        ("ffv1", [PQ, "The metadata of the mastering display", "The content light"]),
    ):
        encoding = choose_encoding(".mkv", (64, 48), 10, codec=codec)
        common: dict[str, Any] = {"source": info, "size": (64, 48), "rate": Fraction(25)}
        out, time_base = tmp_path / f"{codec}.mkv", Fraction(1, 25)
        segment = SegmentWriter(tmp_path / "part.mkv", encoding, **common, time_base=output_time_base(out, time_base))
        with segment:
            write_frames(segment)  # type: ignore[arg-type]
        joined = JoinedVideo(out, [segment.finished], **common, codec=codec, time_base=time_base, end=Fraction(3, 25))
        with joined:
            joined.write()
        assert probe(out).hdr == (EXPECTED if codec == "libx265" else None)
        assert len(joined.warnings) == len(names)
        assert all(w.startswith(name) for w, name in zip(joined.warnings, names, strict=True))


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG"), (1, None)])
def test_pq_and_hlg_are_named(tmp_path: Path, transfer: int, name: str | None) -> None:
    clip = make_clip(tmp_path / "in.mp4", count=1, tags=Tags(9, 9, transfer, 1))
    warnings = rewrite(clip, tmp_path / "out.mp4").warnings
    assert [f"HDR with the {name} transfer" in warning for warning in warnings] == ([True] if name else [])


def test_incomplete_and_dynamic_metadata_are_named() -> None:
    half = replace(EXPECTED, luminance=None, dynamic=("HDR10+",))
    assert hdr_options("libx265", half, {}) == {"x265-params": "max-cll=1000,400:hdr10=1:repeat-headers=1"}
    assert hdr_warnings("libx265", ColorTags(), half) == [
        "The metadata of the mastering display were left out: they are incomplete.",
        "The HDR10+ metadata were left out: they belong to the frames of the input.",
    ]
    assert hdr_options("libx265", None, {"preset": "slow"}) == {"preset": "slow"}
    assert hdr_warnings("libx264", ColorTags(), None) == []
    assert EXPECTED.as_dict()["white"] == [0.3127, 0.329]
