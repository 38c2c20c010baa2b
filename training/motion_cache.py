"""Optical flow between all near frames of a clip, computed once and kept on disk, as motion targets for training."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine.contract.atomic import atomic_path
from .clips import cache_file, cached_clip, of_each_clip

OFFSETS = (-4, -3, -2, -1, 1, 2, 3, 4)  # frames from a frame to the frame that its flow points to
SHRINK = 4  # flows are stored at a quarter of the frame's size, near the size of a network's input


def cached_motion(path: Path, cache: Path, lines: int | None = None) -> NDArray[np.float16]:
    """Return the flows of a clip, (N, len(OFFSETS), 2, h, w), memory-mapped from a file in the folder `cache`.

    `lines` as in `cached_clip`.

    A flow holds (dx, dy) in full-size pixels at a quarter of the frame's size, averaged over 4x4 pixels: it points to
    the same content in the frame `offset` frames later, by DIS (Kroeger et al., ECCV 2016). It is 0 where that frame
    lies outside the clip. The first call computes it.
    """
    target = cache_file(path, cache, ".motion.npy", lines)
    if not target.exists():
        clip = cached_clip(path, cache, lines)
        flows = np.stack([_frame_flows(clip, index) for index in range(len(clip))])
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as partial:
            np.save(partial, flows)
    mapped: NDArray[np.float16] = np.load(target, mmap_mode="r")
    return mapped


def prepare_motion(paths: list[Path], cache: Path, workers: int, lines: int | None = None) -> list[NDArray[np.float16]]:
    """Return the flows of clips, computing those that the cache lacks in `workers` processes at once."""
    return of_each_clip(cached_motion, ".motion.npy", paths, cache, lines, workers)


def _frame_flows(clip: NDArray[np.uint8], index: int) -> NDArray[np.float16]:
    """Return the flows of one frame, (len(OFFSETS), 2, h, w)."""
    height, width = (side // SHRINK for side in clip.shape[1:3])
    flows = np.zeros((len(OFFSETS), 2, height, width), np.float16)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    grey = cv2.cvtColor(np.asarray(clip[index]), cv2.COLOR_RGB2GRAY)
    for number, offset in enumerate(OFFSETS):
        if not 0 <= index + offset < len(clip):
            continue
        other = cv2.cvtColor(np.asarray(clip[index + offset]), cv2.COLOR_RGB2GRAY)
        flow = np.asarray(dis.calc(grey, other, np.zeros((*grey.shape, 2), np.float32)))
        flow = flow[: height * SHRINK, : width * SHRINK]
        small = flow.reshape(height, SHRINK, width, SHRINK, 2).mean((1, 3))
        flows[number] = small.transpose(2, 0, 1)
    return flows
