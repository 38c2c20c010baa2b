"""The devices and backends of this machine: what can compute here, and why something cannot."""

from typing import Literal, NamedTuple, get_args

from ..contract.cpus import cpu_threads
from ..contract.errors import BackendError
from ..contract.manifest import Library
from .cuda import CudaDevice
from .cuda_driver import device_count, device_name, local_target
from .onnxruntime import NO_CUDA_PROVIDER, cuda_is_offered, import_onnxruntime
from .tensorrt.library import TITLES, check_runs_on, load_library
from .tensorrt.onnx_graph import import_onnx

_NO_DEVICE = "There is no CUDA device: install an NVIDIA GPU and its driver for CUDA 13 or later."


class Candidate(NamedTuple):
    """A backend on a device."""

    backend: Literal["ort", "tensorrt", "remote"]
    device: str  # "cpu", "cuda:N", or "server" of a remote one, which is not found but named
    library: Library | None  # of engines
    title: str  # of the library
    unavailable: str | None  # why it cannot compute here, as a sentence; None: it can


def find_candidates() -> list[Candidate]:
    """Return every backend on every device of this machine; `--backend auto` takes the first one that is available.

    Without a CUDA device, the entries of a first one give the reason.
    """
    candidates = []
    for index in range(max(1, device_count())):
        device = f"cuda:{index}"
        for library in get_args(Library):
            reason = engines_unavailable(index, library)
            candidates.append(Candidate("tensorrt", device, library, TITLES[library], reason))
        candidates.append(Candidate("ort", device, None, "ONNX Runtime with CUDA", cuda_unavailable(index)))
    return [*candidates, Candidate("ort", "cpu", None, "ONNX Runtime", _cpu_unavailable())]


def describe_device(device: str) -> str:
    """Return the name of a device: that of a GPU with its compute capability, or the number of threads."""
    if device == "cpu":
        threads = cpu_threads()
        return f"{threads} thread{'s' if threads > 1 else ''}"
    index = int(device.removeprefix("cuda:"))
    target = local_target(index)
    return "no such device" if target is None else f"{device_name(index)}, {target}"


def engines_unavailable(index: int = 0, library: Library | None = None) -> str | None:
    """Return why engines of a library, or of any, cannot run on a CUDA device, as a sentence; None: they can."""
    if local_target(index) is None:
        return _NO_DEVICE
    reasons = []
    for name in get_args(Library) if library is None else (library,):
        try:
            load_library(name)
            import_onnx()
            CudaDevice(index, streams=1)
            check_runs_on(local_target(index) or "", name)
        except BackendError as error:
            reasons.append(str(error))
        else:
            return None
    return reasons[-1]


def cuda_unavailable(index: int = 0) -> str | None:
    """Return why ONNX Runtime cannot use a CUDA device, as a sentence; None: nothing speaks against it."""
    if local_target(index) is None:
        return _NO_DEVICE
    try:
        if not cuda_is_offered():
            return NO_CUDA_PROVIDER
        CudaDevice(index, streams=1)
    except BackendError as error:
        return str(error)
    return None


def _cpu_unavailable() -> str | None:
    """Return why ONNX Runtime cannot use the CPU, as a sentence; None: it can."""
    try:
        import_onnxruntime()
    except BackendError as error:
        return str(error)
    return None
