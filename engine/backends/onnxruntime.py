"""ONNX Runtime: sessions on the CPU, and on a GPU through its CUDA provider."""

import contextlib
import functools
import io
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..contract.axes import shape_of, sizes_of
from ..contract.closing import Closing
from ..contract.cpus import cpu_threads
from ..contract.errors import BackendError, BundleError, DeviceMemoryError
from ..contract.manifest import Precision, TensorSpec
from ..contract.shortage import describe_shortage
from .cuda import CudaDevice
from .cuda_driver import device_name
from .device import Array, CpuDevice, Device
from .options import WAITING, Waiting, parse_device
from .session import Session

# The two builds are one module, of which the one that was installed last replaces the other.
NO_CUDA_PROVIDER = (
    "The installed ONNX Runtime has no CUDA provider: pip uninstall onnxruntime onnxruntime-gpu, then"
    ' pip install "stvsr[cuda]".'
)
_CUDA_REMEDY = 'install stvsr with its CUDA libraries (pip install "stvsr[cuda]") beside an NVIDIA driver'
_FATAL, _ERROR = 4, 3  # ONNX Runtime's log levels
# Of the CUDA provider: the fastest on an H200 and an H100 (benchmarks/gpu/README.md), with a short first run.
_FASTEST = {"prefer_nhwc": "1", "cudnn_conv_algo_search": "HEURISTIC"}
_DTYPES = {"float": "float32", "float16": "float16", "double": "float64", "int64": "int64", "int32": "int32"}
OUT_OF_MEMORY = re.compile(r"failed to allocate memory|out of memory|bad_alloc|bad allocation", re.IGNORECASE)
_OPENING = threading.Lock()  # while one thread opens a session on a GPU, stdout and the log level are of the process
_Opened = TypeVar("_Opened")


