"""A network that doubles the frame rate sees frames made small; what it makes is enlarged and made to agree with them.

Frames made small move less. What a network makes of these is enlarged step by step, each time by two: enlarged frames
made small again are the smaller ones, and each pair of them has the input frame as its mean, as exposures do.

Zuckerman et al., "Across Scales & Across Dimensions: Temporal Super-Resolution using Deep Internal Learning", 2020,
section 4.2; Irani and Peleg, "Improving Resolution by Image Registration", 1991.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import numpy as np

from ..contract.picture import to_float, to_uint16
from ..contract.resize import coarse_size, resized
from ..contract.windows import InputFrame

_HALVES = (Fraction(0), Fraction(1, 2))

# Frames of one size, each with its times -> frames of that size (H, W), (3, H, W) uint16
Doubling = Callable[[Iterable[InputFrame], tuple[int, int]], Iterator[np.ndarray]]


def doubled(
    doubling: Doubling, inputs: Iterable[InputFrame], size: tuple[int, int], coarse: int
) -> Iterator[np.ndarray]:  # of (3, H, W) uint16
    """Yield a frame for each of the inputs' times, which are 0 and 1/2: `doubling` sees frames `coarse` times smaller.

    `size` (H, W) is that of the inputs and of what is made. As many inputs are held as `doubling` is ahead.
    """
    ahead: deque[InputFrame] = deque()

    def smaller() -> Iterator[InputFrame]:
        for frame in inputs:
            ahead.append(frame)
            yield InputFrame(resized(frame.rgb, coarse_size(size, coarse)), _HALVES, frame.last)

    made = doubling(smaller(), coarse_size(size, coarse))
    for halves in zip(made, made, strict=True):
        frame = ahead.popleft()
        pair = agreeing(to_float(np.stack(halves)), frame.rgb, coarse)
        for time in frame.times:
            yield to_uint16(pair[_HALVES.index(time)], 0.0, 1.0)


def agreeing(pair: np.ndarray, frame: np.ndarray, coarse: int) -> np.ndarray:
    """Enlarge both halves (2, 3, h, w) of the exposure `frame` (3, H, W) `coarse` times -> (2, 3, H, W).

    Their mean is the frame; they are not clipped. With a `coarse` of 1 it is back-projection in time alone.
    """
    if coarse == 1:
        return pair + (frame - pair.mean(0))
    while coarse > 1:
        coarse //= 2
        seen = resized(frame, coarse_size(frame.shape[1:], coarse))
        size, smaller = seen.shape[1:], pair.shape[2:]
        larger = resized(pair, size)
        larger += resized(pair - resized(larger, smaller), size)
        pair = larger + (seen - larger.mean(0))
    return pair
