"""The benchmark of speed profiles every graph of the default network."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import measure


def test_a_profile_has_every_graph_of_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["measure", "profile", "--runs", "1", "--threads", "1", "--out", str(tmp_path)])
    measure.main()
    (line,) = map(json.loads, (tmp_path / "profile.jsonl").read_text().splitlines())
    assert line["command"].startswith("python -m benchmarks.measure profile --runs 1")
    for role in ("encoder", "refiner", "integer_decoder"):
        assert line[role]["milliseconds"] > 0
    assert line["refiner"]["milliseconds_by_operator"]["Conv"] > 0
