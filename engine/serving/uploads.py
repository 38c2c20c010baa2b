"""Uploads that can be resumed: the part of a video that has arrived is a file, whose size is the offset to go on at.

An upload survives the end of the process. It is deleted when it becomes a job, or some time after its last bytes.
"""

import asyncio
import json
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
from starlette.requests import ClientDisconnect

from ..contract.atomic import atomic_path, sync_file
from .problems import Problem

FREE_SHARE = 4  # of the size of a video: the disk space that its job needs at least
_IDLE_S = 60.0  # without a byte, after which a client counts as gone
_RECORD = "upload.json"


@dataclass(frozen=True)
class Upload:
    """An upload, of which `offset` bytes of `length` are on the disk."""

    id: str
    path: Path  # of the data
    length: int
    offset: int
    metadata: str  # of the client, as it was sent; the server does not use it
    expires: float  # seconds since the epoch


class UploadStore:
    """The uploads in a folder, which are deleted `keep_s` seconds after their last bytes."""

    def __init__(self, folder: Path, keep_s: float) -> None:
        self._folder, self._keep_s = folder, keep_s
        self._written: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def create(self, length: int, metadata: str, most: int) -> Upload:
        """Begin an upload of `length` bytes.

        Raises Problem if `most` others are unfinished, or if the disk has no space for all of them and their jobs.
        """
        unfinished = [upload for upload in self._all() if upload.offset < upload.length]
        if len(unfinished) >= most:
            raise Problem(429, "busy", "Too many uploads are unfinished: go on with one of them.", retry_after="30")
        check_space(self._folder, length, sum(upload.length - upload.offset for upload in unfinished))
        identifier = str(uuid.uuid4())
        folder = self._folder / identifier
        try:
            folder.mkdir()
            (folder / "data").touch()
            with atomic_path(folder / _RECORD, sync=True) as partial:
                partial.write_text(json.dumps({"length": length, "metadata": metadata}), encoding="utf-8")
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise disk_problem(error) from error
        return self.get(identifier)

    def get(self, identifier: str) -> Upload:
        """Return an upload; its offset is on the disk. Raises Problem if there is none."""
        try:
            if str(uuid.UUID(identifier)) != identifier:
                raise ValueError(identifier)
            return self._read(self._folder / identifier)
        except (ValueError, OSError) as error:
            raise Problem(404, "not-found", "There is no such upload.") from error

    def link(self, identifier: str, path: Path) -> None:
        """Give the data of a complete upload a second name. Raises Problem if there is none, or if it is incomplete."""
        upload = self.get(identifier)
        if upload.offset < upload.length:
            raise Problem(
                409, "incomplete", f"The upload has {upload.offset} of its {upload.length} bytes: send the rest first."
            )
        try:
            try:
                os.link(upload.path, path)
            except OSError:  # the file system has no hard links
                shutil.copyfile(upload.path, path)
                sync_file(path)
        except OSError as error:
            raise disk_problem(error) from error

    def delete(self, identifier: str) -> None:
        """Delete an upload. Raises Problem if there is none."""
        folder = self.get(identifier).path.parent
        (folder / _RECORD).unlink(missing_ok=True)  # without it the rest is no upload any more
        shutil.rmtree(folder, ignore_errors=True)

    def delete_expired(self, now: float) -> None:
        """Delete the uploads whose time has passed, and what is left of those that were never begun."""
        for folder in self._folder.iterdir():
            with suppress(OSError):  # it is deleted by its client at the same time
                try:
                    expires = self._read(folder).expires
                except (ValueError, OSError):
                    expires = folder.stat().st_mtime + self._keep_s
                if expires < now and folder.name not in self._written:
                    shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def writing(self, identifier: str) -> Iterator[None]:
        """Write to an upload in a block. Raises Problem while another request does."""
        if identifier in self._written:
            raise Problem(423, "locked", "Another request sends this upload: wait until it has ended.")
        self._written.add(identifier)
        try:
            yield
        finally:
            self._written.discard(identifier)

    def _all(self) -> Iterator[Upload]:
        for folder in self._folder.iterdir():
            try:
                yield self._read(folder)
            except (ValueError, OSError):
                continue

    def _read(self, folder: Path) -> Upload:
        record = json.loads((folder / _RECORD).read_bytes())
        data = folder / "data"
        sync_file(data)
        found = data.stat()
        expires = found.st_mtime + self._keep_s
        return Upload(folder.name, data, record["length"], found.st_size, record["metadata"], expires)


async def receive(chunks: AsyncIterator[bytes], path: Path, offset: int, end: int, most: str) -> int:
    """Write a body to a file from `offset` to at most `end` bytes, and return where it ended, when it is on the disk.

    Of a client that goes away or stops, what has arrived is kept. Raises Problem for a larger body, with the sentence
    `most`, and if the disk is full; then nothing of the body is left.
    """
    position = offset
    try:
        async with await anyio.open_file(path, "r+b") as file:
            await file.seek(offset)
            async for chunk in _awaited(chunks):
                position += len(chunk)
                if position > end:
                    raise Problem(413, "too-large", most)
                await file.write(chunk)
        await anyio.to_thread.run_sync(sync_file, path)
    except Problem as problem:
        if problem.status == 413:
            os.truncate(path, offset)
        raise
    except OSError as error:
        os.truncate(path, offset)
        raise disk_problem(error) from error
    return position


async def _awaited(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the chunks of a body. Raises Problem if none comes for some time."""
    while True:
        try:
            yield await asyncio.wait_for(anext(chunks), _IDLE_S)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise Problem(408, "idle", f"No data came for {_IDLE_S:g} seconds: go on with the rest.") from error
        except ClientDisconnect as error:
            raise Problem(400, "gone", "The connection ended before the body did: go on with the rest.") from error


def check_space(folder: Path, length: int, promised: int = 0) -> None:
    """Raise Problem if the disk of a folder has no space for a video, its job, and the `promised` bytes of others."""
    if shutil.disk_usage(folder).free < FREE_SHARE * (length + promised):
        raise Problem(507, "disk-full", "The server's disk has no space for this video: try again later.")


def disk_problem(error: OSError) -> Problem:
    """Return the problem of data that cannot be stored."""
    return Problem(507, "disk-full", f"The video cannot be stored ({error.strerror}): try again later.")
