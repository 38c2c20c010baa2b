"""The record of how to compute refuses values that do not exist or contradict each other."""

from pathlib import Path
from typing import Any

import pytest
from stvsr import Backend, BackendError, Bundle
from stvsr.engine.backends.graphs import open_graphs
from stvsr.engine.backends.options import parse_device
from stvsr.engine.contract.cpus import cpu_threads

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
        ({"kind": "tensorrt", "waiting": "spin"}, "--waiting has no effect on engines"),
        ({"kind": "remote", "url": "http://h:1", "waiting": "sleep"}, "--waiting has no effect"),
        ({"library": "tensorrt"}, "--library has no effect without --backend tensorrt"),
        ({"threads": 0}, "number of threads is 0"),
        ({"waiting": "doze"}, "Unknown kind of waiting 'doze': use spin or sleep"),
        ({"device": "gpu"}, "Unknown device 'gpu': use 'auto', 'cpu' or 'cuda:N'"),
        ({"device": "cuda:x"}, "Unknown device"),
        ({"device": "cuda:"}, "Unknown device"),
        ({"device": "cpu:1"}, "Unknown device"),
        ({"device": ""}, "Unknown device"),
        ({"device": "cuda:0,"}, "Unknown device ''"),
        ({"device": "cuda:0,cuda:x"}, "Unknown device 'cuda:x'"),
        ({"device": "cpu,cuda:0"}, "'cpu,cuda:0' cannot share work: name GPUs by their numbers"),
        ({"device": "auto,auto"}, "cannot share work"),
        ({"device": "cpu,cpu", "precision": "fp16"}, "float32: leave out --precision fp16"),
        ({"device": "cpu,cpu", "kind": "tensorrt"}, "run only on GPUs"),
        ({"device": "cuda:0,cuda:1", "kind": "remote", "url": "http://h:1"}, "--device has no effect"),
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


def test_several_devices_share_the_threads_of_the_cpu() -> None:
    assert Backend(device="cuda:1").by_device() == (Backend(device="cuda:1"),)
    gpus = Backend("ort", "cuda:0,cuda:2", "fp16").by_device()
    assert gpus == (Backend("ort", "cuda:0", "fp16"), Backend("ort", "cuda:2", "fp16"))
    each = max(1, cpu_threads() // 2)
    assert Backend(device="cpu,cpu").by_device() == (Backend(device="cpu", threads=each),) * 2
    assert Backend(device="cpu,cpu", threads=3).by_device() == (Backend(device="cpu", threads=3),) * 2


def test_graphs_open_in_onnx_runtime_by_default(tmp_path: Path) -> None:
    with open_graphs(Bundle.load(write_toy(tmp_path / "toy")), Backend(device="cpu", threads=1)) as graphs:
        assert graphs.device.name == "cpu"
