"""The adapted bundles of a run that can be resumed, which its store keeps: a scene is learned once.

Each unit of the video has a record, `weights-NNNNNN.json`, and if its adaptation was kept the bundles in an archive
beside it. The archive's sha256 is the version of the weights, which the segments that were computed by them state.
"""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any, NamedTuple

from ..contract.archive import pack, unpack
from ..contract.bundle import Bundle
from ..contract.closing import Closing
from ..contract.errors import MediaError
from .adaptation import Adapting, Learner, remove_bundles
from .request import UpscaleRequest
from .store import SegmentStore

_UNPACKED = 2  # units whose bundles are on this machine besides the archives


class _Kept(NamedTuple):
    """The entry of a unit in the store."""

    version: str | None  # None: the original weights stay in use
    record: dict[str, Any]


class StoredAdaptation(Closing):
    """The adapted bundles of the scenes of a video; `request` has its paths on this machine."""

    def __init__(
        self,
        store: SegmentStore,
        adapting: Adapting,
        request: UpscaleRequest,
        scenes: int,
        cancel: Event | None = None,
    ) -> None:
        self._store, self._adapting, self._request, self._cancel = store, adapting, request, cancel
        self.units = range(adapting.settings.unit_of(scenes - 1) + 1)
        self._learner: Learner | None = None
        self._known: dict[int, _Kept] = {}
        self._bundles: dict[int, tuple[Bundle, ...]] = {}
        with ExitStack() as opened:
            self._work = Path(opened.enter_context(TemporaryDirectory(prefix="stvsr-")))
            self._opened = opened.pop_all()

    def unit_of(self, scene: int) -> int:
        """Return the number of the unit that a scene has its weights from."""
        return self._adapting.settings.unit_of(scene)

    def learn(self, unit: int) -> None:
        """Learn a unit, unless the store has it."""
        if self._stored(unit) is None:
            self._learn(unit)

    def version(self, unit: int) -> str | None:
        """Return the version of the weights of a unit, which is learned now unless the store has it."""
        return (self._stored(unit) or self._learn(unit)).version

    def bundles(self, unit: int) -> tuple[Bundle, ...]:
        """Return the adapted bundles of a unit, or none if it has the original weights; it is learned if need be."""
        if unit not in self._bundles:
            kept = self._stored(unit) or self._learn(unit)
            archive = self._archive(unit, kept)
            if archive is None and kept.version is not None:
                archive = self._archive(unit, self._learn(unit))
            self._bundles[unit] = () if archive is None else self._unpack(unit, archive)
            for other in list(self._bundles)[:-_UNPACKED]:
                del self._bundles[other]
                remove_bundles(self._folder(other))
        if self._adapting.learns_ahead and unit + 1 in self.units and self._stored(unit + 1) is None:
            self._open_learner().begin(unit + 1)
        return self._bundles[unit]

    def learned(self) -> list[int]:
        """Return the numbers of the units that the store has."""
        return [unit for unit in self.units if self._stored(unit) is not None]

    def records(self) -> tuple[dict[str, Any], ...]:
        """Return the records of all units that the store has."""
        return tuple(kept.record for unit in self.units if (kept := self._stored(unit)) is not None)

    def close(self) -> None:
        """End the learner, and delete the bundles on this machine."""
        self._opened.close()

    def _open_learner(self) -> Learner:
        if self._learner is None:
            folder = self._work / "learned"
            folder.mkdir(exist_ok=True)
            self._learner = self._opened.enter_context(self._adapting.open_learner(self._request, folder))
        return self._learner

    def _stored(self, unit: int) -> _Kept | None:
        """Return what the store has of a unit; None if it is not learned."""
        if unit not in self._known:
            values = self._store.read(f"{_name(unit)}.json")
            try:
                if values is None:
                    return None
                self._known[unit] = _Kept(values["version"], dict(values["record"]))
            except (KeyError, TypeError, ValueError):
                return None
        return self._known[unit]

    def _learn(self, unit: int) -> _Kept:
        """Learn a unit, and keep it in the store."""
        learned = self._open_learner().learn(unit, self._cancel)
        if learned is None:
            raise MediaError(f"{self._request.input} has no scene {unit + 1} any more: restore the video.")
        version = None
        if learned.bundles:
            name = f"{_name(unit)}.zip"
            pack(learned.bundles, self._store.folder.path(name), overwrite=True)
            version = self._store.keep(name)
        self._store.write(f"{_name(unit)}.json", {"version": version, "record": learned.record})
        self._known[unit] = _Kept(version, learned.record)
        return self._known[unit]

    def _archive(self, unit: int, kept: _Kept) -> Path | None:
        """Return the archive of a unit on this machine; None if it has none, or if that was deleted or damaged."""
        return None if kept.version is None else self._store.file(f"{_name(unit)}.zip", kept.version)

    def _unpack(self, unit: int, archive: Path) -> tuple[Bundle, ...]:
        folder = self._folder(unit)
        remove_bundles(folder)
        folder.mkdir()
        return tuple(unpack(archive, folder))

    def _folder(self, unit: int) -> Path:
        return self._work / f"unit-{unit}"


def _name(unit: int) -> str:
    return f"weights-{unit:06d}"
