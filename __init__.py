"""Upscale video in space and time with exported graphs.

    from stvsr import UpscaleRequest, upscale

    report = upscale(UpscaleRequest(input="clip.mp4", scale=4, time_factor=2))

The public names are those of `stvsr.engine`, and `stvsr.vapoursynth`. They are loaded when they are first used:
`import stvsr` imports nothing heavier than the standard library.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import engine as _engine

if TYPE_CHECKING:
    from .engine import *  # noqa: F403
    from .engine.pipeline import vapoursynth as vapoursynth

__version__ = "0.1.0"

__all__ = ["__version__"]
__all__ += _engine.__all__


def __getattr__(name: str) -> Any:
    # The module is not in the package's own folder: in a checkout that is on the path of modules, it would hide
    # VapourSynth.
    if name == "vapoursynth":
        return importlib.import_module(".engine.pipeline.vapoursynth", __name__)
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(_engine, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
