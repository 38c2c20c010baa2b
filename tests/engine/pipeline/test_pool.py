"""The pool keeps upscalers open between runs, and never closes one that is in use."""

from pathlib import Path

import numpy as np
from stvsr import Backend, Bundle, one_scene
from stvsr.engine.backends.preparation import Preparation
from stvsr.engine.backends.stages import StageClock
from stvsr.engine.pipeline.chain import Chain
from stvsr.engine.pipeline.plan import Pass
from stvsr.engine.pipeline.pool import UpscalerPool

from tests.support.toy import write_toy

CPU = Backend(device="cpu", threads=1)
SIZE = (16, 16)


def test_upscalers_stay_open_until_there_are_too_many(tmp_path: Path) -> None:
    bundles = [Bundle.load(write_toy(tmp_path / name, name=name)) for name in "abc"]
    frames = np.random.default_rng(0).random((2, 3, *SIZE), np.float32)
    with UpscalerPool(most=1, clock=StageClock()) as pool:
        first = pool.get(bundles[0], CPU, None, None)
        first.warnings.append("of this run")
        assert pool.get(bundles[0], CPU, None, None) is first
        assert first.warnings == ["of this run"], "the other user still runs"
        chains = [Chain([Pass(bundle, SIZE, None)], CPU, pool=pool) for bundle in bundles]
        assert len(pool._open) == 3, "all are in use"
        for chain in chains:
            assert len(list(chain.frames(one_scene(frames)))) == 2
            assert chain.preparation.opening_seconds > 0
            assert chain.preparation.first_run_seconds > 0
        chains[1].close()
        chains[1].close()
        assert len(pool._open) == 2
        chains[2].close()
        pool.release(first)
        assert list(pool._open.values()) == [first], "the chain of the first bundle is open"
        pool.release(first)
        chains[0].close()
        assert list(pool._open.values()) == [first]
        assert pool.get(bundles[0], CPU, None, None) is first
        assert first.warnings == []
        assert first.preparation == Preparation(), "it was open before this run"
        assert len(list(first.frames(one_scene(frames), SIZE))) == 2
        assert first.preparation == Preparation(), "its sessions ran before"
    pool.release(first)
