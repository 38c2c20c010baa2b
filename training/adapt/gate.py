"""The gate: keep an adaptation only if frames that it did not learn from show that it helps.

Two measures, neither of which needs the ground truth:

- *Below*: frames are shrunk once more, by the blur that the clip is assumed to have, and restored; the frames
  themselves are the truth one scale below. (In time, every second frame or the halves of an exposure are generated.)
  The sign of its change is that of the true gain wherever this is more than a few hundredths of a dB, except for
  networks that diverged a little, since frames so small are unlike those that the network will run on.
- *Again*: restored frames, shrunk again, should equal the input. That alone says little, as networks are trained
  towards the truth and not towards this: it fell by up to 2 dB where the truth gained a little. But it falls by several
  dB where a network diverges.

So *below* must rise, and *again* must not fall by more than 1 dB. Steadiness in time is not measured, as it rewards
blur.

No such measure detects a wrong blur: training pairs and verdict share it, and frames sharper than the truth score as
better ones. An estimated blur is judged under another estimate, from the held-out frames. The two differ where the
estimate is unsure, but have the same error where the content has a direction of its own: the gate was observed to keep
a loss of 1 dB. So a blur should be estimated only if the clip is known to be blurred.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ...engine.contract.errors import AdaptationError
from ...engine.contract.manifest import FixedFactors
from ..data import Flow, input_frames, target_frames, truth_offsets
from ..inference import run_network
from ..networks.base import Network
from .blur_estimation import estimate_kernel
from .coarse_to_fine import upscale_time
from .protocol import Adapted, Budget, Method, OnStep, divergence
from .pseudo import Degrade, bicubic, blurring
from .restore import pad_frames, restored_frames, upscale_factor, window_inputs

_LUMA = (0.299, 0.587, 0.114)  # BT.601
_HELD_OUT_SHARE = 0.25  # of a clip's frames, at most
_MAX_JUDGED = 8  # held-out frames or windows that are judged, at most
_AGAIN_FRAMES, _AGAIN_PX = 3, 128  # frames that are restored at their own scale, and the side of the crop of each
_TOLERATED_DB = 1.0  # fall of *again*
_FLAT = 2 / 255  # standard deviation over a frame; a flat frame with noise has less
_MAX_DB = 100.0  # PSNR of identical frames


@dataclass(frozen=True)
class Consistency:
    """The agreement of a network with held-out frames: luma PSNR in dB of both measures of this module."""

    below_db: float
    again_db: float | None = None  # None if the network does not enlarge

    def exceeds(self, other: "Consistency") -> bool:
        """Return whether this is better than `other`; NaN is never better."""
        fall = 0.0 if self.again_db is None or other.again_db is None else other.again_db - self.again_db
        return self.below_db > other.below_db and fall <= _TOLERATED_DB


Measure = Callable[[Network, Tensor], Consistency]  # (a network, frames (N, 3, h, w) in [0, 1])


@dataclass(frozen=True)
class Verdict:
    """The outcome of a guarded adaptation; unless it is `kept`, the original weights stay in use."""

    kept: bool
    reason: str  # one sentence
    seconds: float  # of adaptation, or until it failed; judging is not counted
    before: Consistency | None = None  # on the held-out frames
    after: Consistency | None = None
    adapted: Adapted | None = None  # if the run was completed, kept or not

    @property
    def gain_db(self) -> float | None:
        """The gain one scale below, in dB."""
        return None if self.before is None or self.after is None else self.after.below_db - self.before.below_db

    def record(self) -> dict[str, Any]:
        """Return the verdict as JSON values, without the weights and with the first and the last loss only."""
        record: dict[str, Any] = {"kept": self.kept, "reason": self.reason, "seconds": round(self.seconds, 3)}
        for name, consistency in (("before", self.before), ("after", self.after)):
            if consistency is not None:
                record[name] = {key: round(db, 4) for key, db in asdict(consistency).items() if db is not None}
        if self.gain_db is not None:
            record["gain_db"] = round(self.gain_db, 4)
        if self.adapted is not None:
            run = self.adapted.record
            record |= {"method": run.method, "steps": run.steps, **run.details}
            record |= {"first_loss": run.losses[0], "last_loss": run.losses[-1]} if run.losses else {}
        return record


def adapt_guarded(
    method: Method,
    network: Network,
    frames: Tensor,
    budget: Budget,
    seed: int = 0,
    on_step: OnStep | None = None,
    measure: Measure | None = None,
) -> Verdict:
    """Adapt a network to a scene, and judge it on the frames at the scene's end, which it does not learn from.

    `frames` is (N, 3, h, w) in [0, 1]. `measure` defaults to `self_consistency` with the method's flow and blur; if the
    method estimates the blur from the clip, the measure estimates another one from the held-out frames. A clip that is
    too short, too small, flat or black, a run that diverges, and memory that does not suffice are verdicts, not errors.
    The given network is not changed.
    """
    network = copy.deepcopy(network).eval()
    clock = budget.start()
    before: Consistency | None = None
    try:
        learned, held_out = split_scene(network, frames)
        measure = measure or self_consistency(_assumed_blur(method, network, held_out), getattr(method, "flow", None))
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
    change = f"from {before.below_db:.2f} to {after.below_db:.2f} dB on held-out frames"
    if after.exceeds(before):
        return Verdict(True, f"Self-consistency rose {change}.", seconds, before, after, adapted)
    if after.below_db > before.below_db:
        reason = (
            f"Restored frames, shrunk again, agreed with the input by {before.again_db:.2f} dB before and by"
            f" {after.again_db:.2f} dB after."
        )
    else:
        reason = f"Self-consistency did not rise ({change})."
    return Verdict(False, reason, seconds, before, after, adapted)


def _assumed_blur(method: Method, network: Network, held_out: Tensor) -> Degrade:
    """Return the `degrade` or `kernel` of a method, estimated from the held-out frames if the method estimates it."""
    if getattr(method, "degrade", None) is not None:
        return method.degrade  # type: ignore[attr-defined]
    if not (hasattr(method, "degrade") or hasattr(method, "kernel")) or not _enlarges(network):
        return bicubic
    kernel = getattr(method, "kernel", None)
    return blurring(estimate_kernel(held_out, upscale_factor(network)) if kernel is None else kernel)


def _enlarges(network: Network) -> bool:
    return not isinstance(network.space, FixedFactors) or network.space.factors[0] > 1


def split_scene(network: Network, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Split a scene, (N, 3, h, w), into the frames to learn from and those at its end to judge by.

    The latter are a quarter at most, unless the network needs more to be judged. Raises AdaptationError if the scene is
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


def self_consistency(degrade: Degrade = bicubic, flow: Flow | None = None) -> Measure:
    """Return the function that computes both measures under a blur; `flow` is for networks that take it.

    The function raises AdaptationError if its frames are too few or too small.
    """

    def measure(network: Network, frames: Tensor) -> Consistency:
        scale = upscale_factor(network) if _enlarges(network) else 1
        h, w = (n - n % scale for n in frames.shape[-2:])
        if min(h, w) // scale < 2:
            raise AdaptationError(
                f"Frames of {w}x{h} pixels are too small to be shrunk {scale} times: adapt to a larger clip."
            )
        pairs = _sliding_pairs if network.window.kind == "sliding" else _run_pairs
        below = _mean_db(pairs(network, frames[..., :h, :w], scale, degrade, flow))
        return Consistency(below, _mean_db(_again_pairs(network, frames, scale, degrade, flow)) if scale > 1 else None)

    return measure


def _again_pairs(
    network: Network, frames: Tensor, scale: int, degrade: Degrade, flow: Flow | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield centre crops of middle frames, restored and shrunk again, with the input: each (3, h, w)."""
    top, left = (max(0, (n - _AGAIN_PX) // 2) for n in frames.shape[-2:])
    frames = frames[..., top : top + _AGAIN_PX, left : left + _AGAIN_PX]
    first = max(0, (len(frames) - _AGAIN_FRAMES) // 2)
    indices = range(first, min(len(frames), first + _AGAIN_FRAMES))
    for index, restored in zip(indices, restored_frames(network, frames, indices, flow), strict=True):
        yield degrade(restored[None], scale)[0], frames[index]


def _sliding_pairs(
    network: Network, true: Tensor, scale: int, degrade: Degrade, flow: Flow | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield frames that a network restores in the middle of their windows, with the truth: each (3, h, w)."""
    small = degrade(true, scale).clamp(0, 1)
    first = max(0, (len(true) - _MAX_JUDGED) // 2)  # the middle frames have their neighbours
    indices = range(first, min(len(true), first + _MAX_JUDGED))
    yield from zip(restored_frames(network, small, indices, flow), true[first:], strict=False)


@torch.no_grad()
def _run_pairs(
    network: Network, true: Tensor, scale: int, degrade: Degrade, flow: Flow | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield frames that a network generates from every second frame, or from doubled exposures, with the truth."""
    window: Any = network.window
    length = _judged_length(network)
    if len(true) < length:
        raise AdaptationError(
            f"{len(true)} held-out frames are too few to judge {type(network).__name__}, which takes {length}: adapt to"
            " a longer scene."
        )
    for first in range(0, len(true) - length + 1, length - 1)[: _MAX_JUDGED // 2]:
        targets: Any = true[first : first + length]
        inputs: Any = input_frames(window, targets)
        small = pad_frames(network, degrade(inputs, scale).clamp(0, 1) if scale > 1 else inputs)
        small = small.to(next(network.parameters()))
        if window.kind == "doubled":
            halves = (half.to(targets) for half in upscale_time(network, small, 2))
            yield from zip(halves, target_frames(window, targets), strict=True)
            continue
        time = torch.tensor([0.0, 0.5]) if window.kind == "pair" else torch.tensor(0.5)
        size = [scale * n for n in small.shape[-2:]]
        outputs = run_network(network, window_inputs(network, small, flow, time), size)[0]
        outputs = outputs[..., : targets.shape[-2], : targets.shape[-1]].clamp(0, 1).to(targets)
        yield from zip(outputs, target_frames(window, targets), strict=False)


def _judged_length(network: Network) -> int:
    """Return how many frames a run of judging takes; a doubled sequence may have any length, here four exposures."""
    return 8 if network.window.kind == "doubled" else len(truth_offsets(network.window, 2, 1))


def _mean_db(pairs: Iterator[tuple[Tensor, Tensor]]) -> float:
    values = [_luma_db(actual, true) for actual, true in pairs]
    return sum(values) / len(values)


def _luma_db(actual: Tensor, true: Tensor) -> float:
    """Return the PSNR in dB of luma in [0, 1] of frames (3, h, w)."""
    weights = torch.tensor(_LUMA).to(true)
    error = float(torch.einsum("c,chw->hw", weights, actual - true).square().mean())
    return min(_MAX_DB, -10 * math.log10(error)) if error > 0 else _MAX_DB


def _with_weights(network: Network, adapted: Adapted) -> Network:
    """Return a copy of the network with the adapted weights."""
    other = copy.deepcopy(network)
    other.load_state_dict(adapted.weights)
    return other


def _non_finite(adapted: Adapted) -> str | None:
    """Return a sentence that names a weight that is not finite, or None."""
    names = [name for name, value in adapted.weights.items() if not value.isfinite().all()]
    if not names:
        return None
    return f"The adaptation diverged, as {names[0]} has values that are not finite: take a lower learning rate."


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports a lack of memory; PyTorch's CPU allocator has no exception type of its own."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))
