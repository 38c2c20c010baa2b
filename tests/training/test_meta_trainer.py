"""Training of Ada-VSR: runs of one module and of both, which resume, and the crops that they are scored on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stvsr.engine.contract.errors import RequestError
from stvsr.training.checkpoints import load_weights
from stvsr.training.data import Sampling
from stvsr.training.large_scale import ModuleTrainer
from stvsr.training.meta_trainer import MetaSchedule, MetaTrainer, crop_center, train_adavsr, video_psnr
from stvsr.training.networks.registry import find_network
from stvsr.training.run import Schedule, TrainingRun
from torch import Tensor

from tests.support.paths import SAMPLE
from tests.support.toy_networks import TINY_SPATIAL, TINY_TEMPORAL, tiny_adavsr

QUICK = MetaSchedule(steps=4, tasks=2, patch=3, frames=2, inner_steps=2, validate_every=4, checkpoint_every=2)


@pytest.mark.slow
def test_a_meta_run_that_was_stopped_ends_at_the_same_weights(tmp_path: Path, clip: np.ndarray) -> None:
    whole = MetaTrainer(tiny_adavsr(), QUICK, tmp_path / "whole")
    losses: list[float] = []
    scores = whole.fit([clip], [clip], lambda step, loss: losses.append(loss))
    assert whole.step == len(losses) == 4
    assert scores.keys() == {"psnr_before", "psnr_adapted"}
    initial = tiny_adavsr().state_dict()
    assert all(not torch.equal(initial[k], v) for k, v in whole.network.state_dict().items())

    run = tmp_path / "run"
    MetaTrainer(tiny_adavsr(), replace(QUICK, steps=2), run).fit([clip], [])
    resumed = MetaTrainer(tiny_adavsr(), QUICK, run)
    assert resumed.step == 2
    resumed.fit([clip], [])
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [2, 4]
    assert not list(run.glob("*.part"))
    with pytest.raises(RequestError, match="run of another configuration"):
        MetaTrainer(tiny_adavsr(), replace(QUICK, inner_rate=0.02), run)


@pytest.mark.slow
def test_first_order_across_and_seed_change_the_weights(tmp_path: Path, clip: np.ndarray) -> None:
    weights = []
    twice = replace(QUICK, steps=2)  # the first step of Adam has the size of its rate, whatever the gradients
    schedules = {
        "first order": replace(twice, first_order=True),
        "across": replace(twice, across=True),
        "seed": replace(twice, seed=1),
    }
    for name, schedule in schedules.items():
        trainer = MetaTrainer(tiny_adavsr(), schedule, tmp_path / name)
        trainer.fit([clip], [])
        weights.append(trainer.network.temporal.conv_last.weight.detach())
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_crop_is_the_centre_of_a_clip_in_whole_units(clip: np.ndarray) -> None:
    video = crop_center(clip)
    assert video.shape == (1, 13, 3, 128, 240)
    first = (len(clip) - 13) // 2
    frame = torch.from_numpy(clip[first, 4:132].copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(video[0, 0], frame)


def test_a_clip_that_is_too_short_to_validate_on_is_refused_before_training(tmp_path: Path, clip: np.ndarray) -> None:
    with pytest.raises(RequestError, match="8 frames of 240x136 pixels is too small"):
        crop_center(clip[:8])
    trainer = MetaTrainer(tiny_adavsr(), QUICK, tmp_path)
    with pytest.raises(RequestError, match="too small to validate on"):
        trainer.fit([clip], [clip[:8]])
    assert trainer.step == 0


def test_scores_are_means_over_frames_rounded_to_8_bits() -> None:
    class ConstantNetwork:
        def __call__(self, frames: Tensor) -> Tensor:
            return torch.full((1, 3, 3, 8, 8), 100 / 255)

    network: Any = ConstantNetwork()
    truth = torch.full((3, 3, 8, 8), 100 / 255) + torch.tensor([10.0, 20.0, 40.0]).view(3, 1, 1, 1) / 255
    level = 219 / 255  # levels of luma for one level of RGB
    expected = np.mean([20 * np.log10(255 / (level * n)) for n in (10, 20, 40)])
    assert video_psnr(network, torch.zeros(2, 3, 2, 2), truth) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["steps", "tasks", "patch", "frames", "validate_every", "checkpoint_every", "rate"])
def test_a_value_without_sense_is_refused_by_name(name: str) -> None:
    with pytest.raises(RequestError, match=f"'{name}' of meta-training is 0"):
        replace(QUICK, **{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["temporal", "spatial"])
def test_a_run_of_one_module_that_was_stopped_ends_at_the_same_weights(part: str, tmp_path: Path) -> None:
    entry = replace(find_network(f"adavsr-{part}-s"), config={"temporal": TINY_TEMPORAL, "spatial": TINY_SPATIAL}[part])

    def fit(folder: Path, stops: Sequence[int]) -> tuple[ModuleTrainer, dict[str, float]]:
        run = TrainingRun(
            SAMPLE.parent,
            folder,
            SAMPLE.parent,
            tmp_path / "cache",
            schedule=Schedule(steps=4, warmup=1, checkpoint_every=2, validate_every=4),
            sampling=Sampling(patch=8, batch=2),
        )
        for steps in stops:
            torch.manual_seed(0)
            trainer = ModuleTrainer(entry.build(entry.config), {}, run)
            try:
                scores = trainer.fit(None if steps == 4 else stop)
            except KeyboardInterrupt:
                continue
        return trainer, scores

    def stop(step: int, loss: float) -> None:
        if step == 3:  # steps after the last checkpoint are lost
            raise KeyboardInterrupt

    (whole, scores), (resumed, _) = fit(tmp_path / "whole", [4]), fit(tmp_path / "stopped", [3, 4])
    assert set(scores) == ({"psnr_at", "psnr_between"} if part == "temporal" else {"psnr_at"})
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name


def test_adavsr_trains_in_three_parts_and_resumes(tmp_path: Path) -> None:
    temporal = replace(find_network("adavsr-temporal-s"), config=TINY_TEMPORAL)
    spatial = replace(find_network("adavsr-spatial-s"), config=TINY_SPATIAL)
    steps: list[tuple[str, int]] = []
    run = TrainingRun(
        data=SAMPLE.parent,
        folder=tmp_path / "run",
        validation=SAMPLE.parent,
        schedule=Schedule(steps=2, checkpoint_every=2, validate_every=2),
        sampling=Sampling(patch=8, batch=1),
    )

    def train(meta: MetaSchedule) -> dict[str, dict[str, float]]:
        return train_adavsr(temporal, spatial, run, meta, lambda part, step, loss: steps.append((part, step)))

    scores = train(replace(QUICK, steps=1))
    assert scores.keys() == {"spatial", "temporal", "meta"}
    assert steps == [("spatial", 1), ("spatial", 2), ("temporal", 1), ("temporal", 2), ("meta", 1)]
    assert train(replace(QUICK, steps=2)).keys() == {"meta"}
    assert steps[5:] == [("meta", 2)]
    assert len(list((tmp_path / "run" / "cache").iterdir())) == 1  # all parts share the decoded clip
    for entry in (temporal, spatial):
        part = entry.name.split("-")[1]
        trained, _ = load_weights(entry, tmp_path / "run" / part / "weights.pt")
        meta_trained, record = load_weights(entry, tmp_path / "run" / "meta" / f"{part}.pt")
        assert (record["step"], record["meta"]) == (2, asdict(replace(QUICK, steps=2)))
        before, after = (module.get_parameter("conv_last.weight") for module in (trained, meta_trained))
        assert not torch.equal(before, after)
