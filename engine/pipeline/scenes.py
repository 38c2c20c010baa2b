"""Detection of scene cuts in a stream of frames, so that no output blends two scenes.

Neighbouring frames are compared as thumbnails. Each block of the later one is matched with the earlier one, which
accounts for motion; the texture that no match explains is the residual. A cut leaves most of the texture unexplained
and changes the colour histogram; fast motion leaves up to two thirds of it but keeps the colours. A strong flash of
light counts as a cut: its neighbours are repeated, not blended with it.
"""

import numpy as np

DEFAULT_THRESHOLD = 0.38  # real clips at half their rate: at most 0.33 within a scene, at least 0.39 at cuts

_THUMB_PX = 64  # the longer side
_BLOCK_PX = 6
_REACH_PX = 6  # a tenth of the frame from one frame to the next
_NOISE = 0.004  # texture below one of 256 levels does not count
_BINS = 16
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
        return previous is not None and difference(previous, self._previous) >= self.threshold


def thumbnail(frame: np.ndarray) -> np.ndarray:  # (3, h, w) -> (3, h', w')
    """Average square cells of pixels, to about 64 cells on the longer side; 16 pixels of a large cell are sampled."""
    cell = max(1, round(max(frame.shape[1:]) / _THUMB_PX))
    step = max(1, cell // 4)
    sampled = frame[:, ::step, ::step]
    cell = max(1, cell // step)
    rows, columns = (max(1, size // cell) for size in sampled.shape[1:])
    cells = sampled[:, : rows * cell, : columns * cell]
    return cells.reshape(3, rows, min(cell, cells.shape[1]), columns, min(cell, cells.shape[2])).mean((2, 4))


def difference(first: np.ndarray, second: np.ndarray) -> float:  # two thumbnails (3, h, w)
    """Return the difference of two thumbnails' scenes, from 0 to 1."""
    return float((_residual(first, second) ** 2 * _histogram_distance(first, second)) ** (1 / 3))


def _residual(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of the second thumbnail's texture, 0 to 1, that no shifted block of the first explains."""
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
    """Return the Hellinger distance of two thumbnails' colours, 0 to 1, in the channel that differs most."""
    shares = [
        np.stack([np.histogram(channel, _BINS, (0, 1))[0] / channel.size for channel in thumb])
        for thumb in (first, second)
    ]
    return float(np.sqrt(max(0.0, 1 - np.sqrt(shares[0] * shares[1]).sum(axis=1).min())))
