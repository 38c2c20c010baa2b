"""Sessions: one protocol for every backend, and ONNX Runtime's implementation of it."""

import contextlib
import functools
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np

from ..contract.axes import shape_of, sizes_of
from ..contract.closing import Closing
from ..contract.errors import BackendError, BundleError, DeviceMemoryError
from ..contract.manifest import TensorSpec
from .cuda import Gpu
from .device import Array, Host, Place

_CUDA_REMEDY = 'install stvsr with its CUDA libraries (pip install "stvsr[cuda]") beside an NVIDIA driver'
_FATAL, _ERROR = 4, 3  # ONNX Runtime's log levels
_DTYPES = {"float": "float32", "float16": "float16", "double": "float64", "int64": "int64", "int32": "int32"}


class Session(Protocol):
    """An open graph."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    device: str  # "cpu" or "cuda:N"

    def run(self, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Compute every output, in arrays of the session's place; `keep`: in any form that its sessions take."""

    def close(self) -> None:
        """Free what the graph holds; a second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class OrtSession(Closing):
    """A graph, by its file or its bytes, in ONNX Runtime: on the CPU, or on the first lane of a GPU.

    On a GPU all inputs and outputs are CuPy arrays, and nothing crosses the bus.

    Raises BackendError where ONNX Runtime cannot use the GPU, BundleError for a file that it cannot load.
    """

    def __init__(self, path: str | Path | bytes, place: Place | None = None, threads: int | None = None) -> None:
        ort = _onnxruntime()
        options = _options(ort, threads)
        self._ort = ort
        self._gpu = place if isinstance(place, Gpu) else None
        if self._gpu is None:
            self._session = _create(ort, path, options, ["CPUExecutionProvider"])
        else:
            self._session = _open_cuda(ort, path, options, self._gpu)
        self.device = "cpu" if self._gpu is None else self._gpu.device
        self.inputs = tuple(_spec(path, value) for value in self._session.get_inputs())
        self.outputs = tuple(_spec(path, value) for value in self._session.get_outputs())

    def run(self, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Compute every output; on the CPU `keep` leaves them as ONNX Runtime's values, which need no copy."""
        if self._session is None:
            raise BackendError("The session is closed: open another with open_session.")
        binding = self._session.io_binding()
        made = None
        if self._gpu is None:
            self._bind(binding, inputs)
        else:
            made = self._bind_gpu(binding, inputs, self._gpu)
        try:
            # The run is awaited: ONNX Runtime otherwise frees page-locked buffers in a callback of the stream, where
            # CUDA forbids it, and the process aborts.
            self._session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            if re.search(
                r"failed to allocate memory|out of memory|bad_alloc|bad allocation", str(error), re.IGNORECASE
            ):
                raise DeviceMemoryError(
                    f"The memory of device '{self.device}' does not hold this work: ask for smaller tiles."
                ) from error
            raise
        if made is not None:
            return made
        values = binding.get_outputs() if keep else binding.copy_outputs_to_cpu()
        return {spec.name: value for spec, value in zip(self.outputs, values, strict=True)}

    def close(self) -> None:
        """Free the graph; a second call does nothing."""
        self._session = None

    def _bind(self, binding: Any, inputs: Mapping[str, Array]) -> None:
        for spec in self.inputs:
            value = inputs[spec.name]
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(spec.name, np.ascontiguousarray(value, dtype=spec.dtype))
            elif isinstance(value, self._ort.OrtValue):
                binding.bind_ortvalue_input(spec.name, value)
            else:
                binding.bind_ortvalue_input(spec.name, self._ort.OrtValue.from_dlpack(value))
        for spec in self.outputs:
            binding.bind_output(spec.name)

    def _bind_gpu(self, binding: Any, inputs: Mapping[str, Array], gpu: Gpu) -> dict[str, Array]:
        """Bind memory of CuPy: nothing crosses the bus between graphs."""
        given = {spec.name: gpu.array(inputs[spec.name], spec.dtype) for spec in self.inputs}
        sizes = sizes_of(self.inputs, {name: array.shape for name, array in given.items()})
        made = {spec.name: gpu.empty(shape_of(spec, sizes), spec.dtype) for spec in self.outputs}
        for arrays, bind in ((given, binding.bind_input), (made, binding.bind_output)):
            for name, array in arrays.items():
                bind(name, "cuda", gpu.index, array.dtype.type, array.shape, array.data.ptr)
        return made


