"""Upscale video in space and time with exported graphs.

    from stvsr import UpscaleRequest, upscale

    report = upscale(UpscaleRequest(input="clip.mp4", scale=4, time_factor=2))

The public names are those of `stvsr.engine`. They are loaded when they are first used: `import stvsr` imports nothing
heavier than the standard library.
"""

from typing import TYPE_CHECKING, Any

from . import engine as _engine

if TYPE_CHECKING:
    from .engine import *  # noqa: F403

__version__ = "0.1.0"

__all__ = ["__version__"]
__all__ += _engine.__all__


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(_engine, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
