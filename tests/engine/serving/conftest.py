"""Fixtures of the tests of the server."""

from pathlib import Path

import pytest

from tests.support.toy import write_toy


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a toy network under the name "toy"."""
    monkeypatch.setenv("STVSR_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    write_toy(tmp_path / "models" / "toy")
