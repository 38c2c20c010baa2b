"""The analysis of a clip: how it was degraded, how sure that is, and what a network can learn from it.

A network that enlarges was trained on frames that were made small in one way, mostly by bicubic resizing. It gains by
learning from a clip that was blurred, is noisy or was compressed, and hardly from one that was not. So the blur, the
noise and the compression of the clip are estimated, each with a confidence, and only those that are certain become part
of the degradation that is learned. None of them is claimed without need: a wrong one harms more than a missed one.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from ...engine.contract.coding import StreamCoding
from ...engine.contract.errors import AdaptationError, RequestError
from .blur_estimation import BlurEstimate, estimate_blur
from .compression_estimation import CompressionEstimate, estimate_compression, lost_levels
from .degradation import Degradation
from .noise_estimation import NoiseEstimate, estimate_noise

Part = Literal["blur", "noise", "compression"]
AUTO, PLAIN = "auto", "plain"  # choices of the degradation besides its parts
LOSSES: tuple[Part, ...] = ("noise", "compression")  # that degraded training samples have

_SCENES = 4  # that are analysed at most, the longest ones
_BLUR_CONFIDENCE, _BLUR_STRENGTH = 0.98, 0.25  # from which a blur is learned
_NOISE_SIGMA, _NOISE_CONFIDENCE = 1.5, 0.35
_CRF, _CRF_CONFIDENCE = 21.0, 0.6


@dataclass(frozen=True)
class Analysis:
    """The estimates of a clip's degradation; `blur` is None where it cannot be estimated, for the reason `no_blur`."""

    blur: BlurEstimate | None
    noise: NoiseEstimate
    compression: CompressionEstimate
    seconds: float
    no_blur: str = ""

    def certain(self) -> tuple[Part, ...]:
        """Return the parts of the degradation that are certain and strong enough to be learned."""
        parts: list[Part] = []
        if self.blur and self.blur.confidence >= _BLUR_CONFIDENCE and self.blur.strength >= _BLUR_STRENGTH:
            parts.append("blur")
        if self.noise.sigma >= _NOISE_SIGMA and self.noise.confidence >= _NOISE_CONFIDENCE:
            parts.append("noise")
        if self.compression.crf >= _CRF and self.compression.confidence >= _CRF_CONFIDENCE:
            parts.append("compression")
        return tuple(parts)

    def record(self) -> dict[str, Any]:
        """Return the estimates as JSON values."""
        return {
            "blur": self.no_blur if self.blur is None else self.blur.record(),
            "noise": self.noise.record(),
            "compression": self.compression.record(),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Decision:
    """The degradation to learn under, how sure it is, and one sentence that says so.

    `degradation` is None if there is nothing to learn. `confidence` is the probability that the clip was not made small
    by bicubic resizing, 0 to 1; 1 without a blur, as noise and compression are certain.
    """

    degradation: Degradation | None
    confidence: float
    sentence: str
    analysis: Analysis | None = None  # None if the degradation was given

    def record(self) -> dict[str, Any]:
        """Return the decision and what it is based on as JSON values."""
        record: dict[str, Any] = {
            "decision": self.sentence,
            "degradation": None if self.degradation is None else self.degradation.record(),
        }
        return record if self.analysis is None else record | {"analysis": self.analysis.record()}


def analyse(scenes: Sequence[Tensor], factor: int, coding: StreamCoding | None = None) -> Analysis:
    """Analyse a clip by whole frames of one scene or more, each (N, 3, h, w) in [0, 1], and by its stream.

    `factor` is the spatial factor of the network that would learn. A few frames of the longest scenes are looked at.
    """
    began = time.perf_counter()
    scenes = sorted(scenes, key=len, reverse=True)[:_SCENES]
    noise, compression = estimate_noise(scenes), estimate_compression(scenes, coding)
    lost = lost_levels(compression.crf) if compression.crf >= _CRF else 0.0
    blur, no_blur = None, ""
    try:
        blur = estimate_blur(scenes, factor, noise.luma, lost)
    except AdaptationError as error:
        no_blur = str(error)
    return Analysis(blur, noise, compression, time.perf_counter() - began, no_blur)


def decide(
    scenes: Sequence[Tensor],
    factor: int,
    coding: StreamCoding | None = None,
    choice: str = AUTO,
    is_always: bool = False,
    trained: Sequence[Part] = (),
) -> Decision:
    """Decide the degradation to learn under.

    `choice` is "auto", "plain" for bicubic resizing, or parts with a + between, as "blur+noise", which are estimated
    and learned however uncertain they are. With `is_always` a clip without any of them is learned under bicubic
    resizing; otherwise there is nothing to learn from it, as there is not from a clip with nothing but parts that the
    network was `trained` to undo. Raises RequestError for another choice, and AdaptationError
    if a part that was asked for cannot be estimated.
    """
    parts = read_parts(choice)
    if parts == ():
        return Decision(Degradation(), 1.0, "Learned under bicubic resizing, as was asked for.")
    analysis = analyse(scenes, factor, coding)
    if parts is None:
        parts, confidence = analysis.certain(), 1.0 if analysis.blur is None else analysis.blur.confidence
    elif "blur" in parts and analysis.blur is None:
        raise AdaptationError(analysis.no_blur)
    else:
        confidence = 1.0
    if not parts and is_always:
        sentence = f"The clip has {_seen(analysis)}: learned under bicubic resizing."
        return Decision(Degradation(), 1.0, sentence, analysis)
    if not parts:
        return Decision(None, 1.0, f"Nothing to learn: the clip has {_seen(analysis)}.", analysis)
    found = " and ".join(_words(analysis, part) for part in parts)
    if choice == AUTO and not is_always and set(parts) <= set(trained):
        sentence = f"Nothing to learn: the clip has {found}, and the network was trained on such clips."
        return Decision(None, 1.0, sentence, analysis)
    degradation = Degradation(
        analysis.blur.kernel if "blur" in parts and analysis.blur else None,
        analysis.noise.sigma if "noise" in parts else 0.0,
        round(analysis.compression.crf) if "compression" in parts else None,
        factor,
    )
    return Decision(degradation, confidence if "blur" in parts else 1.0, f"The clip has {found}.", analysis)


def read_parts(choice: str) -> tuple[Part, ...] | None:
    """Return the parts of a degradation that a choice names: none for "plain", and None for "auto".

    Raises RequestError for another word.
    """
    if choice == AUTO:
        return None
    if choice == PLAIN:
        return ()
    known: tuple[Part, ...] = get_args(Part)
    words = choice.split("+")
    if unknown := [word for word in words if word not in known]:
        raise RequestError(
            f"Unknown degradation '{unknown[0]}': use {AUTO}, {PLAIN}, or {', '.join(known)} with a + between."
        )
    return tuple(part for part in known if part in words)


def _seen(analysis: Analysis) -> str:
    """Say that a clip is clean, or what is too weak or too uncertain to be learned."""
    weak = []
    if analysis.blur and analysis.blur.confidence > 0.5 and analysis.blur.strength >= _BLUR_STRENGTH:
        weak.append(f"a blur of only {analysis.blur.confidence:.0%} confidence")
    if analysis.compression.crf > 0 and analysis.compression.crf < _CRF:
        weak.append(f"compression as of CRF {analysis.compression.crf:.0f}, which leaves little to undo")
    return " and ".join(weak) if weak else "no blur, noise or compression that stands out"


def _words(analysis: Analysis, part: Part) -> str:
    if part == "noise":
        return f"noise of {analysis.noise.sigma:.1f} grey levels"
    if part == "compression":
        return f"compression as of CRF {analysis.compression.crf:.0f} (by its {analysis.compression.evidence})"
    assert analysis.blur is not None
    record = analysis.blur.record()
    wide, narrow = record["widths_px"]
    return f"a blur of {wide:.1f}x{narrow:.1f} pixels of the large frames ({analysis.blur.confidence:.0%} confidence)"
