"""Fixtures of tests that build engines."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from stvsr import BackendError
from stvsr.engine.backends.tensorrt import engines
from stvsr.engine.backends.tensorrt.library import load_library


@pytest.fixture
def rtx() -> ModuleType:
    """TensorRT-RTX; skips the test if it is not installed."""
    try:
        return load_library("tensorrt-rtx")
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a new cache of engines, which does not exist yet."""
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first target of every build so far."""
    targets: list[str] = []
    build = engines.build_engine

    def counted(model: bytes, graph: Any, spec: Any, other_targets: Any = ()) -> bytes:
        targets.append(spec.target)
        return build(model, graph, spec, other_targets)

    monkeypatch.setattr(engines, "build_engine", counted)
    return targets
