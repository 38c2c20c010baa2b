"""The run of a benchmark: each case in a process of its own, within a budget of time."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backends.options import Backend
from ..contract.closing import Closing
from ..contract.errors import MediaError
from ..pipeline.worker import ENDED, Work, Worker, wait_for_messages
from .clip import write_synthetic_clip
from .measure import DONE, FAILED, FIGURES, Job, serve
from .results import Case, Figures, Result

LEAST_S = 2.0  # time that a case needs to begin
_LEAST_CASE_S = 20.0  # time that a case gets, unless less is left
_SHARES = 3  # of the time that is left for each remaining case: one case may take so many


@dataclass(frozen=True)
class Combination:
    """A case, and how it is computed."""

    case: Case
    model: str
    backend: Backend


class Benchmark(Closing):
    """Measures combinations one after another; a context manager that holds the clips.

    seconds: the length of each measurement.
    budget_s: time for all of them. A case that would exceed it is stopped, and keeps the figures that it has.
    clip: the input of every case; None: a synthetic one of each size.
    work: the main function of the process of a case.
    """

    def __init__(
        self,
        combinations: Sequence[Combination],
        seconds: float,
        budget_s: float,
        clip: Path | None = None,
        work: Work = serve,
    ) -> None:
        self._combinations, self._seconds, self._budget_s, self._clip = combinations, seconds, budget_s, clip
        self._work = work
        self._opened = ExitStack()
        self._folder = Path(self._opened.enter_context(tempfile.TemporaryDirectory(prefix="stvsr-benchmark-")))
        self._clips: dict[tuple[int, int], Path] = {}

    def results(self, on_case: Callable[[Case], None] = lambda case: None) -> Iterator[Result]:
        """Yield the result of every combination; `on_case` is called before each."""
        until = time.monotonic() + self._budget_s
        for number, one in enumerate(self._combinations):
            on_case(one.case)
            left = until - time.monotonic()
            if left < LEAST_S:
                yield Result(case=one.case, problem=f"No time was left of the {self._budget_s:g} s of --budget.")
                continue
            share = _SHARES * left / (len(self._combinations) - number)
            yield self._measure(one, min(left, max(share, _LEAST_CASE_S)))

    def close(self) -> None:
        """Delete the clips. A second call does nothing."""
        self._opened.close()

    def _measure(self, one: Combination, limit_s: float) -> Result:
        """Measure one combination in a process, which is ended when its time is up."""
        figures: dict[str, Any] = {}
        problem: str | None = None
        until = time.monotonic() + limit_s
        try:
            clip = self._clip or self._synthetic(one.case.size_in)
        except MediaError as error:
            return Result(case=one.case, problem=str(error))
        with Worker(self._work, one.backend).running() as worker:
            worker.start(Job(one.case, one.model, one.backend, clip, self._folder, self._seconds))
            while worker.task is not None:
                left = until - time.monotonic()
                if left <= 0:
                    problem = f"It was stopped after {limit_s:.0f} s, by the budget of {self._budget_s:g} s (--budget)."
                    break
                for _, kind, value in wait_for_messages([worker], left):
                    if kind == FIGURES:
                        figures |= value
                        continue
                    worker.task = None
                    if kind != DONE:
                        problem = value if kind == FAILED else f"Its process died ({value})."
                    if kind == ENDED:
                        break  # a new process runs already
        return Result(case=one.case, figures=Figures(**figures), problem=problem)

    def _synthetic(self, size: tuple[int, int]) -> Path:
        if size not in self._clips:
            path = self._folder / f"{size[0]}x{size[1]}.mp4"
            self._clips[size] = write_synthetic_clip(path, size)
        return self._clips[size]
