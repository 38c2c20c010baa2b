"""The gate: an adaptation is kept where frames that it never saw say that it helps, and is thrown away elsewhere.

Two measures, neither of which needs the truth. *Below*: frames are made small once more, by the blur that the clip is
taken to have, and restored; what they were is the truth one scale below (in time, every second frame is made, or the
halves of an exposure). Its sign is that of the true gain wherever this is more than a few hundredths of a dB, but for
networks that went a little astray, since frames so small are unlike those that it will be used on. *Again*: restored
frames, made small again, should be the input. That alone says little, as networks are trained to the truth and not to
it: it fell by up to 2 dB where the truth gained a little. But it falls by dBs where a network goes astray. So below
must rise, and again must not fall by more than 1 dB. Steadiness in time was not taken, as it rewards blur.

What no such measure sees is a wrong blur: pairs and verdict share it, and frames sharper than the truth pass for better
ones. An estimated blur is judged under another estimate, of the frames kept out, which differs where the estimate is
unsure, but errs alike where what the clip shows has a direction of its own: it was seen to keep a loss of 1 dB. So a
blur should be estimated only where the clip is known to have one.
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
from ..data import Flow, seen_frames, true_places, wanted_frames
from ..networks.base import Network
from ..trainer import made_frames
from .blur_estimation import estimate_kernel
from .coarse_to_fine import upscale_time
from .protocol import Adapted, Budget, Method, OnStep, diverged
from .pseudo import Degrade, bicubic, blurring
from .restore import enlargement, pad_frames, restored_frames, window_inputs

_LUMA = (0.299, 0.587, 0.114)  # BT.601
_HELD = 0.25  # of a clip's frames are kept out at most
_JUDGED = 8  # frames or windows of those, at most
_AGAIN, _AGAIN_PX = 3, 128  # frames that are restored at their own scale, and how much of their middle
_TOLERATED_DB = 1.0  # that *again* may fall by
_FLAT = 2 / 255  # standard deviation over a frame; less is a flat one, with noise
_MOST_DB = 100.0  # of frames that are given back unchanged


@dataclass(frozen=True)
class Consistency:
    """How well a network agrees with frames that it was not adapted to: luma PSNR in dB, see above."""

    below_db: float
    again_db: float | None = None  # None where the network does not enlarge

    def exceeds(self, other: "Consistency") -> bool:
        """Whether this is better, which what is no number never is."""
        fell = 0.0 if self.again_db is None or other.again_db is None else other.again_db - self.again_db
        return self.below_db > other.below_db and fell <= _TOLERATED_DB


Measure = Callable[[Network, Tensor], Consistency]  # (a network, frames (N, 3, h, w) in [0, 1])


@dataclass(frozen=True)
class Verdict:
    """What a guarded adaptation came to; where it is not ``kept``, the original weights serve."""

    kept: bool
    reason: str  # one sentence
    seconds: float  # of adaptation, or until it failed; judging is not counted
    before: Consistency | None = None  # on the frames kept out
    after: Consistency | None = None
    adapted: Adapted | None = None  # where a run came to its end, kept or not

    @property
    def gain_db(self) -> float | None:
        """What was gained one scale below."""
        return None if self.before is None or self.after is None else self.after.below_db - self.before.below_db

    def record(self) -> dict[str, Any]:
        """All of it but weights and the losses between, as JSON takes it."""
        told: dict[str, Any] = {"kept": self.kept, "reason": self.reason, "seconds": round(self.seconds, 3)}
        for name, found in (("before", self.before), ("after", self.after)):
            if found is not None:
                told[name] = {key: round(db, 4) for key, db in asdict(found).items() if db is not None}
        if self.gain_db is not None:
            told["gain_db"] = round(self.gain_db, 4)
        if self.adapted is not None:
            run = self.adapted.record
            told |= {"method": run.method, "steps": run.steps, **run.details}
            told |= {"first_loss": run.losses[0], "last_loss": run.losses[-1]} if run.losses else {}
        return told


def guarded(
    method: Method,
    network: Network,
    frames: Tensor,
    budget: Budget,
    seed: int = 0,
    on_step: OnStep | None = None,
    measure: Measure | None = None,
) -> Verdict:
    """Adapt a network to a scene (N, 3, h, w) in [0, 1], and judge it on the frames at its end, which it never sees.

    Without a ``measure`` it is `self_consistency` with the method's flow and under its blur, and where it estimates
    that from the clip, under another estimate of the frames kept out. A clip too short, too small, flat or black, a run
    that diverges and memory that does not suffice are verdicts, not errors. The network is left as it was.
    """
    network = copy.deepcopy(network).eval()
    clock = budget.start()
    before: Consistency | None = None
    try:
        seen, held = kept_out(network, frames)
        measure = measure or self_consistency(_blur(method, network, held), getattr(method, "flow", None))
        before = measure(network, held)
        clock = budget.start()
        adapted = method.adapt(network, seen, budget, seed, on_step)
        seconds = clock.seconds
        if reason := diverged(adapted.record.losses) or _not_numbers(adapted):
            return Verdict(False, f"The adaptation went astray, as {reason}.", seconds, before, None, adapted)
        after = measure(_with(network, adapted), held)
    except AdaptationError as error:
        reason = str(error).rstrip(".")
        return Verdict(False, f"{reason[:1].upper()}{reason[1:]}.", clock.seconds, before)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        reason = "The memory does not hold an adaptation to this clip: take smaller patches or batches."
        return Verdict(False, reason, clock.seconds, before)
    change = f"from {before.below_db:.2f} to {after.below_db:.2f} dB on frames that were kept out"
    if after.exceeds(before):
        return Verdict(True, f"Self-consistency rose {change}.", seconds, before, after, adapted)
    if after.below_db > before.below_db:
        reason = (
            f"Restored frames agree with the input {before.again_db:.2f} dB before and {after.again_db:.2f} dB after."
        )
    else:
        reason = f"Self-consistency did not rise ({change})."
    return Verdict(False, reason, seconds, before, after, adapted)


def _blur(method: Method, network: Network, held: Tensor) -> Degrade:
    """A method's blur, which is its ``degrade`` or its ``kernel``; estimated, as it does itself, where that is None."""
    if getattr(method, "degrade", None) is not None:
        return method.degrade  # type: ignore[attr-defined]
    if not (hasattr(method, "degrade") or hasattr(method, "kernel")) or not _enlarges(network):
        return bicubic
    kernel = getattr(method, "kernel", None)
    return blurring(estimate_kernel(held, enlargement(network)) if kernel is None else kernel)


