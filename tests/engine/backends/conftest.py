"""Fixtures of the backends' tests: a toy bundle, and a fake GPU."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from stvsr import Bundle

from tests.support.fake_gpu import FakeGpu, plugged_in
from tests.support.toy import write_toy


@pytest.fixture
def toy(tmp_path: Path) -> Bundle:
    return Bundle.load(write_toy(tmp_path / "toy"))


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """A fake GPU, and an empty cache of engines."""
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path / "cache"))
    with plugged_in() as gpu:
        yield gpu
