"""Fixtures of several test files of training."""

import numpy as np
import pytest
from numpy.typing import NDArray
from stvsr.training.clips import cached_clip

from tests.support.paths import SAMPLE


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.uint8]:
    """The sample clip, (60, 136, 240, 3)."""
    return cached_clip(SAMPLE, tmp_path_factory.mktemp("cache"))
