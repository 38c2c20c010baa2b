"""The GPU benchmark: its statistics on invented timings, and all of its paths in dry runs."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from stvsr.kernels import reference, variants
from stvsr.kernels.launcher import Card
from stvsr.training.networks.videoinr import VideoINR, VideoINRConfig

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import bench as gpu_bench
from benchmarks.gpu import tables as gpu_tables
from benchmarks.gpu import variants as gpu_variants
from benchmarks.gpu.bench import Bench, OutOfTimeError
from benchmarks.gpu.cases import Case
from benchmarks.gpu.summary import compared, floor_ms, summary, verdict
from benchmarks.gpu.window import TorchWindow, Window
from tests.support import cuda_cpu
from tests.support.videoinr import randomize_flows


def bench_in(folder: Path, seconds: float = 100) -> Bench:
    return Bench(folder, "command", dry_run=True, quick=True, until=time.time() + seconds)


def needs_compiler() -> None:
    if cuda_cpu.COMPILER is None:
        pytest.skip("no C++ compiler: CUDA sources are not run on the CPU")


def test_a_summary_has_the_median_and_percentiles() -> None:
    figures = summary([5.0, 1.0, 2.0, 3.0, 100.0, 4.0, 3.0, 3.0, 3.0, 3.0, 3.0])
    assert (figures["ms"], figures["runs"]) == (3.0, 11)
    assert (figures["ms_p10"], figures["ms_p90"]) == (2.0, 5.0)


def test_the_floor_is_the_larger_of_bytes_and_operations() -> None:
    assert floor_ms(4e9, 0, 4000, 50) == (1.0, "bytes")
    assert floor_ms(4e9, 1e11, 4000, 50) == (2.0, "operations")


@pytest.mark.parametrize(
    ("floor", "speedup", "expected"),
    [
        (1.5, 2.0, "met"),
        (3.0, 2.5, "missed: floor 3.00 (at most 1.5: by 2.00)"),
        (1.2, 0.5, "missed: PyTorch 0.50 (at least 2: by 4.00)"),
        (float("nan"), 2.0, "missed: floor nan (at most 1.5: by nan)"),
        (1.0, 0.0, "missed: PyTorch 0.00 (at least 2: by inf)"),
    ],
)
def test_a_verdict_reports_by_which_factor_goals_are_missed(floor: float, speedup: float, expected: str) -> None:
    assert verdict([("floor", floor, 1.5, True), ("PyTorch", speedup, 2.0, False)]) == expected


def test_results_that_differ_or_are_nan_do_not_pass() -> None:
    truth = np.linspace(0, 2, 21)
    assert compared(truth, truth, 1e-9)["passed"]
    off = truth.copy()
    off[3] += 0.02
    result = compared(off, truth, 5e-3)
    assert not result["passed"]
    assert result["max_error"] == pytest.approx(0.01)
    assert result["mean_error"] == pytest.approx(0.01 / 21)
    assert compared(off, truth, 2e-2, 1e-3)["passed"]
    assert not compared(off, truth, 2e-2, 1e-4)["passed"]
    assert compared(off, truth, 0.0, plain=truth + 0.02)["passed"]
    assert not compared(off, truth, 1.0, plain=truth + 0.004)["passed"]
    assert not compared(np.full(21, np.nan), truth, 1e9)["passed"]
    assert not compared(truth[:20], truth, 1e9)["passed"]


def test_the_device_is_timed_behind_other_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The imitated device advances its own clock with each queued call, whatever the host's clock is."""
    clock, flushed_ms, call_ms = [0.0], 0.1, 0.25

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = clock[0]

        def elapsed_time(self, end: "Event") -> float:
            return end.at - self.at

    class Flush:
        def zero_(self) -> None:
            clock[0] += flushed_ms
            order.append("flush")

    order: list[str] = []
    cuda = SimpleNamespace(Event=Event, synchronize=lambda: None)
    bench = bench_in(tmp_path)
    bench.dry_run = False
    bench.torch = SimpleNamespace(cuda=cuda, empty=lambda *_, **__: Flush(), uint8=None)  # type: ignore[assignment]
    monkeypatch.setattr(gpu_bench, "time", SimpleNamespace(perf_counter=lambda: time.perf_counter()))

    def call() -> None:
        clock[0] += call_ms
        order.append("call")
        time.sleep(0.001)  # ten times the duration of a flush

    times = bench.device_ms(call, seconds=0.05, least=3, most=9)
    assert 3 <= len(times) <= 9
    assert times == pytest.approx([call_ms] * len(times))
    between = "".join(name[0] for name in order).split("c")[-2]
    assert len(between) >= 15, "the queued work outlasts the host's calls"


