"""The gate: keep an adaptation only if frames that it did not learn from show that it helps.

None of its measures needs the ground truth:

- *Below*: frames are degraded once more, as the clip is assumed to have been, and restored; the frames themselves are
  the truth one scale below. (In time, every second frame or the halves of an exposure are generated.) Gains are
  compared in pairs, frame by frame, and must be significant and not just above zero: chance alone gives gains of some
  hundredths of a dB.
- *Plain*: the same under bicubic resizing, if the clip is assumed to be blurred. The measures below share a wrong blur
  with the training, so that the gain that is expected counts: the gain under the blur and the loss without it, each by
  its probability.
- *Again*: restored frames, shrunk again, should equal the input. That alone says little, as networks are trained
  towards the truth and not towards this. But it falls by several dB where a network diverges. Where noise or
  compression is undone it falls as far as these reach, which is allowed.
- *Cleaned*: if the clip is noisy, more noise is added to its frames before they are restored, and what was added is
  taken from the frames that the result, shrunk again, is compared with. The noise of both is then independent, so that
  their distance is that from clean frames, plus a constant: Pang et al., "Recorrupted-to-Recorrupted", CVPR 2021. A
  scale below, where noise is small beside the error of restoring, its removal hardly counts.
- *Looks*: the noise, ringing and fine structure of restored frames at their own scale (`own_scale`), which show frames
  that were sharpened too much, or into which noise was restored.

Steadiness in time is not measured, as it rewards blur.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ...engine.contract.errors import AdaptationError
from ..checkpoints import first_non_finite
from ..data import Flow, input_frames, target_frames, truth_offsets
from ..inference import run_network
from ..networks.base import Network
from .coarse_to_fine import upscale_time
from .degradation import Degradation
from .own_scale import looks_of
from .protocol import Adapted, Budget, Method, OnStep, divergence
from .pseudo import Degrade, bicubic
from .restore import enlarges, pad_frames, restored_frames, upscale_factor, window_inputs
from .sampling import LUMA
from .verdict import Consistency, Verdict, refusal

_HELD_OUT_SHARE = 1 / 3  # of a clip's frames, at most: gains over fewer frames are hardly significant
_MAX_JUDGED = 8  # held-out frames or windows that are judged, at most
_AGAIN_FRAMES, _AGAIN_PX = 3, 128  # frames that are restored at their own scale, and the side of the crop of each
_FLAT = 2 / 255  # standard deviation over a frame; a flat frame with noise has less
_MAX_DB = 100.0  # PSNR of identical frames
_CLEANED_FRAMES, _ADDED = 5, 0.5  # frames to which more noise is added, and how much of what they have
_NOISE_SEED = 17  # of the noise that judged frames get, the same before and after

# A frame of a network, (3, h, w), its truth, and whether its time is between those of the inputs
_Judged = tuple[Tensor, Tensor, bool]
Measure = Callable[[Network, Tensor], Consistency]  # (a network, frames (N, 3, h, w) in [0, 1])


def adapt_guarded(
    method: Method,
    network: Network,
    frames: Tensor,
    budget: Budget,
    seed: int = 0,
    on_step: OnStep | None = None,
    measure: Measure | None = None,
    confidence: float = 1.0,
) -> Verdict:
    """Adapt a network to a scene, and judge it on the frames at the scene's end, which it does not learn from.

    `frames` is (N, 3, h, w) in [0, 1]. `measure` defaults to `self_consistency` under bicubic resizing; `confidence` is
    the probability, 0 to 1, of the degradation that it assumes, rather than bicubic resizing. A clip that is too short,
    too small, flat or black, a run that diverges, and memory that does not suffice are verdicts, not errors. The given
    network is not changed.
    """
    network = copy.deepcopy(network).eval()
    clock = budget.start()
    before: Consistency | None = None
    try:
        learned, held_out = split_scene(network, frames)
        measure = measure or self_consistency(flow=getattr(method, "flow", None))
        before = measure(network, held_out)
        clock = budget.start()
        adapted = method.adapt(network, learned, budget, seed, on_step)
        seconds = clock.seconds
        if reason := divergence(adapted.record.losses) or _non_finite(adapted):
            return Verdict(False, reason, seconds, before, None, adapted)
        after = measure(_with_weights(network, adapted), held_out)
    except AdaptationError as error:
        return Verdict(False, str(error), clock.seconds, before)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = "The memory does not suffice to adapt to this clip: take smaller patches or batches."
        return Verdict(False, reason, clock.seconds, before)
    if (reason := refusal(before, after, confidence)) is None:
        change = f"from {before.below_db:.2f} to {after.below_db:.2f} dB on held-out frames"
        return Verdict(True, f"Self-consistency rose {change}.", seconds, before, after, adapted)
    return Verdict(False, reason, seconds, before, after, adapted)


def split_scene(network: Network, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Split a scene, (N, 3, h, w), into the frames to learn from and those at its end to judge by.

    The latter are a third at most, unless the network needs more to be judged. Raises AdaptationError if the scene is
    too short for both, or flat.
    """
    window, length = network.window, _judged_length(network)
    if window.kind == "sliding":
        length, minimum = window.frames, 1
    else:
        minimum = length
    count = max(minimum, min(int(len(frames) * _HELD_OUT_SHARE), window.frames + _MAX_JUDGED))
    if len(frames) - count < length:
        raise AdaptationError(
            f"The scene has {len(frames)} frames, and {type(network).__name__} needs {length} to learn from and {count}"
            " to be judged by: adapt to a longer scene."
        )
    if float(frames.flatten(2).std(2).max()) < _FLAT:
        raise AdaptationError("The scene is flat or black, so there is nothing to learn: adapt to another scene.")
    return frames[:-count], frames[-count:]


