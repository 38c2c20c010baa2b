"""The verdict on an adaptation: what was measured before and after, and the reasons to refuse it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .own_scale import Looks
from .protocol import Adapted

_LEAST_GAIN_DB = 0.02  # of the lower bound of the mean gain one scale below
# Student's t at 0.975, one-sided, from so many degrees of freedom on
_QUANTILES = {1: 12.71, 2: 4.3, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 10: 2.23, 15: 2.13}
_TRADED = 0.25  # of the gain of frames at the clip's times or of those between, which the others may lose
_LEAST_CLEANED = 0.05  # of the squared error from clean frames, by which it must fall at least
_TOLERATED_DB = 1.0  # fall of *again*
_MOST_NOISE, _NOISE_SLACK = 1.3, 0.4  # noise at the frames' own scale: times that before, and grey levels more
# Looks at the frames' own scale: the rise of ringing that is allowed in any case, and the power of fine structure over
# that of coarse structure, as natural pictures have it, up to which edges may ring more.
_MOST_RINGING, _NATURAL_FINE_DB = 0.035, -14.0


@dataclass(frozen=True)
class Consistency:
    """The agreement of a network with held-out frames.

    `below` and `plain` have the luma PSNR in dB of each frame, under the assumed degradation, and under bicubic
    resizing if a blur is assumed. `again_db` and `looks` are None for networks that do not enlarge. `again_db` may fall
    to `again_floor_db` where noise or compression is undone. `cleaned` has, if noise is assumed, the squared error of
    each frame from clean ones, in grey levels squared. `is_between` says which frames of `below` are at times between
    those of the inputs.
    """

    below: tuple[float, ...]
    plain: tuple[float, ...] = ()
    again_db: float | None = None
    again_floor_db: float | None = None
    looks: Looks | None = None
    cleaned: tuple[float, ...] = ()
    is_between: tuple[bool, ...] = ()

    @property
    def below_db(self) -> float:
        """The mean of `below`."""
        return sum(self.below) / len(self.below)

    def record(self) -> dict[str, Any]:
        """Return the means as JSON values."""
        record: dict[str, Any] = {"below_db": round(self.below_db, 4)}
        if self.plain:
            record["plain_db"] = round(sum(self.plain) / len(self.plain), 4)
        if self.again_db is not None:
            record["again_db"] = round(self.again_db, 4)
        if self.cleaned:
            record["cleaned"] = round(_mean(self.cleaned), 4)
        return record if self.looks is None else record | {"looks": self.looks.record()}


@dataclass(frozen=True)
class Verdict:
    """The outcome of a guarded adaptation; unless it is `kept`, the original weights stay in use."""

    kept: bool
    reason: str  # one sentence
    seconds: float  # of adaptation, or until it failed; judging is not counted
    before: Consistency | None = None  # on the held-out frames
    after: Consistency | None = None
    adapted: Adapted | None = None  # if the run was completed, kept or not
    decision: Mapping[str, Any] = field(default_factory=dict)  # the record of what there was to learn

    @property
    def gain_db(self) -> float | None:
        """The gain one scale below, in dB."""
        return None if self.before is None or self.after is None else self.after.below_db - self.before.below_db

    def record(self) -> dict[str, Any]:
        """Return the verdict as JSON values, without the weights and with the first and the last loss only."""
        record: dict[str, Any] = {"kept": self.kept, "reason": self.reason, "seconds": round(self.seconds, 3)}
        for name, consistency in (("before", self.before), ("after", self.after)):
            if consistency is not None:
                record[name] = consistency.record()
        if self.before is not None and self.after is not None:
            gains = _gains(self.before.below, self.after.below)
            bound = lower_bound(gains, self.before.is_between)
            record |= {"gain_db": round(_mean(gains), 4), "least_gain_db": _finite(bound)}
            if any(self.before.is_between):
                between = _by_time(gains, self.before.is_between)[-1]
                record["between_gain_db"] = round(_mean(between), 4)
        if self.adapted is not None:
            run = self.adapted.record
            record |= {"method": run.method, "steps": run.steps, **run.details}
            record |= {"first_loss": run.losses[0], "last_loss": run.losses[-1]} if run.losses else {}
        return record | dict(self.decision)


def refusal(before: Consistency, after: Consistency, confidence: float) -> str | None:
    """Return a sentence that says why an adaptation is not kept, or None if it is.

    `confidence` is the probability of the assumed degradation, 0 to 1.
    """
    gains = _gains(before.below, after.below)
    bound = lower_bound(gains, before.is_between)
    if len(gains) < 2:
        return "One held-out frame is too few to tell a gain from chance: adapt to a longer scene."
    if not bound >= _LEAST_GAIN_DB and not (_mean(gains) >= 0 and _is_cleaner(before.cleaned, after.cleaned)):
        return (
            f"Self-consistency did not rise significantly (from {before.below_db:.2f} to {after.below_db:.2f} dB, at"
            f" least {bound:+.2f} dB)."
        )
    means = [_mean(group) for group in _by_time(gains, before.is_between)]
    if min(means) < -_TRADED * max(means):
        where = "frames between those of the clip" if means[-1] < means[0] else "the clip's own frames"
        return f"One scale below, {where} became worse by {-min(means):.2f} dB."
    if before.plain and after.plain:
        loss = _mean(_gains(before.plain, after.plain))
        expected = confidence * _mean(gains) + (1 - confidence) * loss
        if not expected >= _LEAST_GAIN_DB:
            return (
                f"The blur is certain to {confidence:.0%} only, and without it {-loss:.2f} dB would be lost, for"
                f" {_mean(gains):.2f} dB gained with it."
            )
    return _disagreement(before, after) or _looks_worse(before.looks, after.looks)


def _by_time(gains: Sequence[float], is_between: Sequence[bool]) -> list[list[float]]:
    """Return the gains of frames at the times of inputs, and those of frames between; one list if all are of a kind."""
    if len(set(is_between)) < 2:
        return [list(gains)]
    return [[gain for gain, b in zip(gains, is_between, strict=True) if b is kind] for kind in (False, True)]


def _is_cleaner(before: Sequence[float], after: Sequence[float]) -> bool:
    """Return whether noise was taken away: whether the squared error from clean frames fell significantly."""
    if not before or not after:
        return False
    falls = [old - new for old, new in zip(before, after, strict=True)]
    return lower_bound(falls) >= _LEAST_CLEANED * _mean(before) > 0


def lower_bound(gains: Sequence[float], is_between: Sequence[bool] = ()) -> float:
    """Return what the mean of paired gains exceeds by 97.5 % confidence, by Student's t; -inf for a single one.

    Frames at times between those of the inputs gain less than others, which is not by chance: gains of either kind are
    compared with the mean of their kind.
    """
    groups = _by_time(gains, is_between)
    degrees = len(gains) - len(groups)
    if degrees < 1:
        return -math.inf
    squares = sum((gain - _mean(group)) ** 2 for group in groups for gain in group)
    quantile = next(quantile for least, quantile in reversed(_QUANTILES.items()) if least <= degrees)
    return _mean(gains) - quantile * math.sqrt(squares / degrees / len(gains))


def _disagreement(before: Consistency, after: Consistency) -> str | None:
    if before.again_db is None or after.again_db is None:
        return None
    least = before.again_db - _TOLERATED_DB
    if after.again_floor_db is not None:
        least = min(least, after.again_floor_db - _TOLERATED_DB)
    if after.again_db >= least:
        return None
    return (
        f"Restored frames, shrunk again, agreed with the input by {before.again_db:.2f} dB before and by"
        f" {after.again_db:.2f} dB after."
    )


def _looks_worse(before: Looks | None, after: Looks | None) -> str | None:
    if before is None or after is None:
        return None
    if after.noise > _MOST_NOISE * before.noise + _NOISE_SLACK:
        return f"Restored frames became noisier: {before.noise:.1f} grey levels before and {after.noise:.1f} after."
    if after.ringing > before.ringing + _MOST_RINGING and after.fine_db > _NATURAL_FINE_DB:
        return (
            f"The edges of restored frames ring more, by {before.ringing:.3f} before and {after.ringing:.3f} after, and"
            f" their fine structure is stronger than is natural, by {after.fine_db - _NATURAL_FINE_DB:.1f} dB."
        )
    return None


def _gains(before: Sequence[float], after: Sequence[float]) -> list[float]:
    return [new - old for old, new in zip(before, after, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
