"""The benchmark of the server records a line for each part."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="stvsr[serve] is not installed")
pytest.importorskip("httpx2", reason="stvsr[client] is not installed")

from benchmarks.serving.__main__ import main
from benchmarks.serving.jobs import slope
from benchmarks.serving.processes import NOTHING, children, usage, usage_of_tree
from benchmarks.serving.server import percentiles


def measured(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["serving", *words, "--out", str(folder), "--threads", "1"])
    main()
    (line,) = [json.loads(text) for text in (folder / "serving.jsonl").read_text().splitlines()]
    assert line["command"].startswith(f"python -m benchmarks.serving {words[0]}")
    assert line["part"] == words[0]
    return dict(line)


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert percentiles(list(range(1, 101))) == {"p50": 50, "p95": 95, "p99": 99}
    assert percentiles([3.0]) == {"p50": 3.0, "p95": 3.0, "p99": 3.0}
    assert percentiles([2.0, 1.0]) == {"p50": 1.0, "p95": 2.0, "p99": 2.0}


def test_the_slope_of_memory() -> None:
    assert slope([(0, 5), (1, 7), (2, 9)]) == pytest.approx(2)
    assert slope([(0, 1), (1, 0), (2, 1), (3, 0), (4, 1)]) == pytest.approx(0)
    assert slope([(0, 1)]) == 0


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc of Linux")
def test_processes_are_read_with_their_children() -> None:
    code = "import time; held = bytearray(b'x') * 50_000_000; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in children(os.getpid())
        own, tree = usage(os.getpid()), usage_of_tree(os.getpid())
        assert tree.memory_bytes - own.memory_bytes > 50_000_000
        assert own.descriptors > 3
        child.kill()
    assert usage(child.pid) == NOTHING


@pytest.mark.slow
def test_the_overhead_of_frames_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = measured(tmp_path, monkeypatch, "frames", "--runs", "1")
    assert (line["frames_in"], line["frames_out"], line["runs"]) == (2, 4, 50)
    assert line["total_ms"]["p50"] > line["session_ms"]["p50"] > 0


@pytest.mark.slow
@pytest.mark.long
def test_jobs_are_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = measured(tmp_path, monkeypatch, "jobs", "--runs", "1")
    assert [result["jobs"] for result in line["results"]] == [1, 8]
    assert all(result["fps"] > 0 and result["get_ms"]["p95"] > 0 for result in line["results"])
    assert 0 < line["first_preview_share"][0] <= 1


@pytest.mark.slow
@pytest.mark.long
def test_killed_workers_and_servers_are_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = measured(tmp_path, monkeypatch, "kills")
    assert (line["workers_killed"], line["equal_of_eight"], line["equal_of_three"]) == (1, 8, 3)


@pytest.mark.slow
@pytest.mark.long
def test_resumed_runs_are_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = measured(tmp_path, monkeypatch, "resume", "--rounds", "2")
    assert line["equal"] == line["rounds"] == 2


@pytest.mark.slow
@pytest.mark.long
def test_a_soak_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = measured(tmp_path, monkeypatch, "soak", "--soak-seconds", "40", "--kill-seconds", "8")
    assert line["jobs_done"] > 0
    assert line["jobs_wrong"] == 0
    assert line["workers_killed"] > 0
