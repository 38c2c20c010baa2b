"""The page of a benchmark: charts and tables in one file without a script."""

from collections.abc import Callable, Sequence

from ..compare.bars import Bar, bar_chart
from ..compare.document import report, table
from .against import Ratios, differences, ratios
from .results import Case, Figures, Result, Run

Row = Callable[[Figures], str]

# The columns of figures, here and on the terminal: a heading and the text of a case, empty where it has no figure.
SPEED: dict[str, Row] = {
    "frames/s": lambda f: number(f.fps, 2),
    "file to file": lambda f: number(f.whole_fps, 2),
    "p50 ms": lambda f: "" if f.request_ms is None else number(f.request_ms.p50, 1),
    "p95": lambda f: "" if f.request_ms is None else number(f.request_ms.p95, 1),
    "p99": lambda f: "" if f.request_ms is None else number(f.request_ms.p99, 1),
    "n": lambda f: "" if f.request_ms is None else str(f.request_ms.count),
    "open s": lambda f: number(f.open_seconds, 2),
    "first s": lambda f: number(f.first_frame_seconds, 2),
    "MB": lambda f: megabytes(f.peak_memory_bytes),
    "GPU MB": lambda f: megabytes(f.device_memory_bytes),
    "J/frame": lambda f: number(f.joules_per_frame, 3),
}

_RATIO_HEADS = {
    "fps": "frames/s",
    "whole_fps": "file to file",
    "request_p50": "p50 ms",
    "first_frame_seconds": "first s",
    "peak_memory_bytes": "MB",
    "device_memory_bytes": "GPU MB",
    "joules_per_frame": "J/frame",
}
assert tuple(_RATIO_HEADS) == Ratios._fields


def number(value: float | None, digits: int) -> str:
    """Return a value as text, empty for None."""
    return "" if value is None else f"{value:.{digits}f}"


def megabytes(value: int | None) -> str:
    """Return a number of bytes in MB, empty for None."""
    return "" if value is None else f"{value / 1e6:.0f}"


def speed_rows(results: Sequence[Result]) -> tuple[list[str], list[tuple[Result, list[str]]]]:
    """Return the headings of the figures that any case has, and the text of each case."""
    heads = [head for head, text in SPEED.items() if any(text(result.figures) for result in results)]
    return heads, [(result, [SPEED[head](result.figures) for head in heads]) for result in results]


def stage_rows(results: Sequence[Result]) -> tuple[list[str], list[tuple[Result, list[str]]]]:
    """Return the names of the stages, and the milliseconds of each case that has them."""
    found = [(result, result.figures.stages_ms) for result in results if result.figures.stages_ms]
    heads = list(dict.fromkeys(stage for _, stages in found for stage in stages))
    return heads, [(result, [number(stages.get(head), 2) for head in heads]) for result, stages in found]


def ratio_rows(run: Run, saved: Run) -> tuple[list[str], list[tuple[Case, list[str]]]]:
    """Return the headings of the ratios that any case has, and the text of each case that both runs have."""
    found = {case: one._asdict() for case, one in ratios(run, saved).items()}
    names = [name for name in _RATIO_HEADS if any(one[name] is not None for one in found.values())]
    rows = [(case, ["" if one[n] is None else f"{one[n]:.2f}x" for n in names]) for case, one in found.items()]
    return [_RATIO_HEADS[name] for name in names], rows


def facts(run: Run) -> list[str]:
    """Return lines about where and with what a run was made."""
    hardware = ", ".join(f"{name}: {value}" for name, value in run.hardware.items())
    versions = ", ".join(f"{name} {value}" for name, value in run.versions.items())
    bundles = "; ".join(f"{name} {bundle.fingerprint}" for name, bundle in run.bundles.items())
    return [run.date, hardware, versions, f"sha256: {bundles}", f"clip: {run.clip}"]


def page(run: Run, saved: Run | None = None) -> str:
    """Return the page of a run, beside a saved one."""
    results = [result for result in run.results if result.figures != Figures()]
    sections = [("Throughput", _throughput(results)), ("Latency", _latency(results)), ("Stages", _stages(results))]
    heads, rows = speed_rows(results)
    sections.append(("Figures", table(["case", *heads], [[str(result.case), *cells] for result, cells in rows])))
    if saved is not None:
        names, found = ratio_rows(run, saved)
        lines = [[str(case), *cells] for case, cells in found]
        changed = [[line] for line in differences(run, saved)]
        content = table(["case", *names], lines) + (table(["also different"], changed) if changed else "")
        sections.append((f"Against the run of {saved.date}", content))
    if missing := missing_rows(run):
        sections.append(("Not measured", table(["case", "reason"], missing)))
    return report("stvsr benchmark", facts(run), [(heading, content) for heading, content in sections if content])


def missing_rows(run: Run) -> list[list[str]]:
    """Return what has no figures, or not all of them, with the reasons."""
    cases = [[str(result.case), result.problem] for result in run.results if result.problem]
    return [*cases, *([f"{one.title} on {one.device}", one.reason] for one in run.unavailable)]


def _throughput(results: Sequence[Result]) -> str:
    bars = [
        Bar(str(result.case), [result.figures.fps], f"{result.figures.fps:.2f}")
        for result in results
        if result.figures.fps is not None
    ]
    whole = [
        Bar(str(result.case), [result.figures.whole_fps], f"{result.figures.whole_fps:.2f}")
        for result in results
        if result.figures.whole_fps is not None
    ]
    return bar_chart("Frames a second of the network, of all streams together", bars) + bar_chart(
        "Frames a second from file to file", whole
    )


def _latency(results: Sequence[Result]) -> str:
    bars = [
        Bar(str(result.case), [ms.p50], f"{ms.p50:.1f} / {ms.p95:.1f} / {ms.p99:.1f}", (ms.p95, ms.p99))
        for result in results
        if (ms := result.figures.request_ms) is not None
    ]
    return bar_chart("Milliseconds of one window of frames: p50, and a line from p95 to p99", bars)


def _stages(results: Sequence[Result]) -> str:
    names = list(dict.fromkeys(name for result in results for name in result.figures.stages_ms or {}))
    bars = [
        Bar(str(result.case), [stages.get(name, 0.0) for name in names], f"{sum(stages.values()):.1f}")
        for result in results
        if (stages := result.figures.stages_ms)
    ]
    if not bars:
        return ""
    heads, rows = stage_rows(results)
    figures = table(["ms a frame", *heads], [[str(result.case), *cells] for result, cells in rows])
    return bar_chart("Busy milliseconds of each output frame, one stage after another", bars, names) + figures
