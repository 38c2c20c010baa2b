"""Zero-shot temporal super-resolution compared with cubic interpolation, on frames averaged in pairs.

Each is measured with and without back-projection in time, by which the means of neighbours equal the input. For the
clip with the largest motion, `zero_shot` draws the same instant by each method.
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
from stvsr.training.adapt.coarse_to_fine import coarse_by_motion, double_rate, upscale_time
from stvsr.training.adapt.protocol import Budget
from stvsr.training.adapt.video_resize import back_project_time, expose, resize_space
from stvsr.training.adapt.zeroshot import ZeroShot
from stvsr.training.clips import find_clips
from stvsr.training.networks.dtsr import DeepTemporalSR
from stvsr.training.networks.ops import upsample_cubic
from stvsr.training.networks.registry import find_network
from torch import Tensor

from ..media import write_png
from .trials import Figures, Lines, middle_crop, motion_px, round_to_8_bits, scores, to_pictures, to_planes

METHODS = ("cubic", "cubic, back-projected", "zero-shot", "zero-shot, back-projected")
PICTURE = "adaptation_zero-shot.png"
_TILE_PX = 160
_CROP_PX, GAP_PX = (128, 160), 6


def zero_shot(lines: Lines, options: argparse.Namespace) -> None:
    """Measure a line for each clip, and draw a picture of the clip with the largest motion."""
    clips = find_clips(options.val)[: options.clips]
    fastest = max(clips, key=lambda clip: motion_px(_true(clip, options)))
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
        picture = lines.folder / PICTURE if clip == fastest else None
        lines.measure_once("zero-shot", trial, partial(_clip, clip, picture, options))


def _true(clip: Path, options: argparse.Namespace) -> NDArray[np.uint8]:
    true = middle_crop(clip, options.cache, options.zero_frames, options.size)
    return true[: len(true) // 2 * 2]


def _clip(clip: Path, picture: Path | None, options: argparse.Namespace) -> Figures:
    true = _true(clip, options)
    inputs = round_to_8_bits(expose(to_planes(true), 2))
    entry = find_network(options.temporal)
    coarse = options.coarse or coarse_by_motion(inputs, picture_flow)
    network = DeepTemporalSR(replace(entry.config, coarse=coarse))
    adapted = ZeroShot().adapt(network, inputs, Budget(steps=options.zero_steps), options.seed)
    network.load_state_dict(adapted.weights)
    outputs = {name: to_pictures(frames) for name, frames in double_by_each_method(network.eval(), inputs).items()}
    if picture is not None:
        exposed = to_pictures(inputs).repeat(2, 0)
        videos = [exposed, outputs["cubic"], *(outputs[name] for name in METHODS[2:]), true]
        write_png(picture, crops_side_by_side(videos, error_of(outputs["cubic"], true)))
    run = adapted.record
    return {
        "motion_px": round(motion_px(true), 2),
        "coarse": coarse,
        "results": {name: scores(pictures, true) for name, pictures in outputs.items()},
        "seconds": round(run.seconds, 2),
        "first_loss": run.losses[0],
        "last_loss": float(np.mean(run.losses[-20:])),
        "final_rate": run.details["final_rate"],
    }


@torch.no_grad()
def double_by_each_method(network: DeepTemporalSR, exposures: Tensor) -> dict[str, Tensor]:
    """Double the rate of exposures, (T, 3, h, w) in [0, 1], by each of `METHODS`: (2T, 3, h, w), not clamped."""
    h, w = exposures.shape[-2:]
    cubic = upsample_cubic(exposures, 0, 2)
    small = double_rate(network, resize_space(exposures, coarse_size((h, w), network.config.coarse)), _TILE_PX)
    alone = resize_space(small, (h, w))
    projected = torch.stack(list(upscale_time(network, exposures, 2)))
    return dict(zip(METHODS, (cubic, back_project_time(cubic, exposures), alone, projected), strict=True))


def error_of(video: NDArray[np.uint8], true: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean absolute error of each pixel of a video, (N, H, W, 3): (N, H, W)."""
    return np.abs(video.astype(np.float64) - true).mean(3)


def crops_side_by_side(videos: list[NDArray[np.uint8]], interest: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the same crop of the same instant of each video in a row, where the interest, (N, H, W), is largest.

    Videos are (N, H, W, 3). The ends of the clip are left out, as all methods lack neighbours there.
    """
    h, w = (min(n, m) for n, m in zip(videos[0].shape[1:3], _CROP_PX, strict=True))
    margin = len(interest) // 4
    instant = margin + int(interest[margin : len(interest) - margin].mean((1, 2)).argmax())
    sums = np.pad(interest[instant].cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    boxes = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    top, left = np.unravel_index(boxes.argmax(), boxes.shape)
    gap = np.full((h, GAP_PX, 3), 255, np.uint8)
    crops = [video[instant, top : top + h, left : left + w] for video in videos]
    return np.concatenate([part for crop in crops for part in (crop, gap)][:-1], 1)
