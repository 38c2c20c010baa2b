"""What adaptation is to reach, and what it has reached, from the lines.

Of trials that were measured more than once, with other weights or settings, those count that were measured last. A mean
is over clips.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .meta import RUNS, curves
from .temporal import METHODS
from .trials import Figures

COMPACT = ("edvr-s", "rbpn-s", "toflow-s")  # that are to gain by themselves
NEAR_DB = 0.1  # "within reach" of another result
BLURRED_DB, META_DB, ZERO_SHOT_DB = 0.3, 0.2, 0.5
TEACHER_SHARE = 2 / 3
BUNDLE_S, SESSION_S = 1.0, 2.0
KERNELS = ("estimated", "given")


@dataclass(frozen=True)
class Bar:
    """What is to be reached: more than ``bound``, or less where ``below``; of how many clips, in words of what."""

    what: str
    bound: float
    unit: str
    reached: float | None = None  # None: not measured
    below: bool = False
    of: str = ""

    @property
    def row(self) -> str:
        """A row of the table."""
        sign = "+" if self.unit == "dB" else ""
        bar = f"{'below' if self.below else 'above'} {self.bound:.3g} {self.unit}".rstrip()
        if self.reached is None:
            return f"| {self.what} | {bar} | not measured | |{f' {self.of}' if self.of else ''} |"
        reached = f"{self.reached:{sign}.3f} {self.unit}".rstrip()
        return f"| {self.what} | {bar} | {reached} | {self.verdict} | {self.of} |"

    @property
    def verdict(self) -> str:
        """Whether it is met, or by how much it is missed."""
        assert self.reached is not None
        short = self.reached - self.bound if self.below else self.bound - self.reached
        return "met" if short < 0 else f"missed by {short:.3f} {self.unit}".rstrip()


def bars(lines: Sequence[Figures]) -> list[Bar]:
    """Every bar, of parts that were measured and of those that were not."""
    parts = (
        _self_supervised_bars, _distilled_bars, _distilled_time_bars, _meta_bars, _zero_shot_bars, _reweight_bars
    )  # fmt: skip
    return [bar for part in parts for bar in part(lines)]


def latest(lines: Iterable[Figures], part: str, over: Sequence[str] = ("clip",), **wanted: Any) -> list[Figures]:
    """Measured lines of a part whose trials have what is wanted, and agree with the last one's but in ``over``."""
    some = [
        line
        for line in lines
        if line["part"] == part
        and not {"missing", "failed"} & line.keys()
        and all(line["trial"].get(name) == value for name, value in wanted.items())
    ]

    def rest(line: Figures) -> str:
        return json.dumps({k: v for k, v in line["trial"].items() if k not in over}, sort_keys=True)

    # Of a trial that was measured again, the last line counts.
    return list(
        {json.dumps(line["trial"], sort_keys=True): line for line in some if rest(line) == rest(some[-1])}.values()
    )


def meta_lines(lines: Sequence[Figures], kernel: str) -> list[Figures]:
    """The latest lines of every way to learn, of blurs that were estimated or given."""
    over = ("clip", "task", "steps")
    return [line for run in RUNS for line in latest(lines, "meta", over, kernel=kernel, **asdict(run))]


def _self_supervised_bars(lines: Sequence[Figures]) -> list[Bar]:
    bars = []
    for name in COMPACT:
        plain, blurred = (
            latest(lines, "self-supervised", network=name, case=case) for case in ("bicubic", "estimated")
        )
        steadier = [line["after"]["tof_px"] - line["before"]["tof_px"] for line in plain]
        bars += [
            Bar(f"self-supervised, {name}: gain", 0, "dB", mean(plain, "gain_db"), of=coverage(plain)),
            Bar(f"self-supervised, {name}: change of tOF", 0, "px", average(steadier), True, coverage(plain)),
            Bar(
                f"self-supervised, {name}, unknown blur: gain",
                BLURRED_DB,
                "dB",
                mean(blurred, "gain_db"),
                of=coverage(blurred),
            ),
        ]
    return bars


def _distilled_bars(lines: Sequence[Figures]) -> list[Bar]:
    bars = []
    students = dict.fromkeys(
        line["trial"]["network"] for line in lines if line["part"] == "distilled" and "gain_db" in line
    )
    for name in students or ["edvr-s"]:
        student, distilled, teacher = (
            latest(lines, "distilled", network=name, learner=who) for who in ("student", "distilled", "teacher")
        )
        better = share = None
        if student and distilled:
            better = mean(distilled, "after", "psnr_y_db") - mean(student, "after", "psnr_y_db")
        if mean(distilled, "seconds") and mean(teacher, "seconds"):
            share = mean(distilled, "seconds") / mean(teacher, "seconds")
        of = coverage(distilled) + (f"; {distilled[0]['trial']['teacher']} teaches" if distilled else "")
        bars += [
            Bar(f"distilled, {name}: over the student adapted to itself", 0, "dB", better, of=of),
            Bar(
                f"distilled, {name}: seconds over those of the teacher's own adaptation",
                TEACHER_SHARE,
                "",
                share,
                True,
                of,
            ),
        ]
    return bars


