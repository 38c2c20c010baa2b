"""Fixtures of the tests of the benchmark."""

from pathlib import Path

import pytest

from tests.support.toy import write_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle of a toy network."""
    return write_toy(tmp_path_factory.mktemp("bundles") / "toy")