def test_cases_that_fail_or_start_too_late_are_recorded(tmp_path: Path) -> None:
    bench = bench_in(tmp_path)
    with bench.guarded(1, part="kernels", case="one"):
        raise ValueError("a long\n  story")
    bench.check("kernels", "two", lambda: {"passed": 1 / 0})
    bench.until = time.time()
    with pytest.raises(OutOfTimeError), bench.guarded(1, part="kernels", case="three"):
        raise AssertionError
    one, two, three = bench.lines()
    assert one["error"] == "ValueError: a long story"
    assert not two["passed"]
    assert "ZeroDivisionError" in two["error"]
    assert three["skipped"] == "no time was left"
    assert all(
        line["dry_run"] and line["hardware"]["cores"] and line["versions"]["torch"] for line in (one, two, three)
    )
    assert (tmp_path / "errors.txt").read_text().count("Traceback") == 2
    text = gpu_tables.tables([one, two, three])
    assert "- kernels, one: ValueError" in text
    assert "- kernels, two: the check failed" in text
    assert "- kernels, three: no time was left" in text
    absent = {"part": "networks", "backend": "ort", "missing": "no such provider"}
    text = gpu_tables.tables([{**one, **absent, "network": name} for name in ("zsm", "edvr-m")])
    assert "- ort: no such provider (zsm, edvr-m)" in text
    assert gpu_tables.checks([one, two, three]).startswith("1 checks, 1 failed\nFAILED  two: ZeroDivisionError")


@pytest.mark.slow
def test_a_dry_run_checks_and_measures_every_kernel(tmp_path: Path) -> None:
    needs_compiler()
    assert gpu.main([str(tmp_path / "out"), "--dry-run", "--part", "kernels", "--quick"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "gpu.jsonl").read_text().splitlines()]
    assert not [line for line in lines if {"error", "errors", "missing", "skipped"} & line.keys()]
    assert all(line["dry_run"] for line in lines)
    assert {name for line in lines for name in line.get("floors", {})} == {"gb_per_s", "float32", "float16"}
    for kernel in gpu.KERNELS:
        timed = [line for line in lines if line["part"] == "kernels" and line.get("kernel") == kernel]
        assert {line["dtype"] for line in timed} == {"float32", "float16"}
        for line in timed:
            assert line["ms"] > 0
            assert line["floor_ms"] > 0
            assert line["against"][line["replaces"]]["ms"] == pytest.approx(line["speedup"] * line["ms"])
            assert line["over_floor"] == pytest.approx(line["ms"] / line["floor_ms"])
            assert line["goal"] == "met" or line["goal"].startswith("missed: ")
        checks = [line for line in lines if line.get("check", "").startswith(f"{kernel} ")]
        assert len(checks) >= 4
        assert all(line["passed"] and line["max_error"] <= line["max_bound"] for line in checks)
    text = (tmp_path / "out" / "gpu.md").read_text()
    assert "A dry run without a GPU" in text
    assert "Not measured" not in text
    rows = sum(row.startswith("| ") for row in text.splitlines())
    assert rows == 3 * 2 + 4 + sum("kernel" in line for line in lines)
    assert f"{sum('check' in line for line in lines)} checks, 0 failed" in (tmp_path / "out" / "checks.txt").read_text()


@pytest.mark.slow
def test_a_dry_run_searches_the_fastest_variants(tmp_path: Path) -> None:
    needs_compiler()
    before = variants.TABLE.read_bytes()
    assert gpu.main([str(tmp_path), "--dry-run", "--part", "variants", "--quick"]) == 0
    assert variants.TABLE.read_bytes() == before
    lines = bench_in(tmp_path).lines()
    assert not [line for line in lines if {"error", "missing", "skipped"} & line.keys()]
    table = variants.read_table(tmp_path / "variants.json")
    found = variants.recorded_for(Card("no card", "0.0"), table)
    assert set(found) == {
        *(f"{kernel} {dtype}" for kernel in ("deform_conv", "fusion_inputs") for dtype in ("float32", "float16")),
        *(f"fourier_field {dtype}, {kind}" for dtype in ("float32", "float16") for kind in ("frame", "picture")),
        *(f"warp {dtype}, {count}" for dtype in ("float32", "float16") for count in ("one flow", "more flows")),
    }
    for key, variant in found.items():
        timed = table["cards"]["no card"]["kernels"][key]
        assert all(ms > 0 for ms in timed["ms"].values())
        (best,) = (line["fastest"] for line in lines if line.get("case") == key and "fastest" in line)
        assert best == ", ".join(f"{name} {value}" for name, value in variant.items())
        assert f"Fastest, {key}: {best}." in (tmp_path / "gpu.md").read_text()