def self_consistency(assumed: Degradation | None = None, flow: Flow | None = None) -> Measure:
    """Return the function that measures a network under a degradation, or under bicubic resizing if it is None.

    `flow` is for networks that take it. The function raises AdaptationError if its frames are too few or too small.
    """
    assumed = assumed or Degradation()

    def measure(network: Network, frames: Tensor) -> Consistency:
        scale = upscale_factor(network) if enlarges(network) else 1
        h, w = (n - n % scale for n in frames.shape[-2:])
        if min(h, w) // scale < 2:
            raise AdaptationError(
                f"Frames of {w}x{h} pixels are too small to be shrunk {scale} times: adapt to a larger clip."
            )
        pairs = _sliding_pairs if network.window.kind == "sliding" else _run_pairs
        cropped = frames[..., :h, :w]
        below, between = _decibels(pairs(network, cropped, scale, assumed.degrader(_NOISE_SEED), flow))
        if scale == 1:
            return Consistency(below, is_between=between)
        plain = _decibels(pairs(network, cropped, scale, bicubic, flow))[0] if assumed.kernel is not None else ()
        restored, inputs = _restored_crops(network, frames, flow)
        again, floor = _agreement(restored, inputs, assumed, scale)
        cleaned = _cleaned(network, frames, assumed, scale, flow) if assumed.noise else ()
        return Consistency(below, plain, again, floor, looks_of(restored, inputs), cleaned, between)

    return measure


