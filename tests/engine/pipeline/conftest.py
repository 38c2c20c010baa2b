"""Fixtures of the tests of the pipeline."""

from pathlib import Path

import numpy as np
import pytest
from stvsr.engine.backends import graphs

from tests.support.media import make_video, pan
from tests.support.toy import write_toy
from tests.support.toy_sessions import ToySession


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle of a toy network."""
    return write_toy(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Write a clip of seven frames."""
    return make_video(tmp_path / "clip.mp4", pan(7))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, np.ndarray]]:
    """Replace sessions by toy networks, and return a list that receives the inputs of every run."""
    monkeypatch.setattr(graphs, "OrtSession", ToySession)
    monkeypatch.setattr(ToySession, "runs", [], raising=False)
    return ToySession.runs
