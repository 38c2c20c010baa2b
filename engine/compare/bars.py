"""Bar charts of named values."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH = 640  # of a chart, in its own units
_LEFT, _CHARACTER = 10, 6.5  # before the bars, and of a character behind them
_ROW, _LABEL, _BAR = 40, 14, 12  # heights
_COLORS = 6  # that the style has


@dataclass(frozen=True)
class Bar:
    """A row of a chart.

    parts: values that are drawn one after another, from the chart's lowest value on.
    note: the value in words, at the end of the row.
    span: two values that a line connects, such as an interval or two percentiles.
    """

    label: str
    parts: Sequence[float]
    note: str
    span: tuple[float, float] | None = None


def bar_chart(title: str, bars: Sequence[Bar], series: Sequence[str] = (), low: float = 0.0) -> str:
    """Return a figure of horizontal bars; `series` names the parts of each, and `low` is the value of their left end.

    Without bars there is no figure.
    """
    if not bars:
        return ""
    high = max(max(low + sum(bar.parts), *(bar.span or ())) if bar.span else low + sum(bar.parts) for bar in bars)
    width = _WIDTH - 2 * _LEFT - _CHARACTER * max(len(bar.note) for bar in bars)

    def x(value: float) -> float:
        return _LEFT + width * max(0.0, value - low) / ((high - low) or 1.0)

    words = "; ".join(f"{bar.label}: {bar.note}" for bar in bars)
    drawn = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_ROW * len(bars) + 8}" role="img"'
        f' aria-label="{html.escape(f"{title}. {words}.", quote=True)}">'
    ]
    for number, bar in enumerate(bars):
        top = _ROW * number + 6
        drawn.append(f'<text class="label" x="{_LEFT}" y="{top + _LABEL - 3}">{html.escape(bar.label)}</text>')
        start = low
        for index, part in enumerate(bar.parts):
            left, right = x(start), x(start + part)
            drawn.append(
                f'<rect class="bar-{index % _COLORS + 1}" x="{left:.1f}" y="{top + _LABEL}"'
                f' width="{right - left:.1f}" height="{_BAR}"/>'
            )
            start += part
        end = start
        if bar.span is not None:
            middle = top + _LABEL + _BAR / 2
            left, right = (x(value) for value in bar.span)
            drawn.append(
                f'<path class="whisker" d="M{left:.1f} {middle}H{right:.1f}M{left:.1f} {middle - 4}v8'
                f'M{right:.1f} {middle - 4}v8"/>'
            )
            end = max(end, bar.span[1])
        drawn.append(f'<text x="{x(end) + 6:.1f}" y="{top + _LABEL + _BAR - 2}">{html.escape(bar.note)}</text>')
    keys = "".join(
        f'<span class="swatch"><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="bar-{index % _COLORS + 1}"'
        f' width="10" height="10"/></svg>{html.escape(name)}</span>'
        for index, name in enumerate(series)
    )
    begin = f" (bars begin at {low:.1f})" if low else ""
    return f"<figure><figcaption>{html.escape(title)}{begin}{keys}</figcaption>{''.join(drawn)}</svg></figure>"
