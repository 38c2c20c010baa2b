"""Fixtures of the tests of inference servers: bundles of pair networks for the ensembles, and short pauses."""

from pathlib import Path

import pytest
from stvsr import Bundle
from stvsr.engine.backends.remote import server

from tests.support.toy import write_toy


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A pair network with a decoder for integer factors and a halo."""
    return Bundle.load(write_toy(tmp_path_factory.mktemp("bundles") / "toy", integer=True, blur_px=3))


@pytest.fixture(scope="session")
def refined(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A pair network with a refiner besides."""
    folder = tmp_path_factory.mktemp("bundles") / "refined"
    return Bundle.load(write_toy(folder, integer=True, refined=True, blur_px=3))


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PAUSES_S", (0.0, 0.05, 0.3))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The folder of a new repository, which does not exist yet."""
    return tmp_path / "repository"
