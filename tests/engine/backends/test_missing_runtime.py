"""Without ONNX Runtime, or with the build for CPUs beside a GPU, stvsr says what to install."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from stvsr import Backend, BackendError, Bundle, Upscaler
from stvsr.cli.info import info
from stvsr.engine.backends import choice, onnxruntime
from stvsr.engine.backends.graphs import open_graphs

from tests.support.fake_gpu import plugged_in
from tests.support.fake_onnxruntime import with_cuda
from tests.support.toy import write_toy

ORT = Backend("ort")


@pytest.fixture
def toy(tmp_path: Path) -> Bundle:
    return Bundle.load(write_toy(tmp_path / "toy"))


@pytest.fixture
def _import_again() -> Iterator[None]:
    onnxruntime.import_onnxruntime.cache_clear()
    yield
    onnxruntime.import_onnxruntime.cache_clear()


@pytest.fixture
def _missing(_import_again: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


@pytest.mark.usefixtures("_missing")
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_the_build_for_the_cpu_comes_first_without_a_gpu(toy: Bundle, device: str) -> None:
    with pytest.raises(
        BackendError, match=r'pip install "stvsr\[cpu\]" for the CPU .*, or "stvsr\[cuda\]" for an NVID'
    ):
        Upscaler(toy, Backend(device=device))


@pytest.mark.usefixtures("_missing")
def test_the_build_for_the_gpu_comes_first_beside_one(toy: Bundle) -> None:
    first = r'pip install "stvsr\[cuda\]" for Fake GPU \(.*\), or "stvsr\[cpu\]"'
    with plugged_in(), pytest.raises(BackendError, match=first):
        open_graphs(toy, ORT)


@pytest.mark.usefixtures("_missing")
def test_engines_run_without_onnx_runtime(toy: Bundle) -> None:
    with plugged_in(), open_graphs(toy) as graphs:
        assert graphs.backend == "tensorrt"


@pytest.mark.usefixtures("_missing")
def test_devices_are_listed_without_onnx_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(candidate.unavailable for candidate in choice.find_candidates())
    info(None, devices=True)
    listed = " ".join(capsys.readouterr().out.split())
    assert 'pip install "stvsr[cpu]"' in listed
    assert "chosen by" not in listed


@pytest.mark.usefixtures("_import_again")
def test_a_module_without_its_files_is_named(toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The removal of one of two builds, which share a folder, takes files of the other with it."""
    emptied = ModuleType("onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", emptied)
    with pytest.raises(BackendError, match="not complete: pip uninstall onnxruntime onnxruntime-gpu, then"):
        open_graphs(toy, Backend(device="cpu"))


def test_a_gpu_that_auto_leaves_idle_is_named(toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    with plugged_in():
        with with_cuda(), open_graphs(toy, ORT, warnings.append) as graphs:
            assert (graphs.device.name, warnings) == ("cuda:0", [])
        monkeypatch.setattr(choice, "cuda_is_offered", lambda: False)
        monkeypatch.setattr(onnxruntime, "cuda_is_offered", lambda: False)
        with open_graphs(toy, Backend(device="cpu"), warnings.append):
            assert warnings == []
        with open_graphs(toy, ORT, warnings.append) as graphs:
            assert graphs.device.name == "cpu"
    assert warnings == [f"The CPU computes, and Fake GPU does not. {onnxruntime.NO_CUDA_PROVIDER}"]
    with open_graphs(toy, ORT, warnings.append):
        assert len(warnings) == 1, "a machine without a GPU gets no warning"
