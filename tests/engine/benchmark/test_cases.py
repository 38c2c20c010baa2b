"""The cases of a benchmark, and a run beside a saved one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from stvsr import BackendError, BundleError, RequestError
from stvsr.engine.backends.choice import Candidate
from stvsr.engine.benchmark import cases as cases_module
from stvsr.engine.benchmark.against import differences, ratios
from stvsr.engine.benchmark.cases import Choice, Model, find_combinations
from stvsr.engine.benchmark.environment import hardware, versions
from stvsr.engine.benchmark.page import page
from stvsr.engine.benchmark.results import Figures, Percentiles, Result, Run, Unavailable, read_run
from stvsr.engine.contract.bundle import short_names

SIZES = [(32, 16), (64, 32)]
ENGINES = Candidate("tensorrt", "cuda:0", "tensorrt", "TensorRT", None)
MISSING = Candidate("ort", "cuda:0", None, "ONNX Runtime with CUDA", "It has no CUDA provider.")
CPU = Candidate("ort", "cpu", None, "ONNX Runtime", None)


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases_module, "find_candidates", lambda: [ENGINES, MISSING, CPU])


def chosen(toy: Path, **options: Any) -> tuple[list[tuple[Any, ...]], list[Unavailable]]:
    found, unavailable = find_combinations({"toy": Model.find(str(toy))}, Choice(SIZES, **options))
    return [
        (c.case.device, c.case.precision, c.case.size_in[0], c.case.batch, c.case.concurrency) for c in found
    ], unavailable


@pytest.mark.usefixtures("with_gpu")
def test_every_combination_comes_and_the_most_telling_first(toy: Path) -> None:
    found, unavailable = chosen(toy, batches=[1, 4], concurrencies=[1, 2])
    streams = [(1, 1), (4, 4), (1, 2)]
    kinds = [("cuda:0", "fp32"), ("cuda:0", "fp16"), ("cuda:0", "tf32"), ("cpu", "fp32")]
    assert sorted(found) == sorted((*kind, width, *pair) for kind in kinds for width in (32, 64) for pair in streams)
    assert found[0] == ("cuda:0", "fp32", 32, 1, 1)
    differing = [sum(a != b for a, b in zip(one[:3], found[0][:3], strict=True)) for one in found]
    assert differing[:4] == [0, 0, 0, 1]
    assert max(differing) == differing[-1]
    assert unavailable == [Unavailable(title=MISSING.title, device="cuda:0", reason="It has no CUDA provider.")]


@pytest.mark.usefixtures("with_gpu")
def test_a_choice_leaves_others_out_and_names_what_it_excludes(toy: Path) -> None:
    assert {one[0] for one in chosen(toy, device="cpu")[0]} == {"cpu"}
    found, unavailable = chosen(toy, precisions=["fp16"])
    assert {one[:2] for one in found} == {("cuda:0", "fp16")}
    assert "The CPU computes in float32" in unavailable[-1].reason
    with pytest.raises(BackendError, match="no CUDA provider"):
        chosen(toy, backend="ort", device="cuda:0")
    with pytest.raises(RequestError, match="no device 'cuda:7'"):
        chosen(toy, device="cuda:7")
    with pytest.raises(RequestError, match="no device 'cuda:0,cuda:7'"):
        chosen(toy, device="cuda:0,cuda:7")
    with pytest.raises(BackendError, match="Unknown precision 'fp8'"):
        chosen(toy, precisions=["fp8"])
    with pytest.raises(BundleError, match="no bundle 'none'"):
        Model.find("none")
    (remote, *_), nothing = find_combinations(
        {"toy": Model.find(str(toy))}, Choice(SIZES, backend="remote", url="http://127.0.0.1:1")
    )
    assert (remote.backend.kind, remote.case.device, remote.case.precision) == ("remote", "server", "its own")
    assert "127.0.0.1" not in remote.case.model_dump_json(), "an address is not for an issue"
    assert nothing == []


def test_short_names_are_unique(toy: Path, tmp_path: Path) -> None:
    assert short_names([str(toy), f"{toy}+{toy}", "fourier-s"]) == {
        "toy": str(toy),
        "toy+toy": f"{toy}+{toy}",
        "fourier-s": "fourier-s",
    }
    assert list(short_names(["a/toy", "b/toy"])) == ["a/toy", "b/toy"]
    with pytest.raises(RequestError, match="twice"):
        short_names(["a", "a"])


def run_of(toy: Path, **figures: Any) -> Run:
    found, unavailable = find_combinations({"toy": Model.find(str(toy))}, Choice(SIZES, device="cpu"))
    results = [Result(case=found[0].case, figures=Figures(**figures)), Result(case=found[1].case, problem="It <died>.")]
    return Run(
        date="2026-01-01T00:00:00+00:00",
        hardware=hardware(),
        versions=versions(),
        bundles={"toy": Model.find(str(toy)).facts()},
        clip="synthetic",
        seconds_each=1,
        results=tuple(results),
        unavailable=tuple(unavailable),
    )


def test_a_saved_run_is_read_back_and_compared(toy: Path, tmp_path: Path) -> None:
    saved = run_of(toy, fps=4.0, request_ms=Percentiles.of([10.0]), peak_memory_bytes=100)
    (tmp_path / "run.json").write_text(json.dumps(saved.as_dict()))
    assert read_run(tmp_path / "run.json") == saved
    now = run_of(toy, fps=6.0, request_ms=Percentiles.of([5.0]), whole_fps=3.0)
    ((case, found),) = ratios(now, saved).items()
    assert case == saved.results[0].case, "the case without figures has no ratio"
    assert (found.fps, found.request_p50, found.whole_fps, found.peak_memory_bytes) == (1.5, 0.5, None, None)
    assert differences(now, saved) == []
    changed = now.model_copy(
        update={
            "versions": {**now.versions, "numpy": "0"},
            "hardware": {"cpu": "other", "gpu": "L4"},
            "bundles": {"toy": Model.find("edvr-s").facts()},
        }
    )
    sentences = differences(changed, saved)
    assert f"numpy: {saved.versions['numpy']} -> 0" in sentences
    assert "gpu: none -> L4" in sentences
    assert "toy: other weights or graphs" in sentences


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no saved run"),
        ("{", "no saved run of this version"),
        ("[1]", "no saved run"),
        ('{"format": 2}', "format"),
    ],
)
def test_other_files_are_no_saved_runs(content: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RequestError, match=words):
        read_run(path)


def test_the_page_holds_all_figures_and_loads_nothing(toy: Path) -> None:
    stages = {"decode": 1.0, "network": 20.0, "encode": 3.0}
    figures = {"fps": 12.34, "whole_fps": 9.87, "request_ms": Percentiles.of([10.0, 20.0]), "stages_ms": stages}
    now = run_of(toy, **figures)
    text = page(now, run_of(toy, fps=6.17))
    for value in ("12.34", "9.87", "10.0 / 20.0 / 20.0", "20.00", "2.00x", now.bundles["toy"].fingerprint):
        assert value in text, value
    assert "It &lt;died&gt;." in text
    assert text.count("<svg class=") == 4
    assert not re.search(r"https?://|<script|<link|<iframe|@import|url\(|\b(?:src|href)=|\bon[a-z]+=\"|\bstyle=", text)
    assert "default-src 'none'; style-src 'sha256-" in text
    assert str(Path.home()) not in text
    assert page(run_of(toy)).count("<svg class=") == 0


def test_several_devices_compute_together(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [ENGINES, MISSING, ENGINES._replace(device="cuda:1"), MISSING._replace(device="cuda:1"), CPU]
    monkeypatch.setattr(cases_module, "find_candidates", lambda: cards)
    found, unavailable = chosen(toy, device="cuda:0,cuda:1", precisions=["fp32"])
    assert {one[0] for one in found} == {"cuda:0,cuda:1"}
    assert [one.device for one in unavailable] == ["cuda:0,cuda:1"]
    assert {one[0] for one in chosen(toy)[0]} == {"cuda:0", "cuda:1", "cpu"}
