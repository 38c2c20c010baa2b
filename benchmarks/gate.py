"""Whether the gate's verdict agrees with the truth: adaptations that help and that harm, on clips whose truth is known.

Each trial is a clip, the blur that makes it small, the blur that the adaptation assumes, a learning rate and a number
of steps. `stvsr.training.adapt.gate.guarded` sees the small frames alone; the true gain is that of Y-PSNR on the frames
that it kept out.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stvsr.training.adapt.gate import guarded, kept_out
from stvsr.training.adapt.kernels import gaussian_kernel
from stvsr.training.adapt.protocol import Budget
from stvsr.training.adapt.pseudo import Degrade, bicubic, blurring
from stvsr.training.adapt.restore import restored_frames
from stvsr.training.adapt.selfsupervised import SelfSupervised
from stvsr.training.clips import cached_clip
from stvsr.training.data import Flow
from stvsr.training.metrics import luma, psnr
from stvsr.training.network import Network
from stvsr.training.resize import to_uint8
from torch import Tensor

FACTOR = 4
BLURS: dict[str, Degrade | None] = {
    "estimated": None,  # from the clip, to adapt, and from the frames that are kept out, to judge
    "bicubic": bicubic,
    "anisotropic": blurring(gaussian_kernel((3.0, 1.2), 0.6)),
    "wide": blurring(gaussian_kernel((2.6, 2.2), 1.2)),
}


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


def gate_trials(
    network: Network,
    clips: Iterable[Path],
    cache: Path,
    trials: Sequence[Trial] = TRIALS,
    frames: int = 16,
    size: tuple[int, int] = (192, 320),
    flow: Flow | None = None,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """One record for each clip and trial, of ``frames`` from the clip's middle, cut to ``size`` (H, W) around it."""
    for path in clips:
        clip = cached_clip(path, cache)
        first = max(0, (len(clip) - frames) // 2)
        top, left = ((n - m) // 2 for n, m in zip(clip.shape[1:3], size, strict=True))
        true = np.ascontiguousarray(clip[first : first + frames, top : top + size[0], left : left + size[1]])
        for trial in trials:
            blur = BLURS[trial.blur] or bicubic
            small = blur(torch.from_numpy(true).permute(0, 3, 1, 2).float() / 255, FACTOR)
            small = (small.clamp(0, 1) * 255).round() / 255
            method = SelfSupervised(rate=trial.rate, degrade=BLURS[trial.assumed], flow=flow)
            verdict = guarded(method, network, small, Budget(steps=trial.steps), seed)
            told = {"clip": path.stem, **asdict(trial), **verdict.record()}
            if verdict.adapted is not None:
                adapted = copy.deepcopy(network)
                adapted.load_state_dict(verdict.adapted.weights)
                held = kept_out(network, small)[1]
                before, after = (_true_db(net, held, true[-len(held) :], flow) for net in (network, adapted))
                told |= {"true_before_db": round(before, 4), "true_gain_db": round(after - before, 4)}
            yield told


def agreement(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How often the gate was right: of trials whose assumed blur was right or plain, estimated, and wrong.

    ``kept_db`` is the mean true gain with the gate, ``always_db`` without one.
    """
    found = {}
    for name in ("right or plain", "estimated", "wrong"):
        some = [r for r in records if "true_gain_db" in r and _kind(r) == name]
        if not some:
            continue
        gains = np.array([r["true_gain_db"] for r in some])
        kept = np.array([r["kept"] for r in some])
        missed = [r["true_gain_db"] for r in some if r["kept"] != (r["true_gain_db"] > 0)]
        found[name] = {
            "trials": len(some),
            "agree": int(((gains > 0) == kept).sum()),
            "largest_miss_db": round(max(map(abs, missed), default=0.0), 4),
            "always_db": round(float(gains.mean()), 4),
            "kept_db": round(float((gains * kept).mean()), 4),
            "correlation": round(float(np.corrcoef(gains, [r["gain_db"] for r in some])[0, 1]), 4)
            if len(some) > 2
            else None,
        }
    return found


def _kind(record: dict[str, Any]) -> str:
    if record["assumed"] == "estimated":
        return "estimated"
    return "right or plain" if record["assumed"] in (record["blur"], "bicubic") else "wrong"


def _true_db(network: Network, small: Tensor, true: np.ndarray, flow: Flow | None) -> float:
    """Mean Y-PSNR in dB of restored frames; small: (N, 3, h, w), true: (N, H, W, 3) of 8 bits."""
    made = restored_frames(network, small, range(len(small)), flow)
    pictures = (to_uint8(frame.permute(1, 2, 0).numpy()) for frame in made)
    return float(np.mean([psnr(luma(a), luma(b)) for a, b in zip(pictures, true, strict=True)]))
