"""The picture of an adaptation: before, after, the truth, and two blur kernels: the estimated and the true one."""

import argparse
import copy
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from stvsr.engine.contract.bundle import find_bundle
from stvsr.engine.pipeline.flow import picture_flow
from stvsr.export.adapter import BundleAdapter, Options
from stvsr.training.adapt.restore import restored_frames
from stvsr.training.clips import find_clips
from torch import Tensor

from ..media import write_png
from .automatic import INPUTS, cut_to_even
from .temporal import GAP_PX, crops_side_by_side, error_of
from .trials import WHOLE, Lines, degraded, middle_crop, to_pictures

PICTURE = "adaptation_blur.png"
_ENLARGED = 2  # times, so that pixels can be seen
_SHOWN_PX = 16  # side of the middle of a kernel, in large pixels


def picture(lines: Lines, options: argparse.Namespace) -> None:
    """Draw the first clip that is given, under the first input, to `OUT/adaptation_blur.png`, where most was gained.

    Exits with a message if the input is not blurred, no blur is learned, or the adaptation is not kept.
    """
    kernel = INPUTS[options.inputs[0]].degradation.kernel
    if kernel is None:
        sys.exit(f"the input {options.inputs[0]} has no blur: name one with --inputs")
    clip = find_clips(options.val)[0]
    true = cut_to_even(middle_crop(clip, options.cache, options.frames, options.auto_size or WHOLE))
    frames = degraded(true, INPUTS[options.inputs[0]].degradation.degrader())
    adapter = BundleAdapter([find_bundle(options.bundle)], Options(seed=options.seed))
    decision = adapter.decide([frames.numpy()])
    if decision is None or decision.degradation is None or decision.degradation.kernel is None:
        sys.exit(f"no blur is learned from {clip.name}")
    with tempfile.TemporaryDirectory() as folder:
        _, verdict = adapter.adapt(frames.numpy(), Path(folder) / "bundle", decision=decision)
    if not verdict.kept or verdict.adapted is None:
        sys.exit(f"the adaptation to {clip.name} was not kept: {verdict.reason}")
    network = copy.deepcopy(adapter.network)
    network.load_state_dict(verdict.adapted.weights)
    before, after = (
        to_pictures(restored_frames(net, frames, range(len(frames)), picture_flow))
        for net in (adapter.network, network)
    )
    row = crops_side_by_side([before, after, true], error_of(before, true) - error_of(after, true))
    drawn = beside(row, [decision.degradation.kernel, kernel])
    write_png(lines.folder / PICTURE, drawn.repeat(_ENLARGED, 0).repeat(_ENLARGED, 1))


def beside(row: NDArray[np.uint8], kernels: list[Tensor]) -> NDArray[np.uint8]:
    """Return pictures in a row, (H, W, 3), with kernels, (side, side), one below the other to their right."""
    height = row.shape[0]
    side = (height - GAP_PX) // 2
    column = np.full((height, side, 3), 255, np.uint8)
    for top, kernel in zip((0, height - side), kernels, strict=True):
        column[top : top + side] = kernel_picture(kernel, side)
    return np.concatenate([row, np.full((height, GAP_PX, 3), 255, np.uint8), column], 1)


def kernel_picture(kernel: Tensor, side: int) -> NDArray[np.uint8]:
    """Return the middle of a kernel as squares in a picture, (side, side, 3); its largest weight is white."""
    margin = (kernel.shape[0] - _SHOWN_PX) // 2
    shown = kernel[margin : margin + _SHOWN_PX, margin : margin + _SHOWN_PX] / kernel.max()
    large = torch.nn.functional.interpolate(shown[None, None], (side, side), mode="nearest")[0, 0]
    grey: NDArray[np.uint8] = (large.clamp(0, 1) * 255).round().byte().numpy()
    return np.repeat(grey[..., None], 3, 2)
