"""The tasks of one video in their order: first the survey, then the segments, in any number at once, then the join.

Where bundles are adapted, the segments of a scene wait until it is learned. The next scene is learned while the
segments of one are computed, and none beyond it.
"""

import time
from collections import defaultdict, deque
from dataclasses import replace
from typing import Any

from .adaptation import AdaptSettings
from .deaths import ChanceDeaths
from .request import UpscaleRequest
from .tasks import Surveyed, Task, TaskKind


class VideoTasks:
    """The tasks of a video that wait, run and are finished.

    `name` is the video's among those that the same workers compute, and `store` that of `SegmentedVideo`. `began` is
    the time of the first task, in seconds since the epoch. `adapt` is how the bundles are adapted to the video, and
    `chance` has the deaths of the same workers at tasks of all videos.
    """

    def __init__(
        self,
        name: str,
        request: UpscaleRequest,
        store: str | None = None,
        began: float | None = None,
        adapt: AdaptSettings | None = None,
        chance: ChanceDeaths | None = None,
    ) -> None:
        self.name, self.request, self.began, self._adapt = name, request, began, adapt
        self.running = 0  # tasks
        self._store = store
        self._lengths: tuple[int, ...] | None = None  # input frames of each segment; None: not surveyed
        self._pending: deque[int] = deque()  # segments
        self._finished: set[int] = set()
        self._units: tuple[int, ...] = ()  # what each segment has its weights from; empty: not adapted
        self._unlearned: deque[int] = deque()  # units that wait, in order
        self._learned: set[int] = set()
        self._chance = chance or ChanceDeaths()
        # Seconds for which attempts had run when they ended their workers, by kind and number of the task.
        self._deaths: defaultdict[tuple[str, int], list[float]] = defaultdict(list)

    @property
    def segments_total(self) -> int | None:
        """The number of segments; None before the survey."""
        return None if self._lengths is None else len(self._lengths)

    @property
    def segments_done(self) -> int:
        """The number of finished segments."""
        return len(self._finished)

    @property
    def scenes_total(self) -> int | None:
        """The number of scenes that are learned, or 1 for the whole video; None before the survey or without any."""
        return len(set(self._units)) or None

    @property
    def scenes_done(self) -> int:
        """The number of scenes that have been learned."""
        return len(self._learned)

    @property
    def frames_total(self) -> int | None:
        """The number of input frames; None before the survey."""
        return None if self._lengths is None else sum(self._lengths)

    @property
    def frames_done(self) -> int:
        """The number of input frames of finished segments."""
        return sum(self.frames_of(number) for number in self._finished)

    def frames_of(self, number: int) -> int:
        """Return the number of input frames of a segment."""
        assert self._lengths is not None
        return self._lengths[number]

    def take(self) -> Task | None:
        """Take the next task; None if every task runs or waits for one that does."""
        task = self._next()
        if task is not None:
            self.running += 1
        return task

    def finish(self, task: Task, value: Any, seconds: float) -> None:
        """Note that a task is finished after some seconds, with the value of its message."""
        self.running -= 1
        self._chance.add(self._deaths.pop((task.kind, task.number), ()), seconds)
        if task.kind == "survey":
            surveyed = Surveyed(*value)
            self._lengths = surveyed.outline.lengths
            # A damaged one is made again by the join.
            self._finished = set(surveyed.finished) & set(range(len(self._lengths)))
            self._pending = deque(sorted(set(range(len(self._lengths))) - self._finished))
            self._units, self._learned = surveyed.units, set(surveyed.learned)
            self._unlearned = deque(sorted(set(self._units) - self._learned))
        elif task.kind == "adapt":
            self._learned.add(task.number)
        elif task.kind == "segment":
            self._finished.add(task.number)

    def give_back(self, task: Task, death: str | None = None, seconds: float = 0.0) -> str | None:
        """Let a task be done again that its worker did not finish.

        `death` states how its worker ended, so many `seconds` after the task had begun, or 0 if the task is surely the
        cause; None: the task is not, its worker was lost. Returns None, or the sentence of an error when the task has
        ended too many workers, and chance does not explain it: then the video has failed.
        """
        self.running -= 1
        deaths = self._deaths[task.kind, task.number]
        if death is not None:
            deaths.append(seconds)
        if self._chance.explain(deaths):
            if task.kind == "segment":
                self._pending.appendleft(task.number)
            if task.kind == "adapt":
                self._unlearned.appendleft(task.number)
            if task.kind in ("join", "whole"):
                # It may have published the output.
                self.request = replace(self.request, overwrite=True)
            return None
        if task.kind == "whole":
            return (
                f"The run ended its worker {len(deaths)} times ({death}): look for the cause in the log of the workers."
            )
        names = {"segment": f"Segment {task.number}", "adapt": f"Learning scene {task.number + 1}"}
        part = names.get(task.kind, f"The {task.kind} of the video")
        return f"{part} ended its worker {len(deaths)} times ({death}): look for the cause in the log of the workers."

    def abandon(self) -> None:
        """Note that a task has ended without a result, and will not be done again."""
        self.running -= 1

    def _next(self) -> Task | None:
        if self.began is None:
            self.began = time.time()
        if not self.request.is_resumable:
            return None if self.running else self._task("whole")
        if self._lengths is None:
            return None if self.running else self._task("survey")
        if (task := self._next_part()) is not None:
            return task
        if len(self._finished) == len(self._lengths) and not self.running:
            return self._task("join")
        return None

    def _next_part(self) -> Task | None:
        """Return the next segment whose weights are known, or scene to learn; None if all wait for others or run."""
        if not self._pending:
            return None
        if not self._units:
            return self._task("segment", self._pending.popleft())
        segment = next((number for number in self._pending if self._units[number] in self._learned), None)
        # One that has not begun comes first, so that a single worker computes what it has learned.
        current = min(self._units[number] for number in range(len(self._units)) if number not in self._finished)
        can_learn = bool(self._unlearned) and self._unlearned[0] <= current + 1
        if can_learn and (segment is None or self.running):
            return self._task("adapt", self._unlearned.popleft())
        if segment is None:
            return None
        self._pending.remove(segment)
        return self._task("segment", segment)

    def _task(self, kind: TaskKind, number: int = 0) -> Task:
        assert self.began is not None
        return Task(self.name, kind, self.request, number, self.began, self._store, self._adapt)
