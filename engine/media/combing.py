"""Measure from the picture whether frames are woven of two fields that were taken at different times.

A field is every second row of a frame. Where the picture moves, the rows of one field are predicted from the
neighbouring rows of a field: the frame's own other one, or that of the frame before or after. In a progressive frame
its own other field predicts best, and both neighbours equally badly. In an interlaced one its own is no better than
that of one of the neighbours, and that one tells which field came first; the rows of both fields alternate visibly if
the motion is fast.
"""

from dataclasses import dataclass
from typing import Literal

import av
import numpy as np

from .pixel_format import planar_format, planar_layout, repack

Verdict = Literal["progressive", "interlaced", "telecined", "unclear"]

_COLUMNS = 320  # that are compared, about
_MOTION = 6.0  # levels of 256 by which a moving pixel changes, in the frames before and after together
_LEAST_MOVING = 24  # pixels
_LEAST_MOVING_SHARE = 5e-4
_COMBED = 0.7  # the least error between the rows of both fields, relative to that between the rows of one
_CLEARLY_COMBED = 0.9
_CLEAN = 0.65
_ORDERED = 0.05  # how much better one neighbour's field predicts than the other's, from 0 to 1
_UNORDERED = 0.04
_FOREIGN = 1.15  # by how much a neighbour's field predicts better than the own one: it is of the same picture
_OWN = 0.7  # by how much the own field predicts better than those of the neighbours


@dataclass(frozen=True)
class Combing:
    """The measure of one frame between two others."""

    moving: int  # pixels that are compared
    comb: float  # the error between the rows of both fields, relative to that between the rows of one
    order: float  # from -1 to 1: above 0 the field of the even rows (the top one) comes first
    foreign: float  # the error of the own other field, relative to that of the better neighbour's
    verdict: Verdict


_NOTHING = Combing(0, 0.0, 0.0, 0.0, "unclear")


def luma(frame: av.VideoFrame) -> np.ndarray:
    """Return a frame's first plane, luma as a rule, (h, w) float32 in levels of 256; about 320 of its columns."""
    planar = planar_format(frame.format.name)
    if planar != frame.format.name:
        frame = repack(frame, planar)
    layout = planar_layout(planar)
    assert layout is not None
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), layout.dtype).reshape(plane.height, -1)
    rows = rows[:: 1 if plane.line_size > 0 else -1, : plane.width : max(1, plane.width // _COLUMNS)]
    return rows * np.float32(2.0 ** (8 - layout.bits))


def combing(before: np.ndarray, frame: np.ndarray, after: np.ndarray) -> Combing:  # luma (h, w) of three frames
    """Measure the combing of a frame, whose neighbours are needed too."""
    if not (before.shape == frame.shape == after.shape) or min(frame.shape) < 12:
        return _NOTHING
    end = frame.shape[0] // 2 * 2
    (top_before, bottom_before), (top, bottom), (top_after, bottom_after) = (
        (rows[0:end:2], rows[1:end:2]) for rows in (before, frame, after)
    )
    moving = np.maximum(
        np.abs(top - top_before) + np.abs(top_after - top),
        np.abs(bottom - bottom_before) + np.abs(bottom_after - bottom),
    )[1:-2]
    mask = moving > _MOTION
    count = int(mask.sum())
    if count < max(_LEAST_MOVING, _LEAST_MOVING_SHARE * mask.size):
        return _NOTHING
    own = _error(top, bottom, mask)
    top_first = (_error(top, bottom_before, mask) + _error(top_after, bottom, mask)) / 2
    bottom_first = (_error(top_before, bottom, mask) + _error(top, bottom_after, mask)) / 2
    detail = (_rows_error(top, mask) + _rows_error(bottom, mask)) / 2
    comb = own / max(detail, 1e-6)
    order = (bottom_first - top_first) / max(top_first + bottom_first, 1e-6)
    foreign = own / max(min(top_first, bottom_first), 1e-6)
    return Combing(count, comb, order, foreign, _verdict(comb, abs(order), foreign))


def _verdict(comb: float, order: float, foreign: float) -> Verdict:
    if foreign > _FOREIGN and order > 2 * _ORDERED:
        return "telecined"
    if comb > _COMBED and order > _ORDERED:
        return "interlaced" if comb > _CLEARLY_COMBED or foreign > _OWN else "unclear"
    if comb < _CLEAN and (order < _UNORDERED or foreign < _OWN):
        return "progressive"
    return "unclear"


def _error(top: np.ndarray, bottom: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean error of predicting each row from the two rows of the other field around it."""
    bottom_error = np.abs(bottom[1:-2] - (top[1:-2] + top[2:-1]) * 0.5)
    top_error = np.abs(top[2:-1] - (bottom[1:-2] + bottom[2:-1]) * 0.5)
    return float((bottom_error + top_error)[mask].mean()) / 2


def _rows_error(rows: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean error of predicting each row of a field from the two rows of the same field around it."""
    return float(np.abs(rows[1:-2] - (rows[:-3] + rows[2:-1]) * 0.5)[mask].mean())
