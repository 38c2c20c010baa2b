"""Bundles judged on clips for `evaluate`: the degradation that suits all, the scores of each, and their differences."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.contract.errors import RequestError, StvsrError

if TYPE_CHECKING:
    import numpy as np

    from ..engine.backends.options import Backend
    from ..engine.contract.bundle import Bundle
    from ..engine.contract.further_metrics import FurtherMetric
    from ..engine.pipeline.inference import Inference
    from ..training.evaluation import OnFrames, Protocol, UpscaleClip

_TRIAL_PX = 64  # side of the frames for which a bundle is asked what it can do


@dataclass(frozen=True)
class Judged:
    """The scores of bundles and chains by name, and the errors of those that no clip could judge."""

    scores: dict[str, dict[str, Any]]
    failed: dict[str, StvsrError]
    first: str  # from whose scores the differences are
    differences: dict[str, dict[str, Any]]

    def record(self) -> dict[str, Any]:
        """Return the scores of one, or of all with their differences and errors, as JSON has them."""
        if len(self.scores) + len(self.failed) == 1:
            return next(iter(self.scores.values()))
        return {
            "evaluations": list(self.scores.values()),
            "differences": {"from": self.first, "of": self.differences},
            "errors": {name: str(error) for name, error in self.failed.items()},
        }

    def errors(self) -> list[str]:
        """Return a sentence for each bundle and each clip that failed."""
        sentences = [f"{name}: {error}" for name, error in self.failed.items()]
        sentences += [f"{clip}: {error}" for one in self.scores.values() for clip, error in one["errors"].items()]
        return list(dict.fromkeys(sentences))


def judge(
    bundles: "Mapping[str, tuple[Bundle, ...]]",
    clips: Sequence[Path],
    protocol: "Protocol",
    backend: "Backend",
    inference: "Inference",
    metrics: "Sequence[FurtherMetric]",
    on_clip: Callable[[str, Path], None],
    on_frame: Callable[[], None],
    on_frames: "OnFrames | None" = None,
) -> Judged:
    """Return the scores of bundles and chains, one after another, on all clips.

    One that fails on every clip leaves the others. Raises its error (StvsrError) if all of them do. `on_clip` is called
    with the name of a bundle and a clip before each; `on_frame` and `on_frames` as `training.evaluation.evaluate` does.
    """
    from ..training.evaluation import differences, evaluate

    scores: dict[str, dict[str, Any]] = {}
    failed: dict[str, StvsrError] = {}
    for name, one in bundles.items():
        used = Used()
        upscale = upscale_clip(one, backend, inference, used)
        try:
            judged = evaluate(clips, upscale, protocol, partial(on_clip, name), on_frame, on_frames, metrics)
        except StvsrError as error:  # of every clip
            failed[name] = error
            continue
        graphs = {b.manifest.name: {graph.role: graph.sha256 for graph in b.manifest.graphs} for b in one}
        scores[name] = {
            "bundle": name,
            "graphs_sha256": graphs,
            "preset": inference.preset,
            **used.facts(),
            **judged,
        }
    if failed and not scores:
        raise next(iter(failed.values()))
    first, *others = bundles
    compared = [name for name in others if first in scores and name in scores]
    over_first = {name: differences(scores[name]["clips"], scores[first]["clips"]) for name in compared}
    return Judged(scores, failed, first, over_first)


def common_protocol(
    bundles: "Sequence[tuple[Bundle, ...]]", scale: int | None, factor: int | None, crf: int | None
) -> "Protocol":
    """Return the degradation by which all bundles are judged: with the first default factors that all of them have.

    Raises RequestError if there are none.
    """
    from ..engine.pipeline.plan import abilities, default_factor, default_scale, plan_passes
    from ..training.evaluation import Protocol

    exposures = {any(b.manifest.window.kind == "doubled" for b in one) for one in bundles}
    if len(exposures) > 1:
        raise RequestError(
            "Some of these bundles take frames that are means over time, as slower cameras record them, and others do"
            " not, so that one clip cannot judge both: evaluate them apart."
        )
    scales = [scale] if scale is not None else list(dict.fromkeys(round(default_scale(one)) for one in bundles))
    factors = [factor] if factor is not None else list(dict.fromkeys(default_factor(one) for one in bundles))
    exposure = exposures.pop()

    def serves(one: "tuple[Bundle, ...]", protocol: "Protocol") -> bool:
        side = _TRIAL_PX * protocol.scale
        try:
            plan_passes(one, (_TRIAL_PX, _TRIAL_PX), (side, side), protocol.factor)
        except RequestError:
            return False
        return True

    protocols = [Protocol(s, f, exposure, crf) for s, f in product(scales, factors)]
    if len(bundles) == 1:
        return protocols[0]
    for protocol in protocols:
        if all(serves(one, protocol) for one in bundles):
            return protocol
    able = "; ".join(dict.fromkeys(abilities(bundle) for one in bundles for bundle in one))
    raise RequestError(
        f"These bundles cannot be judged together ({able}): choose a scale (-s) and a time factor (-t) that all of them"
        " have, or evaluate them apart."
    )


@dataclass
class Used:
    """The devices and precisions that an evaluation has used."""

    devices: set[str] = field(default_factory=set)
    backends: set[str] = field(default_factory=set)
    precisions: set[str] = field(default_factory=set)

    def facts(self) -> dict[str, str]:
        """Return them as text."""
        named = {"device": self.devices, "backend": self.backends, "precision": self.precisions}
        return {name: ", ".join(sorted(values)) for name, values in named.items()}


def upscale_clip(
    bundles: "tuple[Bundle, ...]", backend: "Backend", inference: "Inference", used: Used
) -> "UpscaleClip":
    """Return the function that evaluation judges; it adds its device and precision to `used`."""
    from ..engine.contract.picture import to_float
    from ..engine.contract.windows import one_scene
    from ..engine.pipeline.chain import Chain
    from ..engine.pipeline.plan import plan_passes

    def upscale(frames: "Iterable[np.ndarray]", factor: int, size: tuple[int, int]) -> "Iterator[np.ndarray]":
        first = next(stream := iter(frames))
        passes = plan_passes(bundles, first.shape[1:], size, factor)
        times = tuple(Fraction(part, factor) for part in range(factor))
        with Chain(passes, backend, inference) as opened:
            used.devices.add(opened.device)
            used.backends.add(opened.backend)
            for frame in opened.frames(one_scene(chain([first], stream), times)):
                yield to_float(frame)
            used.precisions.add(opened.precision)  # which may change on the way

    return upscale
