"""Adaptation of bundles to a clip: the networks that they hold learn from it, and their weights go back into graphs."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..engine.contract.bundle import Bundle
from ..engine.contract.errors import RequestError
from ..engine.contract.weights import replace_weights
from ..engine.pipeline.flow import picture_flow
from ..engine.pipeline.upscaler import Upscaler
from ..training.adapt.coarse_to_fine import coarse_by_motion
from ..training.adapt.distillation import Distillation
from ..training.adapt.gate import Verdict, guarded
from ..training.adapt.internal import InternalLearning
from ..training.adapt.protocol import Budget, Clock, Method
from ..training.adapt.pseudo import bicubic
from ..training.adapt.selfsupervised import SelfSupervised
from ..training.adapt.zeroshot import ZeroShot
from ..training.networks.adavsr import SpatialModule, TemporalModule
from ..training.networks.base import Network
from ..training.networks.cascade import AdaVSR, weights_of
from ..training.networks.dtsr import DeepTemporalSR
from .bundle_network import network_of, restoring_with, write_adapted

METHODS = (SelfSupervised.name, Distillation.name, InternalLearning().name, ZeroShot.name)
PARTS = ("temporal", "spatial")  # of Ada-VSR, and the folders of its two bundles

OnStep = Callable[[Clock, float], None]


@dataclass(frozen=True)
class Options:
    """How to adapt: what is left out takes the default of the networks that adapt."""

    budget: Budget
    method: str | None = None  # of METHODS
    teacher: Bundle | None = None  # of distillation
    estimate_blur: bool = False  # of self-supervision and distillation; without, frames were made small plainly
    checkpoint: Path | None = None  # of zero-shot learning
    coarse: int | None = None  # of zero-shot learning: how many times smaller its frames are; None: by their motion
    seed: int = 0


class BundleAdapter:
    """Adapts one bundle, or the two of Ada-VSR as one network, to one scene after another.

    Raises RequestError for a method that the bundles do not take.
    """

    def __init__(self, bundles: Sequence[Bundle], options: Options) -> None:
        self.bundles, self._options = tuple(bundles), options
        networks = [network_of(bundle) for bundle in bundles]
        match networks:
            case [TemporalModule() as temporal, SpatialModule() as spatial]:
                self.network: Network = AdaVSR(temporal, spatial)
            case [network]:
                self.network = network
            case _:
                names = "+".join(bundle.manifest.name for bundle in bundles)
                raise RequestError(
                    f"The chain '{names}' does not adapt as one: adapt one of its bundles, or name Ada-VSR's two."
                )
        self.method = options.method or _usual_method(self.network)
        if self.method not in METHODS:
            raise RequestError(f"There is no method '{self.method}': choose one of {', '.join(METHODS)}.")
        if self.method == Distillation.name and options.teacher is None:
            raise RequestError("Distillation takes the results of a larger network: name its bundle with --teacher.")

    def adapt(self, frames: np.ndarray, out: Path, on_step: OnStep | None = None) -> tuple[tuple[Bundle, ...], Verdict]:
        """Adapt to the frames of one scene, (N, 3, h, w) in [0, 1], and write what is kept to new folders.

        One bundle is written to `out`, the two of Ada-VSR to folders in it. Where nothing is kept, nothing is written,
        and the bundles that come back are the original ones.
        """
        clip = torch.from_numpy(np.ascontiguousarray(frames, np.float32))
        with ExitStack() as opened:
            method = self._method(opened)
            network = self._fed(clip)
            verdict = guarded(method, network, clip, self._options.budget, self._options.seed, on_step)
        if not verdict.kept or verdict.adapted is None:
            return self.bundles, verdict
        weights, record = verdict.adapted.weights, verdict.record()
        if not isinstance(self.network, AdaVSR):
            (bundle,) = self.bundles
            return (write_adapted(bundle, network, weights, clip, out, record, picture_flow),), verdict
        modules: dict[str, Network] = {"temporal": self.network.temporal, "spatial": self.network.spatial}
        made = [
            write_adapted(bundle, modules[part], weights_of(part, weights), clip, out / part, record)
            for bundle, part in zip(self.bundles, PARTS, strict=True)
        ]
        return tuple(made), verdict

    def _fed(self, clip: torch.Tensor) -> Network:
        """The network, and of one that learns from scratch how small it sees this clip."""
        if not isinstance(self.network, DeepTemporalSR) or self.method != ZeroShot.name:
            return self.network
        coarse = self._options.coarse or coarse_by_motion(clip, picture_flow)
        network = DeepTemporalSR(replace(self.network.config, coarse=coarse))
        network.load_state_dict(self.network.state_dict())
        return network.eval()

    def _method(self, opened: ExitStack) -> Method:
        options = self._options
        match self.method:
            case SelfSupervised.name | Distillation.name:
                (bundle,) = self.bundles
                given: dict[str, Any] = {"degrade": None if options.estimate_blur else bicubic, "flow": picture_flow}
                restorer = bundle if self.method == SelfSupervised.name else options.teacher
                assert restorer is not None
                restore = restoring_with(opened.enter_context(Upscaler(restorer, device="cpu")))
                if self.method == SelfSupervised.name:
                    return SelfSupervised(**given, restore=restore)
                return Distillation(**given, restore=restore)
            case ZeroShot.name:
                return ZeroShot(checkpoint=options.checkpoint)
            case _:
                return InternalLearning()


def write_unadapted(bundles: Iterable[Bundle], out: Path, verdict: Verdict) -> None:
    """Write the bundles of a verdict that kept nothing, with the weights that they have, and what happened."""
    bundles = tuple(bundles)
    for bundle, part in zip(bundles, PARTS, strict=False):
        replace_weights(bundle, {}, out if len(bundles) == 1 else out / part, verdict.record())


def _usual_method(network: Network) -> str:
    if isinstance(network, DeepTemporalSR):
        return ZeroShot.name
    if isinstance(network, AdaVSR | TemporalModule | SpatialModule):
        return InternalLearning().name
    return SelfSupervised.name
