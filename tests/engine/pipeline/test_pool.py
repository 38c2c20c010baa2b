"""The pool keeps upscalers open between runs, and never closes one that is in use."""

from pathlib import Path

import numpy as np
from stvsr import Backend, Bundle, one_scene
from stvsr.engine.backends.preparation import Preparation
from stvsr.engine.backends.stages import StageClock
from stvsr.engine.pipeline.chain import Chain
from stvsr.engine.pipeline.plan import Pass
from stvsr.engine.pipeline.pool import UpscalerPool

from tests.support.learners import with_eighth
from tests.support.toy import write_toy

CPU = Backend(device="cpu", threads=1)
SIZE = (16, 16)


def test_upscalers_stay_open_until_there_are_too_many(tmp_path: Path) -> None:
    bundles = [Bundle.load(write_toy(tmp_path / name, name=name)) for name in "abc"]
    frames = np.random.default_rng(0).random((2, 3, *SIZE), np.float32)
    with UpscalerPool(most=1, clock=StageClock()) as pool:
        first = pool.get(bundles[0], CPU)
        first.warnings.append("of this run")
        assert pool.get(bundles[0], CPU) is first
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
        assert [opened.upscaler for opened in pool._open] == [first], "the chain of the first bundle is open"
        pool.release(first)
        chains[0].close()
        assert [opened.upscaler for opened in pool._open] == [first]
        assert pool.get(bundles[0], CPU) is first
        assert first.warnings == []
        assert first.preparation == Preparation(), "it was open before this run"
        assert len(list(first.frames(one_scene(frames), SIZE))) == 2
        assert first.preparation == Preparation(), "its sessions ran before"
    pool.release(first)


def test_an_idle_upscaler_takes_the_weights_of_an_adapted_bundle(tmp_path: Path) -> None:
    """Open it again only while others use it, and for bundles that differ in more than their weights."""
    toy = Bundle.load(write_toy(tmp_path / "toy", integer=True))
    one, two = (with_eighth(toy, value, tmp_path / f"{value}") for value in (0.5, 0.75))
    training = {"adapted": {"parent": toy.fingerprint}}
    blurred = Bundle.load(write_toy(tmp_path / "blurred", integer=True, blur_px=3, training=training))
    with UpscalerPool() as pool:
        first = pool.get(toy, CPU)
        pool.release(first)
        adapted = pool.get(one, CPU, parent=toy)
        assert adapted is first
        assert adapted.weights == one.fingerprint
        other = pool.get(two, CPU, parent=toy)
        assert other is not first, "the first one is in use"
        assert (first.weights, other.weights) == (one.fingerprint, two.fingerprint)
        pool.release(other)
        assert pool.get(blurred, CPU, parent=toy).bundle is blurred
        assert pool.get(toy, CPU) is other, "it takes its own weights back"
        assert other.weights == toy.fingerprint
        assert len(pool._open) == 3
