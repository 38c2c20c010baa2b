"""An engine file that is loaded on a GPU: its profile, and the source of its execution contexts."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ...contract.errors import BackendError, BundleError, DeviceMemoryError, RequestError
from ...contract.manifest import Graph, Library
from ..cache_folder import read_cached, write_cached
from ..cuda import CudaDevice, import_cupy, translate_errors
from .library import TITLES, get_logger, last_error, load_library
from .tensors import check_engine

Shape = tuple[int, ...]
_COMPILED = "compiled"  # folder of the cache


class LoadedEngine:
    """An engine that its library has deserialized on a device.

    Raises BackendError if the library refuses the file: it was built for another GPU or by another version. Raises
    BundleError if it is an engine of another graph.
    """

    def __init__(self, path: str | Path, graph: Graph, library: Library, device: CudaDevice) -> None:
        self.cupy, self.trt = import_cupy(), load_library(library)
        self.path, self.outputs = Path(path), graph.outputs
        self._title, self._device_name = TITLES[library], device.name
        self.logger = get_logger(self.trt)
        with self.cupy.cuda.Device(device.index), translate_errors(self.cupy, device.name):
            self.logger.errors.clear()
            self._runtime = self.trt.Runtime(self.logger)
            content = self.path.read_bytes()
            engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise BackendError(
                f"{self._title} {self.trt.__version__} cannot open {path} ({last_error(self.logger)}): it may be built"
                " for another GPU or by another version; compile the bundle on this machine."
            )
        check_engine(engine, self.trt, graph, path)
        self.engine: Any = engine
        self._compiled: Any = None  # the kernels that TensorRT-RTX compiles, which all contexts share
        self._compiled_file = f"{hashlib.sha256(content).hexdigest()[:32]}-{self.trt.__version__}"
        self._profile: dict[str, list[Shape]] = {  # smallest, usual and largest shape of each input
            spec.name: [tuple(int(size) for size in shape) for shape in engine.get_tensor_profile_shape(spec.name, 0)]
            for spec in graph.inputs
        }

    def takes(self, name: str, shape: Shape) -> bool:
        """Return whether an input's shape is inside the profile."""
        smallest, _, largest = self._profile[name]
        return len(shape) == len(smallest) and all(
            low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)
        )

    def check_shapes(self, shapes: Mapping[str, Shape]) -> None:
        """Raise RequestError for the first input whose shape is outside the profile."""
        for name, shape in shapes.items():
            if not self.takes(name, shape):
                smallest, _, largest = self._profile[name]
                raise RequestError(
                    f"The engine {self.path} takes '{name}' of {format_shape(smallest)} to {format_shape(largest)}, not"
                    f" {format_shape(shape)}: compile the bundle with --shapes that include it."
                )

    def create_context(self) -> Any:
        """Create an execution context without memory, which the caller sets.

        Raises BackendError or DeviceMemoryError.
        """
        config = self.engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if hasattr(self.trt, "DynamicShapesKernelSpecializationStrategy"):  # TensorRT-RTX compiles kernels for shapes
            eager = self.trt.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
        if hasattr(config, "create_runtime_cache"):
            self._share_compiled(config)
        context = self.engine.create_execution_context(config)
        if context is None:
            self.fail()
        return context

    def _share_compiled(self, config: Any) -> None:
        """Let a context use the kernels that are compiled, by other contexts or in an earlier process."""
        if self._compiled is None:
            self._compiled = config.create_runtime_cache()
            stored = read_cached(_COMPILED, self._compiled_file)
            if stored:
                self._compiled.deserialize(stored)  # refuses what another GPU, driver or version has compiled
                self.logger.errors.clear()
        config.set_runtime_cache(self._compiled)

    def keep_compiled(self) -> None:
        """Keep what TensorRT-RTX has compiled for the next process, if there is more than an earlier one kept."""
        if self._compiled is not None:
            content = bytes(self._compiled.serialize())
            if content != read_cached(_COMPILED, self._compiled_file):
                write_cached(_COMPILED, self._compiled_file, content)

    def infer_output_shapes(self, context: Any, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Set the input shapes of a context and return its output shapes. Raises BackendError or BundleError."""
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                self.fail()
        if unknown := context.infer_shapes():
            raise BundleError(
                f"The engine {self.path} cannot infer the sizes of {', '.join(unknown)}: export the bundle again."
            )
        return {spec.name: tuple(context.get_tensor_shape(spec.name)) for spec in self.outputs}

    def fail(self) -> NoReturn:
        """Raise the last error of the library, as DeviceMemoryError or BackendError."""
        reason = last_error(self.logger)
        if "memory" in reason.lower():
            raise DeviceMemoryError(
                f"The memory of device '{self._device_name}' is too small for this work ({reason}): use smaller tiles"
                " (--tile)."
            )
        raise BackendError(f"{self._title} cannot run {self.path} ({reason}): compile the bundle again.")

    def close(self) -> None:
        """Free the engine; its contexts must be gone. A second call does nothing."""
        self._compiled = None
        self.engine = None  # before the runtime that loaded it
        self._runtime = None


def format_shape(shape: Shape) -> str:
    """Return a shape as text: "1x3x64x64"."""
    return "x".join(map(str, shape))
