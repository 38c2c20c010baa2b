"""ONNX Runtime sessions on the CPU, and on a GPU where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stvsr import Backend, BackendError, Bundle, BundleError, DeviceMemoryError
from stvsr.engine.backends.graphs import open_graphs
from stvsr.engine.backends.onnxruntime import OrtSession, open_session
from stvsr.engine.backends.options import WAITING, Waiting
from stvsr.engine.contract.manifest import TensorSpec

from tests.support.cuda_cpu import cupy_with_device
from tests.support.toy import write_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).random((1, 2, 3, 5, 7), dtype=np.float32)


def has_cuda(toy: Path) -> bool:
    with open_session(toy / "encoder.onnx") as session:
        return session.device.name != "cpu"


def test_a_session_lists_its_inputs_and_outputs(toy: Path) -> None:
    with open_session(toy / "decoder.onnx", device="cpu") as session:
        assert [spec.name for spec in session.inputs] == ["features", "time", "y", "x"]
        assert session.outputs == (TensorSpec(name="frame", dtype="float32", axes=("B", 3, "H", "W")),)
        assert session.device.name == "cpu"


def test_kept_outputs_are_inputs_of_another_session(toy: Path, frames: np.ndarray) -> None:
    with open_session(toy / "encoder.onnx", device="cpu") as encoder, open_session(toy / "decoder.onnx") as decoder:
        np.testing.assert_array_equal(encoder.run({"frames": frames})["features"], frames)
        kept = encoder.run({"frames": frames}, keep=True)
        assert not isinstance(kept["features"], np.ndarray)
        # A strided array is made contiguous.
        positions = {"y": np.arange(5, dtype=np.float32), "x": np.arange(14, dtype=np.float32)[::2] / 2}
        first = decoder.run({**kept, "time": np.zeros(1, np.float32), **positions})["frame"]
        np.testing.assert_array_equal(first, frames[:, 0])
        second = decoder.run({**kept, "time": np.ones(1, np.float32), **positions})["frame"]
        np.testing.assert_allclose(second, frames[:, 1], atol=1e-6)


def test_inputs_are_accepted_by_dlpack(toy: Path, frames: np.ndarray) -> None:
    class Foreign:
        def __dlpack__(self, **options: object) -> object:
            return frames.__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return frames.__dlpack_device__()

    with open_session(toy / "encoder.onnx", device="cpu") as session:
        np.testing.assert_array_equal(session.run({"frames": Foreign()})["features"], frames)


def test_sizes_may_change_between_runs(toy: Path) -> None:
    with open_session(toy / "encoder.onnx", device="cpu") as session:
        for shape in ((1, 2, 3, 8, 8), (1, 2, 3, 4, 12), (2, 2, 3, 9, 3)):
            assert session.run({"frames": np.ones(shape, np.float32)})["features"].shape == shape


def test_a_closed_session_is_refused(toy: Path, frames: np.ndarray) -> None:
    session = open_session(toy / "encoder.onnx", device="cpu")
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run({"frames": frames})


def test_a_missing_gpu_is_refused_with_the_remedy(toy: Path) -> None:
    if has_cuda(toy):
        pytest.skip("this machine has a CUDA GPU that ONNX Runtime uses")
    with pytest.raises(BackendError, match=r"stvsr\[cuda\]|no CUDA device .*: install an NVIDIA driver"):
        open_session(toy / "encoder.onnx", device="cuda:0")


@pytest.mark.gpu
def test_kept_outputs_stay_on_the_gpu(toy: Path, frames: np.ndarray) -> None:
    if not has_cuda(toy):
        pytest.skip("no CUDA GPU that ONNX Runtime uses")
    with open_session(toy / "encoder.onnx", device="cuda:0") as session:
        kept = session.run({"frames": frames}, keep=True)["features"]
        assert isinstance(kept, cupy_with_device().ndarray)
        np.testing.assert_array_equal(kept.get(), frames)


def test_a_file_that_is_not_a_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(BundleError, match=r"bad\.onnx"):
        open_session(tmp_path / "bad.onnx", device="cpu")


def test_running_out_of_memory_names_the_remedy(toy: Path, frames: np.ndarray) -> None:
    class Full:
        def io_binding(self) -> "Full":
            return self

        def bind_cpu_input(self, *arguments: object) -> None: ...

        def bind_output(self, *arguments: object) -> None: ...

        def run_with_iobinding(self, *arguments: object) -> None:
            raise RuntimeError("BFCArena: Failed to allocate memory for requested buffer of size 99")

    session = OrtSession(toy / "encoder.onnx")
    session._session = Full()
    with pytest.raises(DeviceMemoryError, match="use smaller tiles"):
        session.run({"frames": frames})


@pytest.mark.parametrize(("waiting", "spins"), [("spin", True), ("sleep", False), (None, WAITING == "spin")])
def test_threads_wait_as_the_backend_says(toy: Path, waiting: Waiting | None, spins: bool) -> None:
    backend = Backend(device="cpu", threads=2, waiting=waiting)
    with open_graphs(Bundle.load(toy), backend) as graphs:
        (session,) = graphs._sessions.values()
        assert isinstance(session, OrtSession)
        options = session._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(spins))


def test_nothing_is_printed(toy: Path) -> None:
    code = (
        "from stvsr.engine.backends.onnxruntime import open_session\n"
        "from stvsr.engine.contract.errors import BackendError\n"
        f"open_session({str(toy / 'encoder.onnx')!r}).close()\n"
        f"try: open_session({str(toy / 'encoder.onnx')!r}, device='cuda:99')\n"
        "except BackendError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_telemetry_is_off_before_onnx_runtime_is_imported(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("import os\nprint(os.environ['ORT_DISABLE_TELEMETRY'])\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from stvsr.engine.backends import onnxruntime\n"
        "onnxruntime.import_onnxruntime()\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "1\n"