def open_session(path: str | Path, device: str = "auto", threads: int | None = None) -> Session:
    """Open a graph in ONNX Runtime; device "auto" is the first CUDA GPU if ONNX Runtime can use it, and else the CPU.

    Results are NumPy arrays on the CPU and CuPy arrays on a GPU.
    """
    kind, index = parse_device(device)
    if kind != "cpu" and (kind == "cuda" or cuda_is_offered()):
        try:
            return OrtSession(path, Gpu(index, lanes=1), threads)
        except BackendError:
            if kind == "cuda":
                raise
    return OrtSession(path, Host(), threads)


def cuda_is_offered() -> bool:
    """Whether this build of ONNX Runtime has a CUDA provider, which need not work."""
    return "CUDAExecutionProvider" in _onnxruntime().get_available_providers()


def cpu_threads() -> int:
    """Return how many CPU threads this process may use at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_device(device: str) -> tuple[Literal["auto", "cpu", "cuda"], int]:
    """Read "auto", "cpu", "cuda" or "cuda:N": kind and number. Raises BackendError."""
    match = re.fullmatch(r"(auto)|(cpu)|cuda(?::(\d+))?", device)
    if match is None:
        raise BackendError(f"'{device}' is no device: use 'auto', 'cpu' or 'cuda:0' (any GPU's number).")
    kind: Literal["auto", "cpu", "cuda"] = "auto" if match[1] else "cpu" if match[2] else "cuda"
    return kind, int(match[3] or 0)


def _options(ort: ModuleType, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or cpu_threads()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_mem_pattern = False  # with sizes that change, a pattern doubles the peak: 234 MiB against 117 MiB
    options.log_severity_level = _ERROR
    return options


def _create(ort: ModuleType, path: str | Path | bytes, options: Any, providers: list[Any]) -> Any:
    try:
        graph = path if isinstance(path, bytes) else os.fspath(path)
        return ort.InferenceSession(graph, options, providers=providers, enable_fallback=0)
    except Exception as error:
        reason = str(error).replace("\n", " ").strip()
        raise BundleError(
            f"ONNX Runtime cannot load {_told(path)} ({reason}); restore the file or export it again."
        ) from error


def _told(path: str | Path | bytes) -> str:
    return f"a graph of {len(path)} bytes" if isinstance(path, bytes) else str(path)


def _open_cuda(ort: ModuleType, path: str | Path | bytes, options: Any, gpu: Gpu) -> Any:
    """Open a session on a GPU; ONNX Runtime itself would report on stderr, and go on without."""
    failed = BackendError(f"ONNX Runtime cannot use device '{gpu.device}' here: {_CUDA_REMEDY}.")
    if not cuda_is_offered():
        raise failed
    ort.set_default_logger_severity(_FATAL)
    provider = {"device_id": gpu.index, "user_compute_stream": str(gpu.streams[0].ptr)}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()  # the CUDA libraries that pip installed; it prints the names of those it lacks
        session = _create(ort, path, options, [("CUDAExecutionProvider", provider), "CPUExecutionProvider"])
    except BundleError as error:
        raise failed from error
    finally:
        ort.set_default_logger_severity(_ERROR)
    if "CUDAExecutionProvider" not in session.get_providers():
        raise failed
    return session


def _spec(path: str | Path | bytes, value: Any) -> TensorSpec:
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _DTYPES:
        raise BundleError(
            f"{_told(path)} has a tensor '{value.name}' of type {kind}, which stvsr does not feed: use float."
        )
    return TensorSpec(
        name=value.name, dtype=_DTYPES[kind], axes=tuple("?" if axis is None else axis for axis in value.shape)
    )


@functools.cache
def _onnxruntime() -> ModuleType:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # the library reads it once, when it is imported
    with _quiet_stderr():
        import onnxruntime  # it takes a quarter of a second: not before a session is wanted
    onnxruntime.set_default_logger_severity(_ERROR)
    return onnxruntime


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drop what native code writes to file 2: some GPU builds warn of devices they do not find when imported."""
    try:
        saved = os.dup(2)
    except OSError:  # a process without a stderr
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
