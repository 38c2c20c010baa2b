"""The chain: frames that stream through the passes of a plan, one bundle after another."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import count, islice
from typing import cast

import numpy as np

from ..backends.options import Backend
from ..backends.preparation import Preparation
from ..contract.closing import Closing
from ..contract.picture import Picture, PictureFormat, to_float
from ..contract.resize import shrink
from ..contract.windows import InputFrame, mark_last, split_times
from .back_projection import doubled
from .inference import Inference
from .plan import Pass
from .pool import UpscalerPool
from .upscaler import Upscaler


class Chain(Closing):
    """Runs passes on a stream of frames. A context manager that holds an upscaler for each bundle.

    `backend` and the settings of `inference` are those of `Upscaler`. With a `pool` its upscalers are used, and stay
    open.
    """

    def __init__(
        self,
        passes: Sequence[Pass],
        backend: Backend | None = None,
        inference: Inference = Inference(),  # noqa: B008 - it is immutable
        *,
        pool: UpscalerPool | None = None,
    ) -> None:
        self.passes = tuple(passes)
        with ExitStack() as opened:
            upscalers = opened.enter_context(UpscalerPool(len(passes))) if pool is None else pool
            self._upscalers: dict[str, Upscaler] = {}
            for fingerprint, one in {one.bundle.fingerprint: one for one in passes}.items():
                upscaler = upscalers.get(one.bundle, backend, inference, one.parent)
                opened.callback(upscalers.release, upscaler)
                self._upscalers[fingerprint] = upscaler
            self._opened = opened.pop_all()
        first = self._upscaler(passes[0])
        self.device, self.backend = first.device, first.backend

    @property
    def precision(self) -> str:
        """The precisions of the bundles, with a + between different ones."""
        return "+".join(dict.fromkeys(upscaler.precision for upscaler in self._upscalers.values()))

    @property
    def warnings(self) -> list[str]:
        """Sentences about what differs from the request."""
        return [warning for upscaler in self._upscalers.values() for warning in upscaler.warnings]

    @property
    def preparation(self) -> Preparation:
        """The time that the graphs took to open and for their first runs; less if they were open before."""
        return sum((upscaler.preparation for upscaler in self._upscalers.values()), Preparation())

    def frames(self, inputs: Iterable[InputFrame | None]) -> Iterator[np.ndarray]:  # (3, H, W) uint16, 65535 is white
        """Yield a frame for every input frame and each of its times, in order; None ends a scene."""
        return cast(Iterator[np.ndarray], self.pictures(inputs, None))

    def pictures(self, inputs: Iterable[InputFrame | None], picture_format: PictureFormat | None) -> Iterator[Picture]:
        """Yield the frames of `frames` as planes of `picture_format` if the device can convert to it, else as RGB."""
        last = self.passes[-1]
        if len(self.passes) == 1 and not last.coarse:
            return self._upscaler(last).pictures(inputs, last.size, picture_format)
        frames: Iterator[InputFrame] = mark_last(inputs)
        for one in self.passes[:-1]:
            frames = self._inputs_of_next(one, frames)
        if last.coarse:
            return self._frames(last, frames)
        return self._upscaler(last).pictures(frames, last.size, picture_format)

    def close(self) -> None:
        """Close every upscaler."""
        self._opened.close()

    def _upscaler(self, one: Pass) -> Upscaler:
        return self._upscalers[one.bundle.fingerprint]

    def _frames(self, one: Pass, inputs: Iterable[InputFrame]) -> Iterator[np.ndarray]:
        """Yield the frames of one pass."""
        upscaler = self._upscaler(one)
        if one.coarse:
            return doubled(upscaler.frames, inputs, one.size, one.coarse)
        return upscaler.frames(inputs, one.size)

    def _inputs_of_next(self, one: Pass, inputs: Iterable[InputFrame]) -> Iterator[InputFrame]:
        """Run a pass, and yield its frames as inputs of the next pass."""
        remaining: deque[tuple[tuple[Fraction, ...], bool]] = deque()
        for frame in self._frames(one, split_times(inputs, one.factor, remaining)):
            times, last = remaining.popleft()
            yield InputFrame(shrink(to_float(frame), one.shrink), times, last)


class SceneChains(Closing):
    """Runs each scene through a chain of its own, one of which is open at a time.

    It begins with the chain of `passes`. At the beginning of each scene `passes_of` is called with its number in the
    stream, from 0, and returns the scene's passes, by default the same. Where these differ in the weights of their
    bundles alone, the open graphs take the new weights. `backend` and the settings of `inference` are those of
    `Upscaler`. With a `pool` its upscalers are used, and stay open.
    """

    def __init__(
        self,
        passes: Sequence[Pass],
        backend: Backend | None = None,
        inference: Inference = Inference(),  # noqa: B008 - it is immutable
        *,
        pool: UpscalerPool | None = None,
        passes_of: Callable[[int], Sequence[Pass]] | None = None,
    ) -> None:
        self._passes_of = passes_of or (lambda _: passes)
        self._backend, self._inference = backend, inference
        self._earlier_warnings: list[str] = []
        self._earlier_preparation = Preparation()
        self._beside: Generator[Picture] | None = None
        with ExitStack() as opened:
            self._pool = opened.enter_context(UpscalerPool(len(passes))) if pool is None else pool
            self._chain = self._open(passes)
            self._opened = opened.pop_all()
        self.device, self.backend = self._chain.device, self._chain.backend

    @property
    def precision(self) -> str:
        """The precisions of the bundles of the chain that is open."""
        return self._chain.precision

    @property
    def warnings(self) -> list[str]:
        """Sentences about what differs from the request, each once."""
        return list(dict.fromkeys([*self._earlier_warnings, *self._chain.warnings]))

    @property
    def preparation(self) -> Preparation:
        """The time that the graphs of all chains took to open and for their first runs."""
        return self._earlier_preparation + self._chain.preparation

    def pictures(self, inputs: Iterable[InputFrame], picture_format: PictureFormat | None) -> Iterator[Picture]:
        """Yield the pictures of `Chain.pictures`, scene after scene."""
        stream = iter(inputs)
        for number in count():
            head = list(islice(stream, 1))
            if not head:
                return
            self._switch_to(self._passes_of(number))
            yield from self._chain.pictures(_rest_of_scene(head, stream), picture_format)

    def pictures_beside(self, inputs: Iterable[InputFrame]) -> Iterator[Picture]:
        """Yield the pictures, as RGB, of inputs that accompany those of `pictures`, through the chain that is open."""
        stream = iter(inputs)
        while head := list(islice(stream, 1)):
            self._beside = _generated(self._chain.pictures(_rest_of_scene(head, stream), None))
            yield from self._beside

    def close(self) -> None:
        """Close the open chain."""
        self._chain.close()
        self._opened.close()

    def _open(self, passes: Sequence[Pass]) -> Chain:
        return Chain(passes, self._backend, self._inference, pool=self._pool)

    def _switch_to(self, passes: Sequence[Pass]) -> None:
        if tuple(passes) != self._chain.passes:
            if self._beside is not None:
                self._beside.close()  # its pictures of the scene before were taken, but it does not know that
            self._chain.close()
            self._earlier_warnings = self.warnings
            self._earlier_preparation += self._chain.preparation
            self._chain = self._open(passes)


def _generated(pictures: Iterator[Picture]) -> Generator[Picture]:
    yield from pictures


def _rest_of_scene(head: list[InputFrame], stream: Iterator[InputFrame]) -> Iterator[InputFrame]:
    """Yield the frame in `head` and those of `stream` up to the scene's last, keeping no reference to any."""
    while head:
        last = head[0].last
        yield head.pop()
        if not last:
            head.extend(islice(stream, 1))
