"""The benchmark of quality records a line for each bundle and CRF, and tabulates the latest lines."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import quality
from tests.support.media import write_images
from tests.support.paths import SAMPLE
from tests.support.toy import write_toy


def test_each_bundle_and_crf_is_a_line_and_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stvsr.training.clips import read_clip

    clip = write_images(tmp_path / "bee", [frame for frame in read_clip(SAMPLE)][:9])
    toy = write_toy(tmp_path / "toy")
    options = ["--bundles", str(toy), "--crf", "none", "35", "--device", "cpu", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["quality", str(clip), *options])
    quality.main()
    lines = [json.loads(line) for line in (tmp_path / "out" / "quality.jsonl").read_text().splitlines()]
    assert [line["protocol"]["crf"] for line in lines] == [None, 35]
    assert all(list(line["clips"]) == ["bee"] and line["device"] == "cpu" and not line["errors"] for line in lines)
    clean, compressed = (line["mean"]["at"]["stvsr"]["psnr_y_db"] for line in lines)
    assert compressed < clean
    assert str(tmp_path) not in lines[0]["command"]
    rows = quality.table(tmp_path / "out").splitlines()[2:]
    assert [[cell.strip() for cell in row.split("|")[2:5]] for row in rows] == [
        ["fast", "x4", "none"],
        ["fast", "x4", "35"],
    ]
    assert f"**{clean:.2f}**" in rows[0]


def test_without_clips_the_command_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["quality"])
    with pytest.raises(SystemExit):
        quality.main()
