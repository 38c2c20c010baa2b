"""The record of how to compute refuses values that do not exist or contradict each other."""

from pathlib import Path
from typing import Any

import pytest
from stvsr import Backend, BackendError, Bundle
from stvsr.engine.backends.graphs import open_graphs
from stvsr.engine.backends.options import cpu_threads, parse_device

from tests.support.toy import write_toy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "torch"}, "Unknown backend 'torch': use auto, ort, tensorrt or remote"),
        ({"kind": ""}, "Unknown backend ''"),
        ({"precision": "int8"}, "Unknown precision 'int8': use auto, fp32, tf32 or fp16"),
        ({"precision": "fp16", "device": "cpu"}, "float32: leave out --precision fp16, or use --device cuda:0"),
        ({"kind": "tensorrt", "device": "cpu"}, "run only on GPUs: use --device cuda:0"),
        ({"kind": "tensorrt", "library": "tensorrt-x"}, "Unknown library 'tensorrt-x'"),
        ({"kind": "tensorrt", "threads": 2}, "--threads has no effect on engines"),
        ({"library": "tensorrt"}, "--library has no effect without --backend tensorrt"),
        ({"threads": 0}, "number of threads is 0"),
        ({"device": "gpu"}, "Unknown device 'gpu': use 'auto', 'cpu' or 'cuda:N'"),
        ({"device": "cuda:x"}, "Unknown device"),
        ({"device": "cuda:"}, "Unknown device"),
        ({"device": "cpu:1"}, "Unknown device"),
        ({"device": ""}, "Unknown device"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        Backend(**options)


@pytest.mark.parametrize(
    ("device", "expected"),
    [("auto", ("auto", 0)), ("cpu", ("cpu", 0)), ("cuda", ("cuda", 0)), ("cuda:12", ("cuda", 12))],
)
def test_devices_are_parsed(device: str, expected: tuple[str, int]) -> None:
    assert parse_device(device) == expected


def test_graphs_open_in_onnx_runtime_by_default(tmp_path: Path) -> None:
    with open_graphs(Bundle.load(write_toy(tmp_path / "toy")), Backend(device="cpu", threads=1)) as graphs:
        assert graphs.device.name == "cpu"


def test_the_default_number_of_threads_is_that_of_the_process() -> None:
    assert cpu_threads() >= 1
