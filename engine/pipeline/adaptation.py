"""Bundles adapted to the scenes of a video: what a run asks for, and what learns it.

Learning needs PyTorch, which the engine does not import: `stvsr.export.scene_learner` has the learner, and the command
line passes the function that opens it.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any, Literal, NamedTuple, Protocol, Self

from ..contract.bundle import Bundle, find_bundle
from ..contract.closing import Closing
from ..contract.errors import RequestError
from ..media.pipes import is_pipe
from .request import UpscaleRequest

DEFAULT_SECONDS = 20.0  # after which learning ends without a choice of steps or seconds


@dataclass(frozen=True)
class AdaptSettings:
    """Settings of the adaptation of a request's bundles to its video; None means the default of the network.

    Raises RequestError for an unknown value of `per`.
    """

    per: Literal["video", "scene"] = "video"
    method: str | None = None
    steps: int | None = None  # to learn; the first limit ends it
    seconds: float | None = None
    teacher: str | None = None  # a bundle's name or folder
    degradation: str = "auto"
    checkpoint: Path | None = None
    coarse: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per not in ("video", "scene"):
            raise RequestError(f"Unknown value '{self.per}' of --adapt-per: use scene or video.")

    def unit_of(self, scene: int) -> int:
        """Return the number of what a scene has its weights from: the scene itself, or 0 for the whole video."""
        return scene if self.per == "scene" else 0

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the weights but the video and the bundles, as JSON values by name."""
        values = {name: value for name, value in asdict(self).items() if name != "checkpoint"}
        return values | {"teacher": self.teacher and find_bundle(self.teacher).fingerprint}


class Learned(NamedTuple):
    """The result of learning: the adapted bundles, or none if the original weights stay in use, and the record."""

    bundles: tuple[Bundle, ...]
    record: dict[str, Any]


class Learner(Protocol):
    """Adapts the bundles of a request to one unit of its video after another: to its scenes, or to all of it."""

    def begin(self, unit: int) -> None:
        """Begin to learn what will be asked for next, if the learner works beside its caller."""

    def learn(self, unit: int, cancel: Event | None = None) -> Learned | None:
        """Return what was learned of a unit, which begins now if it did not before; None if the video has no such unit.

        Learning a unit replaces the files of the one before the last. Setting `cancel` ends the wait with
        CancelledError. Raises a StvsrError for what cannot be adapted.
        """

    def close(self) -> None:
        """End the learner."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: Any) -> None: ...


OnStep = Callable[[int, float, int], None]  # the unit, the share of its budget that is used (0 to 1), and its steps
Announce = Callable[[str], None]  # a sentence on what there is to learn


class OpenLearner(Protocol):
    """Opens the learner of a request, which writes adapted bundles below a folder."""

    def __call__(
        self, request: UpscaleRequest, settings: AdaptSettings, folder: Path, on_step: OnStep, announce: Announce
    ) -> Learner:
        """Return the learner. Raises a StvsrError for what cannot be adapted."""


@dataclass(frozen=True)
class Adapting:
    """The adaptation that a run asks for.

    settings: of the learner.
    open_learner: opens the learner of a request whose files are on this machine, which writes below a folder.
    learns_ahead: the learner works beside its caller, and begins with the next scene.
    """

    settings: AdaptSettings
    open_learner: Callable[[UpscaleRequest, Path], Learner]
    learns_ahead: bool = False


class SceneAdaptation(Closing):
    """The adapted bundles of the scenes of one run, in order.

    The learner is opened for the first scene; one that learns ahead begins with the next scene while one is upscaled.
    Raises RequestError for an input that is a pipe.
    """

    def __init__(self, request: UpscaleRequest, adapting: Adapting) -> None:
        refuse_pipe(request)
        self._request, self._adapting = request, adapting
        self._opened = ExitStack()
        self._learner: Learner | None = None
        self._unit = -1
        self._bundles: tuple[Bundle, ...] = ()
        self.records: list[dict[str, Any]] = []  # of the scenes so far, or one for the video

    def bundles_of(self, scene: int, cancel: Event | None = None) -> tuple[Bundle, ...]:
        """Return the adapted bundles of the next scene, or of the same one; none if it has the original weights."""
        unit = self._adapting.settings.unit_of(scene)
        if unit != self._unit:
            self._unit, self._bundles = unit, ()
            if self._learner is None:
                folder = Path(self._opened.enter_context(TemporaryDirectory(prefix="stvsr-")))
                self._learner = self._opened.enter_context(self._adapting.open_learner(self._request, folder))
            learned = self._learner.learn(unit, cancel)
            if learned is not None:
                self._bundles = learned.bundles
                self.records.append(learned.record)
            if self._adapting.learns_ahead:
                self._learner.begin(unit + 1)
        return self._bundles

    def close(self) -> None:
        """End the learner, and delete what it wrote."""
        self._opened.close()


def refuse_pipe(request: UpscaleRequest) -> None:
    """Raise RequestError for an input that is a pipe."""
    if is_pipe(request.input):
        raise RequestError("Adaptation reads the video twice, and a pipe can be read once: save it to a file first.")


def remove_bundles(folder: Path) -> None:
    """Delete the adapted bundles in a folder, if there are any."""
    shutil.rmtree(folder, ignore_errors=True)
