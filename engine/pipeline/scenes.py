"""Detection of scene cuts in a stream of frames, so that no output blends two scenes.

Neighbouring frames are compared as thumbnails. Each block of the later one is matched with the earlier one, which
accounts for motion; the texture that no match explains is the residual. A cut leaves most of the texture unexplained
and changes the colour histogram; fast motion leaves up to two thirds of it but keeps the colours. A fade changes the
colours but explains the texture, once the earlier picture has the contrast and the brightness of the later one. Bins
and noise follow the pictures' own range, so that a dark picture is judged as a bright one.

A strong flash of light that saturates counts as a cut: its neighbours are repeated, not blended with it.
"""

import numpy as np

from .limits import DEFAULT_THRESHOLD

_THUMB_PX = 64  # the longer side
_BLOCK_PX = 6
_REACH_PX = 6  # a tenth of the frame from one frame to the next
_NOISE = 0.0009  # mean deviation that rounding and compression leave in a thumbnail: a quarter of one of 256 levels
_MAX_GAIN = 4  # by which the earlier picture's contrast is raised; beyond, its rounding errors are too
_BINS = 16
_LEAST_RANGE = 0.04  # of all bins: ten of 256 levels
_BRIGHTENING = 0.3  # mean change by which a picture after a flat one starts a scene, instead of fading in
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # BT.709


class CutDetector:
    """Detects the frames that start a new scene.

    threshold: from 0 to 1; a lower one finds more cuts, 0 or None finds none.
    """

    def __init__(self, threshold: float | None = DEFAULT_THRESHOLD) -> None:
        self.threshold = threshold or 0.0
        self._previous: np.ndarray | None = None

    def is_cut(self, frame: np.ndarray) -> bool:  # (3, h, w) in [0, 1]
        """Take the next frame of the stream, and return whether it starts a new scene; the first one does not."""
        if not self.threshold:
            return False
        previous, self._previous = self._previous, thumbnail(frame)
        return previous is not None and difference(previous, self._previous, self.threshold) >= self.threshold


def thumbnail(frame: np.ndarray) -> np.ndarray:  # (3, h, w) -> (3, h', w')
    """Average square cells of pixels, to about 64 cells on the longer side; 16 pixels of a large cell are sampled."""
    cell = max(1, round(max(frame.shape[1:]) / _THUMB_PX))
    step = max(1, cell // 4)
    sampled = frame[:, ::step, ::step]
    cell = max(1, cell // step)
    rows, columns = (max(1, size // cell) for size in sampled.shape[1:])
    cells = sampled[:, : rows * cell, : columns * cell]
    return cells.reshape(3, rows, min(cell, cells.shape[1]), columns, min(cell, cells.shape[2])).mean((2, 4))


def difference(first: np.ndarray, second: np.ndarray, least: float = 0) -> float:  # two thumbnails (3, h, w)
    """Return the difference of two thumbnails' scenes, from 0 to 1; 0 for one that is certainly below `least`."""
    earlier, later = (np.einsum("c,chw->hw", _LUMA, thumb) for thumb in (first, second))  # without BLAS: `color.py`
    contrasts = [float(np.abs(luma - luma.mean()).mean()) for luma in (earlier, later)]
    gain = (contrasts[1] + _NOISE) / (contrasts[0] + _NOISE)
    faded = (first - earlier.mean()) * np.float32(gain), second - later.mean()
    colours = (_histogram_distance(first, second) * _histogram_distance(*faded)) ** 0.5
    # Nothing can be matched with a flat picture, black before a fade as a rule: the change of brightness decides.
    weight = min(1.0, max(min(contrasts) / _NOISE, float(np.abs(later - earlier).mean()) / _BRIGHTENING))
    if weight * colours ** (1 / 3) < least:
        return 0.0
    return weight * float((_residual(earlier, later, min(gain, _MAX_GAIN)) ** 2 * colours) ** (1 / 3))


def _residual(earlier: np.ndarray, later: np.ndarray, gain: float) -> float:  # luma of two thumbnails (h, w)
    """Return the share of the later one's texture, 0 to 1, that no shifted block of the earlier one explains."""
    block = min(_BLOCK_PX, *later.shape)
    rows, columns = (size // block for size in later.shape)
    later = later[: rows * block, : columns * block]
    texture = _deviation(later.reshape(1, rows, block, columns, block))[0]
    padded = np.pad(earlier * np.float32(gain), _REACH_PX, mode="edge")
    shifts = np.lib.stride_tricks.sliding_window_view(padded, later.shape)
    reach = 2 * _REACH_PX + 1
    errors = (shifts[:reach, :reach] - later).reshape(reach * reach, rows, block, columns, block)
    unexplained = _deviation(errors).min(axis=0)
    return min(1.0, float(unexplained.sum() / (texture.sum() + _NOISE * max(1, gain) * texture.size)))


def _deviation(blocks: np.ndarray) -> np.ndarray:  # (N, rows, block, columns, block) -> (N, rows, columns)
    return np.abs(blocks - blocks.mean((2, 4), keepdims=True)).mean((2, 4))


def _histogram_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Hellinger distance of two thumbnails' colours, 0 to 1, in the channel that differs most.

    The bins span the range of both. Each value is shared between its two nearest bins, because a small change must not
    move it into another one: a dark picture has hardly more levels than there are bins.
    """
    # Numbers of Python, and below a single type: NumPy converts others in buffers, and crashes if it gets none.
    low, high = np.percentile(np.concatenate([first.ravel(), second.ravel()]), (0.5, 99.5)).tolist()
    width = max((high - low) * 1.02, _LEAST_RANGE)
    start = (low + high - width) / 2
    shares = []
    for thumb in (first, second):
        positions = np.clip((thumb.reshape(3, -1) - start) * ((_BINS - 1) / width), 0, _BINS - 1.001)
        lower = np.floor(positions)
        upper, bins = positions - lower, lower.astype(int)
        counts = [
            np.bincount(index, 1 - part, _BINS) + np.bincount(index + 1, part, _BINS)
            for index, part in zip(bins, upper, strict=True)
        ]
        shares.append(np.stack(counts) / positions.shape[1])
    return float(np.sqrt(max(0.0, 1 - np.sqrt(shares[0] * shares[1]).sum(axis=1).min())))
