"""Back-projection: a network doubles the rate of small frames, and its results are enlarged to agree with the input.

Motion is small in small frames. The network's results are enlarged step by step, by two each time, such that enlarged
frames made small again equal the smaller ones, and the mean of the two halves of an exposure equals the input frame.
`training/adapt/coarse_to_fine.py` does the same in PyTorch.

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
    """Yield a frame for each of the inputs' times, which are 0 and 1/2.

    `doubling` receives frames `coarse` times smaller. `size` (H, W) is the size of inputs and results. Inputs stay in
    memory until `doubling` has returned their results.
    """
    pending: deque[InputFrame] = deque()

    def smaller() -> Iterator[InputFrame]:
        for frame in inputs:
            pending.append(frame)
            yield InputFrame(resized(frame.rgb, coarse_size(size, coarse)), _HALVES, frame.last)

    results = doubling(smaller(), coarse_size(size, coarse))
    for halves in zip(results, results, strict=True):
        frame = pending.popleft()
        pair = back_projected(to_float(np.stack(halves)), frame.rgb, coarse)
        for time in frame.times:
            yield to_uint16(pair[_HALVES.index(time)], 0.0, 1.0)


def back_projected(pair: np.ndarray, frame: np.ndarray, coarse: int) -> np.ndarray:
    """Enlarge both halves (2, 3, h, w) of the exposure `frame` (3, H, W) by `coarse` -> (2, 3, H, W).

    Their mean is the frame; they are not clipped. A `coarse` of 1 back-projects in time alone.
    """
    if coarse == 1:
        return pair + (frame - pair.mean(0))
    while coarse > 1:
        coarse //= 2
        small = resized(frame, coarse_size(frame.shape[1:], coarse))
        size, smaller = small.shape[1:], pair.shape[2:]
        larger = resized(pair, size)
        larger += resized(pair - resized(larger, smaller), size)
        pair = larger + (small - larger.mean(0))
    return pair
