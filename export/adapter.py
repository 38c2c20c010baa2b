"""Adapt bundles to a clip: their networks learn from it, and the new weights go into copies of their graphs."""

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..engine.backends.options import Backend
from ..engine.contract.bundle import Bundle
from ..engine.contract.coding import StreamCoding
from ..engine.contract.errors import RequestError
from ..engine.contract.weights import replace_weights
from ..engine.pipeline.adaptation import DEFAULT_SECONDS
from ..engine.pipeline.flow import picture_flow
from ..engine.pipeline.upscaler import Upscaler
from ..training.adapt.analysis import AUTO, LOSSES, Decision, decide, read_parts
from ..training.adapt.coarse_to_fine import coarse_by_motion
from ..training.adapt.degradation import Degradation
from ..training.adapt.distillation import Distillation
from ..training.adapt.gate import adapt_guarded, self_consistency
from ..training.adapt.internal import InternalLearning
from ..training.adapt.methods import METHODS, methods_for
from ..training.adapt.protocol import Budget, Clock, Method
from ..training.adapt.restore import enlarges, upscale_factor
from ..training.adapt.selfsupervised import SelfSupervised
from ..training.adapt.verdict import Verdict
from ..training.adapt.zeroshot import ZeroShot
from ..training.networks.adavsr import SpatialModule, TemporalModule
from ..training.networks.base import Network
from ..training.networks.cascade import AdaVSR, weights_of
from ..training.networks.dtsr import DeepTemporalSR
from ..training.run import find_device
from .bundle_network import engine_restorer, load_network, write_adapted

PARTS = ("temporal", "spatial")  # Ada-VSR's modules, and the folders of its two bundles

_STEPS = 10  # of an adaptation without a budget; learning from scratch goes by the seconds alone
_RATE = 5e-4  # of Adam, for so few steps; see the table of benchmarks/adaptation
_INTERNAL_RATE = 3e-4  # of Adam; after 20 steps Ada-VSR learns the error of the estimated blur

OnStep = Callable[[Clock, float], None]  # called after every step with the clock and the loss


@dataclass(frozen=True)
class Options:
    """Settings of an adaptation; None means the default of the network."""

    budget: Budget | None = None
    method: str | None = None  # one of METHODS
    teacher: Bundle | None = None  # for distillation
    degradation: str = AUTO  # of networks that enlarge: auto, plain, or parts of it; see `training.adapt.analysis`
    checkpoint: Path | None = None  # for zero-shot learning
    coarse: int | None = None  # for zero-shot learning: how many times smaller it sees frames; None: by their motion
    seed: int = 0
    device: str = "cpu"  # of PyTorch: cpu, cuda:N, or auto: the first CUDA device if PyTorch can use it
    threads: int | None = None  # CPU threads of ONNX Runtime, which makes training targets