def _distilled_time_bars(lines: Sequence[Figures]) -> list[Bar]:
    some = latest(lines, "distilled-time")
    share = mean(some, "distilled_seconds") / mean(some, "teacher_seconds") if some else None
    of = f"{coverage(some)}; {some[0]['trial']['teacher']} teaches, untrained" if some else ""
    what = "distilled, a teacher of full size: seconds over those of its own adaptation"
    return [Bar(what, TEACHER_SHARE, "", share, True, of)]


def _meta_bars(lines: Sequence[Figures]) -> list[Bar]:
    bars = []
    for kind in [kernel for kernel in KERNELS if meta_lines(lines, kernel)] or KERNELS[:1]:
        some = meta_lines(lines, kind)
        found = curves(some)
        of = coverage([line for line in some if line["trial"]["steps"] == 10])
        for optimizer in ("SGD", "Adam"):
            what = f"meta-trained, 10 steps of {optimizer}, {kind} blur"
            trained, plain, longer = (
                _after(found, f"{start}, {optimizer}", steps)
                for start, steps in (("meta-trained", 10), ("plain", 10), ("plain", 100))
            )
            ten = None if trained is None or plain is None else trained - plain
            short = None if trained is None or longer is None else trained - longer
            bars += [
                Bar(f"{what}: over the plain start", META_DB, "dB", ten, of=of),
                Bar(f"{what}: over 100 plain steps", -NEAR_DB, "dB", short, of=of),
            ]
    return bars


def _after(found: Mapping[str, Mapping[int, float]], beginning: str, steps: int) -> float | None:
    """After so many steps, of the curve whose name begins so."""
    return next((curve.get(steps) for name, curve in found.items() if name.startswith(beginning)), None)


def _zero_shot_bars(lines: Sequence[Figures]) -> list[Bar]:
    some = latest(lines, "zero-shot")
    gain = average([decibels(line, METHODS[3]) - decibels(line, METHODS[0]) for line in some])
    return [Bar("zero-shot, x2 in time: over cubic interpolation", ZERO_SHOT_DB, "dB", gain, of=coverage(some))]


def _reweight_bars(lines: Sequence[Figures]) -> list[Bar]:
    some = latest(lines, "reweight")[-1:]
    of = f"{some[0]['weights'] / 1e6:.2f} M weights of {some[0]['trial']['network']}" if some else ""
    return [
        Bar("weights into a bundle", BUNDLE_S, "s", mean(some, "bundle_seconds"), True, of),
        Bar("weights into a live ONNX Runtime session", SESSION_S, "s", mean(some, "session_seconds"), True, of),
    ]


def decibels(line: Figures, method: str) -> float:
    """Y-PSNR of one of the ways to double a video."""
    return line["results"][method]["psnr_y_db"]


def mean(lines: Sequence[Figures], *names: str) -> Any:
    """The mean of a figure, which may lie in another, or None where there are no lines or one lacks it."""
    values: list[Any] = list(lines)
    for name in names:
        values = [value.get(name) for value in values]
    return None if None in values else average(values)


def average(values: Sequence[float]) -> float | None:
    """The mean of numbers, or None where there are none."""
    return float(np.mean(values)) if values else None


def coverage(lines: Sequence[Figures]) -> str:
    """How many clips, and for how long networks were trained."""
    if not lines:
        return ""
    clips = len({line["trial"]["clip"] for line in lines})
    found = f"{clips} clip{'s' if clips > 1 else ''}"
    steps = _steps(lines[-1].get("trained", {}))
    return f"{found}; trained for {steps}" if steps else found


def _steps(told: Mapping[str, Any]) -> str:
    """Steps of training, and of how many the schedule has: of one network, or of several by their names."""
    if "step" in told:
        schedule = told.get("schedule") or told.get("meta") or {}
        whole = schedule.get("steps", told["step"])
        return f"{told['step']} steps" + (f" of {whole}" if whole != told["step"] else "")
    return ", ".join(f"{_steps(one)} ({name})" for name, one in told.items() if isinstance(one, dict) and _steps(one))
