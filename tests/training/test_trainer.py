"""The training loop: learning rates, losses, checkpoints that resume, and runs that are refused."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stvsr.engine.contract import interrupts
from stvsr.engine.contract.errors import BackendError, CheckpointError, MediaError, RequestError
from stvsr.engine.contract.manifest import SlidingWindow
from stvsr.training import trainer as trainer_module
from stvsr.training.clips import cached_clip
from stvsr.training.data import ClipSampler, Sampling
from stvsr.training.networks.dtsr import DeepTemporalSR, DeepTemporalSRConfig
from stvsr.training.networks.fourier_s import FourierS, FourierSConfig
from stvsr.training.networks.losses import LossTerms, MotionConsistency
from stvsr.training.networks.spynet import SpyNet
from stvsr.training.networks.videoinr_s import VideoINRS
from stvsr.training.run import Precision, Schedule, TrainingRun
from stvsr.training.trainer import Trainer
from torch import Tensor

from tests.support.paths import SAMPLE
from tests.support.toy_networks import QUICK, TINY_PAIR, TOYS, ToyNetwork, brightness_flow, quick_run

NO_WEIGHT = torch.tensor(0.0)  # of auxiliary losses


def test_the_rate_warms_up_and_then_falls_until_the_end() -> None:
    schedule = Schedule(steps=100, warmup=10, learning_rate=1e-3, final_rate=1e-6)
    rates = [schedule.rate(step) for step in range(101)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[9] == pytest.approx(1e-3)
    assert rates[100] == pytest.approx(1e-6)


def test_the_rate_stays_until_it_is_annealed() -> None:
    schedule = Schedule(steps=100, warmup=10, learning_rate=1e-3, final_rate=1e-6, anneal=0.25)
    rates = [schedule.rate(step) for step in range(101)]
    assert rates[9:76] == pytest.approx([1e-3] * 67)
    assert rates[76:] == sorted(rates[76:], reverse=True)
    assert rates[76] < 1e-3
    assert rates[100] == pytest.approx(1e-6)
    longer = replace(schedule, steps=200)
    assert [longer.rate(step) for step in range(76)] == pytest.approx(rates[:76]), "a run can be made longer"


def test_a_motion_patch_that_no_clip_has_room_for_is_refused(clip: np.ndarray, tmp_path: Path) -> None:
    config = FourierSConfig(features=8, width=8, trunk_blocks=1, motion_features=16, terms=4)
    run = quick_run(tmp_path, sampling=replace(QUICK, patch=32, motion_patch=160))
    with pytest.raises(RequestError, match="No clip has 3 frames of 160 pixels each way"):
        Trainer(FourierS(config), {}, run)._sampler([clip])  # a sampler that draws would look for a clip forever


@pytest.mark.parametrize("values", [{"learning_rate": 0.0}, {"learning_rate": float("nan")}, {"anneal": float("nan")}])
def test_a_schedule_that_learns_nothing_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(RequestError, match=r"learning rate"):
        Schedule(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("device_data", [False, True])
def test_every_third_step_trains_motion_alone(device_data: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = FourierSConfig(features=8, width=8, trunk_blocks=1, motion_features=16, terms=4)
    schedule = Schedule(steps=6, stage_two_at=5, warmup=2, checkpoint_every=6)
    sampling = replace(QUICK, patch=32, motion_patch=32)
    run = quick_run(tmp_path / "run", schedule, sampling=sampling, device_data=device_data)
    trainer = Trainer(FourierS(config), {}, run)
    trunks: list[torch.Tensor] = []
    coarse: list[torch.Tensor] = []

    def on_step(step: int, loss: float) -> None:
        assert np.isfinite(loss)
        # Adam moves a weight without a gradient too, but PyTorch skips a weight whose gradient is None.
        trunks.append(trainer.network.trunk[0].conv1.weight.detach().clone())
        coarse.append(trainer.network.motion_coarse.conv1.weight.detach().clone())

    trainer.fit(on_step)
    assert torch.equal(trunks[1], trunks[2])
    assert not torch.equal(trunks[0], trunks[1])
    assert not torch.equal(coarse[1], coarse[2])


def test_clips_of_more_rows_are_made_smaller(tmp_path: Path) -> None:
    whole, small = cached_clip(SAMPLE, tmp_path), cached_clip(SAMPLE, tmp_path, lines=68)
    assert small.shape == (len(whole), 68, 120, 3)
    area = whole.reshape(len(whole), 68, 2, 120, 2, 3).mean((2, 4))
    assert np.abs(small - area).mean() < 2
    assert cached_clip(SAMPLE, tmp_path, lines=136).shape == whole.shape


def pair_trainer(run: Path, steps: int, cache: Path, validation: Path | None = None) -> Trainer:
    torch.manual_seed(0)
    schedule = Schedule(
        steps=steps, stage_two_at=6, learning_rate=2e-3, warmup=2, checkpoint_every=4, validate_every=8, ema=0.9
    )
    return Trainer(VideoINRS(TINY_PAIR), {"width": 8}, quick_run(run, schedule, validation=validation, cache=cache))


@pytest.mark.slow
def test_a_stopped_run_resumes_at_its_last_checkpoint(tmp_path: Path) -> None:
    folder, cache = tmp_path / "run", tmp_path / "cache"
    losses: list[float] = []
    trainer = pair_trainer(folder, 8, cache, SAMPLE.parent)
    scores = trainer.fit(lambda step, loss: losses.append(loss))
    assert trainer.step == len(losses) == 8
    assert scores.keys() == {"psnr_at", "psnr_between"}
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == [4, 8]

    resumed = pair_trainer(folder, 12, cache)
    assert resumed.step == 8
    assert all(torch.equal(a, b) for a, b in zip(resumed.average.values(), trainer.average.values(), strict=True))
    steps: list[int] = []
    resumed.fit(lambda step, loss: steps.append(step))
    assert steps == [9, 10, 11, 12]
    assert not list(folder.glob("*.part"))


def test_a_resumed_run_ends_at_the_weights_of_one_that_was_not_stopped(tmp_path: Path) -> None:
    """Stop after a checkpoint and a few lost steps; the steps are repeated on the same batches, in both stages."""
    cache = tmp_path / "cache"
    whole = pair_trainer(tmp_path / "whole", 12, cache)
    whole.fit()
    stopped = pair_trainer(tmp_path / "stopped", 12, cache)

    def stop(step: int, loss: float) -> None:
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.fit(stop)
    resumed = pair_trainer(tmp_path / "stopped", 12, cache)
    assert resumed.step == 4
    resumed.fit()
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name]), name


@pytest.mark.slow
def test_training_from_device_memory_resumes_exactly_too(tmp_path: Path) -> None:
    def trainer(name: str) -> Trainer:
        torch.manual_seed(0)
        schedule = Schedule(steps=6, stage_two_at=4, warmup=2, checkpoint_every=2)
        sampling = replace(QUICK, compressed=0.5)
        cache = tmp_path / "cache"
        run = quick_run(tmp_path / name, schedule, cache=cache, device_data=True, sampling=sampling)
        return Trainer(VideoINRS(TINY_PAIR), {"width": 8}, run)

    whole = trainer("whole")
    losses: list[float] = []
    whole.fit(lambda step, loss: losses.append(loss))
    assert np.isfinite(losses).all()

    def stop(step: int, loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer("stopped").fit(stop)
    resumed = trainer("stopped")
    resumed.fit()
    assert resumed.step == 6
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name]), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_mixed_precision_trains_float32_weights(precision: Precision, tmp_path: Path) -> None:
    torch.manual_seed(0)
    schedule = Schedule(steps=6, warmup=0, learning_rate=2e-3, checkpoint_every=6)
    run = quick_run(tmp_path, schedule, precision=precision)
    trainer = Trainer(VideoINRS(TINY_PAIR), {}, run)
    batch = ClipSampler([cached_clip(SAMPLE, tmp_path)], trainer.network, QUICK, seed=0).batch(0)
    losses = [trainer._train_step(batch) for _ in range(6)]
    assert losses[-1] < losses[0]
    assert all(weight.dtype == torch.float32 for weight in trainer.network.parameters())
    network: Any = trainer.network
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        features = network.encode(batch.frames)[1]
    assert features.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="Unknown precision 'fp8': use fp32, tf32 or bf16"):
        quick_run(tmp_path, precision="fp8")


def test_the_log_states_speed_and_the_wait_for_data(tmp_path: Path) -> None:
    trainer = pair_trainer(tmp_path / "run", 4, tmp_path / "cache")
    trainer.fit()
    (record,) = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert record["steps_per_second"] > 0
    assert 0 < record["data_share"] < 1
    assert trainer.speed is not None
    assert trainer.speed.data_share == pytest.approx(record["data_share"], abs=1e-4)


@pytest.mark.parametrize("kind", TOYS)
def test_each_kind_of_network_learns_and_is_validated(kind: str, tmp_path: Path, clip: np.ndarray) -> None:
    torch.manual_seed(0)
    network = ToyNetwork(*TOYS[kind])
    schedule = Schedule(steps=30, learning_rate=2e-2, warmup=2, checkpoint_every=15, validate_every=30, ema=0.8)
    run = quick_run(tmp_path, schedule, validation=SAMPLE.parent)
    trainer = Trainer(network, {}, run, flow=brightness_flow)
    untrained = trainer.validate([clip])
    losses: list[float] = []
    scores = trainer.fit(lambda step, loss: losses.append(loss))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    names = {"run": {"psnr_at", "psnr_between"}, "sliding": {"psnr_at"}, "doubled": {"psnr_between"}}
    assert scores.keys() == names[network.window.kind]
    assert all(scores[name] > untrained[name] + 3 for name in scores)
    # Counters are not averaged, both names of a weight have the same value, and the network is in training mode.
    assert trainer.average["norm.num_batches_tracked"] == 30
    assert torch.equal(trainer.average["mix.weight"], trainer.average["again.weight"])
    assert network.training

    resumed = Trainer(ToyNetwork(*TOYS[kind]), {}, run, flow=brightness_flow)
    assert resumed.step == 30
    assert resumed.validate([clip]) == scores


def test_a_network_with_weights_of_five_axes_trains(tmp_path: Path) -> None:
    network = DeepTemporalSR(DeepTemporalSRConfig(width=4))
    losses: list[float] = []
    run = quick_run(tmp_path, Schedule(steps=2, warmup=0), sampling=Sampling(patch=16, batch=1))
    Trainer(network, {}, run).fit(lambda step, loss: losses.append(loss))
    assert len(losses) == 2
    assert network.get_parameter("L8.weight").abs().max() > 0  # the layer starts at zero


def test_a_network_with_flows_needs_a_flow_function(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ToyNetwork takes optical flow"):
        Trainer(ToyNetwork(*TOYS["run with flows"]), {}, quick_run(tmp_path))


class AuxiliaryNetwork(ToyNetwork):
    """A network with an auxiliary loss of 1."""

    def loss(self, frames: Tensor, truth: Tensor) -> LossTerms:
        output = self(frames)
        return LossTerms((output - truth).abs().mean(), output.new_ones(()), output)


def test_the_auxiliary_loss_fades_out(tmp_path: Path, clip: np.ndarray) -> None:
    trainer = Trainer(AuxiliaryNetwork(*TOYS["run"]), {}, quick_run(tmp_path, Schedule(steps=4)))
    batch = ClipSampler([clip], trainer.network, QUICK, seed=0).batch(0)
    losses = []
    for trainer.step in (0, 2):
        losses.append(trainer._loss(batch, torch.tensor(trainer.auxiliary_weight)).item())
    assert losses[0] - losses[1] == pytest.approx(0.5 - 0.125)  # halved every quarter of the steps


@pytest.mark.parametrize("network", [ToyNetwork, AuxiliaryNetwork])
def test_penalties_compare_the_output_with_the_truth(
    network: type[ToyNetwork], tmp_path: Path, clip: np.ndarray
) -> None:
    schedule = Schedule(steps=4)
    trainer = Trainer(network(*TOYS["run"]), {}, quick_run(tmp_path / "plain", schedule))
    penalties = [(torch.nn.L1Loss(), 0.25)]
    penalized = Trainer(trainer.network, {}, quick_run(tmp_path / "penalized", schedule), penalties=penalties)
    batch = ClipSampler([clip], trainer.network, QUICK, seed=0).batch(0)
    added = penalized._loss(batch, NO_WEIGHT) - trainer._loss(batch, NO_WEIGHT)
    assert added.item() == pytest.approx(0.25 * (trainer.network(batch.frames) - batch.truth).abs().mean().item())


def test_motion_consistency_trains_a_run(tmp_path: Path, clip: np.ndarray) -> None:
    penalties = [(MotionConsistency(SpyNet(width=4, levels=2)), 0.1)]
    trainer = Trainer(ToyNetwork(*TOYS["run"]), {}, quick_run(tmp_path, Schedule(steps=4)), penalties=penalties)
    loss = trainer._loss(ClipSampler([clip], trainer.network, QUICK, seed=0).batch(0), NO_WEIGHT)
    loss.backward()
    assert loss.isfinite()


def test_motion_consistency_refuses_single_frames(tmp_path: Path, clip: np.ndarray) -> None:
    penalties = [(MotionConsistency(SpyNet(width=4, levels=2)), 0.1)]
    network = ToyNetwork(SlidingWindow(frames=3, padding="replicate"))
    trainer = Trainer(network, {}, quick_run(tmp_path), penalties=penalties)
    with pytest.raises(RequestError, match="three frames or more, and the network outputs 1"):
        trainer._loss(ClipSampler([clip], network, QUICK, seed=0).batch(0), NO_WEIGHT)


@pytest.mark.slow
def test_a_network_overfits_one_batch(clip: np.ndarray) -> None:
    torch.manual_seed(0)
    network = VideoINRS(TINY_PAIR)
    batch = ClipSampler([clip], network, QUICK, seed=0).batch(0)
    assert batch.time is not None
    assert batch.motion is not None
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        terms = network.loss(batch.frames, batch.time, batch.truth, batch.motion)
        optimizer.zero_grad()
        (terms.reconstruction + terms.auxiliary).backward()
        optimizer.step()
        losses.append(float(terms.reconstruction.detach()))
    assert np.mean(losses[-5:]) < 0.9 * losses[0]


def test_a_run_of_another_configuration_is_refused(tmp_path: Path) -> None:
    pair_trainer(tmp_path, 4, tmp_path / "cache").fit()
    with pytest.raises(RequestError, match="run of another configuration"):
        Trainer(VideoINRS(TINY_PAIR), {"width": 9}, quick_run(tmp_path))
    (tmp_path / "last.pt").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"last\.pt is no checkpoint"):
        Trainer(VideoINRS(TINY_PAIR), {"width": 8}, quick_run(tmp_path))


def test_a_device_that_pytorch_does_not_have_is_refused(tmp_path: Path) -> None:
    for device in ("magic", "cuda:99"):
        with pytest.raises(BackendError, match=f"PyTorch cannot use the device '{device}'"):
            Trainer(ToyNetwork(*TOYS["run"]), {}, quick_run(tmp_path, device=device))


def test_training_without_clips_is_refused(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path / "gone", tmp_path, sampling=QUICK)
    with pytest.raises(MediaError, match="gone does not exist"):
        Trainer(ToyNetwork(*TOYS["run"]), {}, run).fit()


@pytest.mark.parametrize("moment", ["in a step", "between steps", "in a validation"])
def test_a_signal_saves_the_run_between_two_steps(
    moment: str, tmp_path: Path, clip: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupts, "_received", [])
    schedule = Schedule(steps=6, warmup=2, checkpoint_every=4, validate_every=4)

    def trainer(folder: str) -> Trainer:
        torch.manual_seed(0)
        run = quick_run(tmp_path / folder, schedule, validation=SAMPLE)
        return Trainer(ToyNetwork(*TOYS["run"]), {}, run)

    whole, stopped = trainer("whole"), trainer("stopped")
    whole.fit()

    def then_a_signal(call: Any) -> Any:
        def called(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            if stopped.step >= 2:
                interrupts.raise_interrupted(signal.SIGTERM)
            return result

        return called

    if moment == "in a step":
        stopped._update = then_a_signal(stopped._update)  # type: ignore[method-assign]
    if moment == "in a validation":
        monkeypatch.setattr(trainer_module, "score_network", then_a_signal(trainer_module.score_network))
    with pytest.raises(interrupts.Interrupted):
        stopped.fit(then_a_signal(lambda step, loss: None) if moment == "between steps" else None)
    monkeypatch.undo()
    resumed = trainer("stopped")
    assert resumed.step == {"in a step": 3, "between steps": 2, "in a validation": 4}[moment]
    resumed.fit()
    for name, value in whole.average.items():
        assert torch.equal(value, resumed.average[name]), name