def _enlarges(network: Network) -> bool:
    return not isinstance(network.space, FixedFactors) or network.space.factors[0] > 1


def kept_out(network: Network, frames: Tensor) -> tuple[Tensor, Tensor]:
    """A scene's frames (N, 3, h, w) as those to adapt to, and those at its end to judge by, a quarter at most.

    Raises ``AdaptationError`` for a scene that is too short for both, or that shows nothing.
    """
    window, length = network.window, len(_places(network))
    if window.kind == "sliding":
        length, least = window.frames, 1
    else:
        least = length
    held = max(least, min(int(len(frames) * _HELD), window.frames + _JUDGED))
    if len(frames) - held < length:
        raise AdaptationError(
            f"The scene has {len(frames)} frames, and {type(network).__name__} takes {length} to learn from and {held}"
            " to be judged by: adapt to a longer one."
        )
    if float(frames.flatten(2).std(2).max()) < _FLAT:
        raise AdaptationError("The scene is flat or black, and there is nothing in it to learn from.")
    return frames[:-held], frames[-held:]


def self_consistency(degrade: Degrade = bicubic, flow: Flow | None = None) -> Measure:
    """Both measures, under a blur; ``flow`` is for networks that take it.

    They raise ``AdaptationError`` for frames that are too few or too small.
    """

    def measure(network: Network, frames: Tensor) -> Consistency:
        scale = enlargement(network) if _enlarges(network) else 1
        h, w = (n - n % scale for n in frames.shape[-2:])
        if min(h, w) // scale < 2:
            raise AdaptationError(f"Frames of {w}x{h} are too small to be made {scale} times smaller: do not adapt.")
        pairs = _sliding if network.window.kind == "sliding" else _runs
        below = _mean_db(pairs(network, frames[..., :h, :w], scale, degrade, flow))
        return Consistency(below, _mean_db(_again(network, frames, scale, degrade, flow)) if scale > 1 else None)

    return measure


