"""The plan of a run: through which bundles, and how often, frames pass to reach the requested size and frame rate.

Two bundles make a chain, one after the other. A network that only doubles the frame rate reaches x4 and x8 by
repetition: its frames are resized to the input's size, and pass through it again.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from ..contract.bundle import Bundle
from ..contract.errors import RequestError
from ..contract.manifest import ContinuousSpace, ContinuousTime, DoubledWindow, FixedFactors
from ..media.destination import Destination
from .limits import METHODS
from .timeline import Timeline

DEFAULT_SCALE = 4
MAX_REPETITIONS = 3  # x8


@dataclass(frozen=True)
class Pass:
    """One pass of all frames through a bundle."""

    bundle: Bundle
    size: tuple[int, int]  # (H, W) of its frames
    factor: int | None  # in time, with finer times left to the next pass; None: it makes every requested time
    shrink: int = 1  # its frames are made smaller by this factor before the next pass
    repetition: int = 0  # its number among the passes through the same bundle
    parent: Bundle | None = None  # that the bundle was adapted from, whose open graphs may take its weights

    @property
    def coarse(self) -> int | None:
        """Factor by which the network's input is made smaller; None for a network without back-projection.

        Motion between frames is half as large in each pass as in the one before, so the factor halves too.
        """
        window = self.bundle.manifest.window
        if not isinstance(window, DoubledWindow) or window.coarse is None:
            return None
        return max(1, window.coarse // 2**self.repetition)


@dataclass(frozen=True)
class Plan:
    """The output of a run, and the passes that compute it."""

    destination: Destination
    size: tuple[int, int]  # (width, height)
    rate: Fraction  # nominal frames per second
    time_base: Fraction  # seconds; every timestamp is a multiple of it
    timeline: Timeline
    passes: tuple[Pass, ...]

    @property
    def output(self) -> Path:
        """The path of the output."""
        return self.destination.path


def plan_passes(
    bundles: Sequence[Bundle], shape: tuple[int, int], size: tuple[int, int], factor: int | None
) -> tuple[Pass, ...]:
    """Return the passes from frames of `shape` (h, w) to `size` (H, W) at `factor` times the rate; None: any times.

    Raises RequestError, which lists the bundles' abilities, if they cannot reach it.
    """
    for passes in _candidates(bundles, shape, size, factor):
        return passes
    names = "+".join(bundle.manifest.name for bundle in bundles)
    able = "; ".join(abilities(bundle) for bundle in bundles)
    rate = "at any times" if factor is None else f"at {factor} times the rate"
    raise RequestError(
        f"'{names}' does not make {size[1]}x{size[0]} of {shape[1]}x{shape[0]} {rate} ({able}): choose another scale"
        " or time factor, another bundle, or a chain of two, as in TEMPORAL+SPATIAL."
    )


def default_scale(bundles: Sequence[Bundle]) -> float:
    """Return the scale for a request without one: the product of fixed factors, or x4 if the last bundle takes any.

    A bundle of any scale before another one keeps the size.
    """
    spaces = [bundle.manifest.space for bundle in bundles]
    fixed = math.prod(max(space.factors) for space in spaces if isinstance(space, FixedFactors))
    largest = spaces[-1].maximum if isinstance(spaces[-1], ContinuousSpace) else 1
    return max(fixed, min(DEFAULT_SCALE, fixed * largest))


def default_factor(bundles: Sequence[Bundle]) -> int:
    """Return the time factor for a request without one: x2 if one of the bundles makes frames in time, else x1."""
    times = [bundle.manifest.time for bundle in bundles]
    return 1 if all(isinstance(time, FixedFactors) and time.factors == (1,) for time in times) else 2


def abilities(bundle: Bundle) -> str:
    """Describe a bundle's scales and time factors in words."""
    manifest = bundle.manifest
    if isinstance(manifest.time, ContinuousTime):
        time = "makes frames at any time"
    elif manifest.time.factors == (1,):
        time = "makes no frames in time"
    else:
        base = manifest.time.factors[0]
        powers = " and ".join(f"x{base**passes}" for passes in range(2, MAX_REPETITIONS + 1))
        time = f"multiplies the frame rate by {manifest.time}, and by repetition {powers}"
    return f"'{manifest.name}' enlarges {manifest.space} and {time}"


