"""The store of a run that can be resumed: a folder with its survey and the segments that are finished.

A segment counts as finished when its record exists: it is written last, and reaches the disk before it has its name.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..contract.bundle import file_sha256
from ..contract.errors import MediaError, RequestError
from ..media.folders import Folder
from ..media.segment_file import SegmentFile
from .run_files import finished_numbers, record_name, segment_name
from .survey import Survey

_PLAN = "plan.json"
_VERSION = 3


class SegmentStore:
    """The finished segments of one run.

    `identity` has everything that determines the frames, as JSON values by name. Raises RequestError if the folder
    belongs to a run with another identity, and MediaError if it cannot be used.
    """

    def __init__(self, folder: Folder, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self._identity = json.loads(json.dumps(dict(identity)))
        self.survey: Survey | None = None
        try:
            folder.create()
        except OSError as error:
            raise MediaError(f"{folder} cannot be created ({error.strerror}): choose another output.") from error
        plan = self.read(_PLAN)
        if plan is None:
            return
        try:
            self._check_identity(plan)
            self.survey = Survey.from_dict(plan["survey"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RequestError(f"{folder}/{_PLAN} is not that of a run: delete the folder {folder}.") from error

    def begin(self, survey: Survey) -> None:
        """Store the survey of a new run."""
        self.write(_PLAN, {"version": _VERSION, "identity": self._identity, "survey": survey.as_dict()})
        self.survey = survey

    def path(self, number: int) -> Path:
        """Return the file of a segment on this machine, finished or not."""
        return self.folder.path(segment_name(number))

    def finished(self, number: int, weights: str | None = None) -> SegmentFile | None:
        """Return a segment, or None if it is not finished, has other weights, or was damaged since."""
        record = self.read(record_name(number))
        try:
            if record is None or record.get("weights") != weights:
                return None
            ticks = tuple(map(int, record["ticks"]))
            if ticks and self.file(segment_name(number), record["sha256"]) is None:
                return None
            return SegmentFile(self.path(number), ticks)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def file(self, name: str, sha256: str) -> Path | None:
        """Return the path of a file on this machine; None if it was deleted or damaged."""
        path = self.folder.path(name)
        try:
            if not _has_sha256(path, sha256):
                # It is elsewhere, or was made again there.
                self.folder.fetch(name)
            return path if _has_sha256(path, sha256) else None
        except OSError:
            return None

    def recorded(self) -> list[int]:
        """Return the numbers of the segments that were finished, without a look at their files."""
        try:
            return finished_numbers(self.folder)
        except OSError as error:
            raise MediaError(f"{self.folder} cannot be read ({error.strerror}): check the disk.") from error

    def add(self, number: int, segment: SegmentFile, weights: str | None = None) -> None:
        """Record a finished segment, and the version of the adapted weights that it was computed by."""
        sha256 = self.keep(segment_name(number)) if segment.ticks else None
        self.write(record_name(number), {"sha256": sha256, "ticks": list(segment.ticks), "weights": weights})

    def keep(self, name: str) -> str:
        """Make a file that was written to its path part of the store, and return its sha256."""
        try:
            self.folder.keep(name)
        except OSError as error:
            raise self._unwritable(name, error) from error
        return file_sha256(self.folder.path(name))

    def remove(self) -> None:
        """Delete the folder."""
        self.folder.remove()

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

    def read(self, name: str) -> Any:
        """Return the value of a JSON file; None if there is none, and {} for anything else."""
        try:
            return json.loads(self.folder.read(name))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        except OSError as error:
            raise MediaError(f"{self.folder}/{name} cannot be read ({error.strerror}): check the disk.") from error

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file. Other processes may write the same one at the same time."""
        try:
            self.folder.write(name, json.dumps(value).encode())
        except OSError as error:
            raise self._unwritable(name, error) from error

    def _unwritable(self, name: str, error: OSError) -> MediaError:
        return MediaError(f"{self.folder}/{name} cannot be written ({error.strerror}): free some space and run again.")


def _has_sha256(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256
