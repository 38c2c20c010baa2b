"""Motion targets for training from a classical optical flow: DIS (Kroeger et al., ECCV 2016).

They guide a network's own motion while it is still poor.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

cv2.setNumThreads(1)  # crops are small, and the network's threads are busy


class MotionTeacher:
    """Computes the motion from a frame to both input frames of a pair, by optical flow at full size."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def motion(
        self, first: NDArray[np.uint8], frame: NDArray[np.uint8], second: NDArray[np.uint8], time: float
    ) -> NDArray[np.float32]:
        """Return the motion target of `frame` (H, W, 3), which lies at `time`, 0 to 1, between `first` and `second`.

        The result, (6, H, W), has the layout of `training.networks.motion`, in pixels of this size: (dx, dy) to `first`
        over the whole interval, (dx, dy) to `second` over the whole interval, and for each of the two whether it is
        known (1) or not (0). It is unknown where it points outside the frame, and for a frame compared with itself,
        because its flow contains no information about the interval.
        """
        H, W = frame.shape[:2]
        motion = np.zeros((6, H, W), np.float32)
        for channel, (other, share) in enumerate(((first, time), (second, 1 - time))):
            if share <= 0:
                continue
            grey, other_grey = (cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in (frame, other))
            flow = np.asarray(self._flow.calc(grey, other_grey, np.zeros((H, W, 2), np.float32)))
            motion[2 * channel : 2 * channel + 2] = flow.transpose(2, 0, 1) / share
            x, y = np.arange(W) + flow[..., 0], np.arange(H)[:, None] + flow[..., 1]
            motion[4 + channel] = (x >= 0) & (x <= W - 1) & (y >= 0) & (y <= H - 1)
        return motion
