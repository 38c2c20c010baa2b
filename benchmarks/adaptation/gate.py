"""Agreement of the gate's verdict with the truth, for adaptations that help and that harm.

Each trial is a clip, the blur that shrinks it, the blur that the adaptation assumes, a learning rate and a number of
steps. `stvsr.training.adapt.gate.adapt_guarded` has the small frames only; the true gain is the Y-PSNR gain on its
held-out frames.
"""

import argparse
import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stvsr.engine.pipeline.flow import picture_flow
from stvsr.training.adapt.blur import gaussian_kernel
from stvsr.training.adapt.blur_estimation import estimate_blur
from stvsr.training.adapt.degradation import Degradation
from stvsr.training.adapt.gate import adapt_guarded, self_consistency, split_scene
from stvsr.training.adapt.protocol import Budget
from stvsr.training.adapt.restore import restored_frames, upscale_factor
from stvsr.training.adapt.selfsupervised import SelfSupervised
from stvsr.training.clips import find_clips
from stvsr.training.data import Flow
from stvsr.training.networks.base import Network

from .trials import WHOLE, Lines, Trained, degraded, load_trained, middle_crop, scores, to_pictures

BLURS = {
    "bicubic": Degradation(),
    "anisotropic": Degradation(gaussian_kernel((3.0, 1.2), 0.6)),
    "wide": Degradation(gaussian_kernel((2.6, 2.2), 1.2)),
}
KINDS = ("correct or bicubic", "estimated", "wrong")  # of assumed blurs


@dataclass(frozen=True)
class Trial:
    """The blur that shrinks a clip, and the adaptation to it."""

    blur: str
    assumed: str
    rate: float
    steps: int


TRIALS = (
    Trial("bicubic", "bicubic", 1e-5, 10),
    Trial("bicubic", "bicubic", 1e-4, 15),
    Trial("anisotropic", "bicubic", 1e-4, 15),
    Trial("anisotropic", "anisotropic", 1e-4, 30),
    Trial("wide", "wide", 1e-4, 30),
    Trial("anisotropic", "estimated", 1e-4, 30),
    Trial("bicubic", "estimated", 1e-4, 15),
    Trial("bicubic", "bicubic", 2e-3, 10),  # the rate is too high: it harms
    Trial("bicubic", "anisotropic", 1e-4, 10),  # the blur is wrong
)


def gate(lines: Lines, options: argparse.Namespace) -> None:
    """Measure a line for each network, clip and trial."""
    for name in options.gated:
        path = options.runs / name / "weights.pt"
        if (trained := load_trained(name, path)) is None:
            lines.record_missing("gate", name, path)
            continue
        for clip in find_clips(options.val)[: options.clips]:
            for trial in TRIALS[: options.trials]:
                # A crop is too small for an estimate of the blur.
                size = "whole" if trial.assumed == "estimated" else options.size
                settings = {"network": name, "weights": trained.sha256, "clip": clip.stem, **asdict(trial)}
                settings |= {"frames": options.frames, "size": size, "seed": options.seed}
                lines.measure_once("gate", settings, partial(_trial, trained, clip, trial, options))


def _trial(trained: Trained, clip: Path, trial: Trial, options: argparse.Namespace) -> dict[str, Any]:
    size = WHOLE if trial.assumed == "estimated" else options.size
    true = middle_crop(clip, options.cache, options.frames, size)
    return {**gate_trial(trained.network, true, trial, picture_flow, options.seed), "trained": trained.training}


def gate_trial(
    network: Network, true: NDArray[np.uint8], trial: Trial, flow: Flow | None = None, seed: int = 0
) -> dict[str, Any]:
    """Return the record of the verdict and, if the run was completed, the true gain on the held-out frames.

    `true` is (N, H, W, 3); the network has these frames shrunk by the blur of the trial.
    """
    small = degraded(true, BLURS[trial.blur].degrader())
    assumed, confidence = BLURS.get(trial.assumed), 1.0
    if assumed is None:
        blur = estimate_blur([small], upscale_factor(network))
        assumed, confidence = Degradation(blur.kernel), blur.confidence
    method = SelfSupervised(rate=trial.rate, degrade=assumed.degrader(seed), flow=flow)
    measure = self_consistency(assumed, flow)
    verdict = adapt_guarded(
        method, network, small, Budget(steps=trial.steps), seed, measure=measure, confidence=confidence
    )
    figures = verdict.record()
    if verdict.adapted is not None:
        adapted = copy.deepcopy(network)
        adapted.load_state_dict(verdict.adapted.weights)
        held_out = split_scene(network, small)[1]
        indices = range(len(held_out))
        results = (to_pictures(restored_frames(net, held_out, indices, flow)) for net in (network, adapted))
        before, after = (scores(pictures, true[-len(held_out) :])["psnr_y_db"] for pictures in results)
        figures |= {"true_before_db": before, "true_gain_db": round(after - before, 4)}
    return figures


def agreement(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count how often the gate was right, by the kind of the assumed blur; a record holds a trial and its verdict.

    `kept_db` is the mean true gain with the gate and `always_db` without it; `largest_miss_db` is the largest true gain
    or loss of a wrong verdict.
    """
    summary = {}
    for kind in KINDS:
        judged = [r for r in records if "true_gain_db" in r and _kind(r) == kind]
        if not judged:
            continue
        gains = np.array([r["true_gain_db"] for r in judged])
        kept = np.array([r["kept"] for r in judged])
        missed = [r["true_gain_db"] for r in judged if r["kept"] != (r["true_gain_db"] > 0)]
        pairs = np.array([(r["true_gain_db"], r["gain_db"]) for r in judged if "gain_db" in r])
        summary[kind] = {
            "trials": len(judged),
            "agree": int(((gains > 0) == kept).sum()),
            "largest_miss_db": round(max(map(abs, missed), default=0.0), 4),
            "always_db": round(float(gains.mean()), 4),
            "kept_db": round(float((gains * kept).mean()), 4),
            "correlation": round(float(np.corrcoef(pairs.T)[0, 1]), 4) if len(pairs) > 2 else None,
        }
    return summary


def _kind(record: dict[str, Any]) -> str:
    if record["assumed"] == "estimated":
        return "estimated"
    return "correct or bicubic" if record["assumed"] in (record["blur"], "bicubic") else "wrong"
