"""Runs of a benchmark: cases in processes that may die, hang or fail, and a budget of time."""

import tempfile
from pathlib import Path

import pytest
from stvsr import Backend
from stvsr.engine.benchmark.results import Case
from stvsr.engine.benchmark.run import Benchmark, Combination

from tests.support.benchmark_work import misbehave
from tests.support.media import make_video, pan


def combination(name: str) -> Combination:
    case = Case(
        bundle=name,
        backend="ort",
        title="ONNX Runtime",
        device="cpu",
        precision="fp32",
        size_in=(32, 16),
        size_out=(64, 32),
        factor=1,
    )
    return Combination(case, name, Backend())


def test_no_figure_is_lost_and_no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = ("dies", "fails", "works")
    begun: list[str] = []
    with Benchmark([combination(name) for name in names], 0.1, 300, work=misbehave) as running:
        found = {one.case.bundle: one for one in running.results(lambda case: begun.append(case.bundle))}
        assert [path.suffix for path in next(tmp_path.iterdir()).iterdir()] != []
    assert tuple(begun) == tuple(found) == names
    assert {one.figures.fps for one in found.values()} == {2.0}, "each keeps what it had"
    assert (found["works"].figures.frames, found["works"].problem) == (8, None)
    assert found["dies"].problem == "Its process died (exit code 3)."
    assert found["fails"].problem == "It cannot be done."
    assert list(tmp_path.iterdir()) == []


def test_a_case_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Benchmark([combination("hangs")], 0.1, 3, work=misbehave) as running:
        (found,) = running.results()
    assert found.problem == "It was stopped after 3 s, by the budget of 3 s (--budget)."
    assert list(tmp_path.iterdir()) == []


def test_cases_without_time_are_named(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", pan(2, (16, 32)))
    with Benchmark([combination("a"), combination("b")], 0.1, 1.0, clip, work=misbehave) as running:
        assert [one.problem for one in running.results()] == ["No time was left of the 1 s of --budget."] * 2