def _again(
    network: Network, frames: Tensor, scale: int, degrade: Degrade, flow: Flow | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Frames in the middle, restored and made small again, with what they were: each (3, h, w)."""
    top, left = (max(0, (n - _AGAIN_PX) // 2) for n in frames.shape[-2:])
    frames = frames[..., top : top + _AGAIN_PX, left : left + _AGAIN_PX]
    first = max(0, (len(frames) - _AGAIN) // 2)
    places = range(first, min(len(frames), first + _AGAIN))
    for place, made in zip(places, restored_frames(network, frames, places, flow), strict=True):
        yield degrade(made[None], scale)[0], frames[place]


def _sliding(
    network: Network, true: Tensor, scale: int, degrade: Degrade, flow: Flow | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Frames that a network restores in the middle of their windows, with the truth: each (3, h, w)."""
    small = degrade(true, scale).clamp(0, 1)
    first = max(0, (len(true) - _JUDGED) // 2)  # those in the middle have their neighbours
    places = range(first, min(len(true), first + _JUDGED))
    yield from zip(restored_frames(network, small, places, flow), true[first:], strict=False)


@torch.no_grad()
def _runs(
    network: Network, true: Tensor, scale: int, degrade: Degrade, flow: Flow | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Frames that a network makes of every second one, or of exposures twice as long, with the truth."""
    window: Any = network.window
    places = _places(network)
    if len(true) < len(places):
        raise AdaptationError(
            f"{len(true)} frames are too few to judge {type(network).__name__}, which takes {len(places)}."
        )
    for first in range(0, len(true) - len(places) + 1, len(places) - 1)[: _JUDGED // 2]:
        some: Any = true[first : first + len(places)]
        shown: Any = seen_frames(window, some)
        small = pad_frames(network, degrade(shown, scale).clamp(0, 1) if scale > 1 else shown)
        small = small.to(next(network.parameters()))
        if window.kind == "doubled":
            halves = (half.to(some) for half in upscale_time(network, small, 2))
            yield from zip(halves, wanted_frames(window, some), strict=True)
            continue
        time = torch.tensor([0.0, 0.5]) if window.kind == "pair" else torch.tensor(0.5)
        size = [scale * n for n in small.shape[-2:]]
        made = made_frames(network, window_inputs(network, small, flow, time), size)[0]
        made = made[..., : some.shape[-2], : some.shape[-1]].clamp(0, 1).to(some)
        yield from zip(made, wanted_frames(window, some), strict=False)


def _places(network: Network) -> list[int]:
    """The neighbours that a run is judged by; of a doubled sequence, which may have any number, four exposures'."""
    return list(range(8)) if network.window.kind == "doubled" else true_places(network.window, 2, 1)


def _mean_db(pairs: Iterator[tuple[Tensor, Tensor]]) -> float:
    """The mean over frames."""
    found = [_luma_db(made, true) for made, true in pairs]
    return sum(found) / len(found)


def _luma_db(made: Tensor, true: Tensor) -> float:
    """PSNR of luma in [0, 1] of frames (3, h, w)."""
    weights = torch.tensor(_LUMA).to(true)
    error = float(torch.einsum("c,chw->hw", weights, made - true).square().mean())
    return min(_MOST_DB, -10 * math.log10(error)) if error > 0 else _MOST_DB


def _with(network: Network, adapted: Adapted) -> Network:
    """The network with other weights, as another one."""
    other = copy.deepcopy(network)
    other.load_state_dict(adapted.weights)
    return other


def _not_numbers(adapted: Adapted) -> str | None:
    """Why weights cannot serve, or None."""
    wrong = [name for name, value in adapted.weights.items() if not value.isfinite().all()]
    return f"{wrong[0]} holds what is no number: take a lower learning rate" if wrong else None


def _out_of_memory(error: BaseException) -> bool:
    """Whether an error says so, on the CPU or a GPU; PyTorch's allocator on the CPU has no exception of its own."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))
