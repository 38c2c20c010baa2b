"""The benchmark of scene cuts counts what is wrong, records a line and tabulates all of them."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import scenes
from tests.support.media import make_video, pan
from tests.support.paths import SAMPLE


def test_a_run_is_a_line_and_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = tmp_path / "clips" / "more"
    clips.mkdir(parents=True)
    shutil.copy(SAMPLE, clips / "bee.mp4")
    make_video(clips / "pan-1.mp4", pan(8, (96, 128)))
    make_video(clips / "pan-2.mp4", pan(8, (96, 128)))
    monkeypatch.setattr(scenes, "FACTORS", (1.0, 0.06))
    monkeypatch.setattr(scenes, "SIZE", (160, 96))
    options = ["--out", str(tmp_path / "out"), "--frames", "8", "--sequences", "1", "--note", "now"]
    monkeypatch.setattr(sys, "argv", ["scenes", str(tmp_path / "clips"), *options])
    scenes.main()
    results = tmp_path / "out" / "scenes.jsonl"
    results.write_text(2 * results.read_text())
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [(line["note"], line["clips"]) for line in lines] == [("now", 3)] * 2
    counts = lines[0]["wrong_of_all"]
    assert counts["cut: missed"] == {"1": [0, 4], "0.06": [0, 4]}, "parts of one series are not cut"
    assert counts["motion, every frame"]["1"] == [0, 21]
    assert counts["fade to black in 12"]["0.06"] == [0, 1]
    assert lines[0]["milliseconds"]["640x360"] > 0
    rows = scenes.table(tmp_path / "out").splitlines()
    assert rows[0] == "| of | x1 | x0.06 |"
    assert rows[2] == "| cut: missed (4) | 0 → 0 | 0 → 0 |"


def test_one_clip_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(SAMPLE, tmp_path / "bee.mp4")
    for arguments in ([str(tmp_path)], []):
        monkeypatch.setattr(sys, "argv", ["scenes", *arguments])
        with pytest.raises(SystemExit):
            scenes.main()
