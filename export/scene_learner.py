"""Learns from a video: bundles adapted to each of its scenes, or to its longest one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import numpy as np
import torch

from ..engine.contract.bundle import find_bundle, find_bundles
from ..engine.contract.closing import Closing
from ..engine.contract.coding import StreamCoding
from ..engine.pipeline.adaptation import AdaptSettings, Announce, Learned, OnStep, remove_bundles
from ..engine.pipeline.request import UpscaleRequest
from ..engine.pipeline.scene_frames import read_scenes
from ..training.adapt.protocol import Budget, Clock
from .adapter import BundleAdapter, Options, write_unadapted

_SAMPLED, _SCENES = 6, 4  # frames of other scenes than the longest, and scenes, that are analysed at most


class SceneLearner(Closing):
    """Adapts the bundles of a request to its video, in the calling thread; it follows the protocol `Learner`.

    A video is read once if its scenes are asked for in order. The adapted bundles are written to `folder`, per scene to
    its sub-folders 1, 2 and on; with `keeps_all` all of them stay, and those that are not kept have their original
    weights. `coding` is what is known of the video's stream. PyTorch learns by `request.backend.threads`. Raises
    RequestError, BackendError, BundleError.
    """

    def __init__(
        self,
        request: UpscaleRequest,
        settings: AdaptSettings,
        folder: Path,
        on_step: OnStep | None = None,
        announce: Announce | None = None,
        *,
        coding: StreamCoding | None = None,
        device: str = "auto",
        keeps_all: bool = False,
    ) -> None:
        if request.backend.threads is not None:
            torch.set_num_threads(request.backend.threads)
        self._request, self._settings, self._folder, self._keeps_all = request, settings, folder, keeps_all
        self._on_step, self._announce = on_step, announce
        self._bundles = find_bundles(request.model)
        self._adapter = BundleAdapter(self._bundles, _options(settings, device, request.backend.threads))
        self._coding = coding
        self._scenes: Iterator[np.ndarray] = iter(())
        self._read = -1  # the number of the last scene that was read; -1 before the first

    def begin(self, unit: int) -> None:
        """Do nothing: it is learned when it is asked for."""

    def learn(self, unit: int, cancel: Event | None = None) -> Learned | None:
        """Return what was learned of a unit; see `Learner.learn`."""
        is_scene = self._settings.per == "scene"
        if is_scene:
            scene = self._scene(unit)
            if scene is None:
                return None
            sampled = [scene]
        else:
            scene, sampled = longest_scene(read_scenes(self._request))
        target = self.folder_of(unit)
        remove_bundles(target)
        if is_scene and not self._keeps_all:
            remove_bundles(self.folder_of(unit - 2))
        decision = self._adapter.decide(sampled, self._coding)
        if decision is not None and self._announce is not None:
            self._announce(f"Scene {unit + 1}: {decision.sentence}" if is_scene else decision.sentence)
        bundles, verdict = self._adapter.adapt(scene, target, self._steps_of(unit), decision)
        if self._keeps_all and not verdict.kept:
            write_unadapted(self._bundles, target, verdict)
        return Learned(bundles if verdict.kept else (), verdict.record())

    def folder_of(self, unit: int) -> Path:
        """Return the folder of the bundles of a unit."""
        return self._folder / str(unit + 1) if self._settings.per == "scene" else self._folder

    def close(self) -> None:
        """Close the video."""
        self._scenes = iter(())

    def _scene(self, number: int) -> np.ndarray | None:
        """Return the frames of a scene, (N, 3, h, w) in [0, 1]; None if the video has fewer scenes."""
        if number <= self._read or self._read < 0:
            self._scenes, self._read = read_scenes(self._request), -1
        for scene in self._scenes:
            self._read += 1
            if self._read == number:
                return scene
        return None

    def _steps_of(self, unit: int) -> Callable[[Clock, float], None] | None:
        on_step = self._on_step
        return None if on_step is None else lambda clock, loss: on_step(unit, clock.fraction(), clock.steps)


def longest_scene(scenes: Iterator[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the longest scene, and what is analysed of a clip: that scene, and some frames of the next longest."""
    longest = next(scenes)
    others: list[tuple[int, np.ndarray]] = []
    for scene in scenes:
        shorter, longest = (longest, scene) if len(scene) > len(longest) else (scene, longest)
        chosen = np.linspace(0, len(shorter) - 1, min(_SAMPLED, len(shorter))).round().astype(int)
        others.append((len(shorter), shorter[chosen]))
        others = sorted(others, key=lambda other: -other[0])[: _SCENES - 1]
    return longest, [longest, *(frames for _, frames in others)]


def _options(settings: AdaptSettings, device: str, threads: int | None) -> Options:
    steps, seconds = settings.steps, settings.seconds
    return Options(
        budget=None if steps is None and seconds is None else Budget(steps, seconds),
        method=settings.method,
        teacher=find_bundle(settings.teacher) if settings.teacher else None,
        degradation=settings.degradation,
        checkpoint=settings.checkpoint,
        coarse=settings.coarse,
        seed=settings.seed,
        device=device,
        threads=threads,
    )
