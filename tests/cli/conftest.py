"""Fixtures of the tests that run the command line."""

from pathlib import Path

import pytest

from tests.support.media import short_clip
from tests.support.toy import write_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle of a toy network."""
    return write_toy(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write four frames of the sample."""
    return short_clip(tmp_path_factory.mktemp("short") / "short.mp4")
