"""Whether the gate's verdict agrees with the truth: adaptations that help and that harm, on clips whose truth is known.

Each trial is a clip, the blur that makes it small, the blur that the adaptation assumes, a learning rate and a number
of steps. `stvsr.training.adapt.gate.guarded` sees the small frames alone; the true gain is that of Y-PSNR on the frames
that it kept out. A part of `adaptation.py`.
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
from stvsr.training.adapt.gate import guarded, kept_out
from stvsr.training.adapt.protocol import Budget
from stvsr.training.adapt.pseudo import Degrade, bicubic, blurring
from stvsr.training.adapt.restore import restored_frames
from stvsr.training.adapt.selfsupervised import SelfSupervised
from stvsr.training.clips import find_clips
from stvsr.training.data import Flow
from stvsr.training.networks.base import Network

from .trials import WHOLE, Lines, Trained, middle, pictures_of, scores, shown, trained

BLURS: dict[str, Degrade | None] = {
    "estimated": None,  # from the clip, to adapt, and from the frames that are kept out, to judge
    "bicubic": bicubic,
    "anisotropic": blurring(gaussian_kernel((3.0, 1.2), 0.6)),
    "wide": blurring(gaussian_kernel((2.6, 2.2), 1.2)),
}
KINDS = ("right or plain", "estimated", "wrong")  # of assumed blurs


@dataclass(frozen=True)
class Trial:
    """How a clip is made small, and how a network adapts to it."""

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
    Trial("bicubic", "bicubic", 2e-3, 10),  # too fast: it harms
    Trial("bicubic", "anisotropic", 1e-4, 10),  # a wrong blur, which the gate cannot see
)


def gate(lines: Lines, options: argparse.Namespace) -> None:
    """A line for each network, clip and trial."""
    for name in options.gated:
        path = options.runs / name / "weights.pt"
        if (found := trained(name, path)) is None:
            lines.missing("gate", name, path)
            continue
        for clip in find_clips(options.val)[: options.clips]:
            for trial in TRIALS[: options.trials]:
                size = "whole" if trial.assumed == "estimated" else options.size  # a part tells too little of a blur
                settings = {"network": name, "weights": found.sha256, "clip": clip.stem, **asdict(trial)}
                settings |= {"frames": options.frames, "size": size, "seed": options.seed}
                lines.once("gate", settings, partial(_trial, found, clip, trial, options))


def _trial(found: Trained, clip: Path, trial: Trial, options: argparse.Namespace) -> dict[str, Any]:
    size = WHOLE if trial.assumed == "estimated" else options.size
    true = middle(clip, options.cache, options.frames, size)
    return {**gate_trial(found.network, true, trial, picture_flow, options.seed), "trained": found.told}


def gate_trial(
    network: Network, true: NDArray[np.uint8], trial: Trial, flow: Flow | None = None, seed: int = 0
) -> dict[str, Any]:
    """The verdict's record and, where the run came to its end, the true gain on the frames that were kept out.

    true: (N, H, W, 3), of which the network sees what the trial's blur leaves.
    """
    small = shown(true, BLURS[trial.blur] or bicubic)
    method = SelfSupervised(rate=trial.rate, degrade=BLURS[trial.assumed], flow=flow)
    verdict = guarded(method, network, small, Budget(steps=trial.steps), seed)
    told = verdict.record()
    if verdict.adapted is not None:
        adapted = copy.deepcopy(network)
        adapted.load_state_dict(verdict.adapted.weights)
        held = kept_out(network, small)[1]
        made = (pictures_of(restored_frames(net, held, range(len(held)), flow)) for net in (network, adapted))
        before, after = (scores(pictures, true[-len(held) :])["psnr_y_db"] for pictures in made)
        told |= {"true_before_db": before, "true_gain_db": round(after - before, 4)}
    return told


def agreement(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How often the gate was right, by the kind of blur that was assumed; records: of the trial and of its verdict.

    ``kept_db`` is the mean true gain with the gate, ``always_db`` without one; ``largest_miss_db`` the largest true
    gain, or loss, of a verdict that was not right.
    """
    found = {}
    for name in KINDS:
        some = [r for r in records if "true_gain_db" in r and _kind(r) == name]
        if not some:
            continue
        gains = np.array([r["true_gain_db"] for r in some])
        kept = np.array([r["kept"] for r in some])
        missed = [r["true_gain_db"] for r in some if r["kept"] != (r["true_gain_db"] > 0)]
        judged = np.array([(r["true_gain_db"], r["gain_db"]) for r in some if "gain_db" in r])
        found[name] = {
            "trials": len(some),
            "agree": int(((gains > 0) == kept).sum()),
            "largest_miss_db": round(max(map(abs, missed), default=0.0), 4),
            "always_db": round(float(gains.mean()), 4),
            "kept_db": round(float((gains * kept).mean()), 4),
            "correlation": round(float(np.corrcoef(judged.T)[0, 1]), 4) if len(judged) > 2 else None,
        }
    return found


def _kind(record: dict[str, Any]) -> str:
    if record["assumed"] == "estimated":
        return "estimated"
    return "right or plain" if record["assumed"] in (record["blur"], "bicubic") else "wrong"
