"""The engine libraries, TensorRT and TensorRT-RTX: two modules with one Python API."""

import contextlib
import functools
import importlib
from types import ModuleType
from typing import Any

from ...contract.errors import BackendError
from ...contract.manifest import Library
from ..cuda_driver import local_target

# Each library's module, and the one that is importable if only its bindings wheel is installed.
_MODULES: dict[Library, tuple[str, ...]] = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_NO_RTX = frozenset({"sm90"})  # TensorRT-RTX 1.7 builds for Hopper, and its runtime refuses these engines there
TITLES: dict[Library, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


def load_library(library: Library) -> ModuleType:
    """Import the module of a library. Raises BackendError if it is not installed or cannot be loaded."""
    if library not in _MODULES:
        raise BackendError(f"Unknown engine library '{library}': use {' or '.join(_MODULES)}.")
    reason: Exception | None = None
    for name in _MODULES[library]:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: the module is installed, its shared library is not
            # The first error is the most useful one, unless it only says that the module is absent.
            reason = reason if reason and not isinstance(reason, ModuleNotFoundError) else error
    raise BackendError(f'{TITLES[library]} cannot be imported ({reason}): pip install "stvsr[{library}]".') from reason


def installed_library() -> Library:
    """Return the library that can be imported: TensorRT if both can, and TensorRT-RTX if neither can."""
    for library in _MODULES:
        with contextlib.suppress(BackendError):
            load_library(library)
            return library
    return "tensorrt-rtx"


def check_target(target: str, library: Library) -> None:
    """Raise BackendError unless the library can build engines here that run on GPUs of a compute capability."""
    check_runs_on(target, library)
    if library == "tensorrt-rtx":
        known = [name.lower() for name in dir(load_library(library).ComputeCapability) if name.startswith("SM")]
        if target not in known:
            choices = ", ".join(sorted(known, key=lambda name: int(name[2:])))
            raise BackendError(f"TensorRT-RTX does not build for '{target}': use one of {choices}.")
    elif target != (local := local_target()):
        where = f"which is {local}" if local else "and there is no CUDA device"
        raise BackendError(
            f"TensorRT builds only for the GPU of this machine, {where}: build for {target} on such a machine, or use"
            " --library tensorrt-rtx."
        )


def check_runs_on(target: str, library: Library) -> None:
    """Raise BackendError if a library's engines do not run on GPUs of a compute capability, although it builds them."""
    if library == "tensorrt-rtx" and target in _NO_RTX:
        raise BackendError(
            f"Engines of TensorRT-RTX do not run on {target}: install TensorRT (--library tensorrt), or use --backend"
            " ort."
        )


@functools.cache
def get_logger(trt: ModuleType) -> Any:
    """Return the only logger of a library, which keeps errors for messages and prints nothing.

    A library keeps using the first logger that it gets, for as long as it is loaded.
    """

    class Logger(trt.ILogger):  # type: ignore[name-defined]
        """Collects errors in `errors`."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(" ".join(message.split()))

    return Logger()


def last_error(logger: Any) -> str:
    """Return the last error that a library logged."""
    return logger.errors[-1] if logger.errors else "it logged no reason"
