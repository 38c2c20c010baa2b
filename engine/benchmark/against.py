"""A run beside a saved one: the ratios of figures of the same cases, and what else differs."""

from typing import Any, NamedTuple

from .results import Case, Figures, Result, Run


class Ratios(NamedTuple):
    """Figures of a case over those of the saved run; None where one of the two is missing.

    Above 1 a rate has become faster, and a time, a memory or an energy larger.
    """

    fps: float | None
    whole_fps: float | None
    request_p50: float | None
    first_frame_seconds: float | None
    peak_memory_bytes: float | None
    device_memory_bytes: float | None
    joules_per_frame: float | None


def ratios(run: Run, saved: Run) -> dict[Case, Ratios]:
    """Return the ratios of the cases that both runs have figures of."""
    earlier = {_key(result.case): result for result in saved.results if result.figures != Figures()}
    found = {}
    for result in run.results:
        before = earlier.get(_key(result.case))
        if before is not None and result.figures != Figures():
            found[result.case] = Ratios(*(_ratio(a, b) for a, b in zip(_values(result), _values(before), strict=True)))
    return found


def differences(run: Run, saved: Run) -> list[str]:
    """Return in sentences what differs between two runs besides their figures."""
    found = []
    for facts, before in ((run.hardware, saved.hardware), (run.versions, saved.versions)):
        for name in dict.fromkeys([*before, *facts]):
            old, new = before.get(name), facts.get(name)
            if old != new:
                found.append(f"{name}: {'none' if old is None else old} -> {'none' if new is None else new}")
    for name in run.bundles.keys() & saved.bundles.keys():
        if run.bundles[name].graphs_sha256 != saved.bundles[name].graphs_sha256:
            found.append(f"{name}: other weights or graphs")
    if run.clip != saved.clip:
        found.append(f"clip: {saved.clip} -> {run.clip}")
    if run.seconds_each != saved.seconds_each:
        found.append(f"seconds of each measurement: {saved.seconds_each:g} -> {run.seconds_each:g}")
    return found


def _key(case: Case) -> Any:
    """Return what is the same in cases that are compared; the name of a library's build may differ."""
    return case.model_copy(update={"title": ""})


def _values(result: Result) -> Ratios:
    figures = result.figures
    return Ratios(
        figures.fps,
        figures.whole_fps,
        None if figures.request_ms is None else figures.request_ms.p50,
        figures.first_frame_seconds,
        figures.peak_memory_bytes,
        figures.device_memory_bytes,
        figures.joules_per_frame,
    )


def _ratio(new: float | None, old: float | None) -> float | None:
    return None if new is None or not old else round(new / old, 3)
