"""The preview of a job: a playlist of its finished segments for HTTP Live Streaming, and single frames.

Segments are fragments of MP4 with the encoded frames of the result, without its sound. While the job runs, its segments
are read from their store; when it is done, the same frames are read from the result.
"""

import math
import uuid
from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from ..contract.errors import MediaError, RequestError
from ..pipeline.outline import REORDERED, Outline
from ..pipeline.run_files import finished_numbers, read_segment
from .checks import VideoChecker
from .jobs import Job, JobStore
from .parts import FragmentOptions, PartSource, ResultPart, StoredPart
from .problems import Problem
from .requests import JobOptions, make_request

_Used = TypeVar("_Used")


class Preview:
    """The preview of a job. Raises Problem if the video is not surveyed yet, or for what is not there.

    Single frames are decoded, and segments written, in the process of `reader`.
    """

    def __init__(self, jobs: JobStore, job: Job, reader: VideoChecker) -> None:
        found = jobs.outline(job.id)
        if found is None:
            raise _not_ready(job)
        self._outline: Outline = found
        self._jobs, self._job, self._reader = jobs, job, reader
        self._container = job.options["container"]
        self._store = jobs.parts_of(job.id, self._container)

    def playlist(self, query: str = "") -> str:
        """Return the playlist, whose addresses have a query; it grows until the job ends."""
        self._check_codec()
        lengths, count = self._lengths(), self._finished()
        if not any(lengths[:count]):
            raise _not_ready(self._job)
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:7",
            f"#EXT-X-TARGETDURATION:{math.ceil(max(lengths))}",
            "#EXT-X-PLAYLIST-TYPE:EVENT",
            "#EXT-X-INDEPENDENT-SEGMENTS",
            "#EXT-X-START:TIME-OFFSET=0",
            f'#EXT-X-MAP:URI="preview/init.mp4{query}"',
        ]
        for number, length in enumerate(lengths[:count]):
            if length:
                lines += [f"#EXTINF:{length:.6f},", f"preview/{number}.m4s{query}"]
        if count == len(lengths) or self._job.ended:
            lines.append("#EXT-X-ENDLIST")
        return "\n".join(lines) + "\n"

    def initialization(self) -> tuple[bytes, str]:
        """Return what a player reads before any segment, and the name of the codec by RFC 6381."""
        count = self._finished()
        number = next((n for n, length in enumerate(self._lengths()[:count]) if length), None)
        if number is None:
            raise _not_ready(self._job)
        path, beginning, codec = self._written(number)
        path.unlink(missing_ok=True)
        return beginning, codec

    def segment(self, number: int) -> Path:
        """Return a new file with a segment, which the caller deletes."""
        return self._written(number)[0]

    def before(self, number: int) -> bytes:
        """Return a frame of the input as a PNG image."""
        self._check_frame(number)
        frames, time_base = self._outline.frames, self._outline.input_time_base
        low = frames[number]
        high = frames[number + 1] if number + 1 < len(frames) else low + 1
        source, output = self._jobs.input_of(self._job.id), self._jobs.output_of(self._job.id, self._container)
        try:
            request = make_request(JobOptions.model_validate(self._job.options), source, output)
            png = self._reader.call(
                source, "input_still", request, low * time_base, high * time_base, self._outline.seekable
            )
        except (MediaError, RequestError) as error:
            raise _no_frame() from error
        return bytes(png)

    def after(self, number: int) -> bytes:
        """Return the frame of the output that is shown when a frame of the input is, as a PNG image."""
        self._check_frame(number)
        tick = round(self._outline.frames[number] * self._outline.input_time_base / self._outline.time_base)
        segment = min(bisect_right(self._outline.starts, tick), len(self._outline.lengths)) - 1
        return self._use(segment, lambda part: bytes(self._reader.call("The result", "output_still", part, tick)))

    def _use(self, number: int, use: Callable[[PartSource], _Used]) -> _Used:
        """Return what a function returns for a segment: that in the store, or else that in the result.

        The result is there before the store is deleted.
        """
        starts = self._outline.starts
        if number >= len(self._outline.lengths) or starts[number] == starts[number + 1]:
            raise _no_segment()
        for find in (self._stored, self._joined):
            try:
                return use(find(number))
            except (OSError, ValueError, MediaError):
                continue
        raise _no_segment()

    def _stored(self, number: int) -> StoredPart:
        return StoredPart(*read_segment(self._store, number))

    def _joined(self, number: int) -> ResultPart:
        result = self._jobs.result_of(self._job.id, self._container)
        low, high = self._outline.starts[number : number + 2]
        return ResultPart(result, self._outline.starts[0], low, high, self._outline.time_base)

    def _written(self, number: int) -> tuple[Path, bytes, str]:
        """Return a new file with a segment, what a player reads before any of them, and the name of the codec."""
        self._check_codec()

        def write(part: PartSource) -> tuple[Path, bytes, str]:
            outline = self._outline
            options = FragmentOptions(outline.time_base, outline.starts[number + 1], outline.delay, number)
            # In the folder of the job, with which it is deleted if the server ends before.
            path = self._jobs.folder_of(self._job.id) / f"preview-{uuid.uuid4()}"
            try:
                beginning, codec = self._reader.call("The result", "write_part", part, path, options)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            return path, beginning, codec

        return self._use(number, write)

    def _check_frame(self, number: int) -> None:
        if number >= len(self._outline.frames):
            raise _no_frame()

    def _lengths(self) -> list[float]:
        """Return the seconds of each segment; 0 for one without frames, where the output has a low rate."""
        seconds = float(self._outline.time_base)
        return [(end - start) * seconds for start, end in pairwise(self._outline.starts)]

    def _finished(self) -> int:
        """Return how many segments are finished, up to the first that is not."""
        total = len(self._outline.lengths)
        try:
            there = set(finished_numbers(self._store))
            if len(there) < total and self._jobs.has_result(self._job.id, self._container):
                return total  # the store is deleted when the result is there
        except OSError as error:
            raise Problem(503, "not-ready", "The preview cannot be read now.", retry_after="30") from error
        return next((number for number in range(total) if number not in there), total)

    def _check_codec(self) -> None:
        if self._outline.codec not in REORDERED:
            names = ", ".join(sorted(REORDERED))
            sentence = f"There is no preview of {self._outline.codec} video ({names} have one): wait for the result."
            raise Problem(415, "no-preview", sentence)


def _not_ready(job: Job) -> Problem:
    if job.ended:
        return Problem(404, "not-found", f"The job is {job.state}, and has no preview.")
    return Problem(409, "not-ready", "No part of the video is finished yet.", retry_after="1")


def _no_segment() -> Problem:
    return Problem(404, "not-found", "There is no such part of the video, or it is not finished yet.")


def _no_frame() -> Problem:
    return Problem(404, "not-found", "There is no such frame.")