def _restored_crops(network: Network, frames: Tensor, flow: Flow | None) -> tuple[Tensor, Tensor]:
    """Return centre crops of middle frames, restored (N, 3, s * h, s * w), and as they are (N, 3, h, w)."""
    frames = _centre(frames)
    first = max(0, (len(frames) - _AGAIN_FRAMES) // 2)
    indices = range(first, min(len(frames), first + _AGAIN_FRAMES))
    return torch.stack(list(restored_frames(network, frames, indices, flow))), frames[indices.start : indices.stop]


def _centre(frames: Tensor) -> Tensor:
    top, left = (max(0, (n - _AGAIN_PX) // 2) for n in frames.shape[-2:])
    return frames[..., top : top + _AGAIN_PX, left : left + _AGAIN_PX]


def _cleaned(
    network: Network, frames: Tensor, assumed: Degradation, scale: int, flow: Flow | None
) -> tuple[float, ...]:
    """Return, for each frame, the squared error of restored frames, shrunk again, from clean ones, without bias.

    In grey levels squared, over centre crops; an estimate may be negative.
    """
    frames = _centre(frames)[:_CLEANED_FRAMES]
    sigma = assumed.noise / 255
    noise = sigma * torch.randn(frames.shape, generator=torch.Generator().manual_seed(_NOISE_SEED)).to(frames)
    noisier, targets = frames + _ADDED * noise, frames - noise / _ADDED
    shrink = assumed.without_losses().degrader()
    constant = sigma**2 * (1 + _ADDED**-2)
    errors = []
    for restored, target in zip(
        restored_frames(network, noisier.clamp(0, 1), range(len(frames)), flow), targets, strict=True
    ):
        error = float((shrink(restored[None], scale)[0] - target).square().mean())
        errors.append((error - constant) * 255**2)
    return tuple(errors)


def _agreement(restored: Tensor, inputs: Tensor, assumed: Degradation, scale: int) -> tuple[float, float | None]:
    """Return the PSNR of restored frames, shrunk again, and that of noise and compression alone, in dB."""
    shrunk = assumed.without_losses().degrader()(restored, scale)
    again = _luma_db(shrunk, inputs)
    if not assumed.noise and assumed.crf is None:
        return again, None
    return again, _luma_db(assumed.degrader(_NOISE_SEED)(restored, scale), shrunk)


def _sliding_pairs(
    network: Network, true: Tensor, scale: int, degrade: Degrade, flow: Flow | None
) -> Iterator[_Judged]:
    """Yield frames that a network restores in the middle of their windows, with the truth."""
    small = degrade(true, scale).clamp(0, 1)
    first = max(0, (len(true) - _MAX_JUDGED) // 2)  # the middle frames have their neighbours
    indices = range(first, min(len(true), first + _MAX_JUDGED))
    for restored, truth in zip(restored_frames(network, small, indices, flow), true[first:], strict=False):
        yield restored, truth, False


@torch.no_grad()
def _run_pairs(network: Network, true: Tensor, scale: int, degrade: Degrade, flow: Flow | None) -> Iterator[_Judged]:
    """Yield frames that a network generates from every second frame, or from doubled exposures, with the truth."""
    window: Any = network.window
    length = _judged_length(network)
    if len(true) < length:
        raise AdaptationError(
            f"{len(true)} held-out frames are too few to judge {type(network).__name__}, which takes {length}: adapt to"
            " a longer scene."
        )
    # Runs overlap: few frames are held out, and each run restores them from others.
    step = length - 1 if window.kind == "doubled" else 1
    starts = range(0, len(true) - length + 1, step)[: _MAX_JUDGED // 2]
    for first in starts:
        targets: Any = true[first : first + length]
        inputs: Any = input_frames(window, targets)
        small = pad_frames(network, degrade(inputs, scale).clamp(0, 1) if scale > 1 else inputs)
        small = small.to(next(network.parameters()))
        if window.kind == "doubled":
            halves = (half.to(targets) for half in upscale_time(network, small, 2))
            for half, truth in zip(halves, target_frames(window, targets), strict=True):
                yield half, truth, False
            continue
        time = torch.tensor([0.0, 0.5, 1.0] if window.kind == "pair" else 0.5)
        size = [scale * n for n in small.shape[-2:]]
        outputs = run_network(network, window_inputs(network, small, flow, time), size)[0]
        outputs = outputs[..., : targets.shape[-2], : targets.shape[-1]].clamp(0, 1).to(targets)
        for index, (output, truth) in enumerate(zip(outputs, targets, strict=False)):
            yield output, truth, index % 2 == 1


def _judged_length(network: Network) -> int:
    """Return how many frames a run of judging takes; a doubled sequence may have any length, here four exposures."""
    return 8 if network.window.kind == "doubled" else len(truth_offsets(network.window, 2, 1))


def _decibels(judged: Iterator[_Judged]) -> tuple[tuple[float, ...], tuple[bool, ...]]:
    """Return the luma PSNR in dB of each frame, and whether its time is between those of the inputs."""
    measured = [(_luma_db(actual, true), is_between) for actual, true, is_between in judged]
    return tuple(db for db, _ in measured), tuple(is_between for _, is_between in measured)


def _luma_db(actual: Tensor, true: Tensor) -> float:
    """Return the PSNR in dB of luma in [0, 1] of frames (..., 3, h, w)."""
    error = float(torch.einsum("c,...chw->...hw", torch.tensor(LUMA).to(true), actual - true).square().mean())
    return min(_MAX_DB, -10 * math.log10(error)) if error > 0 else _MAX_DB


def _with_weights(network: Network, adapted: Adapted) -> Network:
    """Return a copy of the network with the adapted weights."""
    other = copy.deepcopy(network)
    other.load_state_dict(adapted.weights)
    return other


def _non_finite(adapted: Adapted) -> str | None:
    """Return a sentence that names a weight that is not finite, or None."""
    name = first_non_finite(adapted.weights)
    if name is None:
        return None
    return f"The adaptation diverged, as {name} has values that are not finite: take a lower learning rate."


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports a lack of memory; PyTorch's CPU allocator has no exception type of its own."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))
