"""The motion teacher: motion over the whole interval, and whether it is known."""

import numpy as np
import pytest
from stvsr.training.resize import imresize, to_uint8
from stvsr.training.teacher import MotionTeacher


def test_motion_is_that_of_the_whole_interval() -> None:
    scene = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    scene = to_uint8(imresize(imresize(scene / 255.0, (20, 30)), (80, 120)))
    first, frame, second = (np.roll(scene, shift, 1) for shift in (0, 2, 8))  # 2 of 8 pixels: time 1/4
    motion = MotionTeacher().motion(first, frame, second, 0.25)
    inside = (slice(None), slice(20, 60), slice(30, 90))
    assert np.median(motion[:4][inside], axis=(1, 2)) == pytest.approx([-8, 0, 8, 0], abs=0.7)
    assert motion[4:][inside].min() == 1


def test_motion_from_a_frame_to_itself_is_unknown() -> None:
    first, second = np.random.default_rng(0).integers(0, 256, (2, 80, 120, 3), dtype=np.uint8)
    assert not MotionTeacher().motion(first, first, second, 0.0)[4].any()
