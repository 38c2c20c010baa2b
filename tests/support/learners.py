"""Stand-ins for what learns: adapted bundles that are known, or made within milliseconds."""

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from stvsr import Bundle, RequestError, UpscaleRequest
from stvsr.engine.contract.bundle import find_bundle
from stvsr.engine.contract.closing import Closing
from stvsr.engine.contract.weights import replace_weights
from stvsr.engine.pipeline.adaptation import AdaptSettings, Announce, Learned, OnStep, remove_bundles
from stvsr.engine.pipeline.scene_frames import read_scenes

LOG = "STVSR_TEST_LEARNED"  # in the environment: a file that gets a line for each unit that is learned


class KnownLearner(Closing):
    """Returns the bundles of each unit; an empty entry is an adaptation that was not kept."""

    def __init__(self, bundles: Sequence[tuple[Bundle, ...]]) -> None:
        self.bundles = bundles
        self.calls: list[tuple[str, int]] = []

    def begin(self, unit: int) -> None:
        self.calls.append(("begin", unit))

    def learn(self, unit: int, cancel: Event | None = None) -> Learned | None:
        self.calls.append(("learn", unit))
        if unit >= len(self.bundles):
            return None
        return Learned(self.bundles[unit], _record(unit, bool(self.bundles[unit])))

    def close(self) -> None:
        self.calls.append(("close", 0))


class QuickLearner(Closing):
    """Adapts the toy with an integer decoder: a scene's weights depend on the brightness of its first frame.

    Scenes of fewer than three frames are not kept. A seed of -1 is refused, and one of -2 ends the process.
    """

    def __init__(
        self, request: UpscaleRequest, settings: AdaptSettings, folder: Path, on_step: OnStep, announce: Announce
    ) -> None:
        if settings.seed == -1:
            raise RequestError("The seed is -1: give another.")
        self._request, self._settings, self._folder = request, settings, folder
        self._on_step, self._announce = on_step, announce

    def begin(self, unit: int) -> None:
        pass

    def learn(self, unit: int, cancel: Event | None = None) -> Learned | None:
        if self._settings.seed == -2:
            os._exit(7)
        scenes = list(read_scenes(self._request))
        if unit >= len(scenes):
            return None
        if LOG in os.environ:
            with Path(os.environ[LOG]).open("a") as log:
                log.write(f"{unit}\n")
        self._announce(f"Scene {unit + 1} is learned.")
        self._on_step(unit, 1.0, 3)
        if len(scenes[unit]) < 3:
            return Learned((), _record(unit, False))
        folder = self._folder / str(unit)
        remove_bundles(folder)
        bundle = with_eighth(find_bundle(self._request.model), float(scenes[unit][0].mean()), folder)
        return Learned((bundle,), _record(unit, True))

    def close(self) -> None:
        pass


def with_eighth(bundle: Bundle, value: float, folder: Path) -> Bundle:
    """Write the toy with another weight of rows in its integer decoder."""
    return replace_weights(bundle, {"eighth": np.array(value, np.float32)}, folder, {"kept": True})


def _record(unit: int, kept: bool) -> dict[str, Any]:
    return {"unit": unit, "kept": kept, "reason": "It was quick.", "seconds": 0.001}
