"""Optical flow from one frame to another by OpenCV, for networks that take it as an input."""

import functools
from types import ModuleType
from typing import Any

import numpy as np

from ..contract.errors import BackendError

_LEAST_PX = 32  # OpenCV 5.0 reads outside smaller frames, and crashes


def optical_flow(first: np.ndarray, second: np.ndarray, method: str) -> np.ndarray:
    """Return the optical flow from the first frame to the second, (2, h, w): (dx, dy) in pixels.

    The frames are (3, h, w) in [0, 1]. "farneback" (Farnebäck 2003) uses the parameters that STINet was trained with,
    and its grey, which swaps the weights of red and blue; "dis" (Kroeger et al. 2016) is several times faster.
    Raises BackendError if OpenCV is not installed.
    """
    if first is second:
        return np.zeros((2, *first.shape[1:]), np.float32)
    cv2 = _opencv()
    h, w = first.shape[1:]
    greys = [_grey(cv2, frame) for frame in (first, second)]
    if method == "farneback":
        flow = cv2.calcOpticalFlowFarneback(
            *greys, None, pyr_scale=0.5, levels=3, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
        )
    else:
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        flow = dis.calc(*greys, np.zeros((*greys[0].shape, 2), np.float32))
    return np.ascontiguousarray(flow[:h, :w].transpose(2, 0, 1))


def picture_flow(first: np.ndarray, second: np.ndarray, method: str) -> np.ndarray:
    """Return the optical flow between two 8-bit pictures, (h, w, 3) uint8 -> (2, h, w)."""
    first, second = (picture.transpose(2, 0, 1) / np.float32(255) for picture in (first, second))
    return optical_flow(first, second, method)


def _grey(cv2: Any, frame: np.ndarray) -> np.ndarray:  # (3, h, w) in [0, 1] -> (h', w') uint8
    picture = np.rint(np.clip(frame, 0, 1) * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_BGR2GRAY)
    rows, columns = (max(0, _LEAST_PX - size) for size in grey.shape)
    return np.pad(grey, ((0, rows), (0, columns)), mode="edge") if rows or columns else grey


@functools.cache
def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise BackendError(
            'This bundle needs optical flow, and OpenCV is not installed: pip install "stvsr[flow]".'
        ) from error
    return cv2
