"""The engine: bundles run on frames and on videos, without PyTorch.

The public names are loaded when they are first used: importing this package imports nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backends.options import Backend
    from .contract.bundle import Bundle
    from .contract.errors import (
        AdaptationError,
        BackendError,
        BundleError,
        CancelledError,
        CheckpointError,
        DeviceMemoryError,
        ExportError,
        MediaError,
        NonFiniteError,
        RequestError,
        ServerError,
        StvsrError,
    )
    from .contract.windows import InputFrame, one_scene
    from .pipeline.report import Progress, Report
    from .pipeline.request import UpscaleRequest
    from .pipeline.resume import upscale_resumable
    from .pipeline.run import upscale
    from .pipeline.upscaler import Upscaler
    from .serving.client import Client, ServerJob

__all__ = [
    "AdaptationError",
    "Backend",
    "BackendError",
    "Bundle",
    "BundleError",
    "CancelledError",
    "CheckpointError",
    "Client",
    "DeviceMemoryError",
    "ExportError",
    "InputFrame",
    "MediaError",
    "NonFiniteError",
    "Progress",
    "Report",
    "RequestError",
    "ServerError",
    "ServerJob",
    "StvsrError",
    "UpscaleRequest",
    "Upscaler",
    "one_scene",
    "upscale",
    "upscale_resumable",
]

_MODULES = {
    "Backend": "backends.options",
    "Bundle": "contract.bundle",
    "Client": "serving.client",
    "InputFrame": "contract.windows",
    "Progress": "pipeline.report",
    "Report": "pipeline.report",
    "ServerJob": "serving.client",
    "UpscaleRequest": "pipeline.request",
    "Upscaler": "pipeline.upscaler",
    "one_scene": "contract.windows",
    "upscale": "pipeline.run",
    "upscale_resumable": "pipeline.resume",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module = _MODULES.get(name, "contract.errors")  # the names without an entry are errors
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
