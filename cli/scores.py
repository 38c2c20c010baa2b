"""Scores of `evaluate`: tables on the terminal, and their page."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from ..engine.contract.figures import FIGURES
from .terminal import new_table, out, plain

_WHEN = {"at": "at input times", "between": "between input times"}
_BICUBIC = ("bicubic+blend", "bicubic+repeat")
INTERVALS = "±: the interval that has the mean over clips of this kind with a confidence of 95 %, by Student's t"

Scores = Mapping[str, Any]  # of one bundle, by `training.evaluation.evaluate`
Differences = Mapping[str, Mapping[str, Any]]  # bundle -> "at" or "between" -> figures over the first bundle


def print_scores(scores: Mapping[str, Scores], differences: Differences) -> None:
    """Print the scores of every bundle and of bicubic resizing on every clip, and their means."""
    heads, rows = score_rows(scores, differences)
    out.print(_protocol(scores))
    table = new_table(*heads)
    before = ""
    for clip, *cells in rows:
        table.add_row("" if clip == before else plain(clip), plain(cells[0]), *cells[1:])
        before = clip
    out.print(table)
    if any(len(one["clips"]) > 1 for one in scores.values()):
        out.print(INTERVALS, soft_wrap=True)
    for name, one in scores.items():
        for when, gain in one["gain_db"].items():
            of = f"{plain(name)}: " if len(scores) > 1 else ""
            interval = one["gain_interval_95_db"][when]
            within = "" if interval is None else f" (95 %: {interval[0]:+.2f} to {interval[1]:+.2f})"
            out.print(f"{of}{gain:+.2f} dB over {_BICUBIC[0]} {_WHEN[when]}{within}", soft_wrap=True)


def score_rows(scores: Mapping[str, Scores], differences: Differences) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows of the table: for each clip, the means and the differences, one of each bundle.

    The lines of a cell are PSNR / SSIM and further metrics, and, of means and differences, half the length of their
    intervals.
    """
    times = [when for when in _WHEN if any(when in one["mean"] for one in scores.values())]
    return [
        "clip",
        " / ".join(FIGURES[name].title for name in _figures(scores)),
        *(_WHEN[when] for when in times),
    ], list(_rows(scores, differences, times))


def _rows(scores: Mapping[str, Scores], differences: Differences, times: Sequence[str]) -> Iterator[list[str]]:
    first = next(iter(scores.values()))
    lines = [(name, one, "stvsr") for name, one in scores.items()]
    lines += [(method, first, method) for method in _BICUBIC]
    for clip in dict.fromkeys(name for one in scores.values() for name in one["clips"]):
        for name, one, method in lines:
            if clip in one["clips"]:
                yield [clip, name, *(_cell(one["clips"][clip][when].get(method)) for when in times)]
    for name, one, method in lines:
        cells = (
            _with_intervals(one["mean"].get(when, {}).get(method), one["interval_95"].get(when, {}).get(method))
            for when in times
        )
        yield ["mean", name, *cells]
    for name, figures in differences.items():
        yield [f"over {next(iter(scores))}", name, *(_difference(figures.get(when)) for when in times)]


def write_scores_page(path: Path, scores: Mapping[str, Scores], differences: Differences) -> None:
    """Write a page with the table, and charts of the means with their intervals."""
    from ..engine.compare.bars import Bar, bar_chart
    from ..engine.compare.document import report, table, write_page

    charts = ""
    drawn = [name for name in _figures(scores) if name != "ssim_y"]
    for (when, description), figure in product(_WHEN.items(), drawn):
        if means := list(_means(scores, when, figure)):
            low = _low(means) if figure == "psnr_y_db" else 0.0
            bars = [
                Bar(
                    name,
                    [mean - low],
                    _with_half(mean, interval, FIGURES[figure].digits),
                    (interval[0], interval[1]) if interval else None,
                )
                for name, mean, interval in means
            ]
            title = "PSNR in dB" if figure == "psnr_y_db" else FIGURES[figure].title
            charts += bar_chart(f"Mean {title} {description}, and its interval of 95 %", bars, low=low)
    names = ", ".join(f"{name} on {one['device']}, {one['precision']}" for name, one in scores.items())
    sections = [("Means", charts), ("Scores", table(*score_rows(scores, differences)))]
    write_page(path, report("stvsr evaluate", [names, _protocol(scores), INTERVALS], sections), overwrite=True)


def _means(scores: Mapping[str, Scores], when: str, figure: str) -> Iterator[tuple[str, float, list[float] | None]]:
    """Yield the mean of a figure of each bundle and of bicubic resizing, and its interval."""
    first = next(iter(scores.values()))
    for name, one, method in [*((n, one, "stvsr") for n, one in scores.items()), *((m, first, m) for m in _BICUBIC)]:
        if when in one["mean"]:
            yield name, one["mean"][when][method][figure], one["interval_95"][when][method][figure]


def _protocol(scores: Mapping[str, Scores]) -> str:
    """Return what the clips were degraded by, and the preset where it is not the usual one, in words."""
    first = next(iter(scores.values()))
    protocol = first["protocol"]
    exposure = ", means over time" if protocol["exposure"] else ""
    crf = "" if protocol["crf"] is None else f", compressed at CRF {protocol['crf']}"
    preset = "" if first["preset"] == "fast" else f"; preset {first['preset']}"
    return f"x{protocol['scale']} in space, x{protocol['factor']} in time{exposure}{crf}{preset}"


def _low(means: Sequence[tuple[str, float, list[float] | None]]) -> float:
    """Return the value at which a chart begins: a little below the lowest one."""
    return min(min(mean, *(interval or [mean])) for _, mean, interval in means) - 0.5


def _with_half(mean: float, interval: list[float] | None, digits: int) -> str:
    half = "" if interval is None else f" ± {(interval[1] - interval[0]) / 2:.{digits}f}"
    return f"{mean:.{digits}f}{half}"


def _figures(scores: Mapping[str, Scores]) -> list[str]:
    """Return the names of the figures that were measured."""
    first = next(iter(next(iter(scores.values()))["mean"].values()))
    return [name for name in FIGURES if name in first["stvsr"]]


def _cell(figures: Mapping[str, Any] | None) -> str:
    return "" if not figures else _joined({name: value for name, value in figures.items() if name in FIGURES})


def _joined(figures: Mapping[str, float], sign: str = "") -> str:
    return " / ".join(f"{figures[name]:{sign}.{one.digits}f}" for name, one in FIGURES.items() if name in figures)


def _halves(intervals: Mapping[str, list[float] | None]) -> str:
    """Return half the length of intervals, on a line of its own; nothing if there is none."""
    halves = {name: (ends[1] - ends[0]) / 2 for name, ends in intervals.items() if ends is not None}
    return f"\n± {_joined(halves)}" if halves else ""


def _with_intervals(figures: Mapping[str, Any] | None, intervals: Mapping[str, list[float] | None] | None) -> str:
    """Return means, and half the length of their intervals below, which are as long on both sides."""
    return _cell(figures) + _halves(intervals or {})


def _difference(figures: Mapping[str, Any] | None) -> str:
    if not figures:
        return ""
    measured = {name: one for name, one in figures.items() if name in FIGURES}
    means = {name: one["mean"] for name, one in measured.items()}
    return _joined(means, "+") + _halves({name: one["interval_95"] for name, one in measured.items()})
