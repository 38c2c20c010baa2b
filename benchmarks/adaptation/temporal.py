"""Zero-shot temporal super-resolution beside cubic interpolation: frames averaged in pairs, made twice as many again.

Each is shown with and without back-projection in time, which makes means of neighbours the input again. Of the clip
that moves most, `zero_shot` draws the same instant by each.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from stvsr.engine.contract.resize import coarse_size
from stvsr.engine.pipeline.flow import picture_flow
from stvsr.training.adapt.coarse_to_fine import coarse_by_motion, doubled, upscale_time
from stvsr.training.adapt.protocol import Budget
from stvsr.training.adapt.video_resize import back_project_time, expose, resize_space
from stvsr.training.adapt.zeroshot import ZeroShot
from stvsr.training.clips import find_clips
from stvsr.training.networks.dtsr import DeepTemporalSR
from stvsr.training.networks.ops import upsample_cubic
from stvsr.training.networks.registry import find_network
from torch import Tensor

from .trials import Figures, Lines, eight_bits, middle, motion_px, pictures_of, planes, scores, write_png

METHODS = ("cubic", "cubic, back-projected", "zero-shot", "zero-shot, back-projected")
PICTURE = "adaptation_zero-shot.png"
_TILE_PX = 160
_CROP_PX, _GAP_PX = (128, 160), 6


def zero_shot(lines: Lines, options: argparse.Namespace) -> None:
    """A line for each clip, and a picture of the one that moves most."""
    clips = find_clips(options.val)[: options.clips]
    most = max(clips, key=lambda clip: motion_px(_true(clip, options)))
    for clip in clips:
        trial = {
            "network": options.temporal,
            "clip": clip.stem,
            "frames": options.zero_frames,
            "size": options.size,
            "steps": options.zero_steps,
            "coarse": options.coarse or "by motion",
            "seed": options.seed,
        }
        picture = lines.folder / PICTURE if clip == most else None
        lines.once("zero-shot", trial, partial(_clip, clip, picture, options))


def _true(clip: Path, options: argparse.Namespace) -> NDArray[np.uint8]:
    true = middle(clip, options.cache, options.zero_frames, options.size)
    return true[: len(true) // 2 * 2]


def _clip(clip: Path, picture: Path | None, options: argparse.Namespace) -> Figures:
    true = _true(clip, options)
    seen = eight_bits(expose(planes(true), 2))
    entry = find_network(options.temporal)
    coarse = options.coarse or coarse_by_motion(seen, picture_flow)
    network = DeepTemporalSR(replace(entry.config, coarse=coarse))
    adapted = ZeroShot().adapt(network, seen, Budget(steps=options.zero_steps), options.seed)
    network.load_state_dict(adapted.weights)
    made = {name: pictures_of(frames) for name, frames in results(network.eval(), seen).items()}
    if picture is not None:
        exposed = pictures_of(seen).repeat(2, 0)
        write_png(picture, beside([exposed, made["cubic"], *(made[name] for name in METHODS[2:]), true]))
    run = adapted.record
    return {
        "motion_px": round(motion_px(true), 2),
        "coarse": coarse,
        "results": {name: scores(pictures, true) for name, pictures in made.items()},
        "seconds": round(run.seconds, 2),
        "first_loss": run.losses[0],
        "last_loss": float(np.mean(run.losses[-20:])),
        "final_rate": run.details["final_rate"],
    }


@torch.no_grad()
def results(network: DeepTemporalSR, seen: Tensor) -> dict[str, Tensor]:
    """Exposures (T, 3, h, w) in [0, 1] doubled by each of ``METHODS``: (2T, 3, h, w), not clamped."""
    cubic = upsample_cubic(seen, 0, 2)
    small = doubled(network, resize_space(seen, coarse_size(seen.shape[-2:], network.config.coarse)), _TILE_PX)
    alone = resize_space(small, (seen.shape[-2], seen.shape[-1]))
    projected = torch.stack(list(upscale_time(network, seen, 2)))
    return dict(zip(METHODS, (cubic, back_project_time(cubic, seen), alone, projected), strict=True))


def beside(videos: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The same part of the same instant of each video, in a row: where the second differs most from the last one.

    Videos are (N, H, W, 3); ends of the clip, where each method lacks neighbours, are left out.
    """
    h, w = (min(n, m) for n, m in zip(videos[0].shape[1:3], _CROP_PX, strict=True))
    error = np.abs(videos[1].astype(np.float64) - videos[-1]).mean(3)
    margin = len(error) // 4
    place = margin + int(error[margin : len(error) - margin].mean((1, 2)).argmax())
    sums = np.pad(error[place].cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    boxes = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    top, left = np.unravel_index(boxes.argmax(), boxes.shape)
    gap = np.full((h, _GAP_PX, 3), 255, np.uint8)
    crops = [video[place, top : top + h, left : left + w] for video in videos]
    return np.concatenate([part for crop in crops for part in (crop, gap)][:-1], 1)
