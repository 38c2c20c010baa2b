"""The store of a run that can be resumed: a folder with its survey and the segments that are finished.

A segment counts as finished when its record exists: it is written last, and reaches the disk before it has its name.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..contract.atomic import atomic_path, sync_file
from ..contract.bundle import file_sha256
from ..contract.errors import MediaError, RequestError
from ..media.segment_file import SegmentFile
from .survey import Survey

_PLAN = "plan.json"
_VERSION = 1


class SegmentStore:
    """The finished segments of one run.

    `identity` has everything that determines the frames, as JSON values by name. Raises RequestError if the folder
    belongs to a run with another identity, and MediaError if it cannot be written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self._identity = json.loads(json.dumps(dict(identity)))
        self.survey: Survey | None = None
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise MediaError(f"{folder} cannot be created ({error.strerror}): choose another output.") from error
        plan = self._read(_PLAN)
        if plan is None:
            return
        try:
            self._check_identity(plan)
            self.survey = Survey.from_dict(plan["survey"])
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(f"{folder / _PLAN} is not that of a run: delete the folder {folder}.") from error

    def begin(self, survey: Survey) -> None:
        """Store the survey of a new run."""
        self._write(_PLAN, {"version": _VERSION, "identity": self._identity, "survey": survey.as_dict()})
        self.survey = survey

    def path(self, number: int) -> Path:
        """Return the file of a segment, finished or not."""
        return self.folder / _file(number)

    def finished(self, number: int) -> SegmentFile | None:
        """Return a segment, or None if it is not finished or was damaged since."""
        record = self._read(record_name(number))
        try:
            if record is None:
                return None
            ticks = tuple(map(int, record["ticks"]))
            if ticks and file_sha256(self.path(number)) != record["sha256"]:
                return None
            return SegmentFile(self.path(number), ticks)
        except (KeyError, TypeError, ValueError, OSError):
            return None

    def add(self, number: int, segment: SegmentFile) -> None:
        """Record a finished segment."""
        sha256 = None
        if segment.ticks:
            sync_file(segment.path)
            sha256 = file_sha256(segment.path)
        self._write(record_name(number), {"sha256": sha256, "ticks": list(segment.ticks)})

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_identity(self, plan: Mapping[str, Any]) -> None:
        before = plan["identity"]
        if plan["version"] != _VERSION:
            raise ValueError
        for name in [*self._identity, *before]:
            if before.get(name) != self._identity.get(name):
                raise RequestError(
                    f"{self.folder} has parts of another run, whose {name} differs: give the same command as before, or"
                    " delete the folder to start again."
                )

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.folder / name).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        except OSError as error:
            raise MediaError(f"{self.folder / name} cannot be read ({error.strerror}): check the disk.") from error

    def _write(self, name: str, value: Any) -> None:
        """Write a JSON file. Other processes may write the same one at the same time."""
        path = self.folder / name
        try:
            with atomic_path(path, sync=True) as partial:
                partial.write_text(json.dumps(value), encoding="utf-8")
        except OSError as error:
            raise MediaError(f"{path} cannot be written ({error.strerror}): free some space and run again.") from error


def record_name(number: int) -> str:
    """Return the name of the file in a store that exists when a segment is finished."""
    return f"{number:06d}.json"


def recorded_segment(folder: Path, number: int) -> SegmentFile:
    """Return a finished segment of the store in a folder, without a look at its file.

    Raises OSError or ValueError if there is none.
    """
    record = json.loads((folder / record_name(number)).read_bytes())
    return SegmentFile(folder / _file(number), tuple(record["ticks"]))


def _file(number: int) -> str:
    return f"{number:06d}.mkv"