class BundleAdapter:
    """Adapts a bundle, or Ada-VSR's two bundles as one network, to one scene after another.

    Raises RequestError for options that the bundles do not support, BackendError if PyTorch cannot use the device, and
    BundleError as `load_network` does.
    """

    def __init__(self, bundles: Sequence[Bundle], options: Options) -> None:
        self.bundles, self._options = tuple(bundles), options
        self._device = find_device(options.device)
        match [load_network(bundle) for bundle in bundles]:
            case [TemporalModule() as temporal, SpatialModule() as spatial]:
                self.network: Network = AdaVSR(temporal, spatial)
            case [network]:
                self.network = network
            case _:
                names = "+".join(bundle.manifest.name for bundle in bundles)
                raise RequestError(
                    f"The chain '{names}' does not adapt as one: adapt one of its bundles, or name Ada-VSR's two."
                )
        self.method = options.method or methods_for(self.network)[0]
        self._check_options()

    def decide(self, scenes: Sequence[np.ndarray], coding: StreamCoding | None = None) -> Decision | None:
        """Decide what there is to learn from a clip: its scenes, each (N, 3, h, w) in [0, 1], and its stream.

        Returns None for networks that do not enlarge. Raises AdaptationError if a degradation that was asked for cannot
        be estimated.
        """
        if self._factor is None:
            return None
        clips = [torch.from_numpy(np.ascontiguousarray(frames, np.float32)) for frames in scenes]
        # A teacher's results, and the clip's own frames for meta-trained weights, have something to teach on any clip.
        is_always = self.method != SelfSupervised.name
        is_trained = any(bundle.manifest.training.get("compressed") for bundle in self.bundles)
        trained = LOSSES if is_trained else ()
        decision = decide(clips, self._factor, coding, self._options.degradation, is_always, trained)
        if self.method == InternalLearning.name and decision.degradation is not None:
            # It learns from the clip's own frames, which are noisy and compressed themselves.
            return replace(decision, degradation=decision.degradation.without_losses())
        return decision

    def adapt(
        self, frames: np.ndarray, out: Path, on_step: OnStep | None = None, decision: Decision | None = None
    ) -> tuple[tuple[Bundle, ...], Verdict]:
        """Adapt to the frames of one scene, (N, 3, h, w) in [0, 1], and write the adapted bundles if they are kept.

        `decision` is that of `decide`; without it the scene alone is analysed. Returns the bundles in use and the
        verdict. One bundle is written to the folder `out`, Ada-VSR's two to sub-folders of it. If the adaptation is not
        kept, nothing is written, and the original bundles are returned. Raises ExportError as `write_adapted` does.
        """
        decision = decision or self.decide([frames])
        if decision is not None and decision.degradation is None:
            seconds = 0.0 if decision.analysis is None else decision.analysis.seconds
            return self.bundles, Verdict(False, decision.sentence, seconds, decision=decision.record())
        clip = torch.from_numpy(np.ascontiguousarray(frames, np.float32))
        assumed = None if decision is None else decision.degradation
        with ExitStack() as stack:
            method = self._open_method(stack, assumed or Degradation())
            network = self._network_for(clip)
            learner = copy.deepcopy(network).to(self._device)
            verdict = adapt_guarded(
                method,
                learner,
                clip,
                self._options.budget or default_budget(self.method),
                self._options.seed,
                on_step,
                self_consistency(assumed, getattr(method, "flow", None)),
                1.0 if decision is None else decision.confidence,
            )
        verdict = verdict if decision is None else replace(verdict, decision=decision.record())
        if not verdict.kept or verdict.adapted is None:
            return self.bundles, verdict
        weights, record = verdict.adapted.weights, verdict.record()
        if not isinstance(self.network, AdaVSR):
            (bundle,) = self.bundles
            return (write_adapted(bundle, network, weights, clip, out, record, picture_flow),), verdict
        modules: dict[str, Network] = {"temporal": self.network.temporal, "spatial": self.network.spatial}
        adapted = [
            write_adapted(bundle, modules[part], weights_of(part, weights), clip, out / part, record)
            for bundle, part in zip(self.bundles, PARTS, strict=True)
        ]
        return tuple(adapted), verdict

    @property
    def _factor(self) -> int | None:
        """The factor by which frames were made small that the network learns to enlarge; None if it does not."""
        if self.method == ZeroShot.name or not enlarges(self.network):
            return None
        return upscale_factor(self.network)

    def _check_options(self) -> None:
        """Raise RequestError for an unknown method, and for options or a network that the method does not support."""
        options, method = self._options, self.method
        if method not in METHODS:
            raise RequestError(f"Unknown method '{method}': use {', '.join(METHODS)}.")
        zero_shot = method == ZeroShot.name
        if method not in (serving := methods_for(self.network)):
            names = "+".join(bundle.manifest.name for bundle in self.bundles)
            raise RequestError(f"The method {method} does not serve '{names}': use {_either(serving)}.")
        without_effect = {
            "--teacher": options.teacher is not None and method != Distillation.name,
            "--degradation": options.degradation != AUTO and self._factor is None,
            "--checkpoint": options.checkpoint is not None and not zero_shot,
            "--coarse": options.coarse is not None and not zero_shot,
        }
        if refused := [option for option, given in without_effect.items() if given]:
            verb, pronoun = ("has", "it") if len(refused) == 1 else ("have", "them")
            raise RequestError(f"{' and '.join(refused)} {verb} no effect on the method {method}: leave {pronoun} out.")
        parts = read_parts(options.degradation) or ()
        if method == InternalLearning.name and set(parts) - {"blur"}:
            raise RequestError(
                "Internal learning undoes a blur only, as the frames that it learns from are noisy and compressed"
                " themselves: use --degradation blur, plain or auto."
            )
        if method == Distillation.name and options.teacher is None:
            raise RequestError("Distillation needs the results of a larger network: name its bundle with --teacher.")
        if options.coarse is not None and (options.coarse < 1 or options.coarse & (options.coarse - 1)):
            raise RequestError(
                f"Frames cannot be made {options.coarse} times smaller: choose 1, 2, 4 or another power of 2 for"
                " --coarse."
            )

    def _network_for(self, clip: torch.Tensor) -> Network:
        """Return the network; for zero-shot learning, configured for the size at which it sees this clip."""
        if not isinstance(self.network, DeepTemporalSR) or self.method != ZeroShot.name:
            return self.network
        coarse = self._options.coarse or coarse_by_motion(clip, picture_flow)
        network = DeepTemporalSR(replace(self.network.config, coarse=coarse))
        network.load_state_dict(self.network.state_dict())
        return network.eval()

    def _open_method(self, stack: ExitStack, assumed: Degradation) -> Method:
        options = self._options
        match self.method:
            case SelfSupervised.name | Distillation.name:
                (bundle,) = self.bundles
                settings: dict[str, Any] = {
                    "rate": _RATE,
                    "degrade": assumed.degrader(options.seed),
                    "correct": assumed.corrector(),
                    "flow": picture_flow,
                }
                restoring = bundle if self.method == SelfSupervised.name else options.teacher
                assert restoring is not None
                backend = Backend("ort", "cpu" if self._device == "cpu" else "auto", threads=options.threads)
                settings["restore"] = engine_restorer(stack.enter_context(Upscaler(restoring, backend)))
                return SelfSupervised(**settings) if self.method == SelfSupervised.name else Distillation(**settings)
            case ZeroShot.name:
                return ZeroShot(checkpoint=options.checkpoint)
            case _:
                degrade = assumed.without_losses().degrader(options.seed)
                return InternalLearning(degrade, _INTERNAL_RATE, "adam", flow=picture_flow)


def _either(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def default_budget(method: str) -> Budget:
    """Return the budget of a method without a choice: some steps, and the seconds after which they end in any case."""
    return Budget(None if method == ZeroShot.name else _STEPS, DEFAULT_SECONDS)


def write_unadapted(bundles: Iterable[Bundle], out: Path, verdict: Verdict) -> None:
    """Write copies of bundles with their original weights and the record of an adaptation that was not kept."""
    bundles = tuple(bundles)
    for bundle, part in zip(bundles, PARTS, strict=False):
        replace_weights(bundle, {}, out if len(bundles) == 1 else out / part, verdict.record())
