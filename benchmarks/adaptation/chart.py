"""A line chart as SVG: values over steps, on a logarithmic axis."""

import math
from collections.abc import Mapping
from html import escape

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 44, 96
_COLOURS = ("#7a7a7a", "#1f6fb4", "#c8401e", "#2b8a3e")
_STEP_DB = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_MAX_GRID_LINES = 8


def chart(curves: Mapping[str, Mapping[int, float]], title: str) -> str:
    """Draw curves by name, each a map of steps (0 or more) to dB, with a legend."""
    steps = sorted({step for curve in curves.values() for step in curve})
    values = [value for curve in curves.values() for value in curve.values()]
    unit = next((u for u in _STEP_DB if (max(values) - min(values)) / u <= _MAX_GRID_LINES), _STEP_DB[-1])
    low, high = math.floor(min(values) / unit), math.ceil(max(values) / unit)
    high = max(high, low + 1)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(step: int) -> float:
        return round(_LEFT + (right - _LEFT) * math.log2(1 + step) / max(1.0, math.log2(1 + steps[-1])), 1)

    def y(value: float) -> float:
        return round(bottom - (bottom - _TOP) * (value / unit - low) / (high - low), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
        ' font-size="13">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(_LEFT, 24, title, size=15),
    ]
    for k in range(low, high + 1):
        parts.append(f'<path d="M{_LEFT} {y(k * unit)}H{right}" stroke="#dddddd"/>')
        parts.append(_text(_LEFT - 8, y(k * unit) + 4, f"{k * unit:.2f}", "end"))
    parts += [_text(x(step), bottom + 20, str(step), "middle") for step in steps]
    parts.append(_text((_LEFT + right) / 2, bottom + 42, "steps", "middle"))
    parts.append(
        f'<text x="16" y="{(_TOP + bottom) / 2}" text-anchor="middle" fill="#222222"'
        f' transform="rotate(-90 16 {(_TOP + bottom) / 2})">Y-PSNR, dB</text>'
    )
    for number, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [(x(step), y(curve[step])) for step in sorted(curve)]
        parts.append(
            f'<polyline points="{" ".join(f"{a},{b}" for a, b in points)}" fill="none" stroke="{colour}"'
            ' stroke-width="2"/>'
        )
        parts += [f'<circle cx="{a}" cy="{b}" r="3.5" fill="{colour}"/>' for a, b in points]
        left = _LEFT + (right - _LEFT) * (number % 3) / 3
        below = bottom + 66 + 18 * (number // 3)
        parts.append(f'<path d="M{left:.0f} {below - 4}h22" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(left + 28, below, name))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 13) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="#222222">{escape(words)}</text>'
