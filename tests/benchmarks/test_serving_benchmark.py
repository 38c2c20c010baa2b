"""The benchmark of the server records a line for each part."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="stvsr[serve] is not installed")
pytest.importorskip("httpx2", reason="stvsr[client] is not installed")

from benchmarks import serving


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert serving.percentiles(list(range(1, 101))) == {"p50": 50, "p95": 95, "p99": 99}
    assert serving.percentiles([3.0]) == {"p50": 3.0, "p95": 3.0, "p99": 3.0}
    assert serving.percentiles([2.0, 1.0]) == {"p50": 1.0, "p95": 2.0, "p99": 2.0}


@pytest.mark.slow
def test_the_overhead_of_frames_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["serving", "frames", "--runs", "3", "--out", str(tmp_path)])
    serving.main()
    (line,) = [json.loads(text) for text in (tmp_path / "serving.jsonl").read_text().splitlines()]
    assert (line["part"], line["frames_in"], line["frames_out"], line["runs"]) == ("frames", 2, 4, 3)
    assert line["total_ms"]["p50"] > line["session_ms"]["p50"] > 0
    assert line["command"].startswith("python -m benchmarks.serving frames")
