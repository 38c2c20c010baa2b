"""Validation: scores of the averaged weights, compared with the true frames of the right times."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr.engine.contract.errors import RequestError
from stvsr.engine.contract.manifest import SlidingWindow
from stvsr.training.run import TrainingRun
from stvsr.training.trainer import Trainer
from stvsr.training.validation import score_network

from tests.support.paths import SAMPLE
from tests.support.toy_networks import QUICK, TOYS, RepeatNetwork, ToyNetwork, numbered_clip


@pytest.mark.parametrize(("kind", "at", "between"), [("run", 100, True), ("sliding", 100, False), ("doubled", None, 1)])
def test_frames_are_compared_with_the_truth_of_their_times(kind: str, at: float | None, between: bool) -> None:
    # Frames are two levels apart. 90 rows, four times smaller, are no whole number of size multiples.
    scores = score_network(RepeatNetwork(*TOYS[kind]).eval(), [numbered_clip(40)[:, :90]])
    assert scores.get("psnr_at") == at
    # The repeated frame is off by one frame, two levels; by half as much for an exposure.
    level = (1 if kind == "doubled" else 2) * (65.481 + 128.553 + 24.966) / 255
    expected: Any = pytest.approx(20 * np.log10(255 / level), abs=1e-3)
    assert scores.get("psnr_between") == (expected if between else None)


def test_the_averaged_weights_are_scored_in_evaluation_mode_and_training_weights_stay(
    tmp_path: Path, clip: np.ndarray
) -> None:
    run = TrainingRun(SAMPLE.parent, tmp_path, sampling=QUICK)
    trainer = Trainer(ToyNetwork(*TOYS["sliding"]), {}, run)
    before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    scores = [trainer.validate([clip])]
    for name in ("norm.bias", "norm.running_var"):  # with batch statistics the second would have no effect
        trainer.average[name] += 0.1
        scores.append(trainer.validate([clip]))
    assert len({score["psnr_at"] for score in scores}) == 3
    after = trainer.network.state_dict()
    assert all((after[key] == value).all() for key, value in before.items())
    assert trainer.network.training


def test_validation_clips_that_are_all_too_short_are_refused_before_training(tmp_path: Path) -> None:
    run = TrainingRun(SAMPLE.parent, tmp_path, validation=SAMPLE.parent, sampling=QUICK)
    trainer = Trainer(ToyNetwork(SlidingWindow(frames=1001, padding="replicate")), {}, run)
    with pytest.raises(RequestError, match="has the 1001 frames that validation needs"):
        trainer.fit()
