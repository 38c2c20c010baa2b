"""The options and limits of frames that come over HTTP."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..contract.bundle import Bundle
from ..contract.errors import RequestError
from ..pipeline.inference import Preset
from ..pipeline.plan import Pass, check_times, default_factor, default_scale, plan_passes
from ..pipeline.request import DEFAULT_MODEL
from .frame_formats import FormatName, FrameFormat
from .requests import MODEL

_TIME = r"[0-9]{1,4}(\.[0-9]{1,6}|/[0-9]{1,4})?"


@dataclass(frozen=True)
class StreamLimits:
    """The limits of a worker for streams, and the models that it opens at once."""

    most_pixels: int  # of an input frame
    most_frame_bytes: int  # of a new frame
    batch: int = 1  # windows of several streams that are computed at once
    warm: tuple[str, ...] = ()


class FrameOptions(BaseModel):
    """The options of a request for frames, or of a stream of them, as they stand in the query of its address."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: FormatName = "png"  # of the frames that come, and of the new ones
    width: Annotated[int, Field(ge=1, le=32768)] | None = None  # of raw frames
    height: Annotated[int, Field(ge=1, le=32768)] | None = None
    scale: Annotated[float, Field(gt=0, le=64)] | None = None
    size: Annotated[str, Field(pattern=r"^[0-9]{1,5}x[0-9]{1,5}$")] | None = None  # of the new frames, as 1280x720
    time_factor: Annotated[int, Field(ge=1, le=64)] | None = None
    times: Annotated[str, Field(pattern=rf"^{_TIME}(,{_TIME}){{0,63}}$")] | None = None  # after each frame, as 0,1/2
    model: Annotated[str, MODEL] = DEFAULT_MODEL
    scene_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0  # of scene cuts; 0: the frames are one scene
    tile: Annotated[int, Field(ge=0, le=32768)] | None = None
    preset: Preset = "fast"

    @property
    def frame_format(self) -> FrameFormat:
        """Return the format of the frames. Raises RequestError for a size that is missing or has no effect."""
        return FrameFormat(self.format, self.width, self.height)

    def check(self) -> None:
        """Raise RequestError for options that contradict each other."""
        self.frame_format  # noqa: B018  # raises the error
        if self.scale is not None and self.size is not None:
            raise RequestError("Choose either a scale or a size, not both.")
        if self.time_factor is not None and self.times is not None:
            raise RequestError("Choose either a time factor or times, not both.")
        self._times()

    def plan(self, bundles: Sequence[Bundle], shape: tuple[int, int]) -> tuple[tuple[Pass, ...], tuple[Fraction, ...]]:
        """Return the passes for frames of `shape` (h, w), and the times at which new frames follow each of them.

        Raises RequestError if the bundles do not support the size or the times.
        """
        scale = default_scale(bundles) if self.scale is None else self.scale
        size = round(shape[0] * scale), round(shape[1] * scale)
        if self.size is not None:
            width, height = self.size.split("x")
            size = int(height), int(width)
        times = self._times()
        if times is None:
            factor = default_factor(bundles) if self.time_factor is None else self.time_factor
            times = tuple(Fraction(n, factor) for n in range(factor))
        passes = plan_passes(bundles, shape, size, math.lcm(*(time.denominator for time in times)))
        if len(passes) == 1:
            check_times(passes[0].bundle, times)
        return passes, times

    def _times(self) -> tuple[Fraction, ...] | None:
        if self.times is None:
            return None
        try:
            times = [Fraction(time) for time in self.times.split(",")]
        except ZeroDivisionError:
            raise RequestError(f"times: '{self.times}' divides by zero. Give fractions such as 0,1/2.") from None
        if max(times) >= 1 or sorted(set(times)) != times:
            raise RequestError("times: they are from 0 to below 1, and each is larger than the one before, as 0,1/2.")
        return tuple(times)
