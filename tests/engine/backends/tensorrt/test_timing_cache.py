"""The timing cache: measurements of a TensorRT build serve the next build for the same GPU."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stvsr.engine.backends.tensorrt.builder import timing_cache
from stvsr.engine.backends.tensorrt.library import load_library
from stvsr.engine.contract.errors import BackendError

TRT: Any = SimpleNamespace(__version__="11.4")


class Config:
    """A builder's configuration; a build measures one more kernel."""

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self.cache)

    def build(self) -> None:
        self.cache += b"kernel;"


def build(target: str, library: str = "tensorrt") -> bytes:
    config = Config()
    spec: Any = SimpleNamespace(library=library, target=target)
    config.cache = b""
    with timing_cache(TRT, config, spec):
        config.build()
    return config.cache


def test_a_build_takes_the_measurements_of_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path))
    assert build("sm90") == b"kernel;"
    assert build("sm90") == b"kernel;kernel;"
    assert build("sm89") == b"kernel;"
    assert build("sm90", "tensorrt-rtx") == b"kernel;", "it measures nothing"
    files = {file.name for file in (tmp_path / "timing").iterdir()}
    assert files == {"tensorrt-11.4-sm90", "tensorrt-11.4-sm89"}


def test_a_build_that_fails_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path))
    spec: Any = SimpleNamespace(library="tensorrt", target="sm90")
    with pytest.raises(ValueError, match="no memory"), timing_cache(TRT, Config(), spec):
        raise ValueError("no memory")
    assert not list(tmp_path.glob("timing/*"))


@pytest.mark.filterwarnings("ignore:Use Deprecated:DeprecationWarning")
def test_a_real_configuration_takes_a_timing_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-RTX has TensorRT's interface; without a GPU its timing cache has a header alone."""
    try:
        trt: Any = load_library("tensorrt-rtx")
    except BackendError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path))
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    spec: Any = SimpleNamespace(library="tensorrt", target="sm90")
    for _ in range(2):
        with timing_cache(trt, builder.create_builder_config(), spec):
            pass
        (file,) = (tmp_path / "timing").iterdir()
        assert file.stat().st_size > 0
