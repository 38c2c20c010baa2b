"""The route: through which bundles, and how often, frames reach the size and the rate that are asked for.

Two bundles make a chain, one after the other. A network that only doubles the frame rate reaches x4 and x8 by
repetition: what it made is brought back to the input's size, and fed to it again.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count, islice
from typing import Any, cast

import numpy as np

from ..contract.bundle import Bundle
from ..contract.closing import Closing
from ..contract.errors import RequestError
from ..contract.manifest import ContinuousSpace, ContinuousTime, DoubledWindow, FixedFactors, Library, Precision
from ..contract.picture import Picture, PictureFormat, to_float
from ..contract.resize import shrink
from ..contract.windows import InputFrame, relay
from .back_projection import doubled
from .upscaler import Upscaler

DEFAULT_SCALE = 4
MAX_REPETITIONS = 3  # x8


@dataclass(frozen=True)
class Leg:
    """One pass of a bundle over all frames."""

    bundle: Bundle
    size: tuple[int, int]  # (H, W) that it makes
    factor: int | None  # in time, with finer times left to the next leg; None: it makes every time that is wanted
    shrink: int = 1  # its frames are brought down by this factor before the next leg sees them
    repetition: int = 0  # which of several passes of its bundle it is

    @property
    def coarse(self) -> int | None:
        """How many times smaller the network sees frames: they move half as far in each pass as in the one before.

        None: what the network makes is not back-projected.
        """
        window = self.bundle.manifest.window
        if not isinstance(window, DoubledWindow) or window.coarse is None:
            return None
        return max(1, window.coarse // 2**self.repetition)


def plan_route(
    bundles: Sequence[Bundle], shape: tuple[int, int], size: tuple[int, int], factor: int | None
) -> tuple[Leg, ...]:
    """Return the legs from frames of `shape` (h, w) to `size` (H, W) at `factor` times the rate; None: at any times.

    Raises RequestError, which says what the bundles can do, when they cannot.
    """
    for legs in _routes(bundles, shape, size, factor):
        return legs
    names = "+".join(bundle.manifest.name for bundle in bundles)
    able = "; ".join(abilities(bundle) for bundle in bundles)
    rate = "at any times" if factor is None else f"at {factor} times the rate"
    raise RequestError(
        f"'{names}' does not make {size[1]}x{size[0]} of {shape[1]}x{shape[0]} {rate} ({able}): choose another scale"
        " or time factor, another bundle, or a chain of two, as in TEMPORAL+SPATIAL."
    )


def _routes(
    bundles: Sequence[Bundle], shape: tuple[int, int], size: tuple[int, int], factor: int | None
) -> Iterator[tuple[Leg, ...]]:
    """Yield every route, those first whose first bundle does most in time and least in space."""
    first, *others = bundles
    if not others:
        if _serves(first, shape, size):
            yield from _passes(first, shape, size, factor, final=True)
        return
    for middle in _sizes(first, shape):
        for part in _parts(factor):
            rest = 1 if part is None else None if factor is None else factor // part
            for legs in _passes(first, shape, middle, part, final=False):
                for more in _routes(others, middle, size, rest):
                    yield (*legs, *more)


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


def _parts(factor: int | None) -> Iterator[int | None]:
    """Yield what the first bundle of a chain may do of a factor in time; None: all times."""
    if factor is None:
        yield None
        yield 1
        return
    yield from (part for part in range(factor, 0, -1) if factor % part == 0)


def _passes(
    bundle: Bundle, shape: tuple[int, int], size: tuple[int, int], factor: int | None, final: bool
) -> Iterator[tuple[Leg, ...]]:
    """Yield the passes of one bundle that make `factor` times the frames, if it can."""
    last = None if final else factor
    if isinstance(bundle.manifest.time, ContinuousTime):
        yield (Leg(bundle, size, last),)
        return
    if factor is None:
        return
    if factor == 1 and bundle.manifest.window.kind != "doubled":  # whose frames do not lie at the times of the input's
        yield (Leg(bundle, size, last),)
        return
    for base in bundle.manifest.time.factors:
        for passes in range(1, MAX_REPETITIONS + 1):
            if base > 1 and base**passes == factor:
                again = [Leg(bundle, size, base, size[0] // shape[0], number) for number in range(passes - 1)]
                yield (*again, Leg(bundle, size, None if final else base, repetition=passes - 1))


def default_scale(bundles: Sequence[Bundle]) -> float:
    """Return the factor in space when none is asked for: what fixed factors make, and else x4."""
    spaces = [bundle.manifest.space for bundle in bundles]
    fixed = math.prod(max(space.factors) for space in spaces if isinstance(space, FixedFactors))
    largest = math.prod(space.maximum for space in spaces if isinstance(space, ContinuousSpace))
    return max(fixed, min(DEFAULT_SCALE, fixed * largest))


def default_factor(bundles: Sequence[Bundle]) -> int:
    """Return the factor in time when none is asked for: x2, if one of the bundles makes frames in time."""
    times = [bundle.manifest.time for bundle in bundles]
    return 1 if all(isinstance(time, FixedFactors) and time.factors == (1,) for time in times) else 2


def abilities(bundle: Bundle) -> str:
    """Say in words what a bundle does in space and in time."""
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


class Route(Closing):
    """Runs the legs of a route, one after the other on frames that stream by; a context manager."""

    def __init__(
        self,
        legs: Sequence[Leg],
        *,
        backend: str = "ort",
        device: str = "auto",
        tile: int | None = None,
        threads: int | None = None,
        flow: str | None = None,
        precision: Precision = "fp32",
        library: Library | None = None,
    ) -> None:
        self.legs = tuple(legs)
        with ExitStack() as opened:
            bundles = {leg.bundle.fingerprint: leg.bundle for leg in legs}
            self._upscalers = {
                key: opened.enter_context(
                    Upscaler(
                        bundle,
                        backend=backend,
                        device=device,
                        tile=tile,
                        threads=threads,
                        flow=flow,
                        precision=precision,
                        library=library,
                    )
                )
                for key, bundle in bundles.items()
            }
            self._opened = opened.pop_all()
        self.device = self._upscalers[legs[0].bundle.fingerprint].device

    @property
    def notes(self) -> list[str]:
        """What was not done as asked, in sentences."""
        return [note for upscaler in self._upscalers.values() for note in upscaler.notes]

    def frames(self, inputs: Iterable[InputFrame]) -> Iterator[np.ndarray]:  # of (3, H, W) uint16, 65535 is white
        """Yield a frame for every input frame and each of its times, in order."""
        return cast(Iterator[np.ndarray], self.pictures(inputs, None))

    def pictures(self, inputs: Iterable[InputFrame], wanted: PictureFormat | None) -> Iterator[Picture]:
        """Yield the same in the planes of a format, if the place makes that, and else as `frames` does."""
        for leg in self.legs[:-1]:
            inputs = self._between(leg, inputs)
        last = self.legs[-1]
        if last.coarse:
            return self._frames(last, inputs)
        return self._upscalers[last.bundle.fingerprint].pictures(inputs, last.size, wanted)

    def _frames(self, leg: Leg, inputs: Iterable[InputFrame]) -> Iterator[np.ndarray]:
        """Make the frames of one leg."""
        upscaler = self._upscalers[leg.bundle.fingerprint]
        if leg.coarse:
            return doubled(upscaler.frames, inputs, leg.size, leg.coarse)
        return upscaler.frames(inputs, leg.size)

    def _between(self, leg: Leg, inputs: Iterable[InputFrame]) -> Iterator[InputFrame]:
        """Make what the next leg sees."""
        passed: deque[tuple[tuple[Fraction, ...], bool]] = deque()
        for made in self._frames(leg, relay(inputs, leg.factor, passed)):
            times, last = passed.popleft()
            yield InputFrame(shrink(to_float(made), leg.shrink), times, last)

    def close(self) -> None:
        """Close every session."""
        self._opened.close()


class SceneRoutes(Closing):
    """Runs each scene by a route of its own, one open at a time; the last one serves all scenes that follow.

    `options` are those of `Route`.
    """

    def __init__(self, routes: Sequence[Sequence[Leg]], **options: Any) -> None:
        self._routes, self._options = [tuple(legs) for legs in routes], options
        self._closed_notes: list[str] = []
        self._open = Route(self._routes[0], **options)
        self.device = self._open.device

    @property
    def notes(self) -> list[str]:
        """What was not done as asked, in sentences."""
        return list(dict.fromkeys([*self._closed_notes, *self._open.notes]))

    def pictures(self, inputs: Iterable[InputFrame], wanted: PictureFormat | None) -> Iterator[Picture]:
        """Yield what `Route.pictures` does, scene after scene."""
        stream = iter(inputs)
        for number in count():
            next_one = list(islice(stream, 1))
            if not next_one:
                return
            self._take(self._routes[min(number, len(self._routes) - 1)])
            yield from self._open.pictures(_one_scene(next_one, stream), wanted)

    def _take(self, legs: tuple[Leg, ...]) -> None:
        if legs != self._open.legs:
            self._open.close()
            self._closed_notes += self._open.notes
            self._open = Route(legs, **self._options)

    def close(self) -> None:
        """Close the route that is open."""
        self._open.close()


def adapted_legs(legs: Sequence[Leg], bundles: Iterable[Bundle]) -> tuple[Leg, ...]:
    """Return a route that takes adapted bundles where their parents were."""
    by_parent = {bundle.manifest.training.get("adapted", {}).get("parent"): bundle for bundle in bundles}
    return tuple(replace(leg, bundle=by_parent.get(leg.bundle.fingerprint, leg.bundle)) for leg in legs)


def _one_scene(next_one: list[InputFrame], stream: Iterator[InputFrame]) -> Iterator[InputFrame]:
    """Give frames up to a scene's last, and keep none."""
    while next_one:
        last = next_one[0].last
        yield next_one.pop()
        if not last:
            next_one.extend(islice(stream, 1))
