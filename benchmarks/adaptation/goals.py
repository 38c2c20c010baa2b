"""The goals of adaptation, and the figures that were measured for them, from the lines.

Of trials that were measured more than once, with other weights or settings, the last ones count. A mean is over clips.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .meta import RUNS, curves
from .temporal import METHODS
from .trials import Figures

COMPACT = ("edvr-s", "rbpn-s", "toflow-s")  # networks that should gain from their own results
NEAR_DB = 0.1  # tolerated distance below another result
BLURRED_DB, META_DB, ZERO_SHOT_DB = 0.3, 0.2, 0.5
TEACHER_SHARE = 2 / 3
BUNDLE_S, SESSION_S = 1.0, 2.0
KERNELS = ("estimated", "given")


@dataclass(frozen=True)
class Goal:
    """A figure that should be above `bound`, or `below` it, and its measurement."""

    name: str
    bound: float
    unit: str
    measured: float | None = None  # None: not measured
    below: bool = False
    coverage: str = ""  # clips and training of the measurement

    @property
    def row(self) -> str:
        """The row of the table."""
        sign = "+" if self.unit == "dB" else ""
        limit = f"{'below' if self.below else 'above'} {self.bound:.3g} {self.unit}".rstrip()
        if self.measured is None:
            return f"| {self.name} | {limit} | not measured | |{f' {self.coverage}' if self.coverage else ''} |"
        measured = f"{self.measured:{sign}.3f} {self.unit}".rstrip()
        return f"| {self.name} | {limit} | {measured} | {self.verdict} | {self.coverage} |"

    @property
    def verdict(self) -> str:
        """Either "met" or by how much the goal is missed."""
        assert self.measured is not None
        shortfall = self.measured - self.bound if self.below else self.bound - self.measured
        return "met" if shortfall < 0 else f"missed by {shortfall:.3f} {self.unit}".rstrip()


def goals(lines: Sequence[Figures]) -> list[Goal]:
    """Return all goals, of parts that were measured and of those that were not."""
    parts = (
        _self_supervised_goals,
        _distilled_goals,
        _distilled_time_goals,
        _meta_goals,
        _zero_shot_goals,
        _reweight_goals,
    )
    return [goal for part in parts for goal in part(lines)]


def latest(lines: Iterable[Figures], part: str, over: Sequence[str] = ("clip",), **settings: Any) -> list[Figures]:
    """Return the measured lines of a part with the given settings that agree with the last such line but in `over`."""
    matching = [
        line
        for line in lines
        if line["part"] == part
        and not {"missing", "failed"} & line.keys()
        and all(line["trial"].get(name) == value for name, value in settings.items())
    ]

    def group(line: Figures) -> str:
        return json.dumps({k: v for k, v in line["trial"].items() if k not in over}, sort_keys=True)

    # If a trial was measured again, its last line counts.
    return list(
        {
            json.dumps(line["trial"], sort_keys=True): line for line in matching if group(line) == group(matching[-1])
        }.values()
    )


def meta_lines(lines: Sequence[Figures], kernel: str) -> list[Figures]:
    """Return the latest lines of all runs of `meta`, with an estimated or a given blur."""
    over = ("clip", "task", "steps")
    return [line for run in RUNS for line in latest(lines, "meta", over, kernel=kernel, **asdict(run))]


def _self_supervised_goals(lines: Sequence[Figures]) -> list[Goal]:
    goals = []
    for name in COMPACT:
        plain, blurred = (
            latest(lines, "self-supervised", network=name, case=case) for case in ("bicubic", "estimated")
        )
        gain, blurred_gain = mean(plain, "gain_db"), mean(blurred, "gain_db")
        tof_change = average([line["after"]["tof_px"] - line["before"]["tof_px"] for line in plain])
        label = f"self-supervised, {name}"
        goals += [
            Goal(f"{label}: gain", 0, "dB", gain, coverage=coverage(plain)),
            Goal(f"{label}: change of tOF", 0, "px", tof_change, True, coverage(plain)),
            Goal(f"{label}, unknown blur: gain", BLURRED_DB, "dB", blurred_gain, coverage=coverage(blurred)),
        ]
    return goals


def _distilled_goals(lines: Sequence[Figures]) -> list[Goal]:
    goals = []
    students = dict.fromkeys(
        line["trial"]["network"] for line in lines if line["part"] == "distilled" and "gain_db" in line
    )
    for name in students or ["edvr-s"]:
        student, distilled, teacher = (
            latest(lines, "distilled", network=name, learner=learner) for learner in ("student", "distilled", "teacher")
        )
        gain = share = None
        if student and distilled:
            gain = mean(distilled, "after", "psnr_y_db") - mean(student, "after", "psnr_y_db")
        if mean(distilled, "seconds") and mean(teacher, "seconds"):
            share = mean(distilled, "seconds") / mean(teacher, "seconds")
        covered = coverage(distilled) + (f"; teacher {distilled[0]['trial']['teacher']}" if distilled else "")
        label = f"distilled, {name}"
        goals += [
            Goal(f"{label}: gain over the self-supervised student", 0, "dB", gain, coverage=covered),
            Goal(f"{label}: time over that of the teacher's own adaptation", TEACHER_SHARE, "", share, True, covered),
        ]
    return goals


def _distilled_time_goals(lines: Sequence[Figures]) -> list[Goal]:
    measured = latest(lines, "distilled-time")
    share = mean(measured, "distilled_seconds") / mean(measured, "teacher_seconds") if measured else None
    covered = f"{coverage(measured)}; teacher {measured[0]['trial']['teacher']}, untrained" if measured else ""
    name = "distilled, full-size teacher: time over that of the teacher's own adaptation"
    return [Goal(name, TEACHER_SHARE, "", share, True, covered)]


def _meta_goals(lines: Sequence[Figures]) -> list[Goal]:
    goals = []
    for kind in [kernel for kernel in KERNELS if meta_lines(lines, kernel)] or KERNELS[:1]:
        measured = meta_lines(lines, kind)
        all_curves = curves(measured)
        covered = coverage([line for line in measured if line["trial"]["steps"] == 10])
        for optimizer in ("SGD", "Adam"):
            label = f"meta-trained, 10 steps of {optimizer}, {kind} blur"
            trained, plain, longer = (
                _after(all_curves, f"{start}, {optimizer}", steps)
                for start, steps in (("meta-trained", 10), ("plain", 10), ("plain", 100))
            )
            gain = None if trained is None or plain is None else trained - plain
            distance = None if trained is None or longer is None else trained - longer
            goals += [
                Goal(f"{label}: gain over the plain start", META_DB, "dB", gain, coverage=covered),
                Goal(f"{label}: gain over 100 plain steps", -NEAR_DB, "dB", distance, coverage=covered),
            ]
    return goals


def _after(all_curves: Mapping[str, Mapping[int, float]], prefix: str, steps: int) -> float | None:
    """Return the value after some steps of the curve whose name begins with `prefix`."""
    return next((curve.get(steps) for name, curve in all_curves.items() if name.startswith(prefix)), None)


def _zero_shot_goals(lines: Sequence[Figures]) -> list[Goal]:
    measured = latest(lines, "zero-shot")
    gain = average([decibels(line, METHODS[3]) - decibels(line, METHODS[0]) for line in measured])
    name = "zero-shot, x2 in time: gain over cubic interpolation"
    return [Goal(name, ZERO_SHOT_DB, "dB", gain, coverage=coverage(measured))]


def _reweight_goals(lines: Sequence[Figures]) -> list[Goal]:
    last = latest(lines, "reweight")[-1:]
    covered = f"{last[0]['weights'] / 1e6:.2f} M weights of {last[0]['trial']['network']}" if last else ""
    bundle_s, session_s = mean(last, "bundle_seconds"), mean(last, "session_seconds")
    return [
        Goal("new weights in a bundle", BUNDLE_S, "s", bundle_s, True, covered),
        Goal("new weights in a live ONNX Runtime session", SESSION_S, "s", session_s, True, covered),
    ]


def decibels(line: Figures, method: str) -> float:
    """Return the Y-PSNR in dB of one of the methods of a zero-shot line."""
    return line["results"][method]["psnr_y_db"]


def mean(lines: Sequence[Figures], *names: str) -> Any:
    """Return the mean of a figure, given by nested names, or None if there are no lines or one lacks the figure."""
    values: list[Any] = list(lines)
    for name in names:
        values = [value.get(name) for value in values]
    return None if None in values else average(values)


def average(values: Sequence[float]) -> float | None:
    """Return the mean of numbers, or None if there are none."""
    return float(np.mean(values)) if values else None


def coverage(lines: Sequence[Figures]) -> str:
    """Return the number of clips, and how long the networks were trained."""
    if not lines:
        return ""
    count = len({line["trial"]["clip"] for line in lines})
    clips = f"{count} clip{'s' if count > 1 else ''}"
    steps = _steps(lines[-1].get("trained", {}))
    return f"{clips}; trained for {steps}" if steps else clips


def _steps(training: Mapping[str, Any]) -> str:
    """Return the steps of training, and of its schedule if it is longer; of several networks, with their names."""
    if "step" in training:
        schedule = training.get("schedule") or training.get("meta") or {}
        total = schedule.get("steps", training["step"])
        return f"{training['step']} steps" + (f" of {total}" if total != training["step"] else "")
    return ", ".join(
        f"{_steps(one)} ({name})" for name, one in training.items() if isinstance(one, dict) and _steps(one)
    )
