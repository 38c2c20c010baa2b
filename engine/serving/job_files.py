"""The files of jobs: a folder for each, here and, where workers are on other machines, where they find it."""

import json
import shutil
import uuid
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from ..contract.atomic import atomic_path
from ..media.folders import Folder, is_remote, open_folder
from ..pipeline.outline import Outline
from ..pipeline.run_files import parts_beside


class JobFiles:
    """The files of the jobs in a folder.

    Workers on other machines find them in `files`: a folder that the machines share, or an address such as
    s3://bucket/folder. Without it the workers use those in `folder`.
    """

    def __init__(self, folder: Path, files: str | None = None) -> None:
        self.folder = folder = folder.absolute()
        self._files = files if files is None or is_remote(files) else str(Path(files).absolute())
        folder.mkdir(parents=True, exist_ok=True)
        if self._files is not None:
            open_folder(self._files, folder)  # an address that cannot be opened here is refused at once
            if not is_remote(self._files):
                Path(self._files).mkdir(parents=True, exist_ok=True)

    def new_id(self) -> str:
        """Reserve the identifier of a new job, and create its folder."""
        identifier = str(uuid.uuid4())
        self.folder_of(identifier).mkdir(parents=True)
        return identifier

    def folder_of(self, identifier: str) -> Path:
        """Return the folder of a job. Raises ValueError for text that is no identifier in its usual spelling."""
        if str(uuid.UUID(identifier)) != identifier:
            raise ValueError(identifier)
        return self.folder / "jobs" / identifier

    def input_of(self, identifier: str) -> Path:
        """Return the input file of a job."""
        return self.folder_of(identifier) / "input"

    def output_of(self, identifier: str, container: str) -> Path:
        """Return the output file of a job, in a container such as "mp4"."""
        return self.folder_of(identifier) / f"result.{container}"

    def keep_outline(self, identifier: str, outline: Outline) -> None:
        """Keep the outline of a job for its preview, without which a job is computed too."""
        with suppress(OSError), atomic_path(self._outline_of(identifier)) as partial:
            partial.write_text(json.dumps(outline.as_dict()), encoding="utf-8")

    def outline(self, identifier: str) -> Outline | None:
        """Return the outline of a job, or None while its video is not surveyed."""
        try:
            return _read_outline(self._outline_of(identifier))
        except FileNotFoundError:
            return None

    def result_of(self, identifier: str, container: str) -> Path:
        """Return the output file of a job that is done; it is fetched if the workers left it elsewhere.

        Raises OSError if it is not there or cannot be fetched.
        """
        path = self.output_of(identifier, container)
        if (shared := self._shared(identifier)) is not None and not path.exists():
            return shared.fetch(path.name)
        return path

    def has_result(self, identifier: str, container: str) -> bool:
        """Return whether the output file of a job is there. Raises OSError if that cannot be known."""
        path = self.output_of(identifier, container)
        shared = self._shared(identifier)
        return path.exists() or (shared is not None and shared.exists(path.name))

    def parts_of(self, identifier: str, container: str) -> Folder:
        """Return the folder of the finished segments of a job, while it is computed."""
        output = self.for_workers(self.output_of(identifier, container))
        return open_folder(parts_beside(output), self.folder_of(identifier) / "parts")

    def for_workers(self, file: Path) -> str | Path:
        """Return the path or the address at which the workers find a file of a job's folder."""
        return file if self._files is None else f"{self._files}/{file.parent.name}/{file.name}"

    def share(self, identifier: str) -> None:
        """Bring the input of a job to where the workers find it. Raises OSError."""
        if (shared := self._shared(identifier)) is not None:
            shared.create()
            shared.put(self.input_of(identifier), self.input_of(identifier).name)

    def remove_files(self, identifier: str) -> None:
        """Delete the files of a job, here and where the workers have them."""
        shutil.rmtree(self.folder_of(identifier), ignore_errors=True)
        if (shared := self._shared(identifier)) is not None:
            shared.remove()

    def _shared(self, identifier: str) -> Folder | None:
        """Return the folder of a job where the workers find it, if they do not use the one here."""
        folder = self.folder_of(identifier)
        return None if self._files is None else open_folder(f"{self._files}/{identifier}", folder)

    def _outline_of(self, identifier: str) -> Path:
        return self.folder_of(identifier) / "outline.json"


@lru_cache(maxsize=4)
def _read_outline(path: Path) -> Outline:
    """Return an outline, which does not change; a preview asks for it again and again."""
    return Outline.from_dict(json.loads(path.read_bytes()))
