"""Progress of a run for programs: events as lines of JSON on standard error, and a log file."""

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from rich.text import Text

from ..engine.contract.errors import RequestError
from .records import refuse_without
from .terminal import answers, err

if TYPE_CHECKING:
    from fractions import Fraction

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from ..engine.pipeline.batch import Outcome
    from ..engine.pipeline.report import Progress, Report
    from ..engine.pipeline.request import UpscaleRequest

_KINDS = ("bar", "json", "none")
_LEVELS = ("debug", "info", "warning", "error")
_EVENT_LEVELS = {"progress": logging.DEBUG, "warning": logging.WARNING, "failed": logging.ERROR}
_PROGRESS_S = 0.2  # between two events of progress


@dataclass(frozen=True)
class ProgressOptions:
    """Progress of a command, and its log."""

    panel: ClassVar = "Progress and log"

    progress: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="bar (on a terminal), json (a line of JSON on standard error for each event), or none.",
        ),
    ] = "bar"
    no_progress: Annotated[bool, typer.Option("--no-progress", help="As --progress none.")] = False
    log_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Append events, and what FFmpeg and the encoders write, to this file.",
            show_default="none",
        ),
    ] = None
    log_level: Annotated[
        str | None,
        typer.Option(help="Of the log file: debug (with progress), info, warning or error.", show_default="info"),
    ] = None

    def begin(self) -> None:
        """Send events where the options say. Raises RequestError for options that contradict each other."""
        if self.progress not in _KINDS:
            raise RequestError(f"Unknown progress '{self.progress}': use {', '.join(_KINDS[:-1])} or {_KINDS[-1]}.")
        if self.no_progress and self.progress == "json":
            raise RequestError("--no-progress and --progress json contradict each other: leave one out.")
        refuse_without("--log-file", {"--log-level": self.log_level if self.log_file is None else None})
        if self._level not in _LEVELS:
            raise RequestError(f"Unknown log level '{self._level}': use {', '.join(_LEVELS[:-1])} or {_LEVELS[-1]}.")
        if self.log_file is not None:
            answers.native_lines_diverted = True
            self._open_log(self.log_file)
        if self.progress == "json":
            answers.only_events = True
            answers.sinks.append(_print_line)
            self.divert_native_lines()

    @property
    def hides_bar(self) -> bool:
        """Return whether no progress bar is shown."""
        return self.no_progress or self.progress != "bar"

    @property
    def _level(self) -> str:
        return self.log_level or "info"

    def divert_native_lines(self) -> None:
        """Keep lines of FFmpeg and the encoders off standard error: without a log file they are discarded."""
        if not answers.native_lines_diverted:
            from ..engine.media.native_lines import divert_native_lines

            answers.native_lines_diverted = True
            answers.opened.enter_context(divert_native_lines(Path(os.devnull), "error"))

    def _open_log(self, file: Path) -> None:
        """Append events and native lines to a file until the command ends."""
        from ..engine.media.native_lines import divert_native_lines

        try:
            handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise RequestError(
                f"The log file {file} cannot be opened ({error.strerror}): choose another by --log-file."
            ) from error
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.Logger("stvsr", self._level.upper())  # of its own, which no other code configures
        logger.addHandler(handler)

        def write(event: str, facts: dict[str, Any]) -> None:
            logger.log(_EVENT_LEVELS.get(event, logging.INFO), "%s %s", event, json.dumps(facts))

        answers.opened.callback(handler.close)
        answers.opened.enter_context(divert_native_lines(file, self._level))
        answers.sinks.append(write)


def _print_line(event: str, facts: dict[str, Any]) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    err.print(Text(json.dumps({"time": now, "event": event, **facts})), soft_wrap=True)


def show_frames(bar: "RichProgress", task: "TaskID", name: str, events: "RunEvents") -> "Callable[[Progress], None]":
    """Return a function that shows a run's progress on a bar, and sends its events."""

    def advance(done: "Progress") -> None:
        note = f"{done.frames_out / max(done.seconds, 1e-9):.1f} frames/s out"
        bar.update(task, description=name, completed=done.frames_in, total=done.total_in, note=note)
        events.advance(done.frames_in, done.total_in, done.cuts)

    return advance


class RunEvents:
    """The events of one input; a start, progress at most every 0.2 s, cuts, and the end."""

    def __init__(self, request: "UpscaleRequest") -> None:
        self._input = str(request.input)
        self._output = None if request.output is None else str(request.output)
        self._began = self._sent = 0.0
        self._stage = ""
        self._finished: tuple[int, int | None] = 0, None  # input frames, and all
        self._cuts = 0
        self.warned: list[str] = []

    def start(self, stage: str) -> None:
        """Send the start, and the stage that begins with it: adapt, survey or upscale."""
        self._began = time.monotonic()
        answers.emit("started", input=self._input, output=self._output)
        self._progress(stage, 0, None)

    def advance(self, frames: int, total: int | None, cuts: Sequence["Fraction"] = ()) -> None:
        """Send how many input frames are finished, and the scene cuts that are new."""
        if not self._began:
            self.start("upscale")
        self._finished = frames, total
        self._send_cuts([float(cut) for cut in cuts[self._cuts :]])
        if self._stage != "upscale" or frames == total or time.monotonic() - self._sent >= _PROGRESS_S:
            self._progress("upscale", frames, total)

    def learn(self, scene: int) -> None:
        """Send that the run waits for the weights of a scene, by its number from 1."""
        self._progress("adapt", *self._finished, scene=scene)

    def warn(self, warning: str) -> None:
        """Send a warning."""
        self.warned.append(warning)
        answers.emit("warning", input=self._input, message=warning)

    def finish(self, report: "Report") -> None:
        """Send the report."""
        self._send_cuts(report.cuts_s[self._cuts :])
        answers.emit("finished", input=self._input, output=report.output, report=report.as_dict())

    def end(self, outcome: "Outcome") -> None:
        """Send the outcome of a video of a batch."""
        if outcome.report is None:
            answers.emit("failed", input=self._input, error={"code": outcome.code, "message": outcome.error})
            return
        for warning in outcome.report.warnings:
            self.warn(warning)
        self.finish(outcome.report)

    def _progress(self, stage: str, frames: int, total: int | None, **facts: int) -> None:
        self._sent, self._stage = time.monotonic(), stage
        seconds = self._sent - self._began
        answers.emit(
            "progress",
            input=self._input,
            stage=stage,
            frames=frames,
            total=total,
            speed=round(frames / seconds, 3) if frames else 0.0,
            seconds=round(seconds, 3),
            **facts,
        )

    def _send_cuts(self, cuts: Sequence[float]) -> None:
        self._cuts += len(cuts)
        for cut in cuts:
            answers.emit("cut", input=self._input, seconds=cut)
