"""Output frames between input frames, at exact timestamps."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stvsr import MediaError, RequestError
from stvsr.engine.pipeline.timeline import Slot, Timeline, common_time_base, with_durations

steps = st.fractions(Fraction(1, 1000), Fraction(2), max_denominator=90000)
rates = st.fractions(Fraction(1, 2), Fraction(240), max_denominator=1001)


def run(timeline: Timeline, start: Fraction, gaps: list[Fraction]) -> list[tuple[int, Slot, Fraction]]:
    """Return (input frame, slot, duration) of each output frame, for input frames with these durations."""
    stamped: list[tuple[tuple[int, Slot], Fraction]] = []
    pts = start
    for i, gap in enumerate(gaps):
        stamped += [((i, slot), slot.pts) for slot in timeline.between(pts, pts + gap)]
        pts += gap
    return [(*item, duration) for item, _, duration in with_durations(stamped, lambda: pts)]


@settings(deadline=None)
@given(start=steps, gaps=st.lists(steps, min_size=1, max_size=12), factor=st.integers(1, 8))
def test_a_factor_multiplies_the_frames_exactly(start: Fraction, gaps: list[Fraction], factor: int) -> None:
    outputs = run(Timeline(factor=factor), start, gaps)
    assert len(outputs) == factor * len(gaps)
    assert sum(duration for _, _, duration in outputs) == sum(gaps)
    starts = [start + sum(gaps[:i]) for i in range(len(gaps))]
    assert [slot.pts for _, slot, _ in outputs[::factor]] == starts
    for n, (i, slot, duration) in enumerate(outputs):
        assert slot.pts == starts[i] + Fraction(n % factor, factor) * gaps[i]
        assert duration == gaps[i] / factor
        assert slot.time == Fraction(n % factor, factor)


@settings(deadline=None)
@given(start=steps, gaps=st.lists(steps, min_size=1, max_size=12), fps=rates)
def test_a_rate_sets_timestamps_on_its_grid(start: Fraction, gaps: list[Fraction], fps: Fraction) -> None:
    outputs = run(Timeline(fps=fps), start, gaps)
    assert [slot.pts for _, slot, _ in outputs] == [start + n / fps for n in range(len(outputs))]
    total = sum(gaps, Fraction(0))
    assert sum(duration for _, _, duration in outputs) == total
    assert (len(outputs) - 1) / fps < total <= len(outputs) / fps
    assert all(duration > 0 for _, _, duration in outputs)
    for i, slot, _ in outputs:
        begin = start + sum(gaps[:i])
        assert begin <= slot.pts < begin + gaps[i]
        assert slot.time == (slot.pts - begin) / gaps[i]


def test_doubling_by_factor_or_by_rate_agrees() -> None:
    gaps = [Fraction(1001, 30000)] * 5
    assert run(Timeline(factor=2), Fraction(0), gaps) == run(Timeline(fps=Fraction(60000, 1001)), Fraction(0), gaps)


def test_a_lower_rate_leaves_gaps_empty() -> None:
    timeline = Timeline(fps=Fraction(10))
    counts = [len(timeline.between(Fraction(i, 30), Fraction(i + 1, 30))) for i in range(9)]
    assert counts == [1, 0, 0] * 3


def test_timestamps_must_increase() -> None:
    with pytest.raises(MediaError, match="must increase; remux"):
        Timeline(factor=2).between(Fraction(1), Fraction(1))


def test_exactly_one_of_factor_and_rate_is_required() -> None:
    with pytest.raises(RequestError, match="either a time factor or a frame rate"):
        Timeline()
    with pytest.raises(RequestError, match="either a time factor or a frame rate"):
        Timeline(factor=2, fps=Fraction(60))
    with pytest.raises(RequestError, match="a number from 1 on"):
        Timeline(factor=0)
    with pytest.raises(RequestError, match="above 0"):
        Timeline(fps=Fraction(0))


@settings(deadline=None)
@given(st.lists(steps, min_size=1, max_size=4))
def test_a_common_time_base_divides_every_step(parts: list[Fraction]) -> None:
    base = common_time_base(*parts)
    assert all((part / base).denominator == 1 for part in parts)


def test_a_common_time_base_is_the_largest() -> None:
    assert common_time_base(Fraction(1, 90000), Fraction(1001, 60000)) == Fraction(1, 180000)
    assert common_time_base(Fraction(1, 30), Fraction(1, 60)) == Fraction(1, 60)
