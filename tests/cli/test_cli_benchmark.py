"""`stvsr benchmark`: tables, JSON, pages and saved runs, as people ask for them."""

import json
import tempfile
from pathlib import Path

import pytest
from stvsr.cli import benchmark as cli_benchmark
from stvsr.engine.benchmark.results import Run as SavedRun
from stvsr.engine.benchmark.run import Benchmark

from tests.support.commands import Run, assert_one_clear_error, run_inside
from tests.support.media import make_video, pan


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setattr(cli_benchmark, "_QUICK_SECONDS", 0.05)
    return run_inside(monkeypatch, capsys)


def test_a_run_is_shown_saved_and_compared(
    inside: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, page, temporary = tmp_path / "run.json", tmp_path / "page.html", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    clip = make_video(tmp_path / "clip.mp4", pan(6, (32, 48)))
    command = ("benchmark", toy, "--quick", "--clip", clip, "-s", "2", "--threads", "1", "--device", "cpu")
    done = inside(*command, "-o", saved, "-o", page, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer == json.loads(saved.read_text())
    (result,) = SavedRun.model_validate(answer).results
    assert (result.case.size_in, result.case.size_out, result.case.threads) == ((48, 32), (96, 64), 1)
    assert result.problem is None
    assert result.figures.whole_fps is not None
    assert f"{result.figures.fps:.2f}" in page.read_text()
    assert str(tmp_path) not in page.read_text() + saved.read_text()
    assert list(temporary.iterdir()) == []
    assert_one_clear_error(inside(*command, "-o", saved), "run.json exists already", "--overwrite")

    done = inside(*command, "--against", saved)
    assert done.returncode == 0, done.stderr
    assert "1  toy, ONNX Runtime on cpu, fp32, 48x32 to 96x64, x2 in time" in done.stdout
    for word in ("frames/s", "file to file", "p99", "network", "Over the run of", result.case.title):
        assert word in done.stdout, word
    ratio = next(line for line in done.stdout.partition("Over the run of")[2].splitlines() if "x " in line)
    assert ratio.split()[0] == "1"
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if line.startswith(" 1 "))


def test_an_interrupt_shows_what_was_measured(
    inside: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Benchmark.results

    def interrupted(self: Benchmark, *arguments: object) -> object:
        yield next(iter(results(self, *arguments)))  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(Benchmark, "results", interrupted)
    saved = tmp_path / "run.json"
    done = inside("benchmark", toy, "--quick", "--device", "cpu", "--size", "32x32,64x64", "-o", saved)
    assert done.returncode == 130
    assert "Interrupted: 1 of 2 cases were measured." in done.stderr
    assert len(json.loads(saved.read_text())["results"]) == 1
    assert "32x32 to 128x128" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "33x32"], "even sides"),
        (["--size", "big"], "not a size"),
        (["--size", ","], "no size"),
        (["--batch", "0"], "--batch is '0'"),
        (["--concurrency", "1,x"], "--concurrency is '1,x'"),
        (["--backend", "ncnn"], "Unknown backend 'ncnn'"),
        (["--backend", "remote"], "--url"),
        (["--url", "http://127.0.0.1:1"], "--backend remote"),
        (["--device", "cuda:99"], "There is no device 'cuda:99'"),
        (["--device", "cpu", "--precision", "fp16"], "The CPU computes in float32"),
        (["--clip", "none.mp4"], "none.mp4"),
        (["--clip", "c.mp4", "--size", "64x64"], "--size has no effect with --clip"),
        (["--against", "none.json"], "no saved run none.json"),
        (["-o", "page.txt"], "page.txt"),
        (["-o", "none/page.html"], "create it first"),
        (["-o", "none/run.json"], "create it first"),
    ],
)
def test_wrong_options_are_refused_before_any_work(options: list[str], words: str, inside: Run, toy: Path) -> None:
    assert_one_clear_error(inside("benchmark", toy, *options), words)


def test_nothing_that_could_be_measured_is_an_error(inside: Run, toy: Path, short: Path) -> None:
    done = inside("benchmark", toy, "--quick", "--device", "cpu", "-s", "9", "--clip", short)
    assert done.returncode == 1
    assert "No case could be measured." in done.stderr
    assert "does not make" in done.stdout
