"""Scene cuts, found as frames stream by: no frame is blended out of two scenes.

Two neighbours are compared as thumbnails. Motion is allowed for: each block of the later one takes its best match
in the earlier one, and the texture that no match explains is the residual. A cut leaves most of it, and changes the
colours' histogram too; fast motion leaves up to two thirds of it but keeps the colours. A flash of light counts as a
cut when it is strong: its neighbours are then repeated, not blended with it.
"""

import numpy as np

DEFAULT_THRESHOLD = 0.38  # real clips at half their rate score up to 0.33 within a scene, and 0.39 and more across cuts

_THUMB_PX = 64  # the longer side
_BLOCK_PX = 6
_REACH_PX = 6  # a tenth of the frame from one frame to the next
_NOISE = 0.004  # texture below one of 256 levels is none
_BINS = 16
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # BT.709


class CutDetector:
    """Says of each frame whether a new scene starts with it; a `threshold` of 0 or None finds no cuts.

    The threshold is between 0 and 1: the lower, the more cuts.
    """

    def __init__(self, threshold: float | None = DEFAULT_THRESHOLD) -> None:
        self.threshold = threshold or 0.0
        self._previous: np.ndarray | None = None

    def is_cut(self, frame: np.ndarray) -> bool:  # (3, h, w) in [0, 1]
        """Take the next frame, and say whether it starts a new scene; the first one does not."""
        if not self.threshold:
            return False
        previous, self._previous = self._previous, thumbnail(frame)
        return previous is not None and difference(previous, self._previous) >= self.threshold


def thumbnail(frame: np.ndarray) -> np.ndarray:  # (3, h, w) -> (3, h', w')
    """Average squares of pixels, of which large ones give 16 samples each, to about 64 pixels on the longer side."""
    cell = max(1, round(max(frame.shape[1:]) / _THUMB_PX))
    step = max(1, cell // 4)
    sampled = frame[:, ::step, ::step]
    cell = max(1, cell // step)
    rows, columns = (max(1, size // cell) for size in sampled.shape[1:])
    cells = sampled[:, : rows * cell, : columns * cell]
    return cells.reshape(3, rows, min(cell, cells.shape[1]), columns, min(cell, cells.shape[2])).mean((2, 4))


def difference(first: np.ndarray, second: np.ndarray) -> float:  # two thumbnails (3, h, w)
    """Return how unlike the scenes of two thumbnails are, 0 to 1."""
    return float((_residual(first, second) ** 2 * _histogram_distance(first, second)) ** (1 / 3))


def _residual(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share, 0 to 1, of the second thumbnail's texture that no shifted block of the first explains."""
    earlier, later = (np.tensordot(_LUMA, thumb, axes=1) for thumb in (first, second))
    block = min(_BLOCK_PX, *later.shape)
    rows, columns = (size // block for size in later.shape)
    later = later[: rows * block, : columns * block]
    texture = _deviation(later.reshape(1, rows, block, columns, block))[0]
    shifts = np.lib.stride_tricks.sliding_window_view(np.pad(earlier, _REACH_PX, mode="edge"), later.shape)
    reach = 2 * _REACH_PX + 1
    errors = (shifts[:reach, :reach] - later).reshape(reach * reach, rows, block, columns, block)
    unexplained = _deviation(errors).min(axis=0)
    return min(1.0, float(unexplained.sum() / (texture.sum() + _NOISE * texture.size)))


def _deviation(blocks: np.ndarray) -> np.ndarray:  # (N, rows, block, columns, block) -> (N, rows, columns)
    return np.abs(blocks - blocks.mean((2, 4), keepdims=True)).mean((2, 4))


def _histogram_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Hellinger distance of the two thumbnails' colours, 0 to 1, of the channel that differs most."""
    shares = [
        np.stack([np.histogram(channel, _BINS, (0, 1))[0] / channel.size for channel in thumb])
        for thumb in (first, second)
    ]
    return float(np.sqrt(max(0.0, 1 - np.sqrt(shares[0] * shares[1]).sum(axis=1).min())))
