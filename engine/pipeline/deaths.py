"""Deaths of workers: those that a task causes, and those that something else does.

A task that always ends its worker, most of them soon after it began, must fail. One whose worker was ended by chance
must not: the kernel kills a process when memory is short, and operators do. A death counts as chance once the task has
been done by another worker. From these deaths follows how often chance ends workers; and a task is the cause of its
deaths when so many in a row, so soon, are too unlikely at that rate.
"""

import math
from collections.abc import Sequence

LEAST_DEATHS, MOST_DEATHS = 3, 10  # of workers at one task, after which it is or may not be given up
_UNLIKELY = 1e-6
_MEMORY_S = 300.0  # of work, beyond which earlier work counts less and less
_PRIOR_DEATHS, _PRIOR_S = 1.0, 60.0  # by chance, before anything is known


class ChanceDeaths:
    """The rate at which workers die by chance, which all videos that they compute share."""

    def __init__(self) -> None:
        self._deaths, self._seconds = 0.0, 0.0

    def add(self, ages_s: Sequence[float], seconds: float) -> None:
        """Note a task that was done in some seconds, after its workers had died at the ages of their attempts."""
        self._deaths += len(ages_s)
        self._seconds += seconds + sum(ages_s)
        if self._seconds > _MEMORY_S:
            self._deaths *= _MEMORY_S / self._seconds
            self._seconds = _MEMORY_S

    def explain(self, ages_s: Sequence[float]) -> bool:
        """Return whether the deaths of a task's workers, at the ages of its attempts in seconds, may be chance."""
        if len(ages_s) < LEAST_DEATHS:
            return True
        rate = (_PRIOR_DEATHS + self._deaths) / (_PRIOR_S + self._seconds)
        return len(ages_s) < MOST_DEATHS and math.prod(min(1.0, rate * age) for age in ages_s) >= _UNLIKELY