def adapted_passes(passes: Sequence[Pass], bundles: Iterable[Bundle]) -> tuple[Pass, ...]:
    """Return the passes with adapted bundles in place of their parents."""
    by_parent = {bundle.manifest.training.get("adapted", {}).get("parent"): bundle for bundle in bundles}
    return tuple(
        replace(one, bundle=by_parent[one.bundle.fingerprint], parent=one.bundle)
        if one.bundle.fingerprint in by_parent
        else one
        for one in passes
    )


def check_size(bundle: Bundle, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    """Raise RequestError for a target `size` (H, W) that the bundle does not make of frames of `shape` (h, w)."""
    space = bundle.manifest.space
    if min(size) < 1 or not all(map(space.serves, shape, size)):
        raise RequestError(
            f"Bundle '{bundle.manifest.name}' enlarges {space}: it does not make {size[1]}x{size[0]} of"
            f" {shape[1]}x{shape[0]}; choose another scale or size."
        )


def check_times(bundle: Bundle, times: Sequence[float | Fraction]) -> None:
    """Raise RequestError for times outside [0, 1], or times that the bundle's time factors do not make."""
    kind = bundle.manifest.time
    for time in times:
        if not 0 <= time <= 1:
            raise RequestError(f"The time {float(time):g} is outside the pair of frames: choose one from 0 to 1.")
    if isinstance(kind, FixedFactors) and not any(
        all(math.isclose(time * factor, round(time * factor), abs_tol=1e-6) for time in times)
        for factor in kind.factors
    ):
        raise RequestError(
            f"Bundle '{bundle.manifest.name}' makes frames in time by {kind}: choose such a factor, or another bundle."
        )


def check_flow(bundles: Sequence[Bundle], flow: str | None) -> None:
    """Raise RequestError for a method of optical flow that does not exist, or that no bundle takes."""
    if flow is None:
        return
    if flow not in METHODS:
        raise RequestError(f"Unknown optical flow '{flow}': use {' or '.join(METHODS)}.")
    if not any(bundle.manifest.flows for bundle in bundles):
        names = "+".join(bundle.manifest.name for bundle in bundles)
        raise RequestError(f"--flow has no effect on '{names}', which takes no optical flow: leave it out.")


def _candidates(
    bundles: Sequence[Bundle], shape: tuple[int, int], size: tuple[int, int], factor: int | None
) -> Iterator[tuple[Pass, ...]]:
    """Yield every sequence of passes; first those whose first bundle does most in time and least in space."""
    first, *others = bundles
    if not others:
        if _serves(first, shape, size):
            yield from _repetitions(first, shape, size, factor, final=True)
        return
    for middle in _sizes(first, shape):
        for part in _time_parts(factor):
            rest = 1 if part is None else None if factor is None else factor // part
            for passes in _repetitions(first, shape, middle, part, final=False):
                for more in _candidates(others, middle, size, rest):
                    yield (*passes, *more)


def _serves(bundle: Bundle, shape: tuple[int, int], size: tuple[int, int]) -> bool:
    return min(size) > 0 and all(map(bundle.manifest.space.serves, shape, size))


def _sizes(bundle: Bundle, shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the sizes that the first bundle of a chain may make."""
    space = bundle.manifest.space
    if isinstance(space, ContinuousSpace):
        if space.serves(1, 1):
            yield shape
        return
    for factor in sorted(space.factors):
        yield shape[0] * factor, shape[1] * factor


def _time_parts(factor: int | None) -> Iterator[int | None]:
    """Yield the parts of a time factor that the first bundle of a chain may make; None: all times."""
    if factor is None:
        yield None
        yield 1
        return
    yield from (part for part in range(factor, 0, -1) if factor % part == 0)


def _repetitions(
    bundle: Bundle, shape: tuple[int, int], size: tuple[int, int], factor: int | None, final: bool
) -> Iterator[tuple[Pass, ...]]:
    """Yield the passes through one bundle that multiply the frames by `factor`, if it can."""
    last = None if final else factor
    if isinstance(bundle.manifest.time, ContinuousTime):
        yield (Pass(bundle, size, last),)
        return
    if factor is None:
        return
    if factor == 1 and bundle.manifest.window.kind != "doubled":  # a doubled window makes no frames at input times
        yield (Pass(bundle, size, last),)
        return
    for base in bundle.manifest.time.factors:
        for count in range(1, MAX_REPETITIONS + 1):
            if base > 1 and base**count == factor:
                before = [Pass(bundle, size, base, size[0] // shape[0], number) for number in range(count - 1)]
                yield (*before, Pass(bundle, size, None if final else base, repetition=count - 1))
