"""Alpha in a run: it passes through the network as a gray picture, beside the colors.

So its edges move as those of the colors do, and frames in between have sharp ones. Outputs at which the input is opaque
are not computed: they are opaque.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise, tee
from typing import NamedTuple

import numpy as np

from ..contract.picture import FULL_SCALE
from ..contract.windows import InputFrame
from .chain import SceneChains

_MOST_WAITING = 32  # frames without requested outputs that wait for the network
_NEAR = 3 * FULL_SCALE // 255  # a difference to clear or opaque that no eye sees


def pictures_with_alpha(chains: SceneChains, inputs: Iterable[InputFrame]) -> Iterator[np.ndarray]:
    """Yield the pictures of `SceneChains.pictures` with their alpha, (4, H, W) uint16, of which 65535 is opaque."""
    colors, masks = tee(inputs)
    alphas = _Alphas(chains, masks)
    for color in chains.pictures(colors, None):
        assert isinstance(color, np.ndarray)
        picture = np.empty((4, *color.shape[1:]), np.uint16)
        picture[:3] = color
        picture[3] = alphas.next()
        yield picture
        del color, picture


class _Requested(NamedTuple):
    """An output of the network on alpha; one that is not used lets the network take its inputs."""

    is_used: bool


class _Alphas:
    """The alpha of each output, in order. The next one is computed only when it is asked for."""

    def __init__(self, chains: SceneChains, inputs: Iterable[InputFrame]) -> None:
        self._frames: Iterator[tuple[InputFrame | None, InputFrame | None]] = pairwise(chain(inputs, [None]))
        self._outputs: deque[_Requested | None] = deque()  # None: the output is opaque
        self._waiting: deque[InputFrame] = deque()  # inputs that the network has not taken
        self._idle = 0  # inputs since the last one with an output
        self._results = chains.pictures_beside(self._inputs())

    def next(self) -> np.ndarray | int:  # (H, W) uint16
        """Return the alpha of the next output."""
        while True:
            while not self._outputs:
                self._look_at_next()
            output = self._outputs.popleft()
            if output is None:
                return FULL_SCALE
            result = next(self._results)
            assert isinstance(result, np.ndarray)
            if output.is_used:
                return _snapped(result[1])

    def _inputs(self) -> Iterator[InputFrame]:
        while self._waiting or self._look_at_next():
            if self._waiting:
                yield self._waiting.popleft()

    def _look_at_next(self) -> bool:
        """Note which outputs of the next frame are computed; return false after the last frame."""
        frame, following = next(self._frames, (None, None))
        if frame is None:
            return False
        opaque = _is_opaque(frame)
        opaque_until_next = opaque and (frame.last or following is None or _is_opaque(following))
        times = tuple(time for time in frame.times if not (opaque_until_next if time else opaque))
        self._outputs += [None if (opaque_until_next if time else opaque) else _Requested(True) for time in frame.times]
        self._idle = 0 if times else self._idle + 1
        if self._idle >= _MOST_WAITING and frame.times and not frame.last:
            times = frame.times[:1]
            self._outputs.append(_Requested(False))
            self._idle = 0
        alpha = np.ones(frame.rgb.shape[1:], np.float32) if frame.alpha is None else frame.alpha
        self._waiting.append(InputFrame(np.broadcast_to(alpha, frame.rgb.shape), times, frame.last))
        return True


def _is_opaque(frame: InputFrame) -> bool:
    return frame.alpha is None or bool(frame.alpha.min() >= 1)


def _snapped(alpha: np.ndarray) -> np.ndarray:
    """Return alpha with values near its limits set to them, so that clear and opaque areas stay so."""
    alpha = np.where(alpha < _NEAR, 0, alpha)
    return np.where(alpha > FULL_SCALE - _NEAR, FULL_SCALE, alpha).astype(np.uint16)
