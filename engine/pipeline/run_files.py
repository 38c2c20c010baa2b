"""The files of a run that is resumed, on this machine or elsewhere: its input, its output and its parts."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ..contract.closing import Closing
from ..contract.errors import MediaError, RequestError, StvsrError
from ..media.folders import Folder, is_remote, open_folder, split_address
from .request import UpscaleRequest

_RECORD = re.compile(r"(\d{6,})\.json")


class RunFiles(Closing):
    """The files of a run. What is at addresses is copied to a temporary folder of this machine, and from there.

    `request` is the run's with paths of this machine. The parts are in the folder `.NAME.stvsr` beside the output, or
    in a folder of the run in `store`. Raises RequestError for an address that cannot be used or an output that exists
    and may not be replaced, and MediaError for an input that cannot be copied.
    """

    def __init__(self, request: UpscaleRequest, store: str | None = None) -> None:
        self._wanted, self._store = request, store
        self._work = Path()  # the folder of the copies, if there are any
        self._target: tuple[Folder, str] | None = None  # of the output, if it is written elsewhere first
        self._addresses: dict[str, str] = {}  # by the paths of their copies
        self.request = request
        if request.output is not None:
            self.check_output(Path(request.output))
        with ExitStack() as opened:
            if store is not None or is_remote(request.input) or is_remote(request.output):
                self._work = Path(opened.enter_context(TemporaryDirectory(prefix="stvsr-")))
                self._use_copies()
            self._opened = opened.pop_all()

    @property
    def copies_output(self) -> bool:
        """True if `publish` brings the output to its folder."""
        return self._target is not None

    def parts(self, output: Path) -> Folder:
        """Return the folder of the parts of a run with this output; the run removes it at its end."""
        wanted = self._wanted.output or output
        if self._store is None:
            parts = parts_beside(wanted)
        else:
            # Outputs of one name in several folders have folders of their own.
            digest = hashlib.sha256(str(wanted if is_remote(wanted) else Path(wanted).absolute()).encode()).hexdigest()
            parts = f"{str(self._store).rstrip('/')}/{output.name}-{digest[:12]}.stvsr"
        return open_folder(parts, self._work / "parts")

    def check_output(self, output: Path) -> None:
        """Raise RequestError if the output exists and may not be replaced.

        The parts of a run that was killed just after it wrote this output are deleted.
        """
        target = self._wanted.output or output
        if is_finished(replace(self._wanted, output=target)):
            self.parts(output).remove()
            raise RequestError(f"{target} exists already: choose another output, or pass --overwrite.")

    def publish(self, output: Path) -> str:
        """Bring the complete output to where it belongs, and return its path or address."""
        if self._target is None:
            return str(output)
        folder, name = self._target
        self.check_output(output)  # it may have been created since
        try:
            folder.put(output, name)
        except OSError as error:
            raise MediaError(f"{self._wanted.output} cannot be written ({error.strerror}): run again.") from error
        return str(self._wanted.output)

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Let the errors of a block name addresses in the place of the paths of their copies."""
        try:
            yield
        except StvsrError as error:
            sentence = str(error)
            for path, address in self._addresses.items():
                sentence = sentence.replace(path, address)
            if sentence == str(error):
                raise
            raise type(error)(sentence) from error

    def close(self) -> None:
        """Delete the copies."""
        self._opened.close()

    def _use_copies(self) -> None:
        request = self._wanted
        if request.output is None:
            raise RequestError(
                f"Name an output for {request.input}: it has none of its own beside an address or a store."
            )
        if is_remote(request.input):
            source = self._fetch(str(request.input))
            self._addresses[str(source)] = str(request.input)
            self.request = replace(self.request, input=source)
        if is_remote(request.output) or self._store is not None:
            # The output is at an address, or on another file system than its parts.
            folder, name = split_address(request.output)
            if isinstance(folder, Path) and not folder.is_dir():
                raise MediaError(f"The folder {folder} does not exist: create it first.")
            self._target = open_folder(folder, self._work / "target"), name
            output = self._work / "output" / name
            output.parent.mkdir()
            self._addresses[str(output)] = str(request.output)
            self.request = replace(self.request, output=output)

    def _fetch(self, address: str) -> Path:
        folder, name = split_address(address)
        try:
            return open_folder(folder, self._work / "input").fetch(name)
        except FileNotFoundError as error:
            raise MediaError(f"{address} does not exist: check its name.") from error
        except OSError as error:
            raise MediaError(f"{address} cannot be read ({error.strerror}): check the address and access.") from error


def parts_beside(output: str | Path) -> str:
    """Return the path or the address of the parts of a run whose parts are beside its output."""
    folder, name = split_address(output)
    return f"{folder}/.{name}.stvsr"


def is_finished(request: UpscaleRequest) -> bool:
    """Return whether the output of a request exists, and need not be made again."""
    if request.output is None or request.overwrite:
        return False
    folder, name = split_address(request.output)
    try:
        return open_folder(folder, Path()).exists(name)
    except OSError as error:
        raise MediaError(
            f"{request.output} cannot be reached ({error.strerror}): check the address and access."
        ) from error


def segment_name(number: int) -> str:
    """Return the name of the file of a segment among the parts of a run."""
    return f"{number:06d}.mkv"


def record_name(number: int) -> str:
    """Return the name of the file, among the parts of a run, that is there when a segment is finished."""
    return f"{number:06d}.json"


def finished_numbers(folder: Folder) -> list[int]:
    """Return the numbers of the finished segments of a run by the folder of its parts. Raises OSError."""
    return sorted(int(match[1]) for name in folder.names() if (match := _RECORD.fullmatch(name)))


def read_segment(folder: Folder, number: int) -> tuple[Path, tuple[int, ...]]:
    """Return the file of a finished segment, and the ticks of its packets, by the folder of the parts of its run.

    The file is not checked. Raises OSError or ValueError if it is not there.
    """
    ticks = tuple(json.loads(folder.read(record_name(number)))["ticks"])
    path = folder.path(segment_name(number))
    if ticks and not path.exists():
        path = folder.fetch(segment_name(number))
    return path, ticks