class FixedShapes(NamedTuple):
    """The shapes of a graph's inputs in one session, and its tensors with their free axes.

    ONNX Runtime then computes all shape arithmetic when it opens the session, and every node that is left can run on
    the GPU. Other shapes are refused.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    shapes: tuple[tuple[int, ...], ...]  # of the inputs

    def axes(self) -> dict[str, int]:
        """Return the size of every free axis of the inputs, by its text in the graph, such as "height/2"."""
        pairs = ((spec.axes, shape) for spec, shape in zip(self.inputs, self.shapes, strict=True))
        return {
            axis: size for axes, shape in pairs for axis, size in zip(axes, shape, strict=True) if isinstance(axis, str)
        }


class _Bound(NamedTuple):
    """The arrays of a captured CUDA graph, which always reads and writes the same memory."""

    binding: Any
    inputs: dict[str, Array]
    outputs: dict[str, Array]


class OrtSession(Closing):
    """A graph in ONNX Runtime, given as a file or as bytes, on the CPU or on the first stream of a CUDA device.

    On a GPU all inputs and outputs are CuPy arrays: nothing is copied between host and device. There products are
    rounded to TF32 at the precision "tf32"; float16 is a matter of the graph's own types. Runs of fixed shapes are
    captured as a CUDA graph, if `captures` allows it and ONNX Runtime can compute every node of the graph on the GPU:
    during a capture no other thread of the process may allocate memory on any GPU. A run that takes more than
    `time_limit_s` seconds is ended. `threads` and `waiting` are those of `Backend`.
    Raises BackendError if ONNX Runtime cannot use the GPU or for such a run, BundleError if it cannot load or compute
    the graph.
    """

    def __init__(
        self,
        graph: str | Path | bytes,
        device: Device | None = None,
        threads: int | None = None,
        precision: Precision = "fp32",
        fixed: FixedShapes | None = None,
        time_limit_s: float | None = None,
        *,
        captures: bool = True,
        waiting: Waiting | None = None,
    ) -> None:
        ort = import_onnxruntime()
        self._ort, self._graph, self._time_limit_s = ort, _describe(graph), time_limit_s
        self.device: Device = device or CpuDevice()
        self.captured = False
        self._bound: _Bound | None = None
        options = functools.partial(_options, ort, threads, fixed, waiting or WAITING)
        if not isinstance(self.device, CudaDevice):
            self._session = _create(ort, graph, options(), ["CPUExecutionProvider"])
        else:
            self._open_plain = functools.partial(_open_cuda, ort, graph, options, self.device, precision)
            if captures and fixed and os.environ.get("STVSR_CUDA_GRAPHS") != "0":
                with contextlib.suppress(BackendError):
                    self._session, self.captured = self._open_plain(capture=True), True
            if not self.captured:
                self._session = self._open_plain()
        self.inputs = fixed.inputs if fixed else tuple(_spec(graph, value) for value in self._session.get_inputs())
        self.outputs = fixed.outputs if fixed else tuple(_spec(graph, value) for value in self._session.get_outputs())

    def run(self, inputs: Mapping[str, Array], *, keep: bool = False) -> dict[str, Array]:
        """Compute every output. On the CPU `keep` leaves outputs as ONNX Runtime's values, which saves a copy."""
        if self._session is None:
            raise BackendError("The session is closed: open another.")
        if isinstance(self.device, CudaDevice):
            return self._run_on_gpu(inputs, self.device)
        binding = self._session.io_binding()
        self._bind_cpu(binding, inputs)
        self._compute(binding)
        values = binding.get_outputs() if keep else binding.copy_outputs_to_cpu()
        return {spec.name: value for spec, value in zip(self.outputs, values, strict=True)}

    def close(self) -> None:
        """Free the graph. A second call does nothing."""
        self._session = self._bound = None

    def _run_on_gpu(self, inputs: Mapping[str, Array], device: CudaDevice) -> dict[str, Array]:
        arrays = {spec.name: device.array(inputs[spec.name], spec.dtype) for spec in self.inputs}
        if not self.captured:
            bound = self._bind_cuda(arrays, device)
            self._compute(bound.binding)
            return bound.outputs
        if self._bound is None:
            self._bound = self._bind_cuda({name: array.copy() for name, array in arrays.items()}, device)
        for name, array in arrays.items():
            self._bound.inputs[name][...] = array
        try:
            self._compute(self._bound.binding)
        except DeviceMemoryError:
            raise
        except Exception:  # a node that cannot be captured, which ONNX Runtime finds when it runs
            self.captured, self._bound = False, None
            self._session = self._open_plain()
            return self._run_on_gpu(inputs, device)
        return {name: array.copy() for name, array in self._bound.outputs.items()}

    def _compute(self, binding: Any) -> None:
        """Run the graph and wait. Raises DeviceMemoryError, BackendError, BundleError."""
        options = self._ort.RunOptions()
        timer = None
        if self._time_limit_s is not None:
            timer = threading.Timer(self._time_limit_s, setattr, (options, "terminate", True))
            timer.daemon = True
            timer.start()
        try:
            # The run is awaited. Otherwise ONNX Runtime frees page-locked buffers in a callback of the stream, which
            # CUDA forbids, and the process aborts.
            self._session.run_with_iobinding(binding, options)
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            if OUT_OF_MEMORY.search(str(error)):
                raise DeviceMemoryError(
                    f"The memory of device '{self.device.name}' is too small for this work: use smaller tiles (--tile)."
                ) from error
            if options.terminate:
                raise BackendError(
                    f"A run of {self._graph} takes more than {self._time_limit_s:g} s: choose another bundle, or raise"
                    " the time limit."
                ) from error
            reason = str(error).replace("\n", " ").strip()
            raise BundleError(
                f"ONNX Runtime cannot compute {self._graph} ({reason}); export the bundle again, or use another one."
            ) from error
        finally:
            if timer is not None:
                timer.cancel()

    def _bind_cpu(self, binding: Any, inputs: Mapping[str, Array]) -> None:
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

    def _bind_cuda(self, arrays: dict[str, Array], device: CudaDevice) -> _Bound:
        """Bind CuPy arrays by their addresses, and allocate those of the outputs."""
        binding = self._session.io_binding()
        sizes = sizes_of(self.inputs, {name: array.shape for name, array in arrays.items()})
        outputs = {spec.name: device.empty(shape_of(spec, sizes), spec.dtype) for spec in self.outputs}
        for bound, bind in ((arrays, binding.bind_input), (outputs, binding.bind_output)):
            for name, array in bound.items():
                bind(name, "cuda", device.index, array.dtype.type, array.shape, array.data.ptr)
        return _Bound(binding, arrays, outputs)


def open_session(graph: str | Path, device: str = "auto", threads: int | None = None) -> Session:
    """Open a graph in ONNX Runtime on a device: "cpu", "cuda:N", or "auto" as in `open_on`.

    Results are NumPy arrays on the CPU and CuPy arrays on a GPU. Raises BackendError, BundleError.
    """
    return open_on(device, lambda opened: OrtSession(graph, opened, threads))


def open_on(device: str, open_with: Callable[[Device], _Opened]) -> _Opened:
    """Call a function with the device of that name; "auto" is the first CUDA device that works, else the CPU.

    Raises BackendError if a CUDA device is requested by name and cannot be used.
    """
    kind, index = parse_device(device)
    if kind != "cpu" and (kind == "cuda" or cuda_is_offered()):
        try:
            return open_with(CudaDevice(index, streams=1))
        except BackendError:
            if kind == "cuda":
                raise
    return open_with(CpuDevice())


