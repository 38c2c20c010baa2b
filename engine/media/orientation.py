"""Turn frames upright, for outputs that cannot store a rotation."""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from .probe import VideoInfo


def upright_info(info: VideoInfo) -> VideoInfo:
    """Return the description of a video after its frames were turned as players show them."""
    if info.display_matrix is None:
        return info
    sideways = _is_sideways(info.display_matrix)
    size = (info.height, info.width) if sideways else (info.width, info.height)
    aspect = Fraction(1) / info.sample_aspect_ratio if sideways else info.sample_aspect_ratio
    return replace(info, width=size[0], height=size[1], sample_aspect_ratio=aspect, rotation=0, display_matrix=None)


def upright_size(info: VideoInfo | None, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size, (width, height), of frames of `size` after they were turned."""
    if info is None or info.display_matrix is None or not _is_sideways(info.display_matrix):
        return size
    return size[1], size[0]


def turn_upright(frame: np.ndarray, matrix: tuple[int, ...]) -> np.ndarray:  # (C, H, W) -> (C, H, W) or (C, W, H)
    """Turn and mirror a frame by a display matrix of 9 numbers, of which only quarter turns are followed."""
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if _is_sideways(matrix):
        frame, a, d = frame.swapaxes(1, 2), c, b
    return np.ascontiguousarray(frame[:, :: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _is_sideways(matrix: tuple[int, ...]) -> bool:
    return abs(matrix[1]) > abs(matrix[0])
