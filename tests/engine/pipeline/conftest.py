"""Fixtures of the tests of the pipeline."""

from pathlib import Path

import pytest

from tests.support.media import make_video, pan
from tests.support.toy import write_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle of a toy network."""
    return write_toy(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Write a clip of seven frames."""
    return make_video(tmp_path / "clip.mp4", pan(7))
