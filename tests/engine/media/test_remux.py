"""Audio, subtitles, chapters and metadata of written files."""

from fractions import Fraction
from pathlib import Path

import av
import pytest
from stvsr.engine.media.probe import probe

from tests.support.media import make_clip, packets_of, rewrite
from tests.support.paths import SAMPLE


def make_rich_clip(path: Path) -> Path:
    """Write a clip with two audio tracks, chapters, metadata, and in Matroska subtitles."""
    return make_clip(
        path,
        languages=["eng", "deu"],
        subtitles=[(0, 100, "one"), (120, 100, "zwei <i>ü</i>")] if path.suffix == ".mkv" else (),
        chapters=[(0, 100, "first"), (100, 266, "second")],
        metadata={"language": "jpn", "title": "The picture"},
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_audio_is_copied_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    writer = rewrite(SAMPLE, out, factor=2)
    assert writer.warnings == []
    assert packets_of(out, "audio") == packets_of(SAMPLE, "audio")


@pytest.mark.parametrize("source", ["in.mp4", "in.mkv"])
@pytest.mark.parametrize("target", ["out.mp4", "out.mkv", "out.mov"])
def test_all_streams_and_metadata_are_kept(tmp_path: Path, source: str, target: str) -> None:
    clip, out = make_rich_clip(tmp_path / source), tmp_path / target
    writer = rewrite(clip, out, factor=2)
    before, after = probe(clip), probe(out)
    german = "ger" if target == "out.mov" else "deu"  # QuickTime knows only this code
    assert [s.language for s in after.streams if s.kind == "audio"] == ["eng", german]
    for old, new in zip(packets_of(clip, "audio"), packets_of(out, "audio"), strict=True):
        assert [data for _, data in new] == [data for _, data in old]
        shift = after.start - before.start  # Matroska moves all streams alike to start at zero
        assert all(abs(b[0] - a[0] - shift) <= Fraction(1, 900) for a, b in zip(old, new, strict=True))
    assert [(c.title, c.start) for c in after.chapters] == [("first", 0), ("second", Fraction(1, 10))]
    assert after.metadata["title"] == "Bees"
    with av.open(str(out)) as container:
        assert container.streams.video[0].metadata["language"] == "jpn"
    subtitles = [s for s in after.streams if s.kind == "subtitle"]
    if source == "in.mkv":
        assert [s.language for s in subtitles] == ["fra"]
        assert subtitles[0].codec == ("subrip" if target == "out.mkv" else "mov_text")
        assert len(writer.warnings) == (0 if target == "out.mkv" else 1)
        lines = [(pts, data) for pts, data in packets_of(out, "subtitle")[0] if len(data) > 2]
        starts = (Fraction(0), Fraction(12, 100))
        assert [abs(a - b) < Fraction(1, 100) for (a, _), b in zip(lines, starts, strict=True)]
        assert "ü".encode() in lines[1][1]
    else:
        assert writer.warnings == []


def test_mp4_subtitles_become_subrip_in_matroska(tmp_path: Path) -> None:
    rewrite(make_rich_clip(tmp_path / "in.mkv"), tmp_path / "mid.mp4")
    writer = rewrite(tmp_path / "mid.mp4", tmp_path / "out.mkv")
    assert "converted to subrip" in writer.warnings[0]
    assert [data.decode() for _, data in packets_of(tmp_path / "out.mkv", "subtitle")[0]] == ["one", "zwei <i>ü</i>"]


def test_webm_gets_opus_and_webvtt(tmp_path: Path) -> None:
    writer = rewrite(make_rich_clip(tmp_path / "in.mkv"), tmp_path / "out.webm")
    assert [(s.kind, s.codec) for s in probe(tmp_path / "out.webm").streams] == [
        ("audio", "opus"),
        ("audio", "opus"),
        ("subtitle", "webvtt"),
    ]
    assert len(writer.warnings) == 3
    with av.open(str(tmp_path / "out.webm")) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert abs(samples / 48000 - 1 / 3) < 0.05


def test_pcm_is_copied_or_converted(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "pcm.mkv", pcm=True)
    samples = b"".join(data for _, data in packets_of(clip, "audio")[0])
    for suffix in (".mkv", ".mov", ".mp4", ".webm"):
        out = tmp_path / f"out{suffix}"
        writer = rewrite(clip, out)
        copied = b"".join(data for _, data in packets_of(out, "audio")[0])
        assert copied == samples or "converted" in writer.warnings[0]


def test_audio_longer_than_the_video_is_kept(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "short.mp4", count=2, languages=["eng"])
    rewrite(clip, tmp_path / "out.mp4")
    assert packets_of(tmp_path / "out.mp4", "audio") == packets_of(clip, "audio")


def test_audio_and_video_packets_are_interleaved(tmp_path: Path) -> None:
    rewrite(SAMPLE, tmp_path / "out.mp4", factor=2)
    with av.open(str(tmp_path / "out.mp4")) as container:
        by_position = sorted((p.pos, p.stream.type) for p in container.demux() if p.pos is not None)
    kinds = [kind for _, kind in by_position]
    halves = kinds[: len(kinds) // 2].count("audio"), kinds[len(kinds) // 2 :].count("audio")
    assert min(halves) > 0.3 * sum(halves), "the audio is spread over the file, not at its end"
