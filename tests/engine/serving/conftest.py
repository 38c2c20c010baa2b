"""Fixtures of the tests of the server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.toy import write_toy


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Install a toy network under the name "toy", and return its folder."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STVSR_MODELS", str(folder))
        yield write_toy(folder / "toy")
