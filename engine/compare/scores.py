"""Scores of videos against another one over time, and their charts."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..contract.further_metrics import Meters
from ..contract.metrics import SSIM_PX, luma, psnr, ssim

_WIDTH, _HEIGHT = 640, 180  # of a chart, in its own units
_LEFT, _BOTTOM, _TOP = 52, 24, 10
_TICKS = 4


@dataclass
class Score:
    """PSNR and SSIM on luma of a video against another one, frame by frame, and further metrics."""

    name: str
    against: str
    meters: Meters
    psnr_db: list[float] = field(default_factory=list)  # infinite for equal frames
    ssim: list[float] = field(default_factory=list)  # empty for frames that are too small for its window
    further: dict[str, list[float]] = field(default_factory=dict)  # of each metric, once the video has ended

    def add(self, actual: np.ndarray, expected: np.ndarray) -> None:
        """Compare two frames, (H, W, 3) uint8."""
        first, second = luma(actual), luma(expected)
        self.psnr_db.append(psnr(first, second))
        if min(first.shape) >= SSIM_PX:
            self.ssim.append(ssim(first, second))
        self.meters.add(actual, expected)

    def finish(self) -> None:
        """End the video. A second call does nothing."""
        self.further = self.further or self.meters.finish()

    def means(self) -> dict[str, Any]:
        """Return the means over all frames; None for PSNR if frames are equal, and for SSIM if there is none."""
        level = float(np.mean(self.psnr_db))
        return {
            "name": self.name,
            "against": self.against,
            "psnr_y_db": round(level, 4) if math.isfinite(level) else None,
            "ssim_y": round(float(np.mean(self.ssim)), 5) if self.ssim else None,
            **{name: round(float(np.mean(values)), 5) for name, values in self.further.items()},
            "frames": len(self.psnr_db),
        }


def chart(title: str, times: Sequence[float], series: Sequence[tuple[str, Sequence[float]]], digits: int) -> str:
    """Return an SVG chart of series over time, in seconds; values that are not finite are gaps."""
    finite = [value for _, values in series for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    margin = max((high - low) * 0.08, 10.0**-digits)
    low, high = low - margin, high + margin
    end = times[-1] or 1.0
    right, bottom = _WIDTH - 8, _HEIGHT - _BOTTOM

    def x(time: float) -> str:
        return f"{_LEFT + (right - _LEFT) * time / end:.1f}"

    def y(value: float) -> str:
        return f"{bottom - (bottom - _TOP) * (value - low) / (high - low):.1f}"

    means = "; ".join(f"{name}: mean {_mean(values, digits)}" for name, values in series)
    label = html.escape(f"{title} over time. {means}.", quote=True)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}"'
        f' data-left="{_LEFT}" data-right="{right}" data-width="{_WIDTH}">'
    ]
    for step in range(_TICKS + 1):
        value = low + (high - low) * step / _TICKS
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(value)}" y2="{y(value)}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value)}" dy="4" text-anchor="end">{value:.{digits}f}</text>')
        time = end * step / _TICKS
        anchor = "start" if step == 0 else "end" if step == _TICKS else "middle"
        parts.append(f'<text x="{x(time)}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{time:.2f} s</text>')
    for number, (_, values) in enumerate(series):
        for line in _lines([(x(t), y(v)) if math.isfinite(v) else None for t, v in zip(times, values, strict=True)]):
            parts.append(f'<polyline class="series series-{number}" points="{line}"/>')
    parts.append(f'<line class="now" x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" y2="{bottom}"/></svg>')
    return "".join(parts)


def _lines(points: Sequence[tuple[str, str] | None]) -> list[str]:
    """Return the points of each line between gaps; a single point becomes a short line."""
    lines: list[list[str]] = [[]]
    for point in points:
        if point is None:
            lines.append([])
        else:
            lines[-1].append(",".join(point))
    return [" ".join(line if len(line) > 1 else [line[0], line[0]]) for line in lines if line]


def _mean(values: Sequence[float], digits: int) -> str:
    mean = float(np.mean(values))
    return f"{mean:.{digits}f}" if math.isfinite(mean) else "equal frames"