def test_the_fastest_variant_is_right_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One variant is the fastest in one case and slow in the other, one is wrong, and one is good in both."""
    ms = {"a": (1.0, 9.0), "b": (0.1, 0.1), "c": (2.0, 2.0)}

    def cases(bench: Bench) -> Iterator[Case]:
        for number in range(2):
            call = partial(lambda variant, number: (variant, number), number=number)
            candidates = tuple(Letter(name) for name in ms)
            yield Case("deform_conv", f"size {number}", "float32", call, {}, 0, key="k", candidates=candidates)

    def right(bench: Bench, case: Case, call: Any, truth: Any) -> dict[str, Any]:
        variant, number = call()
        return {"passed": (variant.name, number) != ("b", 1), "max_error": 0.0}

    bench = bench_in(tmp_path)
    monkeypatch.setattr(Bench, "device_ms", lambda self, call, seconds: [ms[call()[0].name][call()[1]]])
    monkeypatch.setattr(gpu_variants, "CASES", {"deform_conv": cases})
    monkeypatch.setattr(gpu_variants, "torch_result", lambda *_: None)
    monkeypatch.setattr(gpu_variants, "compare", right)
    monkeypatch.setattr(gpu_variants, "launcher", SimpleNamespace(card=lambda: Card("A card", "9.0")))
    monkeypatch.setattr(variants, "TABLE", tmp_path / "package" / "variants.json")
    monkeypatch.setattr(variants.write_table, "__defaults__", (variants.TABLE,))
    (tmp_path / "package").mkdir()
    bench.dry_run = False
    gpu_variants.measure(bench, "deform_conv")
    table = variants.read_table(variants.TABLE)
    assert table == variants.read_table(tmp_path / "variants.json")
    record = table["cards"]["A card"]["kernels"]["k"]
    assert record["variant"] == {"name": "c"}
    assert record["ms"] == {"size 0": 2.0, "size 1": 2.0}
    assert record["first_variant_ms"] == {"size 0": 1.0, "size 1": 9.0}
    assert gpu_variants.fastest({"a": {"small": 2.0}, "b": {"small": 1.0, "large": 9.0}}) == "b"
    assert gpu_variants.fastest({"a": {"small": 2.0}, "b": {"large": 9.0}}) is None


class Letter(NamedTuple):
    name: str


def test_a_wrong_kernel_fails_its_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_compiler()
    right = reference.warp
    monkeypatch.setattr(reference, "warp", lambda *args, **options: right(*args, **options)[..., ::-1])
    monkeypatch.setattr(gpu, "steps", lambda *_: ["kernel:warp"])
    assert gpu.main([str(tmp_path), "--dry-run", "--part", "kernels"]) == 1
    name = "warp float32, nchw, zeros, corners False, 64 channels, 2 flows"
    assert f"FAILED  {name}: largest error" in (tmp_path / "checks.txt").read_text()


def test_a_dry_run_measures_a_network(tmp_path: Path) -> None:
    words = ["--dry-run", "--part", "networks", "--networks", "videoinr-s", "--compile"]
    assert gpu.main([str(tmp_path), *words]) == 0
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert not [line for line in lines if "error" in line]
    timed = [line for line in lines if "ms" in line]
    assert [(line["backend"], line["dtype"]) for line in timed] == [
        ("eager", "float32"),
        ("eager", "float16"),
        ("CUDA graph", "float32"),
        ("CUDA graph", "float16"),
        ("ort", "float32"),
    ]
    assert all(line["frames"] == 2 for line in timed)
    assert all(line["frames_per_s"] > 0 for line in timed if line["backend"] != "CUDA graph")
    assert timed[-1]["over_eager_float32"] == pytest.approx(timed[0]["ms"] / timed[-1]["ms"])
    assert len(timed[-1]["fingerprint"]) == 64
    (check,) = (line for line in lines if "check" in line)
    assert check["passed"]
    assert check["check"] == "videoinr-s by ort float32, 24x16 to 96x64"
    (missing,) = (line for line in lines if "missing" in line)
    assert missing["backend"] == "tensorrt"
    assert "| videoinr-s | 24x16 to 96x64 | ort | float32 |" in (tmp_path / "gpu.md").read_text()


def test_a_dry_run_measures_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "COMMANDS", ("edvr-s",))
    assert gpu.main([str(tmp_path), "--dry-run", "--part", "command"]) == 0
    (line,) = (line for line in bench_in(tmp_path).lines() if line["part"] == "command")
    assert (line["case"], line["backend"], line["used"], line["frames_out"]) == ("64x48 to 256x192", "ort", "fp32", 3)
    assert line["opening_seconds"] + line["first_run_seconds"] > 0
    assert "| edvr-s | 64x48 to 256x192 | ort | fp32 |" in (tmp_path / "gpu.md").read_text()


@pytest.mark.slow
def test_a_dry_run_compiles_and_exports(tmp_path: Path) -> None:
    words = ["--dry-run", "--part", "networks", "--networks", "edvr-s", "--compile", "edvr-s"]
    assert gpu.main([str(tmp_path), *words]) == 0
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert not [line for line in lines if "error" in line]
    backends = [line["backend"] for line in lines if line["part"] == "networks" and "ms" in line]
    graphs = ["CUDA graph", "CUDA graph"]
    assert backends == ["eager", "eager", *graphs, "ort", "torch.compile", "torch.compile"]
    assert [line["batch"] for line in lines if line["part"] == "batches"] == [1, 2]
    assert sum(line.get("passed", False) for line in lines) == 1


def test_the_mixed_backend_agrees_with_eager_pytorch(tmp_path: Path) -> None:
    needs_compiler()
    torch.manual_seed(0)
    network = VideoINR(replace(VideoINRConfig(), nf=64, groups=2, front_blocks=1, back_blocks=1)).eval()
    randomize_flows(network, 0.1)
    bench = bench_in(tmp_path)
    window = Window(bench, network, (4, 8), 2)
    eager, mixed = (
        TorchWindow(bench, network, window, "float32", backend).run()
        for backend in ("eager", "eager encoder, CUDA decoder")
    )
    for frame, other in zip(mixed, eager, strict=True):
        assert frame.shape == (1, 3, 8, 16)
        assert compared(frame.numpy(), other.numpy(), 1e-4)["passed"]
    assert not compared(mixed[0].numpy(), eager[1].numpy(), 1e-4)["passed"], "the times differ"


def test_steps_that_crash_or_hang_do_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = gpu.parse([str(tmp_path), "--part", "kernels", "--dry-run"])
    monkeypatch.setattr(gpu, "steps", lambda *_: ["kernel:warp", "floors"])
    monkeypatch.setattr(gpu, "_GRACE_S", 0.0)
    for program, message, seconds in (("exit 3", "code 3", 60.0), ("exec sleep 60", "did not end in time", 0.5)):
        shell = tmp_path / "python"
        shell.write_text(f"#!/bin/sh\n{program}\n")
        shell.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(shell))
        monkeypatch.setattr(gpu, "_STEP_S", seconds)
        gpu.orchestrate(arguments, time.time() + 600)
        lines = bench_in(tmp_path).lines()
        assert [line["case"] for line in lines if message in line.get("error", "") and "check" not in line] == [
            "kernel:warp",
            "floors",
        ]
    assert [line["case"] for line in lines if line.get("passed") is False] == ["kernel:warp"]
    gpu.orchestrate(arguments, time.time() + 1)
    assert [line["case"] for line in bench_in(tmp_path).lines() if "skipped" in line] == ["kernel:warp", "floors"]


def test_a_step_runs_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = gpu.parse([str(tmp_path), "--part", "kernels", "--dry-run"])
    monkeypatch.setattr(gpu, "steps", lambda *_: ["floors"])
    counts: list[int] = []
    gpu.orchestrate(arguments, time.time() + 300, after=lambda: counts.append(len(bench_in(tmp_path).lines())))
    assert counts[0] == 0
    assert counts[1] >= 4, "the lines of a step can be read after it"
    lines = bench_in(tmp_path).lines()
    assert [line["case"] for line in lines if "floors" in line] == ["copy", *["product of 128x128"] * 2]
    assert {line["command"] for line in lines} == {"python -m benchmarks.gpu --part kernels --dry-run OUT"}


@pytest.mark.parametrize(
    ("words", "message"), [(["--dry-run"], "are meaningless"), ([], "already has the results of a run")]
)
def test_folders_with_other_results_are_refused(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out: Any = gpu.RESULTS if words else tmp_path
    if not words:
        (out / "gpu.jsonl").touch()
    with pytest.raises(SystemExit):
        gpu.parse([str(out), *words])
    assert message in capsys.readouterr().err


def test_a_missing_device_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    assert gpu.main([str(tmp_path / "out")]) == 2
    assert "no CUDA device" in capsys.readouterr().out
