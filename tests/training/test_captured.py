"""Training steps as CUDA graphs, and runs that change from a CPU to a GPU and back."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stvsr.training import captured
from stvsr.training.networks.fourier_s import FourierS, FourierSConfig
from stvsr.training.run import Precision, Schedule
from stvsr.training.trainer import Trainer

from tests.support.toy_networks import QUICK, quick_run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SMALL = FourierSConfig(features=8, width=16, trunk_blocks=1, motion_features=16, terms=4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_captured_steps_train_as_steps_that_are_not(
    precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Both kinds of batches of Fourier-S; float32 sums of gradients are added in any order on a GPU."""
    results: dict[str, tuple[list[float], int]] = {}
    for name, most in (("plain", 0), ("captured", captured.MOST_GRAPHS)):
        monkeypatch.setattr(captured, "MOST_GRAPHS", most)
        torch.manual_seed(0)
        network = FourierS(SMALL)
        sampling = replace(QUICK, patch=32, motion_patch=32)
        run = quick_run(
            tmp_path / name, Schedule(steps=24, warmup=4), sampling=sampling, device="cuda:0", precision=precision
        )
        trainer = Trainer(network, {}, run)
        losses: list[float] = []

        def on_step(step: int, loss: float, losses: list[float] = losses) -> None:
            losses.append(loss)

        trainer.fit(on_step)
        assert trainer._captured is not None
        results[name] = losses, len(trainer._captured._graphs)
    assert results["plain"][1] == 0
    assert results["captured"][1] == 2, [str(warning.message) for warning in recwarn]
    assert results["captured"][0] == pytest.approx(results["plain"][0], rel=2e-2)


def test_a_run_that_a_cpu_began_goes_on_on_a_gpu(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = FourierS(SMALL)
    sampling = replace(QUICK, patch=32)
    for device, steps in (("cpu", 3), ("cuda:0", 12), ("cpu", 14)):
        run = quick_run(tmp_path, Schedule(steps=steps, stage_two_at=0), sampling=sampling, device=device)
        trainer = Trainer(network, {}, run)
        trainer.fit()
        assert trainer.step == steps
        assert all(value.isfinite().all() for value in trainer.average.values())
