"""The frames of each scene, for what learns from them."""

from collections.abc import Iterator

import numpy as np

from ..media.alpha import AlphaReader
from .adaptation import refuse_pipe
from .request import UpscaleRequest
from .run import open_input
from .scenes import CutDetector

SCENE_FRAMES = 48  # frames of a scene that adaptation reads
SCENE_BYTES = 1 << 29  # memory for these frames


def read_scenes(request: UpscaleRequest, most_frames: int = SCENE_FRAMES) -> Iterator[np.ndarray]:
    """Yield the scenes of a request's video, as `upscale` cuts them, each (N, 3, h, w) in [0, 1].

    Of a long scene only the first frames are returned, at most `most_frames` and `SCENE_BYTES`.
    """
    request.check()
    refuse_pipe(request)
    detector = CutDetector(request.scene_threshold)
    scene: list[np.ndarray] = []
    with open_input(request) as reader:
        most = max(1, min(most_frames, SCENE_BYTES // (12 * reader.info.width * reader.info.height)))
        for frame in AlphaReader(reader, keep=True):
            if detector.is_cut(frame.rgb) and scene:
                yield _taken(scene)
            if len(scene) < most:
                scene.append(frame.rgb)
    if scene:
        yield _taken(scene)


def _taken(frames: list[np.ndarray]) -> np.ndarray:
    """Return frames as one array, and remove them from their list, so that they are in memory once."""
    stacked = np.stack(frames)
    frames.clear()
    return stacked