def cuda_is_offered() -> bool:
    """Return whether this build of ONNX Runtime offers the CUDA provider (it may still fail to open)."""
    return "CUDAExecutionProvider" in import_onnxruntime().get_available_providers()


@functools.cache
def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with its telemetry and its warnings off. Raises BackendError if it is not installed."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when the library is imported
    try:
        with quiet_stderr():
            import onnxruntime  # takes a quarter of a second, so it is imported when the first session opens
    except ImportError as absent:
        raise BackendError(_how_to_install(absent)) from absent
    if not hasattr(onnxruntime, "InferenceSession"):  # one of two installed builds was removed, with its files
        raise BackendError(
            "ONNX Runtime is not complete: pip uninstall onnxruntime onnxruntime-gpu, then pip install"
            ' "stvsr[cpu]" or "stvsr[cuda]".'
        )
    onnxruntime.set_default_logger_severity(_ERROR)
    return onnxruntime


def _how_to_install(absent: ImportError) -> str:
    """Return the sentence about a missing ONNX Runtime, which names the build for this machine first."""
    gpu = device_name(0)
    builds = ['"stvsr[cpu]" for the CPU (a download of 30 MB)', f'"stvsr[cuda]" for {gpu or "an NVIDIA GPU"} (1.5 GB)']
    first, second = reversed(builds) if gpu else builds
    return f"ONNX Runtime, which computes networks, cannot be imported ({absent}): pip install {first}, or {second}."


def _options(ort: ModuleType, threads: int | None, fixed: FixedShapes | None, waiting: Waiting) -> Any:
    options = ort.SessionOptions()
    for axis, size in fixed.axes().items() if fixed else ():
        options.add_free_dimension_override_by_name(axis, size)
    options.intra_op_num_threads = threads or cpu_threads()  # 0 would also pin them to CPUs
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(waiting == "spin")))
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_mem_pattern = (
        fixed is not None
    )  # with sizes that change, a pattern doubles the peak: 234 MiB against 117 MiB
    options.log_severity_level = _ERROR
    return options


def _create(ort: ModuleType, graph: str | Path | bytes, options: Any, providers: list[Any]) -> Any:
    try:
        content = graph if isinstance(graph, bytes) else os.fspath(graph)
        return ort.InferenceSession(content, options, providers=providers, enable_fallback=0)
    except Exception as error:
        if (shortage := describe_shortage(error)) is not None:
            raise BackendError(shortage) from error
        reason = str(error).replace("\n", " ").strip()
        raise BundleError(
            f"ONNX Runtime cannot load {_describe(graph)} ({reason}); restore the file or export it again."
        ) from error


def _open_cuda(
    ort: ModuleType,
    graph: str | Path | bytes,
    options: Callable[[], Any],
    device: CudaDevice,
    precision: Precision,
    *,
    capture: bool = False,
) -> Any:
    """Open a session with the CUDA provider; ONNX Runtime itself would fall back to the CPU and log to stderr."""
    failed = BackendError(f"ONNX Runtime cannot use device '{device.name}' here: {_CUDA_REMEDY}.")
    if not cuda_is_offered():
        raise failed
    provider = {
        "device_id": device.index,
        "user_compute_stream": str(device.streams[0].ptr),
        "use_tf32": str(int(precision == "tf32")),
        "enable_cuda_graph": str(int(capture)),
        **_FASTEST,
    }
    with _OPENING:
        ort.set_default_logger_severity(_FATAL)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                ort.preload_dlls()  # the CUDA libraries that pip installed; prints the names of missing ones
            providers = [("CUDAExecutionProvider", provider), "CPUExecutionProvider"]
            session = _create(ort, graph, options(), providers)
        except BundleError as error:
            raise failed from error
        finally:
            ort.set_default_logger_severity(_ERROR)
    if "CUDAExecutionProvider" not in session.get_providers():
        raise failed
    return session


def _spec(graph: str | Path | bytes, value: Any) -> TensorSpec:
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _DTYPES:
        raise BundleError(
            f"{_describe(graph)} has a tensor '{value.name}' of type {kind}, which stvsr does not support: use float."
        )
    return TensorSpec(
        name=value.name, dtype=_DTYPES[kind], axes=tuple("?" if axis is None else axis for axis in value.shape)
    )


def _describe(graph: str | Path | bytes) -> str:
    return f"a graph of {len(graph)} bytes" if isinstance(graph, bytes) else str(graph)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discard what native code writes to stderr: some GPU builds warn about missing devices when imported."""
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
